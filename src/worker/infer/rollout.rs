//! The rollout stage: stepwise foresight re-sampling (paper 2.2, eq. 1-5;
//! method section 2) through an [`Engine`]. Entry: [`run`].
//!
//! Each query is a state machine of its own ([`query`]); the driver here hands
//! the requests of several queries to the engine at once and writes their
//! records in the order of the queries. A draw is a function of seed, query,
//! step, beam and rollout, so how many queries are under way changes nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use genius::artifact::{
    JsonlWriter, METRICS_FILE, QUERIES_FILE, QueryRecord, ROLLOUTS_FILE, RolloutRecord, read_jsonl,
    write_json,
};
use genius::protocol::{Context, Failure, JobResult, Level, Progress};
use genius::stage::rollout::Params;

use super::engine::{Engine, EngineError, Generation, Request};
use super::load;
use super::text::{ModelText, Text};

mod metrics;
pub(super) mod query;
#[cfg(test)]
mod tests;

use metrics::Totals;
use query::QueryState;

/// Queries under way on a device that batches, if the width is left to the engine.
const QUERIES_UNDER_WAY: usize = 32;
/// Requests handed over a sequence in flight, so that few slots are idle at the end of a call.
const REQUESTS_A_SLOT: usize = 4;

/// Computes the stage: a [`RolloutRecord`] a query, in the order of the queries.
///
/// # Errors
/// As [`roll_out`], and when the model cannot be loaded.
pub fn run(context: &Context) -> JobResult {
    let params: Params = context.params()?;
    let folder = context.input("model")?;
    let text = ModelText::load(folder)?;
    context.progress(Progress {
        phase: "loading the model".into(),
        ..Progress::default()
    });
    let execution = &context.job.execution;
    let mut engine = load::engine(
        &params.engine,
        folder,
        &params.dtype,
        &execution.device,
        execution.width,
    )?;
    roll_out(context, engine.as_mut(), &text)
}

/// Rolls out every query with the engine and the text of a model.
///
/// # Errors
/// When the engine breaks, the stage is cancelled, an artifact cannot be read
/// or written, or no query at all could be rolled out.
pub(super) fn roll_out(context: &Context, engine: &mut dyn Engine, text: &dyn Text) -> JobResult {
    let params: Params = context.params()?;
    let path = context.input("queries")?.join(QUERIES_FILE);
    let queries: Vec<QueryRecord> = read_jsonl(&path)?;
    if queries.is_empty() {
        return Err(Failure::new(format!("{} holds no query", path.display())));
    }
    let prefix = text.encode(&params.response_prefix).map_err(|e| {
        Failure::new(format!("the response prefix cannot be tokenised: {e}"))
            .hint("change `response_prefix`")
    })?;
    let under_way = queries_under_way(context, &params);
    let mut driver = Driver {
        context,
        params: &params,
        text,
        writer: JsonlWriter::create(&context.output("rollouts")?.join(ROLLOUTS_FILE))?,
        totals: Totals::default(),
        finished: BTreeMap::new(),
        written: 0,
        first_skip: None,
        pace: Pace::new(&params, queries.len()),
    };
    driver.pace.say(context);
    let mut waiting = queries.iter().enumerate();
    let mut active: Vec<(usize, QueryState)> = Vec::new();
    loop {
        while active.len() < under_way {
            let Some((position, query)) = waiting.next() else {
                break;
            };
            let state = QueryState::start(query, &params, &prefix, engine.context_len(), text);
            active.push((position, state));
            active = driver.put_away(active)?;
        }
        if active.is_empty() {
            break;
        }
        context.check_cancelled()?;
        driver.advance(engine, &mut active)?;
        active = driver.put_away(active)?;
    }
    driver.finish()
}

/// How many queries are rolled out side by side.
fn queries_under_way(context: &Context, params: &Params) -> usize {
    let execution = &context.job.execution;
    match execution.width {
        0 if execution.device.is_empty() || execution.device == "cpu" => 1,
        0 => QUERIES_UNDER_WAY,
        width => (width.saturating_mul(REQUESTS_A_SLOT)).div_ceil(params.beams * params.rollouts),
    }
}

/// What goes on around the queries that are under way.
struct Driver<'a> {
    context: &'a Context,
    params: &'a Params,
    text: &'a dyn Text,
    writer: JsonlWriter,
    totals: Totals,
    /// Records that wait for an earlier query's.
    finished: BTreeMap<usize, RolloutRecord>,
    /// How many are written; also the position of the next.
    written: usize,
    first_skip: Option<String>,
    pace: Pace,
}

impl Driver<'_> {
    /// One step of every query under way.
    fn advance(
        &mut self,
        engine: &mut dyn Engine,
        active: &mut [(usize, QueryState)],
    ) -> Result<(), Failure> {
        let mut requests: Vec<Request> = Vec::new();
        let mut counts = Vec::with_capacity(active.len());
        for (_, state) in active.iter() {
            let of_query = state.requests(self.params);
            counts.push(of_query.len());
            requests.extend(of_query);
        }
        let (context, pace) = (self.context, &mut self.pace);
        let results = generate(engine, requests, &mut |generation| {
            pace.candidate(generation);
            pace.say(context);
            !context.cancelled()
        });
        context.check_cancelled()?;
        let mut results = VecDeque::from(results?);
        for ((_, state), count) in active.iter_mut().zip(counts) {
            let of_query: Result<Vec<Generation>, String> = results.drain(..count).collect();
            match of_query {
                Ok(generations) => state.accept(generations, self.params, self.text),
                Err(reason) => state.skip("engine", &reason),
            }
        }
        Ok(())
    }

    /// Takes the finished out of `active` and writes what is next in order.
    fn put_away(
        &mut self,
        active: Vec<(usize, QueryState)>,
    ) -> Result<Vec<(usize, QueryState)>, Failure> {
        let (done, going): (Vec<_>, Vec<_>) =
            active.into_iter().partition(|(_, state)| state.finished());
        for (position, state) in done {
            let record = state.into_record();
            if let Some(reason) = &record.skipped {
                let text = format!("query {} was skipped: {reason}", record.query_id);
                self.context.log(Level::Warn, &text);
                self.first_skip.get_or_insert(text);
            }
            self.finished.insert(position, record);
            self.pace.queries_done += 1;
        }
        while let Some(record) = self.finished.remove(&self.written) {
            self.totals.add(&record);
            self.writer.write(&record)?;
            self.written += 1;
        }
        // Steps that a query never came to are no longer to be waited for.
        let under_way: u64 = going.iter().map(|(_, state)| state.made(self.params)).sum();
        self.pace.settle(under_way);
        self.pace.say(self.context);
        Ok(going)
    }

    fn finish(self) -> JobResult {
        self.writer.finish()?;
        let totals = &self.totals;
        write_json(
            &self.context.output("metrics")?.join(METRICS_FILE),
            &totals.metrics(),
        )?;
        if totals.skipped_queries() == totals.queries {
            let why = self.first_skip.unwrap_or_default();
            return Err(Failure::new(format!(
                "none of the {} queries could be rolled out; {why}",
                totals.queries
            ))
            .hint("the model's chat template and context must fit the queries"));
        }
        Ok(vec![
            (
                "queries".into(),
                (totals.queries - totals.skipped_queries()).into(),
            ),
            ("skipped".into(), totals.skipped_queries().into()),
            ("candidates".into(), totals.candidates.into()),
            ("tokens".into(), totals.tokens.into()),
            ("mean_f".into(), totals.f.json()),
        ])
    }
}

/// Serves requests and gives their results in the order of the requests.
/// `tick` sees each generation as it comes, and returns false to stop.
pub(super) fn generate(
    engine: &mut dyn Engine,
    requests: Vec<Request>,
    tick: &mut dyn FnMut(&Generation) -> bool,
) -> Result<Vec<Result<Generation, String>>, Failure> {
    let mut slots: Vec<Option<Result<Generation, String>>> = Vec::new();
    slots.resize_with(requests.len(), || None);
    let mut broken = None;
    let name = engine.name();
    engine
        .generate(requests, &mut |position, result| {
            let (slot, go_on) = match result {
                Ok(generation) if !consistent(&generation) => {
                    broken = Some("its token counts contradict each other".to_owned());
                    return false;
                }
                Ok(generation) => {
                    let go_on = tick(&generation);
                    (Ok(generation), go_on)
                }
                Err(EngineError::Request(reason)) => (Err(reason), true),
                Err(e) => {
                    broken = Some(e.to_string());
                    return false;
                }
            };
            if let Some(place) = slots.get_mut(position) {
                *place = Some(slot);
            }
            go_on
        })
        .or_else(|e| match e {
            EngineError::Cancelled if broken.is_some() => Ok(()),
            e => Err(e),
        })?;
    if let Some(reason) = broken {
        return Err(Failure::new(format!("{name} failed: {reason}")));
    }
    slots
        .into_iter()
        .map(|slot| slot.ok_or_else(|| Failure::new(format!("{name} left a request unanswered"))))
        .collect()
}

fn consistent(g: &Generation) -> bool {
    g.tokens.len() == g.logprobs.len() && g.step_len <= g.tokens.len()
}

/// How far the stage is, in candidates.
struct Pace {
    started: Instant,
    /// Candidates of one query at most: M N K.
    of_query: u64,
    queries: u64,
    queries_done: u64,
    done: u64,
    tokens: u64,
}

impl Pace {
    fn new(params: &Params, queries: usize) -> Self {
        Self {
            started: Instant::now(),
            of_query: (params.beams * params.rollouts * params.steps) as u64,
            queries: queries as u64,
            queries_done: 0,
            done: 0,
            tokens: 0,
        }
    }

    fn candidate(&mut self, generation: &Generation) {
        self.done += 1;
        self.tokens += generation.tokens.len() as u64;
    }

    /// A finished query counts with all the candidates that it might have had.
    fn settle(&mut self, under_way: u64) {
        self.done = self.queries_done * self.of_query + under_way;
    }

    fn say(&self, context: &Context) {
        let rate = self.tokens as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        context.progress(Progress {
            phase: "rolling out".into(),
            done: self.done,
            total: Some(self.queries * self.of_query),
            unit: "candidates".into(),
            detail: format!(
                "{}/{} queries, {rate:.1} tok/s",
                self.queries_done, self.queries
            ),
        });
    }
}
