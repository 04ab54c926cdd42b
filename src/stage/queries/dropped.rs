//! What was dropped, by reason, with the places of the first: [`Dropped`].

use std::fmt;

use super::read::Place;

/// How many places are named.
const SHOWN: usize = 5;

/// Records dropped for one reason.
#[derive(Debug, Default)]
pub(super) struct Reason {
    count: usize,
    first: Vec<Place>,
}

impl Reason {
    pub(super) fn add(&mut self, place: Place) {
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(place);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }
}

/// "2 (lines 3, 7)".
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.count)?;
        let Some((what, _)) = self.first.first().map(|place| place.parts()) else {
            return Ok(());
        };
        let plural = if self.count == 1 { "" } else { "s" };
        let numbers: Vec<String> = self.first.iter().map(|p| p.parts().1.to_string()).collect();
        let more = if self.count > SHOWN { ", ..." } else { "" };
        write!(f, " ({what}{plural} {}{more})", numbers.join(", "))
    }
}

/// Records dropped, by reason.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    pub(super) empty: Reason,
    pub(super) null: Reason,
    pub(super) no_user_turn: Reason,
    pub(super) not_text: Reason,
    pub(super) duplicates: Reason,
}

impl Dropped {
    /// Every reason with its name in the metrics.
    pub(super) fn reasons(&self) -> [(&'static str, &Reason); 5] {
        [
            ("empty", &self.empty),
            ("null", &self.null),
            ("no_user_turn", &self.no_user_turn),
            ("not_text", &self.not_text),
            ("duplicates", &self.duplicates),
        ]
    }

    /// The records that have no query, in words; none if all have one.
    pub(super) fn without_query(&self) -> Option<String> {
        let words = [
            ("blank", &self.empty),
            ("null", &self.null),
            ("without a turn of the user", &self.no_user_turn),
            (
                "not text alone (a picture, sound or file is a part)",
                &self.not_text,
            ),
        ];
        let reasons: Vec<String> = words
            .iter()
            .filter(|(_, reason)| reason.count > 0)
            .map(|(word, reason)| format!("{word}: {reason}"))
            .collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(what) = self.without_query() {
            write!(f, "dropped without a query {what}; ")?;
        }
        write!(f, "duplicates dropped: {}", self.duplicates)
    }
}
