//! `genius cache ls | du | gc | verify`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::pipeline_args::CacheArgs;
use super::{CliError, Environment, Terminal};
use crate::plan::Fingerprint;
use crate::store::{GcOptions, Key};
use crate::text::Meter;

#[cfg(test)]
mod tests;
mod text;
mod units;

use units::{parse_age, parse_size};

/// Inspect the cache, remove what is not needed, check for damage.
///
/// The cache may be deleted at any time; everything in it can be computed
/// again. These commands remove only what is not needed, and never what an active
/// run uses.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Ls(LsArgs),
    Du(DuArgs),
    Gc(GcArgs),
    Verify(VerifyArgs),
}

/// List the results in the cache, the most recently used first.
#[derive(Debug, clap::Args)]
struct LsArgs {
    #[command(flatten)]
    cache: CacheArgs,
    /// Only results of this stage kind: train, rollout, ...
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Print an array of objects on stdout, sizes in bytes.
    #[arg(long)]
    json: bool,
}

/// Show how much disk space the cache takes, and for what.
///
/// Equal files are kept once. A file that two kinds or two pipelines use counts
/// for both; in the total it counts once.
#[derive(Debug, clap::Args)]
struct DuArgs {
    #[command(flatten)]
    cache: CacheArgs,
    /// Print one JSON object on stdout, sizes in bytes.
    #[arg(long)]
    json: bool,
}

/// Remove what is no longer needed.
///
/// Kept is what runs used whose pipeline file still exists, and whatever a run
/// that is under way uses. What is younger than ten minutes stays in any case,
/// and so do files that Genius does not know. Partial results go when no run has
/// used them for 30 days. It may be interrupted at any moment.
#[derive(Debug, clap::Args)]
struct GcArgs {
    #[command(flatten)]
    cache: CacheArgs,
    /// Print what would go, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Also remove what no run used that began within this time: 12h, 30d, 8w.
    /// Partial results go at this age too.
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    older_than: Option<Duration>,
    /// Also remove the least recently used results until the rest fits: 50GB, 1.5TiB.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_size: Option<u64>,
    /// Print one JSON object on stdout: the plan, and what was done.
    #[arg(long)]
    json: bool,
}

/// Check the hash of everything in the cache and report what is damaged.
///
/// Exit code 1: something is damaged and was not repaired.
#[derive(Debug, clap::Args)]
struct VerifyArgs {
    #[command(flatten)]
    cache: CacheArgs,
    /// Remove what is damaged and the results that need it; they are computed again
    /// when a pipeline next needs them.
    #[arg(long)]
    repair: bool,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// When there is no cache, or it cannot be read or written.
pub fn run(
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    match &args.command {
        Command::Ls(args) => ls(args, environment, terminal),
        Command::Du(args) => du(args, environment, terminal),
        Command::Gc(args) => gc(args, environment, terminal),
        Command::Verify(args) => verify(args, environment, terminal),
    }
}

fn ls(args: &LsArgs, environment: &Environment, terminal: &Terminal) -> Result<ExitCode, CliError> {
    let mut results = args.cache.existing(environment)?.usage()?.results;
    if let Some(kind) = &args.kind {
        let mut kinds: Vec<String> = results.iter().map(|r| r.kind.clone()).collect();
        kinds.sort();
        kinds.dedup();
        results.retain(|r| r.kind == *kind);
        if results.is_empty() && !kinds.is_empty() {
            terminal.status(text::no_such_kind(kind, &kinds));
        }
    }
    if args.json {
        terminal.json(&results);
    } else {
        terminal.data(text::results(&results, Timestamp::now()));
        if results.is_empty() && args.kind.is_none() {
            terminal.status("The cache holds no results.\n");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn du(args: &DuArgs, environment: &Environment, terminal: &Terminal) -> Result<ExitCode, CliError> {
    let store = args.cache.existing(environment)?;
    let usage = store.usage()?;
    if args.json {
        let mut value = json!(usage);
        if let Value::Object(fields) = &mut value {
            fields.remove("results");
        }
        terminal.json(&value);
    } else {
        terminal.data(text::usage(store.root(), &usage));
    }
    Ok(ExitCode::SUCCESS)
}

fn gc(args: &GcArgs, environment: &Environment, terminal: &Terminal) -> Result<ExitCode, CliError> {
    let store = args.cache.existing(environment)?;
    let options = GcOptions {
        older_than: args.older_than,
        max_bytes: args.max_size,
        // On a slow file server, runs may be given longer to renew their lease.
        times: environment.times(),
        ..GcOptions::default()
    };
    let plan = store.plan_gc(&options)?;
    let done = if args.dry_run {
        None
    } else {
        let wait = Wait::new(terminal);
        let done = store.apply_gc(&plan, &mut |p| {
            wait.update(p.what, p.done as u64, p.total as u64, false);
        })?;
        wait.end();
        Some(done)
    };
    if args.json {
        terminal.json(&json!({ "plan": plan, "done": done }));
    } else {
        let now = Timestamp::now();
        terminal.data(text::collection(&plan, done.as_ref(), &options, now));
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(
    args: &VerifyArgs,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    let store = args.cache.existing(environment)?;
    let wait = Wait::new(terminal);
    let report = store.verify(args.repair, &key_of, &|p| {
        wait.update("reading", p.done_bytes, p.total_bytes, true);
    })?;
    wait.end();
    if args.json {
        let mut value = json!(report);
        value["ok"] = json!(report.ok());
        terminal.json(&value);
    } else {
        terminal.data(text::verification(&report, store.root()));
    }
    Ok(ExitCode::from(u8::from(!report.ok())))
}

/// The key of a record's preimage.
fn key_of(preimage: &Value) -> Option<Key> {
    let fingerprint: Fingerprint = serde_json::from_value(preimage.clone()).ok()?;
    Some(fingerprint.key())
}

/// A bar on stderr that appears after two seconds, if stderr is a terminal.
struct Wait {
    meter: Meter,
    since: Instant,
    live: bool,
}

impl Wait {
    fn new(terminal: &Terminal) -> Self {
        Self {
            meter: Meter::new(),
            since: Instant::now(),
            live: terminal.live(),
        }
    }

    fn update(&self, what: &str, done: u64, total: u64, bytes: bool) {
        if self.live && self.meter.is_hidden() && self.since.elapsed() > Duration::from_secs(2) {
            self.meter.show(bytes);
        }
        self.meter.set(what, done, total);
    }

    fn end(&self) {
        self.meter.end();
    }
}
