//! A repository on the Hugging Face hub, through its own cache, so that what
//! other tools fetched is not fetched again.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::{Cache, Repo, RepoType};
use nix::fcntl::{Flock, FlockArg};

use genius::protocol::{Failure, Progress};
use genius::stage::Context;
use genius::stage::hub::{Hub, HubError, is_commit};

use super::source::phase;
use super::{FetchSettings, folder};

/// How often a broken download is gone on with.
const RETRIES: u32 = 3;
/// Pause before the first time; doubled each time.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes of a file that holds no weights: the largest tokenizers have a tenth of it.
const MOST_OF_SMALL: u64 = 256 << 20;
/// Bytes between two looks at the clock and at whether to stop.
const CHUNK: usize = 1 << 18;

/// The folder of a repository's snapshot: config, tokenizer and safetensors.
///
/// # Errors
/// When the hub cannot be reached, refuses, or has no such files.
pub fn fetch(
    context: &Context,
    settings: &FetchSettings,
    repo: &str,
    revision: &str,
) -> Result<PathBuf, Failure> {
    let home = settings.hf_home.as_deref().ok_or_else(|| {
        Failure::new("there is no folder for the hub's cache: neither HF_HOME, XDG_CACHE_HOME nor HOME is an absolute path")
            .hint("set HF_HOME")
    })?;
    let cache = home.join("hub");
    if !is_plain(repo) || !is_plain(revision) {
        return Err(Failure::new(format!(
            "`{repo}` at `{revision}` cannot be a repository of the hub"
        ))
        .hint("check `repo` (owner/name) and `revision`"));
    }
    let handle = Repo::with_revision(repo.to_owned(), RepoType::Model, revision.to_owned());
    let place = cache.join(handle.folder_name());
    // A commit never changes: a complete snapshot of it needs no network.
    let snapshot = place.join("snapshots").join(revision);
    if is_commit(revision)
        && snapshot.join("tokenizer_config.json").is_file()
        && folder::check(&snapshot).is_ok()
    {
        return Ok(snapshot);
    }
    let explain = |e: HubError| explain(&e, settings, repo, revision);
    let cached = Cache::new(cache);
    let token = settings.hf_token.clone().or_else(|| cached.token());
    let hub = Hub::new(settings.hf_endpoint.as_deref(), token).map_err(explain)?;
    phase(context, &format!("asking for {repo}"));
    let info = hub.info(&handle).map_err(explain)?;
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
    names.dedup();
    let mut snapshot = None;
    for name in &names {
        context.check_cancelled()?;
        let download = Download {
            context,
            hub: &hub,
            repo: &handle,
            place: &place,
            name,
        };
        let (commit, path) = download.run().map_err(|e| match e {
            Stopped::Hub(e) => explain(e),
            Stopped::Here(failure) => failure,
        })?;
        // For other tools; a cache without it serves all the same.
        let _ = cached.repo(handle.clone()).create_ref(&commit);
        snapshot = path.parent().map(Path::to_path_buf);
    }
    snapshot.ok_or_else(|| {
        Failure::new(format!(
            "{repo} at {revision} holds nothing that a model is made of"
        ))
    })
}

/// Why a download ended before its end.
enum Stopped {
    /// The hub, or who it redirects to.
    Hub(HubError),
    /// This machine, or a person.
    Here(Failure),
}

impl From<HubError> for Stopped {
    fn from(e: HubError) -> Self {
        Self::Hub(e)
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Here(failure)
    }
}

/// One file on its way into the cache.
struct Download<'a> {
    context: &'a Context,
    hub: &'a Hub,
    repo: &'a Repo,
    /// The repository's folder in the cache.
    place: &'a Path,
    name: &'a str,
}

impl Download<'_> {
    /// The commit, and the file in its snapshot.
    fn run(&self) -> Result<(String, PathBuf), Stopped> {
        let head = self.hub.file(self.repo, self.name, 0, true)?;
        let commit = head
            .commit
            .filter(|commit| is_commit(commit))
            .ok_or_else(|| self.refuse("the hub's answer names no commit"))?;
        let etag = head
            .etag
            .ok_or_else(|| self.refuse("the hub gives no name for its content"))?;
        let total = head
            .total
            .ok_or_else(|| self.refuse("the server's answer has no size"))?;
        let blobs = self.place.join("blobs");
        std::fs::create_dir_all(&blobs).map_err(|e| io(&blobs, &e))?;
        let content = file_name(&etag);
        let blob = blobs.join(&content);
        let is_there = || std::fs::metadata(&blob).is_ok_and(|m| m.is_file() && m.len() == total);
        if !is_there() {
            let lock_path = blobs.join(format!("{content}.lock"));
            // The kernel drops the lock with the process, however it ends.
            let _lock = self.lock(&lock_path)?;
            if !is_there() {
                self.check_room(&blobs, total)?;
                let part = blobs.join(format!("{content}.part"));
                self.fill(&part, total)?;
                std::fs::rename(&part, &blob).map_err(|e| io(&blob, &e))?;
            }
        }
        let snapshot = self.place.join("snapshots").join(&commit);
        std::fs::create_dir_all(&snapshot).map_err(|e| io(&snapshot, &e))?;
        let link = snapshot.join(self.name);
        let target = Path::new("../../blobs").join(&content);
        if std::fs::read_link(&link).ok().as_deref() != Some(&target) {
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(&target, &link).map_err(|e| io(&link, &e))?;
        }
        Ok((commit, link))
    }

    /// Fetches what a file lacks, as often as need be.
    fn fill(&self, part: &Path, total: u64) -> Result<(), Stopped> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(part)
            .map_err(|e| io(part, &e))?;
        let mut tries = 0;
        loop {
            let done = file.seek(SeekFrom::End(0)).map_err(|e| io(part, &e))?;
            if done == total {
                return Ok(());
            }
            if done > total {
                file.set_len(0).map_err(|e| io(part, &e))?;
                continue;
            }
            let why = match self.fetch_rest(&mut file, part, done, total) {
                // All of it, or the server closed early.
                Ok(now) if now == total => return Ok(()),
                Ok(_) => HubError::Transport {
                    url: self.name.to_owned(),
                    why: "the connection ended before the file did".to_owned(),
                },
                Err(Stopped::Hub(e)) if e.may_pass() => e,
                Err(stopped) => return Err(stopped),
            };
            if tries == RETRIES {
                return Err(why.into());
            }
            self.sleep(PAUSE * (1 << tries))?;
            tries += 1;
        }
    }

    /// Resumes at byte `done`. Returns how many there are then.
    fn fetch_rest(
        &self,
        file: &mut File,
        part: &Path,
        done: u64,
        total: u64,
    ) -> Result<u64, Stopped> {
        let answer = self.hub.file(self.repo, self.name, done, false)?;
        if answer.first > done || answer.total.is_some_and(|now| now != total) {
            return Err(self
                .refuse("the server sends another part than was asked for")
                .into());
        }
        // From the beginning, if the server cannot resume.
        let mut done = answer.first;
        file.set_len(done).map_err(|e| io(part, &e))?;
        file.seek(SeekFrom::Start(done)).map_err(|e| io(part, &e))?;
        let mut body = answer.body.take(total - done + 1);
        let mut chunk = vec![0; CHUNK];
        let mut reported = u64::MAX;
        loop {
            self.context.check_cancelled()?;
            let read = match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    return Err(Stopped::Hub(HubError::Transport {
                        url: self.name.to_owned(),
                        why: e.to_string(),
                    }));
                }
            };
            done += read as u64;
            if done > total {
                return Err(self
                    .refuse(&format!(
                        "it has more than the {total} bytes that the server spoke of"
                    ))
                    .into());
            }
            file.write_all(&chunk[..read]).map_err(|e| io(part, &e))?;
            // A line a megabyte at most.
            if reported == u64::MAX || done - reported >= 1 << 20 || done == total {
                reported = done;
                self.context.progress(Progress {
                    phase: "fetching".into(),
                    done,
                    total: Some(total),
                    unit: "bytes".into(),
                    detail: self.name.to_owned(),
                });
            }
        }
        Ok(done)
    }

    /// Refuses what is too large before it is fetched.
    fn check_room(&self, folder: &Path, total: u64) -> Result<(), Failure> {
        if !self.name.ends_with(".safetensors") && total > MOST_OF_SMALL {
            return Err(self.refuse(&format!(
                "it has {total} bytes, and a file of its kind has at most {MOST_OF_SMALL}"
            )));
        }
        let stat = nix::sys::statvfs::statvfs(folder).map_err(|e| io(folder, &e.into()))?;
        #[allow(
            clippy::unnecessary_cast,
            clippy::useless_conversion,
            reason = "the types differ between systems"
        )]
        let free = (stat.blocks_available() as u64).saturating_mul(stat.fragment_size() as u64);
        if free < total {
            return Err(Failure::new(format!(
                "{} of {} has {} MiB, and the disk of {} has {} MiB free",
                self.name,
                self.repo.url(),
                total >> 20,
                folder.display(),
                free >> 20
            ))
            .hint("make room, or set HF_HOME to a folder with more"));
        }
        Ok(())
    }

    fn refuse(&self, why: &str) -> Failure {
        Failure::new(format!(
            "{} of {} is not fetched: {why}",
            self.name,
            self.repo.url()
        ))
        .hint("check HF_ENDPOINT if you use a mirror, and the repository's page")
    }

    /// Waits for another process that fetches the same.
    fn lock(&self, path: &Path) -> Result<Flock<File>, Failure> {
        let mut file = File::create(path).map_err(|e| io(path, &e))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((back, nix::errno::Errno::EWOULDBLOCK)) => file = back,
                Err((_, e)) => return Err(io(path, &e.into())),
            }
            phase(self.context, "waiting for another process that is fetching");
            self.sleep(PAUSE)?;
        }
    }

    fn sleep(&self, pause: Duration) -> Result<(), Failure> {
        let end = std::time::Instant::now() + pause;
        while let Some(left) = end.checked_duration_since(std::time::Instant::now()) {
            self.context.check_cancelled()?;
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        Ok(())
    }
}

fn io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

/// A server's name for a content as the name of a file: nothing of it becomes a path.
fn file_name(etag: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !etag.is_empty() && etag.len() <= 128 && etag.chars().all(plain) {
        etag.to_owned()
    } else {
        blake3::hash(etag.as_bytes()).to_hex().to_string()
    }
}

/// Whether a repository or revision stays where it belongs, in a path and in an address.
fn is_plain(name: &str) -> bool {
    let part = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c))
    };
    name.split('/').all(part)
}

fn explain(error: &HubError, settings: &FetchSettings, repo: &str, revision: &str) -> Failure {
    let failure = Failure::new(format!(
        "cannot fetch {repo} at {revision} from the hub: {error}"
    ));
    match error.status() {
        Some(401 | 403) => failure.hint(if settings.hf_token.is_some() {
            "the token in HF_TOKEN may not read this repository: ask for access on its page"
        } else {
            "the repository is private, gated or does not exist: set HF_TOKEN to a token that may read it"
        }),
        Some(404) => failure.hint("check `repo` (owner/name) and `revision`"),
        _ => failure.hint("check the connection, or HF_ENDPOINT if you use a mirror, and run the same command again; what was fetched is kept"),
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
