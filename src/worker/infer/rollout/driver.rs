//! [`Driver`]: the queries under way as an engine's work, and their records in
//! the order of the queries.
//!
//! The engine asks for a request whenever it has room. It gets one of the oldest
//! query that has some, so that queries finish early; when none has, the next
//! query begins. A query goes a step on as soon as its last candidate is there,
//! whatever the others are doing. Its record is kept by itself as soon as it is
//! done ([`Kept`]), so that a rollout that is stopped loses the queries under way
//! at most.

use std::collections::{BTreeMap, VecDeque};

use genius::artifact::{
    JsonlWriter, METRICS_FILE, QUERIES_FILE, QueryRecord, ROLLOUTS_FILE, RolloutRecord, read_jsonl,
    write_json,
};
use genius::kind::rollout::Params;
use genius::protocol::{Context, Failure, Figure, JobResult, Level, Progress, Unit};

use super::super::engine::{Engine, EngineError, Generation, Request, Work};
use super::super::text::Text;
use super::super::work::{broken, of_request};
use super::kept::Kept;
use super::metrics::Totals;
use super::pace::Pace;
use super::query::QueryState;

/// Sequences in flight for which queries are begun, where the width is left to the engine.
const WIDTH: usize = 64;
/// Requests given and not done, for each sequence in flight, with which no further query begins.
const REQUESTS_A_SLOT: usize = 4;

/// What goes on around the queries that are under way.
pub(super) struct Driver<'a> {
    context: &'a Context,
    params: &'a Params,
    text: &'a dyn Text,
    /// Tokens of the response prefix.
    prefix: Vec<u32>,
    queries: Vec<QueryRecord>,
    /// Positions of queries not begun.
    waiting: VecDeque<usize>,
    /// By position, so the oldest first.
    active: BTreeMap<usize, UnderWay>,
    /// Requests given and not done.
    in_flight: usize,
    most_in_flight: usize,
    engine: &'static str,
    context_len: usize,
    /// Why it cannot go on.
    failure: Option<Failure>,
    writer: JsonlWriter,
    totals: Totals,
    kept: Kept<'a>,
    /// Queries that wait for an earlier one's record.
    finished: BTreeMap<usize, Finished>,
    /// Queries written whose record was kept by an earlier run.
    reused: u64,
    /// How many are written; also the position of the next.
    written: usize,
    first_skip: Option<String>,
    pace: Pace,
}

/// A query's record.
enum Finished {
    /// As it was made.
    Made(Box<RolloutRecord>),
    /// As it was kept by an earlier run: read again when its turn has come, so that
    /// a rollout of many queries holds few.
    Kept,
}

/// A query between the first request of its first step and its record.
struct UnderWay {
    state: QueryState,
    /// Of the step's candidates; the first so many were given.
    given: usize,
    results: Vec<Option<Result<Generation, String>>>,
    /// Candidates without a result.
    open: usize,
}

impl UnderWay {
    fn new(state: QueryState, params: &Params) -> Self {
        let mut way = Self {
            state,
            given: 0,
            results: Vec::new(),
            open: 0,
        };
        way.begin_step(params);
        way
    }

    fn begin_step(&mut self, params: &Params) {
        self.open = self.state.candidates(params);
        self.given = 0;
        self.results.clear();
        self.results.resize_with(self.open, || None);
    }

    /// Candidates made so far, had every beam lived.
    fn made(&self, params: &Params) -> u64 {
        self.state.made(params) + (self.results.len() - self.open) as u64
    }

    /// Goes a step on: every candidate has a result.
    fn end_step(&mut self, params: &Params, text: &dyn Text) {
        // The first in order, whichever came first.
        let generations: Result<Vec<Generation>, String> =
            self.results.drain(..).flatten().collect();
        match generations {
            Ok(generations) => self.state.accept(generations, params, text),
            Err(reason) => self.state.skip("engine", &reason),
        }
    }
}

impl<'a> Driver<'a> {
    /// Reads the queries (of the job's shard), looks for those that an earlier run has kept, and makes
    /// the artifact's file.
    ///
    /// # Errors
    /// When there is no query, or an artifact cannot be read or written.
    pub(super) fn new(
        context: &'a Context,
        params: &'a Params,
        text: &'a dyn Text,
    ) -> Result<Self, Failure> {
        let path = context.input("queries")?.join(QUERIES_FILE);
        let mut queries: Vec<QueryRecord> = read_jsonl(&path)?;
        if queries.is_empty() {
            return Err(Failure::new(format!("{} holds no query", path.display())));
        }
        if let Some(shard) = context.job.shard {
            queries = queries[shard.range(queries.len())].to_vec();
        }
        let prefix = text.encode(&params.response_prefix).map_err(|e| {
            Failure::new(format!("the response prefix cannot be tokenised: {e}"))
                .hint("change `response_prefix`")
        })?;
        context.progress(Progress {
            phase: "looking for queries that were rolled out before".into(),
            ..Progress::default()
        });
        let kept = Kept::new(context);
        let mut finished = BTreeMap::new();
        let mut waiting = VecDeque::new();
        for (position, query) in queries.iter().enumerate() {
            context.check_cancelled()?;
            if kept.has(query) {
                finished.insert(position, Finished::Kept);
            } else {
                waiting.push_back(position);
            }
        }
        if let (Some(dir), false) = (kept.dir(), finished.is_empty()) {
            context.log(
                Level::Info,
                format!(
                    "{} of {} queries were rolled out before and are taken from {}",
                    finished.len(),
                    queries.len(),
                    dir.display()
                ),
            );
        }
        let width = match params.options.width {
            0 => WIDTH,
            width => width,
        };
        let mut driver = Self {
            context,
            text,
            prefix,
            active: BTreeMap::new(),
            in_flight: 0,
            most_in_flight: width.saturating_mul(REQUESTS_A_SLOT),
            engine: "",
            context_len: 0,
            failure: None,
            writer: JsonlWriter::create(&context.output("rollouts")?.join(ROLLOUTS_FILE))?,
            totals: Totals::default(),
            pace: Pace::new(params, waiting.len(), finished.len()),
            waiting,
            kept,
            finished,
            reused: 0,
            written: 0,
            first_skip: None,
            params,
            queries,
        };
        driver.write_ready()?;
        Ok(driver)
    }

    /// Whether there is anything to roll out.
    pub(super) fn is_needed(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Rolls out what waits.
    ///
    /// # Errors
    /// When the engine breaks, the stage is cancelled, or a record cannot be written.
    pub(super) fn roll_out(&mut self, engine: &mut dyn Engine) -> Result<(), Failure> {
        self.engine = engine.name();
        self.context_len = engine.context_len();
        self.context.check_cancelled()?;
        self.report();
        let ended = engine.generate(self);
        self.context.check_cancelled()?;
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        ended?;
        if self.written < self.queries.len() {
            return Err(broken(self.engine, "it left a request unanswered"));
        }
        Ok(())
    }

    /// Ends the artifacts.
    ///
    /// # Errors
    /// When they cannot be written, or no query at all could be rolled out.
    pub(super) fn finish(self) -> JobResult {
        self.writer.finish()?;
        let totals = &self.totals;
        write_json(
            &self.context.output("metrics")?.join(METRICS_FILE),
            &totals.metrics(),
        )?;
        // A shard has only some of the queries; the whole stage is judged once they are joined.
        if totals.skipped_queries() == totals.queries && self.context.job.shard.is_none() {
            let why = self.first_skip.unwrap_or_default();
            return Err(Failure::new(format!(
                "none of the {} queries could be rolled out; {why}",
                totals.queries
            ))
            .hint("the model's chat template and context must fit the queries"));
        }
        let terminal = &totals.terminal_figures;
        let queries = totals.queries - totals.skipped_queries();
        let mut figures = vec![
            Figure::new("queries", queries, Unit::Count),
            Figure::new("skipped", totals.skipped_queries(), Unit::Count),
            Figure::new("candidates", totals.candidates, Unit::Count),
            Figure::new("tokens", totals.tokens, Unit::Tokens),
            Figure::new("mean_f", totals.f.json(), Unit::Nats),
        ];
        for (name, mean, unit) in [
            ("mean_f_terminal", terminal.f, Unit::Nats),
            ("terminal_share", terminal.share, Unit::Fraction),
        ] {
            figures.extend(mean.value().map(|value| Figure::new(name, value, unit)));
        }
        figures.push(Figure::new("reused_queries", self.reused, Unit::Count));
        Ok(figures)
    }

    /// Begins the next query; `false` if none waits.
    fn begin(&mut self) -> Result<bool, Failure> {
        let Some(position) = self.waiting.pop_front() else {
            return Ok(false);
        };
        let query = &self.queries[position];
        let state = QueryState::start(
            query,
            self.params,
            &self.prefix,
            self.context
                .job
                .input_hashes
                .get("model")
                .map(String::as_str),
            self.context_len,
            self.text,
        );
        if state.finished() {
            self.conclude(position, state.into_record())?;
        } else {
            let way = UnderWay::new(state, self.params);
            self.active.insert(position, way);
        }
        Ok(true)
    }

    /// Candidates of a query at most: what request numbers count in.
    fn stride(&self) -> u64 {
        (self.params.beams * self.params.rollouts) as u64
    }

    /// Takes a result to its query.
    fn take(&mut self, id: u64, result: Result<Generation, EngineError>) -> Result<(), Failure> {
        let result = of_request(result).map_err(|reason| broken(self.engine, &reason))?;
        let position = (id / self.stride()) as usize;
        let candidate = (id % self.stride()) as usize;
        let slot = self.active.get_mut(&position).and_then(|way| {
            let slot = way.results.get_mut(candidate)?;
            (candidate < way.given && slot.is_none()).then_some((slot, &mut way.open))
        });
        let Some((slot, open)) = slot else {
            return Err(broken(self.engine, "it answered what was not asked"));
        };
        if let Ok(generation) = &result {
            self.pace.candidate(generation);
        }
        *slot = Some(result);
        *open -= 1;
        self.in_flight -= 1;
        if *open == 0
            && let Some(mut way) = self.active.remove(&position)
        {
            way.end_step(self.params, self.text);
            if way.state.finished() {
                self.conclude(position, way.state.into_record())?;
            } else {
                way.begin_step(self.params);
                self.active.insert(position, way);
            }
        }
        self.report();
        Ok(())
    }

    /// Keeps a query's record, and writes what is next in order.
    fn conclude(&mut self, position: usize, record: RolloutRecord) -> Result<(), Failure> {
        self.pace.query();
        self.kept.put(&self.queries[position], &record)?;
        self.finished
            .insert(position, Finished::Made(Box::new(record)));
        self.write_ready()
    }

    /// Writes the records whose turn has come.
    fn write_ready(&mut self) -> Result<(), Failure> {
        while let Some(finished) = self.finished.remove(&self.written) {
            let record = match finished {
                Finished::Made(record) => *record,
                Finished::Kept => match self.kept.get(&self.queries[self.written]) {
                    Some(record) => {
                        self.reused += 1;
                        record
                    }
                    // It went, or was damaged, since it was looked up.
                    None => {
                        self.waiting.push_front(self.written);
                        self.pace.one_more();
                        return Ok(());
                    }
                },
            };
            if let Some(reason) = &record.skipped {
                let text = format!("query {} was skipped: {reason}", record.query_id);
                self.context.log(Level::Warn, &text);
                self.first_skip.get_or_insert(text);
            }
            self.totals.add(&record);
            self.writer.write(&record)?;
            self.written += 1;
        }
        Ok(())
    }

    fn report(&self) {
        let under_way = self.active.values().map(|way| way.made(self.params));
        self.pace.report(self.context, under_way.sum());
    }
}

impl Work for Driver<'_> {
    fn next(&mut self) -> Option<(u64, Request)> {
        while self.go_on() {
            for (&position, way) in &mut self.active {
                if way.given < way.results.len() {
                    let candidate = way.given;
                    way.given += 1;
                    self.in_flight += 1;
                    let request = way.state.request(candidate, self.params);
                    let id = position as u64 * self.stride() + candidate as u64;
                    return Some((id, request));
                }
            }
            if self.in_flight >= self.most_in_flight {
                return None;
            }
            match self.begin() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(failure) => self.failure = Some(failure),
            }
        }
        None
    }

    fn done(&mut self, id: u64, result: Result<Generation, EngineError>) -> bool {
        if let Err(failure) = self.take(id, result) {
            self.failure.get_or_insert(failure);
        }
        self.go_on()
    }

    fn go_on(&mut self) -> bool {
        self.failure.is_none() && !self.context.cancelled()
    }
}
