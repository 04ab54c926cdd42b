//! [`Fingerprint`]: everything that a stage's result depends on, and its key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Node, encode};
use crate::store::{ContentHash, Key};

/// Version of [`Fingerprint`] and its encoding. Raising it gives every stage of
/// everyone a new key: earlier results are not found again.
///
/// History:
/// 1. kind, kind version, parameters, inputs by content.
/// 2. numerics.
pub const FINGERPRINT_FORMAT: u32 = 2;

/// Domain of keys, apart from every other use of BLAKE3.
const KEY_DOMAIN: &str = "genius 2026 stage key";

/// Everything that a stage's result depends on.
///
/// Not in it, since they change no result: names of stages and pipelines,
/// comments, the order of keys, times, which device it is, threads, decode width,
/// micro-batch, shards, and the path of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    format: u32,
    kind: String,
    kind_version: u32,
    with: Value,
    #[serde(default)]
    numerics: Value,
    inputs: BTreeMap<String, ContentHash>,
}

impl Fingerprint {
    /// The fingerprint of a node whose inputs (slot -> tree hash) are known.
    pub fn new(node: &Node, inputs: &BTreeMap<String, ContentHash>) -> Self {
        Self {
            format: FINGERPRINT_FORMAT,
            kind: node.kind().name().to_owned(),
            kind_version: node.kind().version(),
            with: node.identity.clone(),
            numerics: json!(node.numerics),
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
            "numerics": self.numerics,
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
        // An older record reads back into its own key.
        if self.format >= 2 {
            out.push(b'n');
            encode::value(&mut out, &self.numerics);
        }
        out.push(b'i');
        encode::length(&mut out, self.inputs.len());
        for (slot, hash) in &self.inputs {
            encode::string(&mut out, slot);
            out.extend_from_slice(hash.as_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{Numerics, StageKind, example};
    use crate::plan::{BASE, Capacity};
    use crate::protocol::Execution;
    use crate::spec::Policy;

    /// A node of the kind; of its parameters only the identity counts.
    fn node(kind: StageKind, identity: Value) -> Node {
        let required = json!({ "source": { "path": "/q" }, "run": ["a"] });
        Node {
            name: "any".to_owned(),
            stage: "any".to_owned(),
            variants: vec![BASE.to_owned()],
            needs: BTreeMap::new(),
            outputs: Vec::new(),
            demand: Capacity::default(),
            policy: Policy::default(),
            params: example::params(kind, &required),
            identity,
            numerics: None,
            execution: Execution::default(),
            sources: BTreeMap::new(),
            provenance: Value::Null,
        }
    }

    fn hash(byte: u8) -> ContentHash {
        ContentHash::from_bytes([byte; 32])
    }

    fn key(kind: StageKind, identity: Value, inputs: &[(&str, u8)]) -> Key {
        let inputs = inputs
            .iter()
            .map(|(slot, byte)| ((*slot).to_owned(), hash(*byte)))
            .collect();
        Fingerprint::new(&node(kind, identity), &inputs).key()
    }

    #[test]
    fn golden_keys() {
        let train = json!({
            "loss": { "aco": { "alpha": 1.0, "beta": 0.1, "clip": "min" } },
            "learning_rate": 5e-7, "batch_size": 128, "dtype": "f32", "seed": 42,
        });
        let queries = json!({
            "source": { "path": { "content": hash(7) }, "format": { "auto": "jsonl" } }, "list": [true, null, "ü"],
        });
        let keys = [
            key(StageKind::Train, train, &[("model", 1), ("pairs", 2)]),
            key(StageKind::Queries, queries, &[]),
            key(StageKind::Score, json!({}), &[("rollouts", 3)]),
            key(
                StageKind::Command,
                json!({
                    "run": ["sort", "{inputs.a}/x"], "shell": false, "files": { "s": { "content": hash(8) } },
                    "outputs": { "o": { "files": [], "nonempty": false } }, "env": { "A": "1" }, "inherit": { "B": null },
                }),
                &[("a", 4)],
            ),
        ];
        let golden = [
            "ba1bcff78f7b85bef843359334bafe5eb9476a99faf0c7652e12cedc0c3e0004",
            "71fd1a7c022dd1e00c99773be202d673beb0e0d79247046a67c3b07e032e604a",
            "21aa4fc3ae5805e7e48790b9f79aed7d50beec149602c037b155d0b09d836b5e",
            "e59aff807dba79d6a703da44ac78d0c43d1d273f249bc553fecd4baa3d90df63",
        ];
        assert_eq!(
            keys.map(|key| key.to_string()),
            golden,
            "\nA golden key changed: this change invalidates everyone's cache, and every stage of every \
             pipeline runs again once.\nIf that is not meant, undo what changed the encoding (plan/encode.rs, \
             plan/fingerprint.rs). If it is, raise FINGERPRINT_FORMAT with a line in its history, say so in the \
             changelog, and write the new keys here. If only a kind's version was raised, only that kind's stages \
             run again: write the new key here.\n"
        );
    }

    #[test]
    fn every_part_of_a_fingerprint_counts() {
        let base = key(StageKind::Score, json!({ "tau": 0.1 }), &[("rollouts", 1)]);
        let others = [
            key(StageKind::Pairs, json!({ "tau": 0.1 }), &[("rollouts", 1)]),
            key(StageKind::Score, json!({ "tau": 0.2 }), &[("rollouts", 1)]),
            key(StageKind::Score, json!({ "Tau": 0.1 }), &[("rollouts", 1)]),
            key(StageKind::Score, json!({ "tau": 0.1 }), &[("rollouts", 2)]),
            key(StageKind::Score, json!({ "tau": 0.1 }), &[("rollout", 1)]),
            key(StageKind::Score, json!({ "tau": 0.1 }), &[]),
        ];
        for other in others {
            assert_ne!(other, base);
        }
        let mut newer = Fingerprint::new(&node(StageKind::Score, json!({})), &BTreeMap::new());
        let older = newer.key();
        newer.kind_version += 1;
        assert_ne!(newer.key(), older, "a new version of a kind gives new keys");
        let mut elsewhere = node(StageKind::Train, json!({}));
        let here = Fingerprint::new(&elsewhere, &BTreeMap::new()).key();
        elsewhere.numerics = Some(Numerics {
            engine: "libtorch 2".to_owned(),
            device: "cuda".to_owned(),
            level: None,
        });
        assert_ne!(Fingerprint::new(&elsewhere, &BTreeMap::new()).key(), here);
    }

    /// A key of format 1 as found in caches (its first golden key).
    #[test]
    fn a_preimage_of_format_1_gives_its_key() {
        let read: Fingerprint = serde_json::from_value(json!({
            "format": 1, "kind": "score", "kind_version": 2, "with": {},
            "inputs": { "rollouts": hash(3) },
        }))
        .unwrap();
        let key = "720a710aecd14e30372d4d554706ed5d4ca3930966a81a24b749e1baff66ccf1";
        assert_eq!(read.key().to_string(), key);
    }

    #[test]
    fn the_stored_preimage_gives_the_same_key() {
        let identity = json!({ "learning_rate": 5e-7, "third": 1.0 / 3.0, "one": 1.0, "n": 1, "big": u64::MAX, "zero": -0.0 });
        let inputs = BTreeMap::from([("model".to_owned(), hash(1))]);
        let fingerprint = Fingerprint::new(&node(StageKind::Train, identity), &inputs);
        let text = serde_json::to_string_pretty(&fingerprint.preimage()).unwrap();
        let read: Fingerprint = serde_json::from_str(&text).unwrap();
        assert_eq!(read.key(), fingerprint.key());
    }
}
