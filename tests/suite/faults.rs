//! The real `genius` under faults: killed at random moments, on a full or
//! read-only disk, with flipped bytes in its cache, several on one cache, with
//! programs that put links, mounts and other files in the place of their outputs.
//! Whatever happens, results are those of an undisturbed run in another cache.
//!
//! [`Lab`] is a folder with a pipeline of quick commands; every choice comes
//! from a seed, which each failure names. `GENIUS_FAULT_SEED` repeats one,
//! `GENIUS_FAULT_ROUNDS` (300) makes it longer (`make faults`).

mod failing_writer;
mod flipped;
mod killed;
mod outputs;
mod several;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// A diamond of eight stages; files of 0 bytes to 3 MB, some equal to others.
/// `SEED` and `EXTRA` are numbers of source files.
const PIPELINE: &str = r#"
version: 1
name: faults
stages:
  a:
    uses: command
    with:
      shell: true
      run:
        - |
          cat {files.seed} > {outputs.data}/small
          : > {outputs.data}/empty
          yes "$(cat {files.seed})" | head -c 3000000 > {outputs.data}/large
          mkdir {outputs.data}/deep
          cp {outputs.data}/small {outputs.data}/deep/same
          cat {files.seed} {files.seed} > {outputs.twin}/double
      files: { seed: seed-SEED.txt }
      outputs: { data: {}, twin: {} }
  b:
    uses: command
    needs: { src: a.data }
    with:
      shell: true
      run: ["cp {inputs.src}/large {outputs.data}/part; tr a-z A-Z < {inputs.src}/small > {outputs.data}/upper"]
      outputs: { data: {} }
  c:
    uses: command
    needs: { src: a.twin }
    with:
      shell: true
      run: ["cat {inputs.src}/double {inputs.src}/double > {outputs.data}/x; : > {outputs.data}/empty"]
      outputs: { data: {} }
  d:
    uses: command
    needs: { left: b, right: c }
    with:
      shell: true
      run: ["cat {inputs.left}/upper {inputs.right}/x {files.extra} > {outputs.data}/joined; head -c 100000 {inputs.left}/part > {outputs.data}/piece"]
      files: { extra: extra-EXTRA.txt }
      outputs: { data: { files: [joined, piece] } }
  e:
    uses: command
    needs: { src: a.data }
    with:
      shell: true
      run: ["cp {inputs.src}/deep/same {outputs.data}/same; cp {inputs.src}/large {outputs.data}/large-again"]
      outputs: { data: {} }
  f:
    uses: command
    needs: { src: d }
    with:
      shell: true
      run: ["wc -c < {inputs.src}/joined > {outputs.data}/count; cp {inputs.src}/piece {outputs.data}/piece"]
      outputs: { data: {} }
  g:
    uses: command
    needs: { l: d.data, r: e.data }
    with:
      shell: true
      run: ["cat {inputs.l}/joined {inputs.r}/same > {outputs.data}/final; tail -c 500000 {inputs.r}/large-again > {outputs.data}/cut"]
      outputs: { data: {} }
  h:
    uses: command
    needs: { x: f, y: g }
    with:
      run: [sh, -c, "cat {inputs.x}/count {inputs.y}/final > {outputs.data}/result"]
      outputs: { data: { nonempty: true } }
"#;

/// Its outputs, in an order in which they can be made.
const OUTPUTS: [&str; 9] = [
    "a.data", "a.twin", "b.data", "c.data", "d.data", "e.data", "f.data", "g.data", "h.data",
];

/// After so long a run hangs: undisturbed it takes a tenth of a second.
const HANGS: Duration = Duration::from_secs(300);

/// What a run is of: which source files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Values {
    seed: u64,
    extra: u64,
}

/// `STAGE.OUTPUT` -> path -> bytes.
type Contents = BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>;

/// SplitMix64: the tests' own random numbers, which a seed repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..n`.
    fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).expect("a small number");
        usize::try_from(self.next() % n).expect("a small number")
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A folder with the pipeline, its sources, and caches by name.
struct Lab {
    dir: TempDir,
    random: Random,
    seed: u64,
    /// What undisturbed runs made, by what they were of.
    references: BTreeMap<Values, Contents>,
}

impl Lab {
    /// A new folder; `salt` tells the tests' random numbers apart.
    fn new(salt: u64) -> Self {
        let seed = std::env::var("GENIUS_FAULT_SEED").map_or_else(
            |_| {
                let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
                now.expect("a clock").subsec_nanos().into()
            },
            |text| text.parse().expect("GENIUS_FAULT_SEED is a number"),
        );
        let lab = Self {
            dir: folder().expect("a temporary folder"),
            random: Random(seed ^ (salt << 32)),
            seed,
            references: BTreeMap::new(),
        };
        std::fs::write(lab.path("p.yaml"), text(Values { seed: 0, extra: 0 })).expect("a file");
        lab
    }

    /// How many rounds a test with random choices has.
    fn rounds(normally: usize) -> usize {
        std::env::var("GENIUS_FAULT_ROUNDS").map_or(normally, |text| {
            let of_300: usize = text.parse().expect("GENIUS_FAULT_ROUNDS is a number");
            (of_300 * normally / 300).max(1)
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `genius` in the folder, without this process's environment, in a process group of its own.
    fn genius(&self, args: &[&str], cache: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_genius"));
        command
            .args(args)
            .args(["--cache", cache])
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").expect("a PATH"))
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    /// A run of these values: the pipeline file with values put in its place.
    fn run(&self, values: Values, cache: &str) -> Command {
        self.sources(values);
        let seed = format!("stages.a.with.files.seed=seed-{}.txt", values.seed);
        let extra = format!("stages.d.with.files.extra=extra-{}.txt", values.extra);
        self.genius(
            &[
                "run",
                "p.yaml",
                "--allow-commands",
                "--json",
                "--quiet",
                "--set",
                &seed,
                "--set",
                &extra,
            ],
            cache,
        )
    }

    /// The source files, and the pipeline file in which the values stand.
    fn sources(&self, values: Values) {
        let write = |name: String, text: String| {
            let path = self.path(&name);
            if !path.exists() {
                std::fs::write(path, text).expect("a file");
            }
        };
        write(
            format!("seed-{}.txt", values.seed),
            format!("seed number {}\n", values.seed),
        );
        write(
            format!("extra-{}.txt", values.extra),
            format!("and {} more\n", values.extra),
        );
        write(file_of(values), text(values));
    }

    /// What `genius out` says about an output: its folder, or why there is none.
    fn out(&self, values: Values, cache: &str, output: &str) -> Result<PathBuf, String> {
        self.folder(&end_of(
            &mut self.genius(&["out", &file_of(values), output], cache),
        ))
    }

    fn folder(&self, said: &Output) -> Result<PathBuf, String> {
        sound(said, || "genius out".to_owned());
        if said.status.success() {
            Ok(self.path(String::from_utf8_lossy(&said.stdout).trim()))
        } else {
            Err(words(said))
        }
    }

    /// Every output, read through `genius out`, of which all run at once.
    fn read(&self, values: Values, cache: &str) -> Result<Contents, String> {
        let asked = OUTPUTS.map(|output| {
            let mut command = self.genius(&["out", &file_of(values), output], cache);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            (output, command.spawn().expect("genius starts"))
        });
        let said = asked.map(|(output, child)| (output, finish(child)));
        said.iter()
            .map(|(output, said)| Ok((*output, files(&self.folder(said)?))))
            .collect()
    }

    /// What an undisturbed run in another cache makes.
    fn reference(&mut self, values: Values) -> &Contents {
        if !self.references.contains_key(&values) {
            let cache = format!("undisturbed-{}-{}", values.seed, values.extra);
            let said = end_of(&mut self.run(values, &cache));
            assert!(
                said.status.success(),
                "the undisturbed run: {}",
                words(&said)
            );
            let contents = self.read(values, &cache).expect("its outputs");
            // The command that is hardest to get right, done by hand.
            let seed = format!("seed number {}\n", values.seed);
            let large: Vec<u8> = seed.bytes().cycle().take(3_000_000).collect();
            assert!(
                contents["a.data"]["large"] == large,
                "the commands do what they say"
            );
            std::fs::remove_dir_all(self.path(&cache)).expect("a cache may be deleted");
            self.references.insert(values, contents);
        }
        &self.references[&values]
    }

    /// Holds every output in a cache to the undisturbed run's.
    #[track_caller]
    fn compare(&mut self, values: Values, cache: &str, what: &str) {
        let found = self
            .read(values, cache)
            .unwrap_or_else(|e| panic!("{what}: an output is missing: {e}"));
        let expected = self.reference(values);
        for (output, files) in expected {
            assert!(
                &found[output] == files,
                "{what}: {output} differs from the undisturbed run: {:?} instead of {:?}",
                sizes(&found[output]),
                sizes(files),
            );
        }
    }

    /// `genius cache verify` must find nothing broken.
    #[track_caller]
    /// Whether the making of the cache has begun: the tag comes first.
    fn is_made(&self, cache: &str) -> bool {
        self.path(cache).join("CACHEDIR.TAG").exists()
    }

    fn verify(&self, cache: &str, what: &str) {
        let said = end_of(&mut self.genius(&["cache", "verify"], cache));
        assert!(
            said.status.success(),
            "{what}: cache verify: {}",
            words(&said)
        );
    }

    /// The keys that have a record.
    fn records(&self, cache: &str) -> BTreeSet<String> {
        all_files(&self.path(cache).join("records"))
            .iter()
            .filter_map(|path| path.file_stem()?.to_str().map(str::to_owned))
            .filter(|name| !name.starts_with('.'))
            .collect()
    }

    /// Removes a cache; the name of none is empty.
    fn remove(&self, cache: &str) {
        if cache.is_empty() {
            return;
        }
        match std::fs::remove_dir_all(self.path(cache)) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => panic!("removing {cache}: {e}"),
        }
    }
}

/// Waits for the end of a command; one that hangs is killed, which no caller takes for an end.
fn end_of(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().expect("genius starts"))
}

/// The same of one that runs already.
fn finish(child: Child) -> Output {
    let id = i32::try_from(child.id()).expect("a process id");
    let (ended, end) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if end.recv_timeout(HANGS) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    });
    let said = child.wait_with_output().expect("an end");
    drop(ended);
    watch.join().expect("the watch ends");
    said
}

/// A folder in memory where there is room: what a killed process wrote is there
/// on a disk and in memory alike, and hundreds of runs need not wait for syncs.
fn folder() -> std::io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let free = nix::sys::statvfs::statvfs(memory).map_or(0, |s| {
        s.blocks_available().saturating_mul(s.fragment_size())
    });
    if free > 1 << 30
        && let Ok(dir) = tempfile::tempdir_in(memory)
    {
        return Ok(dir);
    }
    tempfile::tempdir()
}

/// The pipeline with these values.
fn text(values: Values) -> String {
    PIPELINE
        .replace("SEED", &values.seed.to_string())
        .replace("EXTRA", &values.extra.to_string())
}

fn file_of(values: Values) -> String {
    format!("p-{}-{}.yaml", values.seed, values.extra)
}

/// A program may fail, but not by a defect: no panic, no signal.
#[track_caller]
fn sound(said: &Output, what: impl Fn() -> String) {
    let text = words(said);
    assert!(
        said.status.code().is_some_and(|code| code != 101) && !text.contains("panicked"),
        "{}: {}: {text}",
        what(),
        said.status,
    );
}

/// All that a program said.
fn words(said: &Output) -> String {
    let out = String::from_utf8_lossy(&said.stdout);
    format!("{out}\n{}", String::from_utf8_lossy(&said.stderr))
}

/// The report that `run --json` prints last.
#[track_caller]
fn report(said: &Output) -> Value {
    let text = String::from_utf8_lossy(&said.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {}", words(said)))
}

/// Keys of the stages with that status, as many times as they have stages.
fn keys(report: &Value, status: &str) -> Vec<String> {
    let stages = report["stages"].as_array().expect("stages");
    let mine = stages.iter().filter(|s| s["status"] == status);
    mine.map(|s| s["key"].as_str().expect("a key").to_owned())
        .collect()
}

fn sizes(files: &BTreeMap<String, Vec<u8>>) -> Vec<(&str, usize)> {
    files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.len()))
        .collect()
}

/// Every file below a folder; none if there is no folder.
fn all_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for path in entries.filter_map(Result::ok).map(|e| e.path()) {
        if path.is_dir() {
            found.extend(all_files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The files below a folder by their relative paths.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    all_files(folder)
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(folder).expect("below it");
            let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            (name.to_string_lossy().into_owned(), bytes)
        })
        .collect()
}
