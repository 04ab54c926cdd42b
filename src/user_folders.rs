//! [`UserFolders`]: where a user's own things are. The programs pass their look-up
//! of variables in; nothing here reads the environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The folders of the user that this process runs for; each `None` on a machine
/// without a home folder.
///
/// A variable that is empty or relative counts as not set, as the XDG base directory
/// specification wants it: a relative folder would be one of the current folder,
/// so whoever writes there would decide what a user trusts and with which token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserFolders {
    /// Downloads, trusts and what workers announced: `GENIUS_HOME`, else `genius` in the user's cache folder.
    pub genius: Option<PathBuf>,
    /// The hub's cache and token: `HF_HOME`, else `huggingface` in the user's cache folder.
    pub hugging_face: Option<PathBuf>,
    /// Variables that are not used because they are relative, and what they say.
    pub ignored: Vec<(&'static str, PathBuf)>,
}

impl UserFolders {
    /// Reads the variables through `lookup`.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let mut ignored = Vec::new();
        let mut absolute = |name: &'static str| {
            let path = PathBuf::from(lookup(name).filter(|value| !value.is_empty())?);
            if path.is_absolute() {
                return Some(path);
            }
            ignored.push((name, path));
            None
        };
        let (genius, hugging_face) = (absolute("GENIUS_HOME"), absolute("HF_HOME"));
        let mut cache = None;
        if genius.is_none() || hugging_face.is_none() {
            cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        }
        let in_cache = |name: &str| cache.as_deref().map(|cache: &Path| cache.join(name));
        Self {
            genius: genius.or_else(|| in_cache("genius")),
            hugging_face: hugging_face.or_else(|| in_cache("huggingface")),
            ignored,
        }
    }

    /// A line on each variable that is not used.
    pub fn warnings(&self) -> Vec<String> {
        let line = |(name, value): &(&str, PathBuf)| {
            format!(
                "warning: {name} is `{}`, which is not an absolute path: it counts as not set",
                value.display()
            )
        };
        self.ignored.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(variables: &[(&str, &str)]) -> UserFolders {
        UserFolders::from_lookup(|name| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn path(text: &str) -> Option<PathBuf> {
        Some(PathBuf::from(text))
    }

    #[test]
    fn folders_follow_the_usual_variables() {
        let plain = folders(&[("HOME", "/home/ada")]);
        assert_eq!(plain.genius, path("/home/ada/.cache/genius"));
        assert_eq!(plain.hugging_face, path("/home/ada/.cache/huggingface"));
        let set = folders(&[
            ("HOME", "/home/ada"),
            ("XDG_CACHE_HOME", "/var/cache/ada"),
            ("HF_HOME", "/big/hf"),
        ]);
        assert_eq!(set.genius, path("/var/cache/ada/genius"));
        assert_eq!(set.hugging_face, path("/big/hf"));
        assert_eq!(folders(&[("GENIUS_HOME", "/g")]).genius, path("/g"));
    }

    #[test]
    fn without_a_home_there_are_no_folders() {
        for variables in [
            &[][..],
            &[("HOME", "")],
            &[("HOME", ".")],
            &[("HOME", "home"), ("XDG_CACHE_HOME", "cache")],
            &[("GENIUS_HOME", "g"), ("HF_HOME", "./h"), ("HOME", "")],
            &[("HOME", "~")],
            &[("XDG_CACHE_HOME", "~/.cache"), ("GENIUS_HOME", "../g")],
        ] {
            let found = folders(variables);
            assert_eq!(
                (found.genius, found.hugging_face),
                (None, None),
                "{variables:?}"
            );
        }
    }

    #[test]
    fn a_relative_folder_counts_as_not_set_and_is_named() {
        let found = folders(&[
            ("GENIUS_HOME", "genius-home"),
            ("XDG_CACHE_HOME", "./cache"),
            ("HOME", "/home/ada"),
        ]);
        assert_eq!(found.genius, path("/home/ada/.cache/genius"));
        insta::assert_snapshot!(found.warnings().join("\n"), @r"
        warning: GENIUS_HOME is `genius-home`, which is not an absolute path: it counts as not set
        warning: XDG_CACHE_HOME is `./cache`, which is not an absolute path: it counts as not set
        ");
    }
}
