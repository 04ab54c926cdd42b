//! Reading a file through its hash.

pub(super) use super::hash::hash_file;
