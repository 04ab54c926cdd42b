//! [`Capabilities`]: what `genius-worker --capabilities` announces about itself and its
//! machine, one JSON object on a line. Plans are made from it, also on another machine.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::kind::Computes;

/// Version of what is announced. A field more needs no other version.
pub const CAPABILITIES_FORMAT: u64 = 1;

/// What a worker computes with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// [`CAPABILITIES_FORMAT`].
    pub format: u64,
    /// [`super::VERSION`] of the worker.
    pub version: String,
    /// The processor and the main memory.
    pub processor: Processor,
    /// The devices beside it that an engine of the worker can use, by their numbers.
    pub devices: Vec<Device>,
    /// What it computes with, for every engine and kind of device.
    pub engines: Vec<Computes>,
}

/// A processor as far as plans depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processor {
    /// Its instruction level; see `crate::processor::level`.
    pub level: String,
    /// Whether it multiplies bf16 matrices fast (avx512_bf16, amx).
    pub fast_bf16: bool,
    /// Cores that the worker may use.
    pub cores: usize,
    /// Main memory; 0: not known.
    pub memory_bytes: u64,
}

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// NVIDIA's.
    Cuda,
    /// Apple's.
    Metal,
}

impl DeviceKind {
    /// The word in a file and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Metal => "metal",
        }
    }
}

/// A device beside the processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its kind.
    pub kind: DeviceKind,
    /// Its maker's name for it, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its own memory, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// Why a text announces nothing.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Not JSON, or not these fields.
    #[error("it is not what `genius-worker --capabilities` prints: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Of a version that this program does not know.
    #[error("it is of format {0}, and this genius reads format {CAPABILITIES_FORMAT}")]
    Format(u64),
}

/// Why it is not known what a worker computes with.
#[derive(Debug, thiserror::Error)]
pub enum CapabilitiesError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ParseError,
    },
    /// The program does not say.
    #[error("{program} does not announce what it computes with: {why}")]
    Program {
        /// The program.
        program: PathBuf,
        /// What it did instead.
        why: String,
    },
}

impl CapabilitiesError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } | Self::File { .. } => {
                "make it on the machine that will run the stages: \
                 `genius-worker --capabilities > FILE`, of the same version as this genius"
            }
            Self::Program { .. } => {
                "build genius and genius-worker from one checkout (`make build`), or set \
                 GENIUS_WORKER; to plan for another machine: `--machine FILE` with what \
                 `genius-worker --capabilities` prints there"
            }
        }
    }
}

impl Capabilities {
    /// Reads what a worker printed.
    ///
    /// # Errors
    /// When it is something else, or of another format.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        // The format first: another one may have other fields.
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let Format { format } = serde_json::from_str(text)?;
        if format != CAPABILITIES_FORMAT {
            return Err(ParseError::Format(format));
        }
        Ok(serde_json::from_str(text)?)
    }

    /// Reads what a worker printed into a file.
    ///
    /// # Errors
    /// When there is none, or it holds something else.
    pub fn read(path: &Path) -> Result<Self, CapabilitiesError> {
        let path = path.to_owned();
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                Self::parse(&text).map_err(|source| CapabilitiesError::File { path, source })
            }
            Err(source) => Err(CapabilitiesError::Io { path, source }),
        }
    }

    /// How many devices of a kind there are.
    pub fn count(&self, kind: DeviceKind) -> usize {
        self.devices.iter().filter(|d| d.kind == kind).count()
    }
}

/// Announcements of machines that are made up.
#[cfg(test)]
pub(crate) mod example {
    use super::*;

    /// Of a machine with a processor of that level and two cores.
    pub fn cpu(level: &str) -> Capabilities {
        with_gpus(level, &[])
    }

    /// Of one with devices beside it, that every engine can use.
    pub fn with_gpus(level: &str, kinds: &[DeviceKind]) -> Capabilities {
        let mut words = vec!["cpu"];
        words.extend(kinds.iter().map(|kind| kind.word()));
        words.dedup();
        let device = |&kind| Device {
            kind,
            name: Some("made up".to_owned()),
            memory_bytes: Some(80 << 30),
        };
        Capabilities {
            format: CAPABILITIES_FORMAT,
            version: crate::protocol::VERSION.to_owned(),
            processor: Processor {
                level: level.to_owned(),
                fast_bf16: false,
                cores: 2,
                memory_bytes: 8 << 30,
            },
            devices: kinds.iter().map(device).collect(),
            engines: Computes::of_build(&words, &words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_one_line_that_reads_back() {
        let cpu = example::cpu("avx2");
        let gpus = example::with_gpus("avx512", &[DeviceKind::Cuda; 2]);
        for announced in [&cpu, &gpus] {
            let line = serde_json::to_string(announced).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(
                Capabilities::parse(&format!("{line}\n")).unwrap(),
                *announced
            );
        }
        assert_eq!(gpus.count(DeviceKind::Cuda), 2);
        assert_eq!(gpus.count(DeviceKind::Metal), 0);
        // What is not known is left out, and what a newer one adds is passed over.
        let device = serde_json::from_str::<Device>(r#"{"kind":"cuda","pci":"0"}"#).unwrap();
        assert_eq!((device.name.as_ref(), device.memory_bytes), (None, None));
        assert_eq!(
            serde_json::to_string(&device).unwrap(),
            r#"{"kind":"cuda"}"#
        );
    }

    #[test]
    fn a_file_that_is_something_else_is_refused_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.json");
        let refused = || {
            let error = Capabilities::read(&path).unwrap_err();
            assert!(
                error
                    .hint()
                    .contains("`genius-worker --capabilities > FILE`")
            );
            error
                .to_string()
                .replace(dir.path().to_str().unwrap(), "DIR")
        };
        insta::assert_snapshot!(refused(), @"cannot read DIR/node.json: No such file or directory (os error 2)");
        let with = |text: &str| {
            std::fs::write(&path, text).unwrap();
            refused()
        };
        insta::assert_snapshot!(with(""), @"DIR/node.json: it is not what `genius-worker --capabilities` prints: EOF while parsing a value at line 1 column 0");
        insta::assert_snapshot!(with("{\n \"format\": 1,\n}"), @"DIR/node.json: it is not what `genius-worker --capabilities` prints: trailing comma at line 3 column 1");
        insta::assert_snapshot!(with("{\n \"format\": 1,\n \"version\": 1}"), @"DIR/node.json: it is not what `genius-worker --capabilities` prints: invalid type: integer `1`, expected a string at line 3 column 13");
        insta::assert_snapshot!(with(r#"{"format":2,"device":"tpu"}"#), @"DIR/node.json: it is of format 2, and this genius reads format 1");
        let line = serde_json::to_string(&example::cpu("avx2")).unwrap();
        insta::assert_snapshot!(with(&format!("{line}\n{line}\n")), @"DIR/node.json: it is not what `genius-worker --capabilities` prints: trailing characters at line 2 column 1");
    }
}
