//! The list of kinds, and the enums made from it: [`StageKind`] and [`Params`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::declare::Declared;
use super::model::Hub;
use super::schema::{Role, Schema};
use super::{Input, Kind, Program, Resolved, Target, Unsupported, Variables};

/// Defines the enums of kinds and of their parameters, which forward to each [`Kind`].
macro_rules! kinds {
    ($($(#[$doc:meta])+ $variant:ident: $module:ident,)+) => {
        /// What a stage does (`uses:` in a pipeline file), in the order of the method.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum StageKind {
            $($(#[$doc])+ $variant,)+
        }

        /// The parameters of a stage, by its kind.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Params {
            $($(#[$doc])+ $variant(super::$module::Params),)+
        }

        impl StageKind {
            /// Every kind, in the order of the method.
            pub const ALL: &'static [StageKind] = &[$(StageKind::$variant),+];

            /// See [`Kind::NAME`].
            pub fn name(self) -> &'static str {
                match self {
                    $(StageKind::$variant => super::$module::Params::NAME,)+
                }
            }

            /// See [`Kind::VERSION`].
            pub fn version(self) -> u32 {
                match self {
                    $(StageKind::$variant => super::$module::Params::VERSION,)+
                }
            }

            /// See [`Kind::INPUTS`].
            pub fn inputs(self) -> &'static [Input] {
                match self {
                    $(StageKind::$variant => super::$module::Params::INPUTS,)+
                }
            }

            /// See [`Kind::OUTPUTS`].
            pub fn outputs(self) -> &'static [&'static str] {
                match self {
                    $(StageKind::$variant => super::$module::Params::OUTPUTS,)+
                }
            }

            /// See [`Kind::PROGRAM`].
            pub fn program(self) -> Program {
                match self {
                    $(StageKind::$variant => super::$module::Params::PROGRAM,)+
                }
            }

            /// The input of [`Kind::PARTS`].
            pub fn parts(self) -> Option<&'static str> {
                match self {
                    $(StageKind::$variant => super::$module::Params::PARTS.map(|p| p.input),)+
                }
            }

            /// The parameters under `with:`.
            pub fn schema(self) -> &'static Schema {
                match self {
                    $(StageKind::$variant => {
                        static SCHEMA: LazyLock<Schema> =
                            LazyLock::new(super::$module::Params::schema);
                        &SCHEMA
                    })+
                }
            }

            /// Parameters of this kind from a mapping in the schema's shape, defaults
            /// filled in.
            ///
            /// # Errors
            /// When it is in another shape.
            pub fn params(self, with: Value) -> serde_json::Result<Params> {
                match self {
                    $(StageKind::$variant => serde_json::from_value(with).map(Params::$variant),)+
                }
            }
        }

        impl Params {
            /// The kind.
            pub fn kind(&self) -> StageKind {
                match self {
                    $(Params::$variant(_) => StageKind::$variant,)+
                }
            }

            /// The mapping under `with:`, defaults filled in.
            pub fn to_value(&self) -> Value {
                let value = match self {
                    $(Params::$variant(params) => serde_json::to_value(params),)+
                };
                // Only maps with keys that are not text fail, and no parameter is one.
                value.unwrap_or_default()
            }

            /// The parameters that change no result, by name.
            pub fn knobs(&self) -> Map<String, Value> {
                let schema = self.kind().schema();
                let is_knob = |name: &str| {
                    schema.field(name).is_some_and(|f| f.role == Role::Execution)
                };
                match self.to_value() {
                    Value::Object(with) => with.into_iter().filter(|(n, _)| is_knob(n)).collect(),
                    _ => Map::new(),
                }
            }

            /// See [`Kind::declared_outputs`].
            pub fn outputs(&self) -> Vec<String> {
                match self {
                    $(Params::$variant(params) => params.declared_outputs(),)+
                }
            }

            /// See [`Kind::resolve`].
            ///
            /// # Errors
            /// As there.
            pub fn resolve(&mut self, target: &Target<'_>) -> Result<Resolved, Unsupported> {
                match self {
                    $(Params::$variant(params) => params.resolve(target),)+
                }
            }

            /// See [`Kind::hub`].
            pub fn hub(&mut self) -> Option<&mut Hub> {
                match self {
                    $(Params::$variant(params) => params.hub(),)+
                }
            }

            /// See [`Kind::identity`].
            pub fn identity(&self, identity: &mut Value, variable: &Variables<'_>) {
                match self {
                    $(Params::$variant(params) => params.identity(identity, variable),)+
                }
            }

            /// See [`Kind::DISK_BYTES`]; 0: too few to ask for.
            pub fn disk_bytes(&self, inputs: &BTreeMap<String, PathBuf>) -> u64 {
                match self {
                    $(Params::$variant(params) => {
                        super::$module::Params::DISK_BYTES.map_or(0, |bytes| bytes(params, inputs))
                    })+
                }
            }

            /// Shards of [`Kind::PARTS`]; 0 or 1: none.
            pub fn shards(&self) -> u32 {
                match self {
                    $(Params::$variant(params) => {
                        super::$module::Params::PARTS.map_or(0, |parts| (parts.shards)(params))
                    })+
                }
            }
        }
    };
}

#[cfg(test)]
pub(super) use kinds;

kinds! {
    /// Read and sample unlabelled queries.
    Queries: queries,
    /// Get a model and turn it into a Hugging Face folder.
    Model: model,
    /// Stepwise foresight re-sampling (method section 2).
    Rollout: rollout,
    /// Scores, advantages and F_k from the rollout record.
    Score: score,
    /// Preference pairs from the scores.
    Pairs: pairs,
    /// Preference training.
    Train: train,
    /// Benchmarks.
    Eval: eval,
    /// A program of the user's own.
    Command: command,
}
