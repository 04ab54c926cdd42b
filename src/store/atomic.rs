//! Whole files or none: temporary file, flush, sync, rename, sync of the folder.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::StoreError;

/// Prefix of temporary files that lie beside their targets.
pub(super) const TEMPORARY: &str = ".tmp-";

/// Writes `bytes` to `path` by way of a temporary file in `dir`, which is on the
/// same file system. A crash leaves the old file or the new one.
pub(super) fn write(dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    replace(dir, path, bytes, File::sync_all)?;
    sync_parent(path)
}

/// As [`write`] without a sync, for what may be lost: if the machine crashes the
/// file may be old, empty or cut.
pub(super) fn write_unsynced(dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    replace(dir, path, bytes, |_| Ok(()))
}

fn replace(
    dir: &Path,
    path: &Path,
    bytes: &[u8],
    sync: fn(&File) -> std::io::Result<()>,
) -> Result<(), StoreError> {
    let mut file = tempfile::Builder::new()
        .prefix(&format!("{TEMPORARY}{}-", std::process::id()))
        .tempfile_in(dir)
        .map_err(StoreError::io("make a temporary file in", dir))?;
    // Temporary files are private; a cache may be shared.
    let_read(file.as_file(), path)?;
    file.write_all(bytes)
        .and_then(|()| sync(file.as_file()))
        .map_err(StoreError::io("write", path))?;
    file.persist(path).map_err(|e| StoreError::Io {
        action: "write",
        path: path.to_owned(),
        source: e.error,
    })?;
    Ok(())
}

/// Syncs a file's bytes.
pub(super) fn sync_file(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|f| f.sync_all())
        .map_err(StoreError::io("sync", path))
}

/// Syncs the folder in which `path` lies, so that its name survives a crash.
pub(super) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    match path.parent() {
        Some(dir) => sync_file(dir),
        None => Ok(()),
    }
}

/// Makes a folder and those above it. A link in its place is refused: what belongs
/// into the folder would be written somewhere else.
pub(super) fn make_dir(path: &Path) -> Result<(), StoreError> {
    std::fs::create_dir_all(path).map_err(StoreError::io("make the folder", path))?;
    refuse_link(path)
}

/// Refuses a link to a folder in the place of a folder.
pub(super) fn refuse_link(path: &Path) -> Result<(), StoreError> {
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink()) {
        return Err(StoreError::LinkedFolder {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// Makes a folder in one that is there, so that its name survives a crash. Costs
/// a sync only when it is new.
pub(super) fn make_dir_synced(path: &Path) -> Result<(), StoreError> {
    path.parent().map_or(Ok(()), refuse_link)?;
    match std::fs::create_dir(path) {
        Ok(()) => sync_parent(path),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => refuse_link(path),
        // The folder above was removed by hand.
        Err(_) => make_dir(path).and_then(|()| sync_parent(path)),
    }
}

/// Lets others read a temporary file. By the open file: its name may be another's by now.
pub(super) fn let_read(file: &File, path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
        .map_err(StoreError::io("set the mode of", path))
}

/// Sets the permission bits.
pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(StoreError::io("set the mode of", path))
}
