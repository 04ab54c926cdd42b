//! `queries`: reads unlabelled queries, drops records without one and duplicates,
//! and samples by hash, so that a larger sample contains a smaller one.

use std::collections::HashSet;

use serde_json::{Map, json};

use super::{Context, JobResult};
use crate::artifact::{METRICS_FILE, QUERIES_FILE, QueryRecord, write_json, write_jsonl};
use crate::kind::queries::{Params, Sample, Source};
use crate::protocol::{Failure, Figure, Level, Unit};

mod bytes;
mod dropped;
mod json;
mod layout;
mod read;
mod table;
#[cfg(test)]
mod tests;
mod turns;

use dropped::Dropped;
use layout::Found;

/// Computes the stage.
///
/// The identity of a query is its text, so neither order nor position in the
/// file may matter: the output is sorted, a sample by the hash of (seed, text),
/// all queries by their id.
///
/// # Errors
/// When the file cannot be read, or holds no query.
pub fn run(context: &Context, params: &Params) -> JobResult {
    let source = &params.source;
    let records = read::read(source)?;
    let read = records.len();
    if records.is_empty() {
        return Err(no_query(source, "it has no record"));
    }
    let layout = layout::Layout::detect(source, &records)?;
    context.log(Level::Info, format!("{}: {layout}", source.path.display()));

    let mut seen: HashSet<String> = HashSet::with_capacity(read);
    let mut dropped = Dropped::default();
    for (index, record) in records.iter().enumerate() {
        if index % 1024 == 0 {
            context.check_cancelled()?;
        }
        let reason = match layout.text(record, &source.path)? {
            Found::Text(text) if text.trim().is_empty() => &mut dropped.empty,
            Found::Text(text) if seen.contains(&text) => &mut dropped.duplicates,
            Found::Text(text) => {
                seen.insert(text);
                continue;
            }
            Found::Null => &mut dropped.null,
            Found::NoUserTurn => &mut dropped.no_user_turn,
            Found::NotText => &mut dropped.not_text,
        };
        reason.add(record.place);
    }
    let distinct = seen.len();
    if let Some(what) = dropped.without_query() {
        let path = source.path.display();
        if distinct == 0 {
            return Err(no_query(
                source,
                &format!("all of its {read} records have none: {what}"),
            ));
        }
        context.log(
            Level::Warn,
            format!("{path}: records without a query were dropped: {what}"),
        );
    }
    let queries = select(seen, params.sample.as_ref());
    if let Some(sample) = params.sample.as_ref().filter(|sample| sample.n > distinct) {
        context.log(
            Level::Warn,
            format!(
                "{} queries were requested, but there are only {distinct}: all are taken",
                sample.n
            ),
        );
    }
    context.log(
        Level::Info,
        format!(
            "{read} records: {dropped}; {} of {distinct} queries taken",
            queries.len()
        ),
    );
    write_jsonl(&context.output("queries")?.join(QUERIES_FILE), &queries)?;
    let mut metrics = Map::from_iter([("read".to_owned(), json!(read))]);
    let mut figures = vec![
        Figure::new("queries", queries.len(), Unit::Count),
        Figure::new("read", read, Unit::Count),
    ];
    for (name, reason) in dropped.reasons() {
        metrics.insert(name.to_owned(), json!(reason.count()));
        // Every run shows these two; the others only where they occur.
        if reason.count() > 0 || matches!(name, "empty" | "duplicates") {
            figures.push(Figure::new(name, reason.count(), Unit::Count));
        }
    }
    metrics.insert("distinct".to_owned(), json!(distinct));
    metrics.insert("kept".to_owned(), json!(queries.len()));
    write_json(&context.output("metrics")?.join(METRICS_FILE), &metrics)?;
    Ok(figures)
}

/// The sample of some texts, or all of them, in an order that depends on nothing else.
fn select(texts: HashSet<String>, sample: Option<&Sample>) -> Vec<QueryRecord> {
    let mut keyed: Vec<([u8; 32], String)> = texts
        .into_iter()
        .map(|text| (sort_key(&text, sample), text))
        .collect();
    keyed.sort_unstable();
    if let Some(sample) = sample {
        keyed.truncate(sample.n);
    }
    keyed
        .into_iter()
        .map(|(_, text)| QueryRecord::new(text))
        .collect()
}

/// BLAKE3 of the seed (8 bytes, little-endian) and the text; of the text alone,
/// which begins with the id, where nothing is sampled.
fn sort_key(text: &str, sample: Option<&Sample>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    if let Some(sample) = sample {
        hasher.update(&sample.seed.to_le_bytes());
    }
    hasher.update(text.as_bytes());
    *hasher.finalize().as_bytes()
}

fn no_query(source: &Source, why: &str) -> Failure {
    Failure::new(format!("{} holds no query: {why}", source.path.display()))
        .hint("give a file of queries: JSONL, JSON, a table with a header, or one query a line")
}
