//! The pipeline file as a JSON Schema (draft 2020-12) for editors:
//! [`json_schema`], made from the same descriptions as validation.

use serde_json::{Map, Value, json};

use super::load::FORMAT_VERSION;
use super::policy::{self, Policy};
use crate::kind::StageKind;
use crate::kind::declare::Declared;
use crate::kind::schema::{Default, Field, Schema, Type, earlier_names};

const NAME: &str = "^[A-Za-z_][A-Za-z0-9_-]*$";
const CHANGEABLE: &str = r"^(seed|params|stages)($|[.\[])";

/// The schema of a pipeline file.
///
/// A `${params...}` reference is allowed in place of a value of any type.
pub fn json_schema() -> Value {
    let changes = |values: Value| {
        json!({
            "type": ["object", "null"],
            "propertyNames": { "pattern": CHANGEABLE },
            "additionalProperties": values,
        })
    };
    let variant = json!({
        "type": ["object", "null"],
        "properties": {
            "description": { "description": "What the variant is for.", "type": ["string", "null"] },
            "set": described(changes(json!(true)), "Path -> value, as for `--set`."),
            "matrix": described(
                changes(json!({ "type": "array", "minItems": 1 })),
                "Path -> values: one variant for each combination.",
            ),
        },
        "additionalProperties": false,
    });
    let mut definitions = Map::new();
    definitions.insert(
        "reference".to_owned(),
        json!({ "description": "A reference to a parameter: `${params.NAME}`.", "type": "string", "pattern": r"\$\{" }),
    );
    definitions.insert("stage".to_owned(), stage());
    for kind in StageKind::ALL {
        definitions.insert(kind.name().to_owned(), object(kind.schema()));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Genius pipeline",
        "description": "A pipeline file of Genius: stages, what they need, and their parameters.",
        "type": "object",
        "properties": {
            "version": { "description": "Version of the file's format.", "const": FORMAT_VERSION },
            "name": { "description": "Name of the pipeline. It is in no cache key.", "type": "string", "pattern": r"\S" },
            "seed": { "description": "Seed of every stage that does not set one.", "type": "integer", "minimum": 0, "default": 0 },
            "params": { "description": "Values for `${params.NAME}`.", "type": ["object", "null"] },
            "stages": {
                "description": "Name -> stage.",
                "type": "object",
                "minProperties": 1,
                "propertyNames": { "pattern": NAME },
                "additionalProperties": { "$ref": "#/$defs/stage" },
            },
            "variants": {
                "description": "Name -> the same stages with other values.",
                "type": ["object", "null"],
                "propertyNames": { "pattern": NAME, "not": { "const": "base" } },
                "additionalProperties": variant,
            },
        },
        "patternProperties": { "^x-": true },
        "required": ["version", "name", "stages"],
        "additionalProperties": false,
        "$defs": definitions,
    })
}

fn stage() -> Value {
    let kinds: Vec<&str> = StageKind::ALL.iter().map(|k| k.name()).collect();
    let mut properties = Map::new();
    properties.insert(
        "uses".to_owned(),
        json!({ "description": "Its kind.", "anyOf": [{ "enum": kinds }, reference()] }),
    );
    properties.insert(
        "needs".to_owned(),
        json!({ "description": "Input -> name of the stage whose output fills it, or STAGE.OUTPUT." }),
    );
    properties.insert(
        "with".to_owned(),
        json!({ "description": "Its parameters." }),
    );
    for field in Policy::schema().fields {
        let mut value = property(&field);
        if field.name == "retry" {
            push(
                &mut value,
                json!({ "type": "integer", "minimum": 0, "maximum": policy::MAX_TIMES }),
            );
        }
        properties.insert(field.name.to_owned(), value);
    }
    let rules: Vec<Value> = StageKind::ALL.iter().copied().map(rule).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": ["uses"],
        "additionalProperties": false,
        "allOf": rules,
    })
}

/// What a stage of a kind has under `needs` and `with`.
fn rule(kind: StageKind) -> Value {
    let slot = json!({ "type": "string", "minLength": 1 });
    let slots: Vec<&str> = kind.inputs().iter().map(|i| i.slot).collect();
    let needs = if kind == StageKind::Command {
        json!({ "type": "object", "propertyNames": { "pattern": NAME }, "additionalProperties": slot })
    } else {
        let properties: Map<String, Value> = slots
            .iter()
            .map(|s| ((*s).to_owned(), slot.clone()))
            .collect();
        json!({ "type": "object", "properties": properties, "required": slots, "additionalProperties": false })
    };
    let with = json!({ "$ref": format!("#/$defs/{}", kind.name()) });
    let must = |key: &str, value: Value, required: bool| {
        let mut any = vec![value, reference()];
        if !required {
            any.push(json!({ "type": "null" }));
        }
        (key.to_owned(), json!({ "anyOf": any }))
    };
    let with_required = kind
        .schema()
        .fields
        .iter()
        .any(|f| f.default == Default::Required);
    let mut required = Vec::new();
    if !slots.is_empty() {
        required.push("needs");
    }
    if with_required {
        required.push("with");
    }
    let properties: Map<String, Value> = [
        must("needs", needs, !slots.is_empty()),
        must("with", with, with_required),
    ]
    .into_iter()
    .collect();
    json!({
        "if": { "properties": { "uses": { "const": kind.name() } }, "required": ["uses"] },
        "then": { "properties": properties, "required": required },
    })
}

/// A mapping with these fields.
fn object(schema: &Schema) -> Value {
    let properties: Map<String, Value> = schema
        .fields
        .iter()
        .map(|f| (f.name.to_owned(), property(f)))
        .collect();
    let required: Vec<&str> = schema
        .fields
        .iter()
        .filter(|f| f.default == Default::Required)
        .map(|f| f.name)
        .collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// A field: its type, or a reference, with its description and default.
fn property(field: &Field) -> Value {
    let mut value = or_reference(&field.ty);
    match &field.default {
        Default::Null | Default::SameAs(_) => push(&mut value, json!({ "type": "null" })),
        Default::Value(default) => value["default"] = default.clone(),
        Default::Required | Default::PipelineSeed | Default::Object => {}
    }
    described(value, field.doc)
}

fn described(value: Value, text: &str) -> Value {
    let mut out = Map::new();
    out.insert("description".to_owned(), text.into());
    if let Value::Object(rest) = value {
        out.extend(rest);
    }
    Value::Object(out)
}

fn or_reference(ty: &Type) -> Value {
    json!({ "anyOf": [type_schema(ty), reference()] })
}

fn reference() -> Value {
    json!({ "$ref": "#/$defs/reference" })
}

/// One more alternative.
fn push(value: &mut Value, alternative: Value) {
    if let Some(Value::Array(any)) = value.get_mut("anyOf") {
        any.push(alternative);
    }
}

/// A type without references.
fn type_schema(ty: &Type) -> Value {
    match ty {
        Type::Bool => json!({ "type": "boolean" }),
        Type::Int { min, max } => {
            let mut value = json!({ "type": "integer" });
            if *min > i64::MIN {
                value["minimum"] = (*min).into();
            }
            if *max < i64::MAX {
                value["maximum"] = (*max).into();
            }
            value
        }
        Type::Float {
            min,
            min_open,
            max,
            max_open,
        } => {
            let mut value = json!({ "type": "number" });
            if min.is_finite() {
                value[if *min_open {
                    "exclusiveMinimum"
                } else {
                    "minimum"
                }] = (*min).into();
            }
            if max.is_finite() {
                value[if *max_open {
                    "exclusiveMaximum"
                } else {
                    "maximum"
                }] = (*max).into();
            }
            value
        }
        Type::Text => json!({ "type": "string" }),
        Type::NonEmpty | Type::Path | Type::File => json!({ "type": "string", "minLength": 1 }),
        Type::Sha256 => json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{64}$" }),
        Type::Choice(words) => {
            let earlier = earlier_names(words);
            json!({ "enum": words.iter().copied().chain(earlier).collect::<Vec<_>>() })
        }
        Type::List { items, min } => {
            json!({ "type": "array", "items": or_reference(items), "minItems": min })
        }
        Type::Map(items) => json!({
            "type": "object",
            "propertyNames": { "pattern": NAME },
            "additionalProperties": or_reference(items),
        }),
        Type::Object(schema) => object(schema),
        Type::OneOf { fields, bare } => {
            let mut one: Vec<Value> = fields
                .iter()
                .map(|field| {
                    let value = described(or_reference(&field.ty), field.doc);
                    let properties = Map::from_iter([(field.name.to_owned(), value)]);
                    json!({
                        "type": "object",
                        "properties": properties,
                        "required": [field.name],
                        "additionalProperties": false,
                    })
                })
                .collect();
            if *bare {
                let complete = |field: &&Field| match &field.ty {
                    Type::Object(s) => s.fields.iter().all(|f| f.default != Default::Required),
                    _ => false,
                };
                let words: Vec<&str> = fields.iter().filter(complete).map(|f| f.name).collect();
                one.push(json!({ "enum": words }));
            }
            json!({ "oneOf": one })
        }
    }
}
