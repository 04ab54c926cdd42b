//! The evaluation stage: generates answers to benchmarks through an
//! [`Engine`] and matches them two ways. Entry: [`run`].

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::json;

use genius::answer::Matcher;
use genius::artifact::{write_json, write_jsonl};
use genius::kind::eval::{Benchmark, Params};
use genius::method::random::Stream;
use genius::protocol::{Context, Failure, Figure, JobResult, Level, Progress, Unit};

use super::engine::{Engine, Generation, Limits, Request, Sampling};
use super::load;
use super::rollout::query::finish;
use super::text::{ModelText, Text};
use super::work::serve;

mod items;
mod result;
#[cfg(test)]
mod tests;

use items::Question;
use result::{BenchmarkSummary, ItemRecord, Match};

/// File of the `summary` artifact.
pub const SUMMARY_FILE: &str = "summary.json";

/// The place of the question in a benchmark's template.
const PLACE: &str = "{question}";

/// Computes the stage.
///
/// # Errors
/// When the model cannot be loaded, a benchmark cannot be read, the engine
/// breaks, or the stage is cancelled.
pub fn run(context: &Context, params: &Params) -> JobResult {
    let benchmarks = read_benchmarks(params)?;
    let folder = context.input("model")?;
    let text = ModelText::load(folder)?;
    for note in &context.job.notes {
        context.log(Level::Info, note);
    }
    context.progress(Progress {
        phase: "loading the model".into(),
        ..Progress::default()
    });
    let options = params.options;
    let mut engine = load::engine(options, folder, &context.job.execution)?;
    let mut figures = evaluate(context, params.seed, &benchmarks, engine.as_mut(), &text)?;
    figures.push(load::figure(context, options));
    Ok(figures)
}

/// The benchmarks with their questions; all mistakes in them come to light
/// before a model is loaded.
fn read_benchmarks(params: &Params) -> Result<Vec<(Benchmark, Vec<Question>)>, Failure> {
    let mut files = BTreeSet::new();
    let mut read = Vec::with_capacity(params.benchmarks.len());
    for benchmark in &params.benchmarks {
        let name = &benchmark.name;
        if !files.insert(items_file(name).to_lowercase()) {
            return Err(Failure::new(format!(
                "two benchmarks are called `{name}`, or would write the same file {}",
                items_file(name)
            ))
            .hint("give every benchmark a `name` of its own"));
        }
        if !benchmark.template.contains(PLACE) {
            return Err(Failure::new(format!(
                "the template of benchmark `{name}` has no place for the question"
            ))
            .hint(format!("write {PLACE} where the question belongs")));
        }
        read.push((benchmark.clone(), items::read(benchmark)?));
    }
    Ok(read)
}

/// Name of a benchmark's file of items.
fn items_file(name: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let stem: String = name
        .chars()
        .map(|c| if safe(c) { c } else { '_' })
        .collect();
    format!("{stem}.jsonl")
}

/// Answers and matches the questions of every benchmark. The engine gets them
/// all as one list, so that it need not run empty at the end of each.
fn evaluate(
    context: &Context,
    seed: u64,
    benchmarks: &[(Benchmark, Vec<Question>)],
    engine: &mut dyn Engine,
    text: &dyn Text,
) -> JobResult {
    let folder = context.output("items")?;
    let mut requests = Vec::new();
    // Of each request: benchmark and item.
    let mut places: Vec<(usize, usize)> = Vec::new();
    let mut evaluations = Vec::with_capacity(benchmarks.len());
    for (number, (benchmark, questions)) in benchmarks.iter().enumerate() {
        let evaluation = Evaluation {
            context,
            seed,
            benchmark,
            text,
        };
        let asked = evaluation.ask(questions, engine.context_len())?;
        for (item, request) in asked.requests {
            requests.push(request);
            places.push((number, item));
        }
        evaluations.push((evaluation, asked.items));
    }
    let total: u64 = benchmarks.iter().map(|(_, q)| q.len() as u64).sum();
    let mut pace = Pace {
        started: Instant::now(),
        done: total - requests.len() as u64,
        total,
        tokens: 0,
    };
    let name = |number: usize| benchmarks[number].0.name.as_str();
    pace.report(context, name(0));
    context.check_cancelled()?;
    let results = serve(
        engine,
        requests,
        &mut |place, generation| {
            pace.done += 1;
            pace.tokens += generation.tokens.len() as u64;
            pace.report(context, name(places[place].0));
        },
        &|| !context.cancelled(),
    );
    context.check_cancelled()?;
    for (&(number, item), result) in places.iter().zip(results?) {
        let (evaluation, items) = &mut evaluations[number];
        match result {
            Ok(generation) => evaluation.judge(&mut items[item], generation),
            Err(reason) => items[item].skipped = Some(reason),
        }
    }
    let mut summaries = Vec::with_capacity(benchmarks.len());
    for (evaluation, items) in &evaluations {
        evaluation.check(items)?;
        let name = &evaluation.benchmark.name;
        write_jsonl(&folder.join(items_file(name)), items)?;
        let summary = BenchmarkSummary::new(name, items);
        evaluation.warn_of_unextracted(&summary);
        summaries.push(summary);
    }
    write_json(
        &context.output("summary")?.join(SUMMARY_FILE),
        &json!({ "benchmarks": summaries }),
    )?;
    Ok(summaries.iter().flat_map(figures).collect())
}

/// A benchmark's figures for the end of the run.
fn figures(summary: &BenchmarkSummary) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (matcher, of) in [("standard", &summary.standard), ("paper", &summary.paper)] {
        let unextracted = format!("{matcher}_unextracted");
        figures.extend([
            Figure {
                standard_error: of.standard_error,
                ..Figure::new(matcher, of.accuracy, Unit::Fraction)
            },
            Figure::new(unextracted, of.unextracted, Unit::Count),
        ]);
    }
    figures.push(Figure::new("n", summary.n, Unit::Count));
    for figure in &mut figures {
        figure.benchmark = Some(summary.name.clone());
    }
    figures
}

/// One benchmark being answered.
struct Evaluation<'a> {
    context: &'a Context,
    seed: u64,
    benchmark: &'a Benchmark,
    text: &'a dyn Text,
}

/// A benchmark's items before they are answered, and the requests of those that
/// can be, each with its item's position.
struct Asked {
    items: Vec<ItemRecord>,
    requests: Vec<(usize, Request)>,
}

impl Evaluation<'_> {
    fn ask(&self, questions: &[Question], context_len: usize) -> Result<Asked, Failure> {
        let name = &self.benchmark.name;
        let prefix = self
            .text
            .encode(&self.benchmark.response_prefix)
            .map_err(|e| {
                Failure::new(format!(
                    "the response prefix of benchmark `{name}` cannot be tokenised: {e}"
                ))
            })?;
        let mut asked = Asked {
            items: Vec::with_capacity(questions.len()),
            requests: Vec::with_capacity(questions.len()),
        };
        for (position, question) in questions.iter().enumerate() {
            let (prompt, skipped) = match self.request(question, &prefix, context_len) {
                Ok((prompt, request)) => {
                    asked.requests.push((position, request));
                    (prompt, None)
                }
                Err((prompt, reason)) => (prompt, Some(reason)),
            };
            asked.items.push(unanswered(question, prompt, skipped));
        }
        if asked.requests.is_empty() {
            self.check(&asked.items)?;
        }
        Ok(asked)
    }

    /// Warns of responses in which a matcher found no answer: they count as wrong, so
    /// that an accuracy may be that of the prompt's form instead of the model's.
    fn warn_of_unextracted(&self, summary: &BenchmarkSummary) {
        let (standard, paper) = (summary.standard.unextracted, summary.paper.unextracted);
        if standard + paper == 0 {
            return;
        }
        self.context.log(
            Level::Warn,
            format!(
                "benchmark `{}`: of {} responses, `standard` found no answer in {standard} and `paper` \
                 none in {paper}; they count as wrong (items/{})",
                summary.name,
                summary.n - summary.skipped,
                items_file(&summary.name),
            ),
        );
    }

    /// Logs how many items have no response; all of them are too many.
    fn check(&self, items: &[ItemRecord]) -> Result<(), Failure> {
        let mut reasons = items.iter().filter_map(|i| i.skipped.as_deref());
        let Some(first) = reasons.next() else {
            return Ok(());
        };
        let (count, n) = (1 + reasons.count(), items.len());
        let name = &self.benchmark.name;
        let text = format!("benchmark `{name}`: {count} of {n} questions not answered: {first}");
        if count == n {
            return Err(Failure::new(text));
        }
        self.context.log(Level::Warn, text);
        Ok(())
    }

    /// The prompt of a question and its request, or why there is none.
    fn request(
        &self,
        question: &Question,
        prefix: &[u32],
        context_len: usize,
    ) -> Result<(String, Request), (String, String)> {
        let benchmark = self.benchmark;
        let user = benchmark.template.replace(PLACE, &question.text);
        let (prompt, tokens) = self
            .text
            .render(benchmark.system.as_deref(), &user)
            .map_err(|reason| (String::new(), reason))?;
        let context = [&tokens[..], prefix].concat();
        if context.len() >= context_len {
            let reason = format!(
                "{} tokens of prompt leave no room in a context of {context_len}",
                context.len()
            );
            return Err((prompt, reason));
        }
        let request = Request {
            response_start: context.len(),
            context,
            // The name keeps two benchmarks over the same questions independent; the
            // question, two of one id. The model is left out: two models are compared
            // on the same draws.
            stream: Stream::with_texts(
                self.seed,
                "eval",
                &[&benchmark.name, &question.id, &question.text],
                &[],
            ),
            sampling: Sampling {
                step_temperature: benchmark.temperature,
                temperature: benchmark.temperature,
                top_k: None,
                top_p: 1.0,
                min_p: 0.0,
            },
            limits: Limits {
                step: false,
                max_step_tokens: 0,
                max_after_tokens: benchmark.max_tokens,
                max_tokens: benchmark.max_tokens,
                stop: benchmark.stop.clone(),
            },
        };
        Ok((prompt, request))
    }

    /// Fills in what the model wrote and what the matchers make of it.
    fn judge(&self, item: &mut ItemRecord, generation: Generation) {
        item.response = self.text.decode(&generation.tokens);
        item.finish = Some(finish(generation.end));
        item.response_token_ids = generation.tokens;
        let whole = format!("{}{}", self.benchmark.response_prefix, item.response);
        let apply = |matcher: Matcher| {
            let extracted = matcher.extract(self.benchmark.answer, &whole);
            Match {
                correct: extracted.as_deref() == Some(&item.reference),
                extracted,
            }
        };
        (item.standard, item.paper) = (apply(Matcher::Standard), apply(Matcher::Paper));
    }
}

fn unanswered(question: &Question, prompt: String, skipped: Option<String>) -> ItemRecord {
    let none = Match {
        extracted: None,
        correct: false,
    };
    ItemRecord {
        id: question.id.clone(),
        question: question.text.clone(),
        prompt,
        response: String::new(),
        response_token_ids: Vec::new(),
        finish: None,
        reference: question.reference.clone(),
        standard: none.clone(),
        paper: none,
        skipped,
    }
}

/// How far the stage is.
struct Pace {
    started: Instant,
    done: u64,
    total: u64,
    tokens: u64,
}

impl Pace {
    fn report(&self, context: &Context, benchmark: &str) {
        let rate = self.tokens as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        context.progress(Progress {
            phase: format!("answering {benchmark}"),
            done: self.done,
            total: Some(self.total),
            unit: "questions".into(),
            detail: format!("{rate:.1} tok/s"),
        });
    }
}
