//! [`ask_once`]: a worker's announcement, kept between runs. A worker loads its libraries
//! before it can print a word, which takes most of the time of a run with nothing to do.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::processor;
use crate::protocol::{Capabilities, CapabilitiesError, VERSION};
use crate::schedule::ask;

/// What decides an announcement is compared, but not everything is seen: libraries may be
/// exchanged in the folder where the worker finds them. After this time it is asked again.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// How the variables begin that decide which devices and libraries a worker finds.
const VARIABLES: [&str; 4] = ["CUDA_", "NVIDIA_", "LD_", "DYLD_"];

/// What the file of a worker program holds.
#[derive(Serialize, Deserialize)]
struct Kept {
    circumstances: BTreeMap<String, String>,
    announced: Capabilities,
}

/// What [`ask`] gives, from a file in `folder` if it was asked in the same circumstances
/// before. Without a folder, or where nothing can be written, it is asked each time.
///
/// An announcement of another version is not kept, and a worker refuses a job of another
/// version or instruction level: a file that should have been replaced can make a stage
/// fail, but its result never gets the key of other arithmetic.
///
/// # Errors
/// As [`ask`].
pub(super) fn ask_once(
    program: &Path,
    folder: Option<&Path>,
    variables: &BTreeMap<String, String>,
) -> Result<Capabilities, CapabilitiesError> {
    let (Some(folder), Ok(metadata)) = (folder, program.metadata()) else {
        return ask(program);
    };
    let name = blake3::hash(program.as_os_str().as_encoded_bytes()).to_hex();
    let file = folder.join(name.as_str());
    let circumstances = circumstances(&metadata, variables);
    if let Some(announced) = read(&file, &circumstances) {
        return Ok(announced);
    }
    let announced = ask(program)?;
    if announced.version == VERSION {
        let kept = Kept {
            circumstances,
            announced: announced.clone(),
        };
        let _ = write(folder, &file, &kept);
    }
    Ok(announced)
}

/// Whatever could change what a worker announces.
fn circumstances(
    program: &Metadata,
    variables: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut devices: Vec<String> = std::fs::read_dir("/dev")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("nvidia") || name == "dxg")
        .collect();
    devices.sort();
    let libraries = Path::new("/etc/ld.so.cache").metadata();
    let facts = [
        ("version", VERSION.to_owned()),
        ("program", stamp(program)),
        (
            "processor",
            format!(
                "{} {} {} {}",
                processor::level(),
                processor::fast_bf16(),
                processor::cores(),
                processor::memory_bytes()
            ),
        ),
        ("boot", text("/proc/sys/kernel/random/boot_id")),
        ("driver", text("/proc/driver/nvidia/version")),
        ("devices", devices.join(" ")),
        (
            "libraries",
            libraries.map_or_else(|_| String::new(), |m| stamp(&m)),
        ),
    ];
    let decides = |name: &str| VARIABLES.iter().any(|start| name.starts_with(start));
    variables
        .iter()
        .filter(|(name, _)| decides(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .chain(facts.map(|(name, fact)| (name.to_owned(), fact)))
        .collect()
}

/// Differs between a file and what replaces it.
fn stamp(file: &Metadata) -> String {
    let (device, inode, size) = (file.dev(), file.ino(), file.size());
    format!(
        "{device} {inode} {size} {}.{:09}",
        file.ctime(),
        file.ctime_nsec()
    )
}

fn read(file: &Path, circumstances: &BTreeMap<String, String>) -> Option<Capabilities> {
    let age = file.metadata().ok()?.modified().ok()?.elapsed().ok()?;
    let kept: Kept = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    (age < KEPT_FOR && kept.circumstances == *circumstances).then_some(kept.announced)
}

fn write(folder: &Path, file: &Path, kept: &Kept) -> io::Result<()> {
    // Trusts lie beside it, in a folder where nobody else may write.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let temporary = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&temporary, kept)?;
    temporary.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::time::SystemTime;

    use super::*;
    use crate::protocol::example;

    /// A worker program that counts how often it is asked, and a folder for its answers.
    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new(announced: &Capabilities) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let place = Self { dir };
            place.announce(announced);
            place
        }

        /// Replaces the program.
        fn announce(&self, announced: &Capabilities) {
            let line = serde_json::to_string(announced).unwrap();
            let count = self.dir.path().join("asked");
            let script = format!("#!/bin/sh\necho >> {}\necho '{line}'\n", count.display());
            std::fs::write(self.dir.path().join("new"), script).unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(self.dir.path().join("new"), mode).unwrap();
            std::fs::rename(self.dir.path().join("new"), self.program()).unwrap();
        }

        fn program(&self) -> PathBuf {
            self.dir.path().join("worker")
        }

        fn folder(&self) -> PathBuf {
            self.dir.path().join("home/workers")
        }

        fn ask_with(&self, variables: &[(&str, &str)]) -> Capabilities {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let variables = variables.iter().map(owned).collect();
            ask_once(&self.program(), Some(&self.folder()), &variables).unwrap()
        }

        fn ask(&self) -> Capabilities {
            self.ask_with(&[])
        }

        /// How often the program ran.
        fn asked(&self) -> usize {
            let text = std::fs::read_to_string(self.dir.path().join("asked"));
            text.unwrap_or_default().lines().count()
        }

        fn file(&self) -> PathBuf {
            let mut files = std::fs::read_dir(self.folder()).unwrap();
            let file = files.next().unwrap().unwrap().path();
            assert!(files.next().is_none(), "one file a program, no temporaries");
            file
        }
    }

    #[test]
    fn a_worker_is_asked_once() {
        let place = Place::new(&example::cpu("avx2"));
        assert_eq!(place.ask(), example::cpu("avx2"));
        assert_eq!(place.ask(), example::cpu("avx2"));
        assert_eq!(place.asked(), 1);
    }

    #[test]
    fn a_replaced_program_is_asked_again() {
        let place = Place::new(&example::cpu("avx2"));
        place.ask();
        place.announce(&example::cpu("avx512"));
        assert_eq!(place.ask(), example::cpu("avx512"));
        assert_eq!(place.ask(), example::cpu("avx512"));
        assert_eq!(place.asked(), 2);
        place.file();
    }

    #[test]
    fn other_visible_devices_are_asked_for_again() {
        let place = Place::new(&example::cpu("avx2"));
        place.ask_with(&[("TERM", "xterm")]);
        place.ask_with(&[("TERM", "dumb")]);
        assert_eq!(place.asked(), 1);
        place.ask_with(&[("CUDA_VISIBLE_DEVICES", "0")]);
        assert_eq!(place.asked(), 2);
        place.ask_with(&[("CUDA_VISIBLE_DEVICES", "1")]);
        assert_eq!(place.asked(), 3);
    }

    #[test]
    fn a_damaged_or_old_file_is_replaced() {
        let place = Place::new(&example::cpu("avx2"));
        place.ask();
        let kept = std::fs::read_to_string(place.file()).unwrap();
        for (times, damaged) in ["", "{", &kept[..kept.len() / 2], "\u{0}"]
            .iter()
            .enumerate()
        {
            std::fs::write(place.file(), damaged).unwrap();
            assert_eq!(place.ask(), example::cpu("avx2"));
            assert_eq!(place.asked(), times + 2);
            assert_eq!(std::fs::read_to_string(place.file()).unwrap(), kept);
        }
        let asked = place.asked();
        for age in [KEPT_FOR, Duration::ZERO] {
            let then = SystemTime::now() - age;
            let file = std::fs::File::options().write(true).open(place.file());
            file.unwrap().set_modified(then).unwrap();
            place.ask();
            assert_eq!(place.asked(), asked + 1);
        }
    }

    #[test]
    fn nothing_is_kept_of_another_version_or_without_a_folder() {
        let mut other = example::cpu("avx2");
        "0".clone_into(&mut other.version);
        let place = Place::new(&other);
        place.ask();
        place.ask();
        assert_eq!(place.asked(), 2);
        assert!(!place.folder().exists());

        let place = Place::new(&example::cpu("avx2"));
        for asked in 1..3 {
            ask_once(&place.program(), None, &BTreeMap::new()).unwrap();
            assert_eq!(place.asked(), asked);
        }
        // Where no folder can be made it is no error either.
        std::fs::write(place.dir.path().join("home"), "").unwrap();
        place.ask();
        assert_eq!(place.asked(), 3);
    }
}
