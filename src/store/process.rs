//! Which machine this is.

/// Name of this machine.
pub(super) fn host() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| String::new(),
        |name| name.to_string_lossy().into_owned(),
    )
}
