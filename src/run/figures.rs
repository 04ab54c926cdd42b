//! Figures, also as format 2 of a run's files and format 3 of records held them:
//! names and values, as an object or as a list of pairs.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::protocol::{Figure, Unit};

#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Figures(Vec<Figure>),
    Pairs(Vec<(String, Value)>),
    Object(Map<String, Value>),
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Figure>, D::Error> {
    Ok(match Stored::deserialize(from)? {
        Stored::Figures(figures) => figures,
        Stored::Pairs(pairs) => older(pairs),
        Stored::Object(pairs) => older(pairs),
    })
}

/// The figures that a record holds. None where they cannot be read: its outputs can be
/// used all the same.
pub fn figures_of(record: Value) -> Vec<Figure> {
    deserialize(record).unwrap_or_default()
}

/// Standard errors were figures of their own, `gsm8k/standard_stderr` after
/// `gsm8k/standard`.
fn older(pairs: impl IntoIterator<Item = (String, Value)>) -> Vec<Figure> {
    let mut figures: Vec<Figure> = Vec::new();
    for (name, value) in pairs {
        let estimate = name.strip_suffix("_stderr");
        if let Some(last) = figures.last_mut()
            && estimate == Some(&last.full_name())
        {
            last.standard_error = value.as_f64();
            continue;
        }
        let (benchmark, name) = match name.rsplit_once('/') {
            Some((benchmark, name)) => (Some(benchmark.to_owned()), name),
            None => (None, &name[..]),
        };
        let unit = match value {
            Value::String(_) => Unit::Text,
            _ => Unit::Number,
        };
        figures.push(Figure {
            benchmark,
            ..Figure::new(name, value, unit)
        });
    }
    figures
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn older_forms_are_read() {
        let pairs = json!([
            ["gsm8k/standard", 0.5],
            ["gsm8k/standard_stderr", 0.25],
            ["gsm8k/n", 5],
            ["mean_f", null],
            ["engine", "native f32"]
        ]);
        let object: Map<String, Value> = serde_json::from_value::<Vec<_>>(pairs.clone())
            .unwrap()
            .into_iter()
            .collect();
        let on = |figure: Figure| Figure {
            benchmark: Some("gsm8k".to_owned()),
            ..figure
        };
        let figures = [
            Figure {
                standard_error: Some(0.25),
                ..on(Figure::new("standard", 0.5, Unit::Number))
            },
            on(Figure::new("n", 5, Unit::Number)),
            Figure::new("mean_f", Value::Null, Unit::Number),
            Figure::new("engine", "native f32", Unit::Text),
        ];
        assert_eq!(figures_of(pairs), figures);
        assert_eq!(figures_of(object.into()), figures);
        assert_eq!(figures_of(json!(figures)), figures);
        assert_eq!(figures_of(json!(null)), []);
    }
}
