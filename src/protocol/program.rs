//! Where a program is: [`find_program`], without a look at the current folder.
//!
//! Someone else's folder, such as a cloned repository, must not decide what runs when
//! Genius is started in it. PATH may hold entries that are relative to the current
//! folder (`.`, or an empty one): these are skipped.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The entries of PATH that are absolute.
pub fn absolute_entries(path: &OsStr) -> OsString {
    let entries = std::env::split_paths(path).filter(|entry| entry.is_absolute());
    // None of them holds a colon: they were split at it.
    std::env::join_paths(entries).unwrap_or_default()
}

/// The program that a name means: one with a slash is a path, relative to the
/// current folder, since a person wrote it so; another is looked for in PATH. `None`
/// if there is none.
pub fn find_program(name: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    if name.components().count() > 1 || name.is_absolute() {
        return std::path::absolute(name).ok();
    }
    std::env::split_paths(path?)
        .filter(|entry| entry.is_absolute())
        .map(|entry| entry.join(name))
        .find(|program| {
            std::fs::metadata(program)
                .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_folders_of_path_are_searched() {
        let dir = tempfile::tempdir().unwrap();
        let make = |folder: &str, mode: u32| {
            let program = dir.path().join(folder).join("tool");
            std::fs::create_dir_all(program.parent().unwrap()).unwrap();
            std::fs::write(&program, "").unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
            program
        };
        make("plain", 0o644);
        let wanted = make("bin", 0o755);
        std::fs::create_dir_all(dir.path().join("folder/tool")).unwrap();
        let shown = dir.path().display();
        let found = |path: &str| find_program("tool".as_ref(), Some(path.as_ref()));
        let absolute = format!("{shown}/none:{shown}/plain:{shown}/folder:{shown}/bin");
        assert_eq!(found(&absolute), Some(wanted.clone()));
        // Relative to the current folder, though that leads to the same.
        let here = std::env::current_dir().unwrap();
        let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
        let relative = up.join(wanted.strip_prefix("/").unwrap().parent().unwrap());
        assert!(relative.join("tool").is_file());
        for path in [".", "", ":", relative.to_str().unwrap()] {
            assert_eq!(found(path), None, "{path}");
        }
        assert_eq!(
            absolute_entries(format!(".:{shown}:::bin:/usr/bin").as_ref()),
            OsString::from(format!("{shown}:/usr/bin"))
        );
        assert_eq!(find_program("tool".as_ref(), None), None);
        // Written so by a person.
        assert_eq!(
            find_program("./tool".as_ref(), None),
            std::path::absolute("./tool").ok()
        );
        assert_eq!(find_program(&wanted, None), Some(wanted));
    }
}
