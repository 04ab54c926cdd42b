//! [`Fingerprint`]: everything that a stage's result depends on, and its key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Node, encode};
use crate::store::{ContentHash, Key};

/// Version of [`Fingerprint`] and its encoding. Raising it gives every stage of
/// everyone a new key: nothing computed before is found again.
///
/// History:
/// 1. kind, kind version, parameters, inputs by content.
pub const FINGERPRINT_FORMAT: u32 = 1;

/// Domain of keys, apart from every other use of BLAKE3.
const KEY_DOMAIN: &str = "genius 2026 stage key";

/// Everything that a stage's result depends on.
///
/// Not in it, since they change no result: names of stages and pipelines,
/// comments, the order of keys, times, device, threads, decode width,
/// micro-batch, and where a file lies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    format: u32,
    kind: String,
    kind_version: u32,
    with: Value,
    inputs: BTreeMap<String, ContentHash>,
}

impl Fingerprint {
    /// The fingerprint of a node whose inputs (slot -> tree hash) are known.
    pub fn new(node: &Node, inputs: &BTreeMap<String, ContentHash>) -> Self {
        Self {
            format: FINGERPRINT_FORMAT,
            kind: node.kind.name().to_owned(),
            kind_version: node.kind.version(),
            with: node.identity.clone(),
            inputs: inputs.clone(),
        }
    }

    /// BLAKE3 of the canonical encoding.
    pub fn key(&self) -> Key {
        let mut hasher = blake3::Hasher::new_derive_key(KEY_DOMAIN);
        hasher.update(&self.encode());
        Key::from_bytes(*hasher.finalize().as_bytes())
    }

    /// The same as JSON, kept in the record. It reads back into a fingerprint of
    /// the same key, so two keys can be compared field by field.
    pub fn preimage(&self) -> Value {
        json!({
            "format": self.format,
            "kind": self.kind,
            "kind_version": self.kind_version,
            "with": self.with,
            "inputs": self.inputs,
        })
    }

    /// A version, then each field behind its tag.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(&self.format.to_le_bytes());
        out.push(b'k');
        encode::string(&mut out, &self.kind);
        out.push(b'v');
        out.extend_from_slice(&self.kind_version.to_le_bytes());
        out.push(b'w');
        encode::value(&mut out, &self.with);
        out.push(b'i');
        encode::length(&mut out, self.inputs.len());
        for (slot, hash) in &self.inputs {
            encode::string(&mut out, slot);
            out.extend_from_slice(hash.as_bytes());
        }
        out
    }
}
