//! Parameters for tests: [`params`].

use serde_json::{Value, json};

use super::schema::{Default as FieldDefault, Schema, Type};
use super::{Params, StageKind};

/// What is written of a stage, with the defaults that a pipeline of seed 42 gives it.
pub(crate) fn params(kind: StageKind, written: &Value) -> Params {
    kind.params(filled(kind.schema(), written)).unwrap()
}

/// Fills in a schema's defaults, as validation does.
fn filled(schema: &Schema, written: &Value) -> Value {
    let fields = schema.fields.iter().map(|field| {
        let value = match (&field.ty, written.get(field.name)) {
            (Type::Object(inner), Some(value)) if value.is_object() => filled(inner, value),
            (Type::List { items, .. }, Some(Value::Array(values))) => match &**items {
                Type::Object(inner) => values.iter().map(|v| filled(inner, v)).collect(),
                _ => Value::Array(values.clone()),
            },
            (_, Some(value)) => value.clone(),
            (Type::Object(inner), None) if field.default == FieldDefault::Object => {
                filled(inner, &json!({}))
            }
            (_, None) => match &field.default {
                FieldDefault::Value(value) => value.clone(),
                FieldDefault::PipelineSeed => json!(42),
                FieldDefault::Null => Value::Null,
                FieldDefault::SameAs(other) => match written.get(*other) {
                    Some(value) => value.clone(),
                    None => match schema.field(other).map(|f| &f.default) {
                        Some(FieldDefault::Value(value)) => value.clone(),
                        _ => panic!("{other} must be written"),
                    },
                },
                FieldDefault::Required | FieldDefault::Object => {
                    panic!("{} must be written", field.name)
                }
            },
        };
        (field.name.to_owned(), value)
    });
    Value::Object(fields.collect())
}
