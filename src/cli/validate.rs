//! `genius validate`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::{CliError, Terminal};
use crate::spec::{self, Diagnostics, LoadError, Override, Pipeline};

/// Check a pipeline file without running anything.
///
/// Every mistake is shown at once, with file, line, column and the nearest
/// right name.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline file.
    pipeline: PathBuf,
    /// Override a value: `stages.train.with.learning_rate=1e-6`. May be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Print the result as JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// Checks the file.
///
/// # Errors
/// When it is wrong, or cannot be read.
pub fn run(args: &Args, terminal: &Terminal) -> Result<ExitCode, CliError> {
    let overrides = parse_overrides(&args.set)?;
    match spec::load(&args.pipeline, &overrides) {
        Ok(pipeline) => {
            if args.json {
                terminal.json(&valid_json(&pipeline));
            } else {
                terminal.status(summary(&args.pipeline, &pipeline));
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(LoadError::Invalid(diagnostics)) if args.json => {
            terminal.json(&diagnostics_json(&diagnostics));
            Ok(ExitCode::from(3))
        }
        Err(e) => Err(e.into()),
    }
}

/// The JSON for a file with mistakes; `run --json` prints the same.
pub fn diagnostics_json(diagnostics: &Diagnostics) -> serde_json::Value {
    let problems: Vec<_> = diagnostics
        .0
        .iter()
        .map(|d| {
            json!({
                "path": d.path, "set": d.set, "line": d.line, "column": d.column,
                "message": d.message, "label": d.label, "hint": d.hint,
            })
        })
        .collect();
    json!({ "valid": false, "problems": problems })
}

/// The JSON for a valid file.
fn valid_json(pipeline: &Pipeline) -> serde_json::Value {
    let variants: Vec<_> = pipeline
        .variants
        .iter()
        .map(|v| json!({ "name": v.name, "group": v.group, "line": v.line }))
        .collect();
    json!({
        "valid": true, "problems": [], "name": pipeline.name,
        "stages": pipeline.stages.len(), "variants": variants,
    })
}

/// The same for a person.
fn summary(path: &Path, pipeline: &Pipeline) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let stages = count(pipeline.stages.len(), "stage");
    let variants = match pipeline.variants.len() {
        0 => String::new(),
        n => format!(" and {}", count(n, "variant")),
    };
    format!(
        "{}: `{}` with {stages}{variants} is valid\n",
        path.display(),
        pipeline.name
    )
}

/// Reads every `--set`.
///
/// # Errors
/// When one is not `path=value`.
pub fn parse_overrides(set: &[String]) -> Result<Vec<Override>, CliError> {
    set.iter()
        .map(|text| Override::parse(text).map_err(CliError::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    const FILE: &str = "version: 1\nname: x\nstages:\n  a: { uses: command, with: { run: ['true'], outputs: { o: {} } } }\n";

    fn load(text: &str) -> Result<Pipeline, LoadError> {
        spec::load_str(text, Path::new("p.yaml"), &[])
    }

    #[test]
    fn stages_and_variants_are_counted() {
        let path = Path::new("p.yaml");
        let one = load(FILE).unwrap();
        assert_snapshot!(summary(path, &one).trim(), @"p.yaml: `x` with 1 stage is valid");
        let two = load(&format!(
            "{FILE}variants:\n  m: {{ matrix: {{ seed: [1, 2] }} }}\n"
        ))
        .unwrap();
        assert_snapshot!(summary(path, &two).trim(), @"p.yaml: `x` with 1 stage and 2 variants is valid");
        assert_snapshot!(valid_json(&two), @r#"{"valid":true,"problems":[],"name":"x","stages":1,"variants":[{"name":"m:seed=1","group":"m","line":6},{"name":"m:seed=2","group":"m","line":6}]}"#);
    }

    #[test]
    fn problems_are_printed_as_json() {
        let Err(LoadError::Invalid(found)) = load(&format!(
            "{FILE}variants: {{ v: {{ set: {{ sed: 1 }} }} }}\n"
        )) else {
            panic!("accepted")
        };
        assert_snapshot!(diagnostics_json(&found), @r#"{"valid":false,"problems":[{"path":"p.yaml","set":null,"line":5,"column":25,"message":"a variant cannot change `sed`","label":null,"hint":"did you mean `seed`?"}]}"#);
    }
}
