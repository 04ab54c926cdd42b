//! [`QuerySummary`]: a query of a rollout on one line; [`list`]: all of them.

use serde::{Deserialize, Serialize};

use super::text::shorten;
use super::tree::{Style, number};
use crate::report::tables::align;

/// The part of a rollout record that the list needs: tokens are not parsed.
#[derive(Debug, Deserialize)]
pub struct QueryHead {
    query_id: String,
    query: String,
    #[serde(default)]
    skipped: Option<String>,
    steps: Vec<StepHead>,
}

#[derive(Debug, Deserialize)]
struct StepHead {
    candidates: Vec<CandidateHead>,
}

#[derive(Debug, Deserialize)]
struct CandidateHead {
    f: Option<f64>,
}

/// A query of a rollout, in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuerySummary {
    /// In the order of the rollouts, from 1.
    pub position: usize,
    /// Its identity.
    pub query_id: String,
    /// How many steps it has.
    pub steps: usize,
    /// How many candidates they have together.
    pub candidates: usize,
    /// The highest f of them, if one has any.
    pub best_f: Option<f64>,
    /// Why it was not rolled out, if so.
    pub skipped: Option<String>,
    /// Its text.
    pub query: String,
}

impl QuerySummary {
    /// Summarises the record at a position, from 1.
    pub fn new(position: usize, head: QueryHead) -> Self {
        let candidates = || head.steps.iter().flat_map(|step| &step.candidates);
        Self {
            position,
            steps: head.steps.len(),
            candidates: candidates().count(),
            best_f: candidates().filter_map(|c| c.f).reduce(f64::max),
            query_id: head.query_id,
            skipped: head.skipped,
            query: head.query,
        }
    }
}

/// The table of queries, a line each, with a line of headings. Ids are shortened
/// as far as each stays the beginning of one query only.
pub fn list(queries: &[QuerySummary], style: &Style) -> String {
    let ids = beginnings(queries);
    let mut rows = vec![["#", "ID", "STEPS", "CANDIDATES", "BEST F", "QUERY"].map(str::to_owned)];
    rows.extend(queries.iter().zip(ids).map(|(query, id)| {
        let skipped = query.skipped.as_deref().map_or_else(String::new, |why| {
            let word = why.split(':').next().unwrap_or(why);
            format!("[skipped: {word}] ")
        });
        [
            query.position.to_string(),
            // An id may come from a user's own program.
            shorten(&id, usize::MAX),
            query.steps.to_string(),
            query.candidates.to_string(),
            number(query.best_f),
            format!("{skipped}{}", query.query),
        ]
    }));
    let widths: usize = (0..5)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max())
        .map(|widest| widest.unwrap_or(0) + 2)
        .sum();
    for row in &mut rows {
        row[5] = shorten(&row[5], style.columns_after(widths));
    }
    // The last column is as wide as it likes: only its own lines may be long.
    align(&rows, "")
}

/// Of each id a beginning of at least 8 characters that no other id has.
fn beginnings(queries: &[QuerySummary]) -> Vec<String> {
    const LEAST: usize = 8;
    let mut sorted: Vec<&str> = queries.iter().map(|q| q.query_id.as_str()).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let common = |a: &str, b: &str| a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let longest = sorted.windows(2).map(|two| common(two[0], two[1])).max();
    let length = longest.map_or(LEAST, |n| (n + 1).max(LEAST));
    queries
        .iter()
        .map(|query| query.query_id.chars().take(length).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(position: usize, record: &str) -> QuerySummary {
        QuerySummary::new(position, serde_json::from_str(record).unwrap())
    }

    #[test]
    fn a_query_is_a_line() {
        let step = r#"{"step":1,"candidates":[{"f":-1.5,"index":0},{"f":null},{"f":-0.25}]}"#;
        let queries = [
            summary(
                1,
                &format!(
                    r#"{{"query_id":"68bd1520f6aa","query":"Why is\nthe sky so very blue today?","steps":[{step},{step}]}}"#
                ),
            ),
            summary(
                2,
                r#"{"query_id":"68bd1520f6ba","query":"b","skipped":"prompt_too_long: 9 tokens","steps":[]}"#,
            ),
        ];
        let style = Style {
            columns: 72,
            full: false,
        };
        insta::assert_snapshot!(list(&queries, &style), @r"
        #  ID           STEPS  CANDIDATES  BEST F  QUERY
        1  68bd1520f6a  2      6           -0.250  Why is⏎the sky so very blue …
        2  68bd1520f6b  0      0           -       [skipped: prompt_too_long] b
        ");
        insta::assert_snapshot!(serde_json::to_string(&queries[1]).unwrap(), @r#"{"position":2,"query_id":"68bd1520f6ba","steps":0,"candidates":0,"best_f":null,"skipped":"prompt_too_long: 9 tokens","query":"b"}"#);
    }
}
