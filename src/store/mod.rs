//! The cache: blobs and trees by content, records of what a key produced.
//!
//! It knows bytes and hashes, not stages.
