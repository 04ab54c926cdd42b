//! [`Partials`]: parts of a result that is not there yet, each in a file under a
//! key of its own, so that a stage that is stopped goes on where it was.
//!
//! They save work and are needed for nothing: they are written without a sync,
//! and a file that is missing, cut, damaged, of another format or under another
//! key is a miss. Its first line says what it is, and the rest is the part:
//!
//! ```text
//! {"format":1,"key":"<hex>","checksum":"<BLAKE3 of the rest>"}
//! ```

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ContentHash, Key, Store, StoreError, atomic, clock, plain};

/// Version of the files.
///
/// History: 1: a line of JSON, then the part.
const PARTIAL_FORMAT: u32 = 1;
/// Folder in a cache.
pub(super) const FOLDER: &str = "partial";

/// The parts that one kind of stage keeps: `<dir>/ab/<key>.json`.
#[derive(Debug, Clone)]
pub struct Partials {
    dir: PathBuf,
    scratch: PathBuf,
}

/// First line of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    key: Key,
    checksum: ContentHash,
}

impl Partials {
    /// Those in `dir` ([`Store::partial_dir`]). A file is written in `scratch`, on the
    /// same file system, and then renamed: what a killed process leaves there goes
    /// with the folder.
    pub fn new(dir: &Path, scratch: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            scratch: scratch.to_owned(),
        }
    }

    /// Where they lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, key: &Key) -> PathBuf {
        let hex = key.to_string();
        self.dir.join(&hex[..2]).join(format!("{hex}.json"))
    }

    /// The part under a key, if it is there and whole. Its file counts as used now.
    pub fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let mut file = plain::open(&self.path(key)).ok()?;
        // Best effort: a cache may be read-only. By the server's clock, as its age is.
        let _ = clock::touch(&file);
        let mut bytes = plain::read_open(&mut file, plain::LARGE).ok()?;
        let start = decode(key, &bytes).ok()?;
        bytes.drain(..start);
        Some(bytes)
    }

    /// Keeps a part, in the place of one that may be there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, key: &Key, part: &[u8]) -> Result<(), StoreError> {
        let path = self.path(key);
        let head = Head {
            format: PARTIAL_FORMAT,
            key: *key,
            checksum: ContentHash::of(part),
        };
        let mut bytes = serde_json::to_vec(&head)
            .map_err(std::io::Error::from)
            .map_err(StoreError::io("write", &path))?;
        bytes.push(b'\n');
        bytes.extend_from_slice(part);
        atomic::make_dir(&self.scratch)?;
        if let Some(dir) = path.parent() {
            atomic::make_dir(dir)?;
        }
        atomic::refuse_link(&self.dir)?;
        self.dir.parent().map_or(Ok(()), atomic::refuse_link)?;
        atomic::write_unsynced(&self.scratch, &path, &bytes)
    }
}

/// Where in a file's bytes the part begins, or what is wrong with them.
fn decode(key: &Key, bytes: &[u8]) -> Result<usize, &'static str> {
    let Some(end) = bytes.iter().position(|&b| b == b'\n') else {
        return Err("it has no first line");
    };
    // The format is looked at before the rest, which another one may write otherwise.
    let value: serde_json::Value =
        serde_json::from_slice(&bytes[..end]).map_err(|_| "its first line is not JSON")?;
    if value["format"] != PARTIAL_FORMAT {
        return Err(OTHER_FORMAT);
    }
    let head: Head = serde_json::from_value(value).map_err(|_| "its first line is incomplete")?;
    // The checksum does not cover this line, so it must be as it was written.
    if serde_json::to_vec(&head).ok().as_deref() != Some(&bytes[..end]) {
        return Err("its first line was changed");
    }
    if head.key != *key {
        return Err("it is under another key");
    }
    if ContentHash::of(&bytes[end + 1..]) != head.checksum {
        return Err("its content has another hash");
    }
    Ok(end + 1)
}

const OTHER_FORMAT: &str = "it is of another format";

/// What is wrong with a part; nothing of one that is gone, or of another format.
pub(super) fn damage(key: &Key, path: &Path) -> Result<Option<&'static str>, StoreError> {
    match plain::read(path, plain::LARGE) {
        Ok(bytes) => Ok(decode(key, &bytes).err().filter(|why| *why != OTHER_FORMAT)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io("read", path)(e)),
    }
}

impl Store {
    /// The folder in which a kind of stage keeps its parts; made when they are written.
    pub fn partial_dir(&self, kind: &str) -> PathBuf {
        self.root().join(FOLDER).join(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    fn key(n: u8) -> Key {
        Key::from_bytes([n; 32])
    }

    fn partials() -> (tempfile::TempDir, Partials) {
        let dir = tempfile::tempdir().unwrap();
        let partials = Partials::new(&dir.path().join("partial"), &dir.path().join("scratch"));
        (dir, partials)
    }

    #[test]
    fn what_is_put_is_got() {
        let (_dir, partials) = partials();
        assert_eq!(partials.get(&key(1)), None);
        for part in [&b"{}\n"[..], b"", b"two\nlines"] {
            partials.put(&key(1), part).unwrap();
            assert_eq!(partials.get(&key(1)).as_deref(), Some(part));
        }
        assert_eq!(partials.get(&key(2)), None);
        let left = std::fs::read_dir(&partials.scratch).unwrap().count();
        assert_eq!(left, 0, "no temporary file stays");
    }

    #[test]
    fn every_damage_is_a_miss_and_is_mended_by_the_next_write() {
        let (_dir, partials) = partials();
        partials.put(&key(1), b"{\"steps\":[]}\n").unwrap();
        let path = partials.path(&key(1));
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(partials.get(&key(1)), None, "cut to {length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(partials.get(&key(1)), None, "bit {bit}");
        }
        std::fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert_eq!(partials.get(&key(1)), None, "longer");
        // A whole one in another's place.
        std::fs::create_dir_all(partials.path(&key(2)).parent().unwrap()).unwrap();
        std::fs::write(partials.path(&key(2)), &whole).unwrap();
        assert_eq!(partials.get(&key(2)), None);
        partials.put(&key(1), b"again").unwrap();
        assert_eq!(partials.get(&key(1)).as_deref(), Some(&b"again"[..]));
    }

    #[test]
    fn a_lookup_counts_as_a_use() {
        let (_dir, partials) = partials();
        partials.put(&key(1), b"x").unwrap();
        let path = partials.path(&key(1));
        let old = SystemTime::now() - Duration::from_secs(3600);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(old)
            .unwrap();
        assert!(partials.get(&key(1)).is_some());
        let used = std::fs::metadata(&path).unwrap().modified().unwrap();
        assert!(used > old + Duration::from_secs(3000));
    }
}
