//! Between engine and driver: width and order, cancelling, broken engines.

use super::*;

#[test]
fn neither_width_nor_order_changes_a_record() {
    let queries = ["one", "two", "three", "four", "five"];
    let (alone, metrics, babbler) = babbled(&queries, 1);
    assert_eq!(babbler.widest, 1);
    for width in [2, 7, 100] {
        let (side_by_side, same_metrics, babbler) = babbled(&queries, width);
        assert!(babbler.widest == width.min(20), "{width}");
        assert_eq!(alone, side_by_side, "{width}");
        assert_eq!(metrics, same_metrics, "{width}");
    }
    let shuffled = ["four", "one", "five", "three", "two"];
    let (lines, _, _) = babbled(&shuffled, 3);
    for (query, line) in shuffled.iter().zip(lines) {
        let place = queries.iter().position(|q| q == query).unwrap();
        assert_eq!(line, alone[place], "{query}");
    }
}

/// The query that a request is of, by its context.
fn query_of(context: &str) -> &str {
    context
        .strip_prefix('<')
        .unwrap()
        .split('>')
        .next()
        .unwrap()
}

#[test]
fn a_slow_query_holds_no_other_one_back() {
    let queries = ["slow", "two", "three", "four", "five", "six"];
    let job = job(json!({"steps": 3}), &queries);
    let mut babbler = Babbler::new(6);
    babbler.slow = Some("slow");
    job.run(|c| roll_out(c, &mut babbler, &ByteText)).unwrap();
    // All steps of all others are through before the first step of the slow one is.
    let slow: Vec<u64> = babbler
        .events
        .iter()
        .filter_map(|e| match e {
            Event::Taken(id, context) if query_of(context) == "slow" => Some(*id),
            _ => None,
        })
        .collect();
    let first_step: Vec<usize> = slow[..4]
        .iter()
        .map(|id| {
            babbler
                .events
                .iter()
                .position(|e| *e == Event::Done(*id))
                .unwrap()
        })
        .collect();
    let last_of_others = babbler
        .events
        .iter()
        .rposition(|e| matches!(e, Event::Taken(_, context) if query_of(context) != "slow"))
        .unwrap();
    assert!(first_step.iter().max() > Some(&last_of_others));
    // And no slot was empty while a query waited to begin.
    let mut begun = std::collections::BTreeSet::new();
    for event in &babbler.events {
        match event {
            Event::Taken(_, context) => {
                begun.insert(query_of(context).to_owned());
            }
            Event::Tick(in_flight) => assert!(*in_flight == 6 || begun.len() == queries.len()),
            Event::Done(_) => {}
        }
    }
}

#[test]
fn the_oldest_query_that_has_requests_goes_first() {
    let job = job(json!({"steps": 2}), &["one", "two", "three"]);
    let mut babbler = Babbler::new(1);
    job.run(|c| roll_out(c, &mut babbler, &ByteText)).unwrap();
    let order: Vec<&str> = babbler
        .events
        .iter()
        .filter_map(|e| match e {
            Event::Taken(_, context) => Some(query_of(context)),
            _ => None,
        })
        .collect();
    let mut sorted = order.clone();
    sorted.dedup();
    assert_eq!(sorted, ["one", "two", "three"]);
}

/// An engine may ask for as much as it likes: not every query is begun for it.
#[test]
fn queries_are_begun_as_they_are_needed() {
    let queries: Vec<String> = (0..40).map(|i| format!("q{i}")).collect();
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let job = job(json!({"steps": 1, "width": 2}), &queries);
    let mut babbler = Babbler::new(usize::MAX);
    job.run(|c| roll_out(c, &mut babbler, &ByteText)).unwrap();
    // Four a sequence, and what is left of the step that was begun last.
    assert!((8..12).contains(&babbler.widest), "{}", babbler.widest);
}

#[test]
fn what_is_recorded_holds_together() {
    let (lines, _, _) = babbled(&["one", "two", "three", "four", "five", "six"], 1);
    for line in lines {
        let record: RolloutRecord = serde_json::from_str(&line).unwrap();
        assert!(!record.steps.is_empty());
        for step in &record.steps {
            assert_eq!(step.candidates.len(), 2 * step.beams.len());
            let mut seen = Vec::new();
            for &i in &step.selected {
                let c = &step.candidates[i as usize];
                let whole = [
                    &step.beams[c.parent as usize].token_ids[..],
                    &c.step_token_ids,
                ]
                .concat();
                assert!(!seen.contains(&whole), "beams are distinct");
                seen.push(whole);
            }
            for c in &step.candidates {
                let of_step = c.step_token_ids.iter().filter(|&&t| t == END).count();
                let of_all = of_step + c.foresight_token_ids.iter().filter(|&&t| t == END).count();
                assert_eq!(of_all, usize::from(c.finish == Finish::EndToken));
                assert!(of_step == 0 || c.foresight_token_ids.is_empty());
                assert_eq!(c.step_token_ids.len(), c.step_logprobs.len());
                let beam = &step.beams[c.parent as usize];
                match c.content {
                    Content::Text => assert!(!c.step_text.trim().is_empty()),
                    Content::Stop => {
                        assert!(!beam.token_ids.is_empty());
                        assert_eq!(c.f, Some(beam.q));
                    }
                    Content::Empty => assert_eq!(c.f, None),
                }
            }
        }
    }
}

#[test]
fn a_cancelled_stage_stops() {
    let stops_after = |looks: usize| {
        let job = job(json!({}), &["q", "r"]);
        let mut babbler = Babbler::new(2);
        let failure = job
            .run(|context| {
                let cancelled = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(looks == 0));
                let looked = std::sync::atomic::AtomicUsize::new(0);
                let sink = {
                    let cancelled = std::sync::Arc::clone(&cancelled);
                    // Cancelled while the next candidate is reported.
                    std::sync::Arc::new(move |_| {
                        if looked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == looks {
                            cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
                        }
                    })
                };
                let context = Context::new(context.job.clone(), sink, cancelled);
                roll_out(&context, &mut babbler, &ByteText)
            })
            .unwrap_err();
        assert_eq!(failure.message, "cancelled");
        babbler.answered()
    };
    assert_eq!(stops_after(0), 0);
    // Two messages come before the first candidate.
    assert_eq!(stops_after(4), 3);
}

#[test]
fn an_engine_that_breaks_its_contract_fails_the_stage() {
    struct Liar(fn(&mut dyn Work));
    impl Engine for Liar {
        fn name(&self) -> &'static str {
            "liar"
        }
        fn context_len(&self) -> usize {
            CONTEXT
        }
        fn generate(&mut self, work: &mut dyn Work) -> Result<(), EngineError> {
            self.0(work);
            Ok(())
        }
    }
    let failure = |lie| {
        let job = job(json!({"steps": 1}), &["q"]);
        let ended = job.run(|c| roll_out(c, &mut Liar(lie), &ByteText));
        ended.unwrap_err().message
    };
    insta::assert_snapshot!(failure(|_| {}), @"liar failed: it left a request unanswered");
    insta::assert_snapshot!(
        failure(|work| {
            let (id, _) = work.next().unwrap();
            assert!(work.done(id, Ok(generation(("a\n|x$", -1.0, -0.5)))));
            assert!(!work.done(id, Ok(generation(("a\n|x$", -1.0, -0.5)))));
            assert!(work.next().is_none());
        }),
        @"liar failed: it answered what was not asked"
    );
    insta::assert_snapshot!(
        failure(|work| {
            let (id, _) = work.next().unwrap();
            let mut short = generation(("a\n|x$", -1.0, -0.5));
            short.logprobs.pop();
            work.done(id, Ok(short));
        }),
        @"liar failed: its token counts contradict each other"
    );
}
