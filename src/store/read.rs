//! Reading a file through its hash, at the speed of the disk or of all cores.
//!
//! Files are read and not mapped: a file that someone cuts short while it is
//! mapped, or a bad sector under it, would kill the process (SIGBUS) instead of
//! being an error. Reading in pieces on several threads was measured to be no
//! slower than the map: each piece is hashed while it is still in the core's
//! cache.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use blake3::Hasher;
use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};

use super::{ContentHash, StoreError};

/// Bytes that a thread reads at once: a subtree of BLAKE3, so a power of two.
const PIECE: u64 = 512 * 1024;
/// Files below this size are read by one thread.
const LARGE: u64 = 4 << 20;

/// Hash and size of a file.
pub(super) fn hash_file(path: &Path) -> Result<(ContentHash, u64), StoreError> {
    File::open(path)
        .and_then(|file| hash_open(&file))
        .map_err(StoreError::io("read", path))
}

/// As [`hash_file`], of a file that is open and was not read from yet.
pub(super) fn hash_open(file: &File) -> std::io::Result<(ContentHash, u64)> {
    let bytes = file.metadata()?.len();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if bytes < LARGE || threads == 1 {
        hash_in_order(file, bytes)
    } else {
        Ok((hash_pieces(file, bytes, threads)?, bytes))
    }
}

/// Reads to the end, wherever that is: the size is only a hint for the buffer.
fn hash_in_order(mut file: &File, bytes: u64) -> std::io::Result<(ContentHash, u64)> {
    let size = bytes.saturating_add(1).min(PIECE);
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(1)];
    let mut hasher = Hasher::new();
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((finished(hasher.finalize()), hasher.count())),
            Ok(count) => {
                hasher.update(&buffer[..count]);
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The first `bytes` bytes, in pieces; a file that has become shorter is an error.
fn hash_pieces(file: &File, bytes: u64, threads: usize) -> std::io::Result<ContentHash> {
    let pieces = bytes.div_ceil(PIECE);
    let next = AtomicU64::new(0);
    let work = || -> std::io::Result<Vec<(u64, ChainingValue)>> {
        let mut buffer = vec![0; usize::try_from(PIECE).unwrap_or(0)];
        let mut mine = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= pieces {
                return Ok(mine);
            }
            let start = index * PIECE;
            let length = PIECE.min(bytes - start);
            let piece = &mut buffer[..usize::try_from(length).unwrap_or(0)];
            file.read_exact_at(piece, start).inspect_err(|_| {
                // No use in reading on.
                next.store(pieces, Ordering::Relaxed);
            })?;
            let mut hasher = Hasher::new();
            hasher.set_input_offset(start).update(piece);
            mine.push((index, hasher.finalize_non_root()));
        }
    };
    let mut values = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut values = Vec::new();
        for handle in handles {
            let mine = handle
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            values.extend(mine);
        }
        Ok::<_, std::io::Error>(values)
    })?;
    values.sort_unstable_by_key(|(index, _)| *index);
    let values: Vec<ChainingValue> = values.into_iter().map(|(_, value)| value).collect();
    let (left, right) = values.split_at(left_half(values.len()));
    Ok(finished(hazmat::merge_subtrees_root(
        &merge(left),
        &merge(right),
        Mode::Hash,
    )))
}

fn merge(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [one] => *one,
        _ => {
            let (left, right) = values.split_at(left_half(values.len()));
            hazmat::merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash)
        }
    }
}

/// BLAKE3's tree: the left part is the largest power of two that leaves something.
fn left_half(count: usize) -> usize {
    1 << (count - 1).ilog2()
}

fn finished(hash: blake3::Hash) -> ContentHash {
    ContentHash::from_bytes(*hash.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Around every size at which the tree gets another shape.
    #[test]
    fn pieces_add_up_to_the_hash_of_the_whole() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("f");
        let content: Vec<u8> = (0..6 * PIECE + 1).map(|i| (i * 31 % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let file = File::open(&path).unwrap();
        for pieces in 1..=6 {
            for bytes in [pieces * PIECE + 1, pieces * PIECE - 1, pieces * PIECE] {
                if bytes <= PIECE {
                    continue; // one piece has nothing to be merged with
                }
                let hash = hash_pieces(&file, bytes, 3).unwrap();
                let whole = ContentHash::of(&content[..usize::try_from(bytes).unwrap()]);
                assert_eq!(hash, whole, "{bytes} bytes");
            }
        }
    }

    #[test]
    fn a_file_cut_short_while_it_is_read_is_an_error() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, vec![7; 1000]).unwrap();
        let error = hash_pieces(&File::open(&path).unwrap(), LARGE, 2).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_size_of_a_special_file_is_not_believed() {
        let path = Path::new("/proc/self/status");
        if path.exists() {
            assert!(hash_file(path).unwrap().1 > 0);
        }
    }
}
