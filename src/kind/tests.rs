//! A kind that only these tests have: all that it takes to add one.

use serde_json::json;

use super::declare::Declared;
use super::schema::{Default, Role, Type};
use super::{Resolved, Target};

/// Its declaration.
mod length {
    use serde_json::Value;

    use crate::kind::declare::{choice, params};
    use crate::kind::{
        DiskBytes, Input, Kind, Parts, Program, Resolved, Target, Unsupported, Variables,
    };

    params! {
        /// Parameters of the kind.
        pub struct Params {
            /// What is counted;
            /// over two lines.
            unit: Unit => declared::<Unit>().or(Unit::Auto),
            /// Longest that counts.
            most: Option<usize> => at_least(1).optional(),
            /// Records at a time.
            batch: usize => int(1..=64).or(8).knob(),
        }
    }

    choice! {
        /// What is counted.
        pub enum Unit {
            /// Bytes on a CPU, else tokens.
            Auto = "auto",
            /// UTF-8.
            Bytes = "bytes",
            /// Of the model.
            Tokens = "tokens",
        }
    }

    impl Kind for Params {
        const NAME: &'static str = "length";
        const VERSION: u32 = 1;
        const INPUTS: &'static [Input] = &[Input::new("queries"), Input::new("model").optional()];
        const OUTPUTS: &'static [&'static str] = &["lengths"];
        const PROGRAM: Program = Program::Genius;
        const PARTS: Option<Parts<Self>> = Some(Parts {
            input: "queries",
            shards: |_| 0,
        });
        const DISK_BYTES: Option<DiskBytes<Self>> = None;

        fn resolve(&mut self, target: &Target<'_>) -> Result<Resolved, Unsupported> {
            if self.unit == Unit::Auto {
                self.unit = if target.device == "cpu" {
                    Unit::Bytes
                } else {
                    Unit::Tokens
                };
            }
            Ok(Resolved::ANYWHERE)
        }

        fn identity(&self, _: &mut Value, _: &Variables<'_>) {}
    }

    /// Its record.
    #[derive(Debug, PartialEq)]
    pub struct LengthRecord {
        pub text: String,
        pub length: usize,
    }

    /// Its computation.
    pub fn compute(params: &Params, texts: &[&str]) -> Vec<LengthRecord> {
        let counts = |text: &&&str| params.most.is_none_or(|most| text.len() <= most);
        let record = |text: &&str| LengthRecord {
            text: (*text).to_owned(),
            length: text.len(),
        };
        texts.iter().filter(counts).map(record).collect()
    }
}

/// Its line in the list of kinds.
mod registry_of_the_test {
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use std::sync::LazyLock;

    use serde::{Deserialize, Serialize};
    use serde_json::{Map, Value};

    use crate::kind::declare::Declared;
    use crate::kind::model::Hub;
    use crate::kind::registry::kinds;
    use crate::kind::schema::{Role, Schema};
    use crate::kind::{Input, Kind, Program, Resolved, Target, Unsupported, Variables};

    kinds! {
        /// Lengths of texts.
        Length: length,
    }
}

use registry_of_the_test::{Params, StageKind};

#[test]
fn a_declaration_gives_the_schema_and_the_struct() {
    let fields = &length::Params::schema().fields;
    let names: Vec<&str> = fields.iter().map(|f| f.name).collect();
    assert_eq!(names, ["unit", "most", "batch"]);
    assert_eq!(fields[0].doc, "What is counted; over two lines.");
    assert_eq!(fields[0].ty, Type::Choice(&["auto", "bytes", "tokens"]));
    assert_eq!(fields[0].default, Default::Value(json!("auto")));
    assert_eq!(fields[1].default, Default::Null);
    assert_eq!(fields[2].ty, Type::Int { min: 1, max: 64 });
    assert_eq!(fields[2].role, Role::Execution);

    let with = json!({ "unit": "auto", "most": 3, "batch": 8 });
    let params = StageKind::Length.params(with.clone()).unwrap();
    assert_eq!(params.to_value(), with);
    assert_eq!(json!(params), json!({ "length": with }));
    assert_eq!(params.knobs().keys().collect::<Vec<_>>(), ["batch"]);
}

#[test]
fn a_kind_is_known_by_its_line_in_the_list() {
    let kind = StageKind::ALL[0];
    assert_eq!((kind.name(), kind.version()), ("length", 1));
    assert_eq!(kind.outputs(), ["lengths"]);
    assert_eq!(kind.program(), super::Program::Genius);
    assert_eq!(kind.parts(), Some("queries"));
    assert!(kind.inputs()[1].optional && !kind.inputs()[0].optional);
    let mut params = kind
        .params(json!({ "unit": "auto", "most": 3, "batch": 8 }))
        .unwrap();
    assert_eq!(params.outputs(), ["lengths"]);
    let target = Target {
        device: "cpu",
        fast_bf16: false,
        level: "avx2",
        engines: &[],
    };
    assert_eq!(params.resolve(&target), Ok(Resolved::ANYWHERE));
    let inputs = [].into();
    assert_eq!((params.disk_bytes(&inputs), params.shards()), (0, 0));
    assert!(params.hub().is_none());
    let mut identity = json!({});
    params.identity(&mut identity, &|_| None);
    assert_eq!(identity, json!({}));
    let Params::Length(params) = params;
    assert_eq!(params.unit.word(), "bytes");
    let records = length::compute(&params, &["one", "three"]);
    let one = length::LengthRecord {
        text: "one".to_owned(),
        length: 3,
    };
    assert_eq!(records, [one]);
}

/// The names in messages and keys are those that serde reads and writes.
#[test]
fn every_kind_has_one_name() {
    for &kind in super::StageKind::ALL {
        assert_eq!(json!(kind), json!(kind.name()));
        for input in kind.inputs() {
            let made = |k: &super::StageKind| k.outputs().contains(&input.artifact);
            assert!(super::StageKind::ALL.iter().any(made), "{input:?}");
        }
        if let Some(parts) = kind.parts() {
            assert!(kind.inputs().iter().any(|i| i.slot == parts));
        }
    }
}
