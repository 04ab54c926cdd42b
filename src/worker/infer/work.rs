//! A list of requests as an engine's work: [`serve`]. What a caller does whose
//! requests are all known before.

use std::collections::VecDeque;

use super::engine::{Engine, EngineError, Generation, Request, Work};
use genius::protocol::Failure;

/// Serves requests and gives their results in the order of the requests; the
/// error is why one alone cannot be served. `seen` gets each generation as it
/// comes, with its place; serving stops once `go_on` is false.
///
/// # Errors
/// When the engine is broken, or was stopped.
pub fn serve(
    engine: &mut dyn Engine,
    requests: Vec<Request>,
    seen: &mut dyn FnMut(usize, &Generation),
    go_on: &dyn Fn() -> bool,
) -> Result<Vec<Result<Generation, String>>, Failure> {
    let name = engine.name();
    let mut list = List {
        results: requests.iter().map(|_| None).collect(),
        waiting: requests.into_iter().enumerate().collect(),
        seen,
        go_on,
        broken: None,
    };
    let ended = engine.generate(&mut list);
    if let Some(reason) = list.broken {
        return Err(broken(name, &reason));
    }
    ended?;
    list.results
        .into_iter()
        .map(|result| result.ok_or_else(|| broken(name, "it left a request unanswered")))
        .collect()
}

/// An engine that does not keep to its contract, or that cannot go on.
pub fn broken(engine: &str, reason: &str) -> Failure {
    Failure::new(format!("{engine} failed: {reason}"))
}

/// A result as far as it is one request's own: a generation, or why there is
/// none.
///
/// # Errors
/// Why the engine is broken.
pub fn of_request(
    result: Result<Generation, EngineError>,
) -> Result<Result<Generation, String>, String> {
    match result {
        Ok(g) if g.tokens.len() != g.logprobs.len() || g.step_len > g.tokens.len() => {
            Err("its token counts contradict each other".into())
        }
        Ok(generation) => Ok(Ok(generation)),
        Err(EngineError::Request(reason)) => Ok(Err(reason)),
        Err(EngineError::Broken { reason, .. }) => Err(reason),
        Err(e) => Err(e.to_string()),
    }
}

struct List<'a> {
    waiting: VecDeque<(usize, Request)>,
    results: Vec<Option<Result<Generation, String>>>,
    seen: &'a mut dyn FnMut(usize, &Generation),
    go_on: &'a dyn Fn() -> bool,
    broken: Option<String>,
}

impl Work for List<'_> {
    fn next(&mut self) -> Option<(u64, Request)> {
        if !self.go_on() {
            return None;
        }
        let (place, request) = self.waiting.pop_front()?;
        Some((place as u64, request))
    }

    fn done(&mut self, id: u64, result: Result<Generation, EngineError>) -> bool {
        let place = usize::try_from(id).unwrap_or(usize::MAX);
        match (of_request(result), self.results.get_mut(place)) {
            (Ok(result), Some(slot @ None)) => {
                if let Ok(generation) = &result {
                    (self.seen)(place, generation);
                }
                *slot = Some(result);
            }
            (Ok(_), _) => self.broken = Some("it answered what was not asked".into()),
            (Err(reason), _) => self.broken = Some(reason),
        }
        self.go_on()
    }

    fn go_on(&mut self) -> bool {
        self.broken.is_none() && (self.go_on)()
    }
}
