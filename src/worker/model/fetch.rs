//! [`FetchSettings`]: what the model stage may know of the machine beyond its job. The
//! library reads no environment variable itself: the program passes its look-up in.

use std::ffi::OsString;
use std::path::PathBuf;

use genius::protocol::{absolute_entries, find_program};
use genius::user_folders::UserFolders;

/// Where downloads come from and where they are kept. None of it is in a
/// key: it decides how a model is fetched, never which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchSettings {
    /// Token for the Hugging Face hub (`HF_TOKEN`); the token file under
    /// [`hf_home`](Self::hf_home) is read when it is not set.
    pub hf_token: Option<String>,
    /// The hub's own cache folder (`HF_HOME`, else `huggingface` in the user's
    /// cache folder); `None` on a machine without a home folder.
    pub hf_home: Option<PathBuf>,
    /// Address of the hub (`HF_ENDPOINT`), without a slash at its end.
    pub hf_endpoint: Option<String>,
    /// Genius's folder for what every checkout of a user shares
    /// (`GENIUS_HOME`, else `genius` in the user's cache folder).
    pub user_cache: Option<PathBuf>,
    /// The Python whose pip fetches wheels (`GENIUS_PYTHON`, else `python3`): its path
    /// if it was found, else its name.
    pub python: PathBuf,
    /// Where the programs that it starts look for others: the entries of `PATH` that
    /// are absolute.
    pub search_path: Option<OsString>,
}

impl FetchSettings {
    /// Reads the variables through `lookup` (`|name| std::env::var_os(name)` in
    /// a program); empty ones count as not set, and so do relative folders.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name| lookup(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let folders = UserFolders::from_lookup(&lookup);
        let text = |name| {
            lookup(name)
                .and_then(|v| v.into_string().ok())
                .filter(|v| !v.trim().is_empty())
                .map(|v| v.trim().to_owned())
        };
        let python = path("GENIUS_PYTHON").unwrap_or_else(|| "python3".into());
        let search = lookup("PATH");
        Self {
            hf_token: text("HF_TOKEN"),
            hf_home: folders.hugging_face,
            hf_endpoint: text("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_owned()),
            user_cache: folders.genius,
            python: find_program(&python, search.as_deref()).unwrap_or(python),
            search_path: search.map(|path| absolute_entries(&path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> FetchSettings {
        let owned: Vec<(String, OsString)> = variables
            .iter()
            .map(|(k, v)| ((*k).to_owned(), OsString::from(v)))
            .collect();
        FetchSettings::from_lookup(move |name| {
            owned
                .iter()
                .find(|(k, _)| k == name)
                .map(|(_, v)| v.clone())
        })
    }

    #[test]
    fn folders_follow_the_usual_variables() {
        let plain = settings(&[("HOME", "/home/ada")]);
        assert_eq!(
            plain.hf_home.as_deref(),
            Some("/home/ada/.cache/huggingface".as_ref())
        );
        assert_eq!(
            plain.user_cache.as_deref(),
            Some("/home/ada/.cache/genius".as_ref())
        );
        assert_eq!(plain.python, PathBuf::from("python3"));

        let set = settings(&[
            ("HOME", "/home/ada"),
            ("XDG_CACHE_HOME", "/var/cache/ada"),
            ("HF_HOME", "/big/hf"),
            ("HF_ENDPOINT", "https://hub.example/"),
            ("HF_TOKEN", ""),
        ]);
        assert_eq!(set.hf_home.as_deref(), Some("/big/hf".as_ref()));
        assert_eq!(
            set.user_cache.as_deref(),
            Some("/var/cache/ada/genius".as_ref())
        );
        assert_eq!(set.hf_endpoint.as_deref(), Some("https://hub.example"));
        let relative = settings(&[("PATH", ".::bin"), ("GENIUS_PYTHON", "sh")]);
        assert_eq!(relative.python, PathBuf::from("sh"), "not of this folder");
        assert_eq!(relative.search_path, Some(OsString::new()));
        let absolute = settings(&[("PATH", ".:/bin:/usr/bin"), ("GENIUS_PYTHON", "sh")]);
        assert!(absolute.python.is_absolute(), "{:?}", absolute.python);
        assert_eq!(absolute.search_path, Some("/bin:/usr/bin".into()));
        assert_eq!(set.hf_token, None, "an empty variable counts as not set");
    }

    #[test]
    fn a_token_of_the_current_folder_is_not_read() {
        for (name, value) in [
            ("HOME", "."),
            ("XDG_CACHE_HOME", ".cache"),
            ("HF_HOME", "hf"),
        ] {
            let here = settings(&[(name, value)]);
            assert_eq!((here.hf_home, here.user_cache), (None, None), "{name}");
        }
    }
}
