//! [`find`]: the query that a name refers to.

use crate::text;

/// How many names an error lists.
const NAMED: usize = 5;

/// A name that matches no query, or several.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QueryError {
    /// No id begins with the name.
    #[error("stage `{stage}` has no query `{asked}`")]
    Unknown {
        /// The stage of the rollouts.
        stage: String,
        /// As written.
        asked: String,
        /// A sentence that suggests the nearest id.
        nearest: String,
    },
    /// Several ids begin with it.
    #[error("the ids of {count} queries of stage `{stage}` begin with `{asked}`")]
    Ambiguous {
        /// The stage of the rollouts.
        stage: String,
        /// As written.
        asked: String,
        /// How many.
        count: usize,
        /// Some of them.
        names: Vec<String>,
    },
    /// There are fewer queries, or it is not a number.
    #[error("stage `{stage}` has no query `{asked}`: it has {count}")]
    NoPosition {
        /// The stage of the rollouts.
        stage: String,
        /// As written.
        asked: String,
        /// How many there are.
        count: usize,
    },
}

impl QueryError {
    /// What to do about it; `list` is the command that lists the queries.
    pub fn hint(&self, list: &str) -> String {
        match self {
            Self::Unknown { nearest, .. } => format!("{nearest} `{list}` lists them all"),
            Self::Ambiguous { names, count, .. } => {
                let names: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
                let more = if *count > names.len() { ", ..." } else { "" };
                format!("write more of it: {}{more}", names.join(", "))
            }
            Self::NoPosition { count: 0, .. } => {
                "the stage was given no query: look at its `queries`".to_owned()
            }
            Self::NoPosition { count, .. } => {
                format!("write `#1` to `#{count}`; `{list}` lists them")
            }
        }
    }
}

/// The position in `ids` of the query that `asked` names: by its id, a unique prefix of
/// it, or `#N`, the Nth in the order of the rollouts. Among equal ids the first is taken.
///
/// # Errors
/// When no query matches, or several do.
pub fn find(stage: &str, ids: &[String], asked: &str) -> Result<usize, QueryError> {
    if let Some(exact) = ids.iter().position(|id| id == asked) {
        return Ok(exact);
    }
    let stage = stage.to_owned();
    if let Some(number) = asked.strip_prefix('#') {
        let place = number.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
        return place
            .filter(|&at| at < ids.len())
            .ok_or_else(|| QueryError::NoPosition {
                stage,
                asked: asked.to_owned(),
                count: ids.len(),
            });
    }
    let begin: Vec<usize> = (0..ids.len())
        .filter(|&at| !asked.is_empty() && ids[at].starts_with(asked))
        .collect();
    match begin.as_slice() {
        [] => Err(QueryError::Unknown {
            stage,
            asked: asked.to_owned(),
            nearest: nearest(ids, asked),
        }),
        &[one] => Ok(one),
        several => Err(QueryError::Ambiguous {
            stage,
            asked: asked.to_owned(),
            count: several.len(),
            names: several
                .iter()
                .take(NAMED)
                .map(|&at| ids[at].clone())
                .collect(),
        }),
    }
}

/// A suggestion: the nearest prefix of the same length, if enough was written to compare.
fn nearest(ids: &[String], asked: &str) -> String {
    const ENOUGH: usize = 4;
    let length = asked.chars().count();
    let mut beginnings: Vec<String> = ids
        .iter()
        .map(|id| id.chars().take(length).collect())
        .collect();
    beginnings.dedup();
    match text::nearest(asked, beginnings.iter().map(String::as_str)) {
        Some(near) if length >= ENOUGH => format!("did you mean `{near}`?"),
        _ => "a query is its id, the beginning of it, or `#N`;".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> Vec<String> {
        ["68bd1520", "4677cfaf", "46793473", "46", "#1"]
            .map(str::to_owned)
            .to_vec()
    }

    fn message(asked: &str) -> String {
        let error = find("rollout", &ids(), asked).unwrap_err();
        format!("{error}\n{}", error.hint("genius show p.yaml rollout"))
    }

    #[test]
    fn an_id_its_beginning_or_a_place_names_a_query() {
        for (asked, at) in [
            ("68bd1520", 0),
            ("6", 0),
            ("4679", 2),
            ("#2", 1),
            ("#5", 4),
            // A whole id comes before everything that begins with it, and before a place.
            ("46", 3),
            ("#1", 4),
        ] {
            assert_eq!(find("rollout", &ids(), asked), Ok(at), "{asked}");
        }
    }

    #[test]
    fn a_name_of_no_query_or_several_gets_a_hint() {
        insta::assert_snapshot!(message("467"), @r"
        the ids of 2 queries of stage `rollout` begin with `467`
        write more of it: `4677cfaf`, `46793473`
        ");
        insta::assert_snapshot!(message("4677cfbf"), @r"
        stage `rollout` has no query `4677cfbf`
        did you mean `4677cfaf`? `genius show p.yaml rollout` lists them all
        ");
        insta::assert_snapshot!(message("zzzz"), @r"
        stage `rollout` has no query `zzzz`
        a query is its id, the beginning of it, or `#N`; `genius show p.yaml rollout` lists them all
        ");
        // Every letter is near another one.
        assert!(
            matches!(find("rollout", &ids(), "7"), Err(QueryError::Unknown { nearest, .. }) if nearest.starts_with("a query is"))
        );
        for wrong in ["#0", "#6", "#x"] {
            let error = find("rollout", &ids(), wrong).unwrap_err();
            assert!(matches!(error, QueryError::NoPosition { count: 5, .. }));
        }
        insta::assert_snapshot!(message("#6"), @r"
        stage `rollout` has no query `#6`: it has 5
        write `#1` to `#5`; `genius show p.yaml rollout` lists them
        ");
        // Nothing written is the beginning of nothing.
        assert!(matches!(
            find("rollout", &ids(), ""),
            Err(QueryError::Unknown { .. })
        ));
    }

    #[test]
    fn at_most_five_are_named() {
        let many: Vec<String> = (0..9).map(|n| format!("ab{n}")).collect();
        let error = find("rollout", &many, "ab").unwrap_err();
        assert_eq!(
            error.hint(""),
            "write more of it: `ab0`, `ab1`, `ab2`, `ab3`, `ab4`, ..."
        );
        let error = find("rollout", &[], "#1").unwrap_err();
        assert_eq!(
            error.hint(""),
            "the stage was given no query: look at its `queries`"
        );
    }
}
