//! [`Store`]: the cache's folder, its format, and where things are in it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::inventory::ReadRun;
use super::{StoreError, atomic, plain};

/// Version of the layout on disk, in `format.json`.
///
/// History: 1: blobs/, records/, trees/, runs/, claims/, tmp/.
pub const FORMAT: u32 = 1;

/// The signature that tells backup programs to pass a cache over
/// (Cache Directory Tagging Specification).
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
# This is a cache of Genius: what stages computed, by content.\n\
# It may be deleted; everything in it can be computed again.\n";

/// Folders that every cache has.
const FOLDERS: [&str; 6] = ["blobs", "records", "trees", "runs", "claims", "tmp"];

/// A cache folder. Cheap to clone; holds no lock and no open file.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    pub(super) read_run: Option<ReadRun>,
}

impl Store {
    /// Opens the cache at `root`, making it if need be. A cache that cannot be
    /// written still opens, for lookups.
    ///
    /// # Errors
    /// When the folder cannot be made, holds something else, was written by a newer
    /// Genius, or has a link in the place of one of its folders.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).map_err(StoreError::io("find", root))?;
        let format = root.join("format.json");
        match plain::read(&format, plain::SMALL) {
            Ok(bytes) => check_format(&root, &bytes)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                create(&root, &format)?;
            }
            Err(source) => {
                return Err(StoreError::Io {
                    action: "read",
                    path: format,
                    source,
                });
            }
        }
        let store = Self {
            root,
            read_run: None,
        };
        // A cache that someone cleaned by hand heals; one that is read-only stays as it is.
        for dir in FOLDERS {
            let _ = std::fs::create_dir_all(store.root.join(dir));
        }
        store.refuse_links()?;
        Ok(store)
    }

    /// Refuses a cache in which something else stands where it has folders of its
    /// own: what is written, moved or removed there would be somewhere else.
    fn refuse_links(&self) -> Result<(), StoreError> {
        for dir in FOLDERS.into_iter().chain([super::partial::FOLDER]) {
            let path = self.root.join(dir);
            match std::fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_symlink() => {
                    return Err(StoreError::LinkedFolder { path });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Opens the cache at `root` if one is there; makes none.
    ///
    /// # Errors
    /// When it was written by a newer Genius, or cannot be read.
    pub fn open_existing(root: &Path) -> Result<Option<Self>, StoreError> {
        // The tag comes first: with it alone, its making was cut.
        if root.join("format.json").is_file() || root.join("CACHEDIR.TAG").is_file() {
            Self::open(root).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The cache that is at `root` or would be there: makes nothing and checks
    /// nothing.
    ///
    /// # Errors
    /// When there is no current folder for a relative path to be relative to.
    pub(super) fn unmade(root: &Path) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).map_err(StoreError::io("find", root))?;
        Ok(Self {
            root,
            read_run: None,
        })
    }

    /// The same cache, with the one who knows what the folders of runs hold. Without one,
    /// all that is known of a run are the keys that it used, and none goes because its
    /// pipeline is gone.
    #[must_use]
    pub fn reading_runs(self, read_run: ReadRun) -> Self {
        Self {
            read_run: Some(read_run),
            ..self
        }
    }

    /// The cache's folder, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where each run has a folder of its own.
    pub fn runs_dir(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// Ids of all runs, oldest first: they sort by time.
    ///
    /// # Errors
    /// When the folder of runs cannot be read; there being none is no error.
    pub fn run_ids(&self) -> Result<Vec<String>, StoreError> {
        let runs = self.runs_dir();
        let entries = match std::fs::read_dir(&runs) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(StoreError::io("read", &runs)(e)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::io("read", &runs))?;
            let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
            let name = entry.file_name().into_string();
            ids.extend(name.ok().filter(|name| is_dir && !name.starts_with('.')));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Bytes that this user may still write to the cache's file system.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        let stat = nix::sys::statvfs::statvfs(&self.root)
            .map_err(std::io::Error::from)
            .map_err(StoreError::io("ask for the free space of", &self.root))?;
        #[allow(
            clippy::unnecessary_cast,
            clippy::useless_conversion,
            reason = "the types differ between systems"
        )]
        Ok((stat.blocks_available() as u64).saturating_mul(stat.fragment_size() as u64))
    }

    pub(super) fn tmp_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// A new empty file in `tmp/`, removed when dropped. Private to this user.
    pub(super) fn tmp_file(&self) -> Result<tempfile::NamedTempFile, StoreError> {
        let tmp = self.tmp_dir();
        tempfile::Builder::new()
            .prefix(&temporary_prefix())
            .tempfile_in(&tmp)
            .map_err(StoreError::io("make a temporary file in", &tmp))
    }

    /// A new empty folder in `tmp/`, removed when dropped. One that is left behind
    /// says not whose it is, and goes when it is old ([`Store::clean_tmp`]).
    /// `mode` less the umask is what it will have in its place.
    pub(super) fn tmp_folder(&self, mode: u32) -> Result<tempfile::TempDir, StoreError> {
        use std::os::unix::fs::PermissionsExt;
        let tmp = self.tmp_dir();
        tempfile::Builder::new()
            .prefix(&temporary_prefix())
            .permissions(std::fs::Permissions::from_mode(mode))
            .tempdir_in(&tmp)
            .map_err(StoreError::io("make a folder in", &tmp))
    }
}

fn temporary_prefix() -> String {
    format!("{}{}-", atomic::TEMPORARY, std::process::id())
}

/// Turns an empty or missing folder into a cache; `format.json` comes last, so
/// that an interrupted attempt is taken up again.
fn create(root: &Path, format: &Path) -> Result<(), StoreError> {
    // The cache itself may be a link: a person named it.
    std::fs::create_dir_all(root).map_err(StoreError::io("make the folder", root))?;
    let tag = root.join("CACHEDIR.TAG");
    if !tag.exists() {
        // Somebody's own folder must not be ignored by git because of a mistyped path.
        let stranger = std::fs::read_dir(root)
            .map_err(StoreError::io("read", root))?
            .filter_map(Result::ok)
            .find(|entry| {
                !entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(atomic::TEMPORARY)
            });
        if let Some(entry) = stranger.filter(|_| !tag.exists()) {
            let why = format!(
                "it holds {} and no format.json",
                entry.file_name().to_string_lossy()
            );
            return Err(StoreError::NotACache {
                root: root.to_owned(),
                why,
            });
        }
        atomic::write(root, &tag, CACHEDIR_TAG.as_bytes())?;
    }
    atomic::write(root, &root.join(".gitignore"), b"*\n")?;
    atomic::write(
        root,
        format,
        format!("{}\n", json!({ "format": FORMAT })).as_bytes(),
    )
}

fn check_format(root: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let found = serde_json::from_slice::<Value>(bytes)
        .ok()
        .and_then(|v| v["format"].as_u64());
    match found {
        Some(found) if found == u64::from(FORMAT) => Ok(()),
        Some(found) if found > u64::from(FORMAT) => Err(StoreError::TooNew {
            root: root.to_owned(),
            found,
            known: FORMAT,
        }),
        _ => Err(StoreError::NotACache {
            root: root.to_owned(),
            why: "its format.json holds no format that this Genius knows".to_owned(),
        }),
    }
}
