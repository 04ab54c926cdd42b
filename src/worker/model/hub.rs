//! A repository on the Hugging Face hub, through its own cache, so that what
//! other tools fetched is not fetched again.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use genius::protocol::{Failure, Progress};
use genius::stage::Context;

use super::source::phase;
use super::{Environment, folder};

/// How often hf-hub resumes a broken download.
const RETRIES: usize = 3;

/// The folder of a repository's snapshot: config, tokenizer and safetensors.
///
/// # Errors
/// When the hub cannot be reached, refuses, or has no such files.
pub fn fetch(
    context: &Context,
    environment: &Environment,
    repo: &str,
    revision: &str,
) -> Result<PathBuf, Failure> {
    let home = environment.hf_home.as_deref().ok_or_else(|| {
        Failure::new("there is no folder for the hub's cache: neither HF_HOME, XDG_CACHE_HOME nor HOME is set")
            .hint("set HF_HOME")
    })?;
    let cache = home.join("hub");
    let handle = Repo::with_revision(repo.to_owned(), RepoType::Model, revision.to_owned());
    // A commit never changes: a complete snapshot of it needs no network.
    let snapshot = cache
        .join(handle.folder_name())
        .join("snapshots")
        .join(revision);
    if is_commit(revision)
        && snapshot.join("tokenizer_config.json").is_file()
        && folder::check(&snapshot).is_ok()
    {
        return Ok(snapshot);
    }
    let explain = |e: &ApiError| explain(e, environment, repo, revision);
    // hf-hub reads a token from its file alone and looks for a home folder
    // unless it is given a cache.
    let mut builder = ApiBuilder::from_cache(Cache::new(cache))
        .with_progress(false)
        .with_retries(RETRIES);
    if let Some(token) = &environment.hf_token {
        builder = builder.with_token(Some(token.clone()));
    }
    if let Some(endpoint) = &environment.hf_endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let api = builder.build().map_err(|e| explain(&e))?.repo(handle);
    phase(context, &format!("asking for {repo}"));
    let info = api.info().map_err(|e| explain(&e))?;
    let mut names: Vec<String> = info
        .siblings
        .into_iter()
        .map(|s| s.rfilename)
        .filter(|name| folder::is_wanted(name))
        .collect();
    if !names.iter().any(|name| name.ends_with(".safetensors")) {
        return Err(
            Failure::new(format!("{repo} at {revision} has no *.safetensors"))
                .hint("only safetensors weights are read from the hub"),
        );
    }
    // Small files first: a repository that cannot be used is known at once.
    names.sort_by_key(|name| (name.ends_with(".safetensors"), name.clone()));
    let mut snapshot = None;
    for name in &names {
        context.check_cancelled()?;
        let path = get(context, &api, name).map_err(|e| explain(&e))?;
        snapshot = path.parent().map(Path::to_path_buf);
    }
    snapshot.ok_or_else(|| {
        Failure::new(format!(
            "{repo} at {revision} holds nothing that a model is made of"
        ))
    })
}

fn get(context: &Context, api: &ApiRepo, name: &str) -> Result<PathBuf, ApiError> {
    let meter = Meter {
        context,
        name: name.to_owned(),
        done: 0,
        total: 0,
        said: 0,
    };
    api.download_with_progress(name, meter)
}

/// Shows a download's bytes, a line a megabyte at most.
struct Meter<'a> {
    context: &'a Context,
    name: String,
    done: u64,
    total: u64,
    said: u64,
}

impl Meter<'_> {
    fn say(&mut self) {
        self.said = self.done;
        self.context.progress(Progress {
            phase: "fetching".into(),
            done: self.done,
            total: Some(self.total),
            unit: "bytes".into(),
            detail: self.name.clone(),
        });
    }
}

impl hf_hub::api::Progress for Meter<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        self.total = size as u64;
        self.done = 0;
        self.say();
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        if self.done - self.said >= 1 << 20 {
            self.say();
        }
    }

    fn finish(&mut self) {
        self.say();
    }
}

fn explain(error: &ApiError, environment: &Environment, repo: &str, revision: &str) -> Failure {
    let text = error.to_string();
    let failure = Failure::new(format!(
        "cannot fetch {repo} at {revision} from the hub: {text}"
    ));
    if text.contains("status code 401") || text.contains("status code 403") {
        failure.hint(if environment.hf_token.is_some() {
            "the token in HF_TOKEN may not read this repository: ask for access on its page"
        } else {
            "the repository is private, gated or does not exist: set HF_TOKEN to a token that may read it"
        })
    } else if text.contains("status code 404") {
        failure.hint("check `repo` (owner/name) and `revision`")
    } else {
        failure.hint("check the connection, or HF_ENDPOINT if you use a mirror, and run the same command again; what was fetched is kept")
    }
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
