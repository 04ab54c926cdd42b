//! A stage's figures as a JSON object, in their order.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;

use crate::protocol::Summary;

pub(super) fn serialize<S: Serializer>(figures: &Summary, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(figures.iter().map(|(name, value)| (name, value)))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Summary, D::Error> {
    struct Figures;

    impl<'de> Visitor<'de> for Figures {
        type Value = Summary;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of figures")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Summary, A::Error> {
            let mut figures = Summary::new();
            while let Some(figure) = map.next_entry()? {
                figures.push(figure);
            }
            Ok(figures)
        }
    }

    from.deserialize_map(Figures)
}
