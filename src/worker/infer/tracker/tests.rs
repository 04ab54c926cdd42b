//! Boundaries and ends, over a vocabulary small enough to read.

use super::*;

/// Id of a token is its place here; 0 ends the turn.
const WORDS: [&[u8]; 12] = [
    b"<end>",
    b"First",
    b" then",
    b".",
    b"\n",
    b".\n\n",
    b"\nThe",
    b"  ",
    b"\xE3\x80", // two thirds of U+3000, a white space
    b"\x80",
    b"ST",
    b"OP!",
];

fn table() -> Arc<TokenBytes> {
    Arc::new(TokenBytes::from_words(&WORDS, vec![0]))
}

fn limits() -> Limits {
    Limits {
        step: true,
        max_step_tokens: 100,
        max_after_tokens: 100,
        max_tokens: 100,
        stop: vec![],
    }
}

/// (kept tokens, step length, boundary, end) after pushing `tokens`.
fn run(
    limits: Limits,
    room: usize,
    tokens: &[u32],
) -> (usize, usize, StepBoundary, Option<GenerationEnd>) {
    let mut t = Tracker::new(limits, room, &[], table());
    for &token in tokens {
        t.push(token);
    }
    (t.len(), t.step_len(), t.boundary(), t.end())
}

#[test]
fn a_step_ends_at_its_newline() {
    let (.., boundary, end) = run(limits(), 100, &[1, 2]);
    assert_eq!((boundary, end), (StepBoundary::Inside, None));
    assert_eq!(
        run(limits(), 100, &[1, 3, 4, 1, 2]),
        (5, 3, StepBoundary::Newline, None)
    );
}

#[test]
fn a_newline_inside_a_token_ends_the_step_with_that_token() {
    assert_eq!(run(limits(), 100, &[1, 5, 1]).1, 2);
    assert_eq!(run(limits(), 100, &[1, 6, 1]).1, 2);
}

#[test]
fn white_space_after_the_newline_belongs_to_the_step() {
    assert_eq!(run(limits(), 100, &[1, 4, 4, 7, 1, 4]).1, 4);
    // After "\nThe" too.
    assert_eq!(run(limits(), 100, &[1, 6, 7, 1]).1, 3);
}

#[test]
fn newlines_before_any_text_end_no_step() {
    assert_eq!(
        run(limits(), 100, &[4, 7, 4]),
        (3, 3, StepBoundary::Inside, None)
    );
    assert_eq!(run(limits(), 100, &[4, 1, 4, 1]).1, 3);
    // The newline of "\nThe" is before its text.
    assert_eq!(run(limits(), 100, &[6, 1]).2, StepBoundary::Inside);
    assert_eq!(run(limits(), 100, &[6, 4, 1]).1, 2);
}

#[test]
fn part_of_a_character_is_not_white_space() {
    assert_eq!(run(limits(), 100, &[8, 9, 4, 1]).1, 3);
    assert_eq!(run(limits(), 100, &[1, 4, 8, 9]).1, 2);
}

#[test]
fn the_step_temperature_lasts_through_its_white_space() {
    let seen = |limits: Limits, tokens: &[u32]| -> Vec<(bool, bool)> {
        let mut t = Tracker::new(limits, 100, &[], table());
        let mut seen = vec![];
        for &token in tokens {
            seen.push((t.at_step_temperature(), t.leaves_step(token)));
            t.push(token);
        }
        seen
    };
    let (within, leaves, after) = ((true, false), (true, true), (false, false));
    // Text, newline, blank line, spaces; then what the step's end is seen by.
    assert_eq!(
        seen(limits(), &[1, 4, 4, 7, 1, 4, 1]),
        [within, within, within, within, leaves, after, after]
    );
    // A newline inside a token; the end token; part of a character.
    assert_eq!(
        seen(limits(), &[1, 5, 7, 0]),
        [within, within, within, leaves]
    );
    assert_eq!(
        seen(limits(), &[1, 6, 8, 9]),
        [within, within, leaves, after]
    );
    // At the step's limit nothing more is drawn to see its end.
    let two = Limits {
        max_step_tokens: 2,
        ..limits()
    };
    assert_eq!(seen(two.clone(), &[1, 4, 4]), [within, within, after]);
    assert_eq!(seen(two, &[1, 2, 4]), [within, within, after]);
    let answer = Limits {
        step: false,
        ..limits()
    };
    assert!(!Tracker::new(answer, 100, &[], table()).at_step_temperature());
}

#[test]
fn an_end_token_is_kept_and_never_in_the_step() {
    let end = Some(GenerationEnd::EndToken);
    assert_eq!(
        run(limits(), 100, &[1, 0, 1]),
        (2, 1, StepBoundary::Inside, end)
    );
    assert_eq!(
        run(limits(), 100, &[1, 4, 4, 0]),
        (4, 3, StepBoundary::Newline, end)
    );
    assert_eq!(run(limits(), 100, &[0]), (1, 0, StepBoundary::Inside, end));
}

#[test]
fn a_step_at_its_limit_is_cut_and_the_generation_goes_on() {
    let cut = Limits {
        max_step_tokens: 2,
        ..limits()
    };
    assert_eq!(
        run(cut.clone(), 100, &[1, 2, 3]),
        (3, 2, StepBoundary::Limit, None)
    );
    // White space after the newline counts too, but cannot undo the newline.
    assert_eq!(
        run(cut, 100, &[1, 4, 4]),
        (3, 2, StepBoundary::Newline, None)
    );
}

#[test]
fn tokens_after_the_step_are_limited() {
    let two = Limits {
        max_after_tokens: 2,
        ..limits()
    };
    assert_eq!(
        run(two, 100, &[1, 4, 4, 1, 2, 3]),
        (5, 3, StepBoundary::Newline, Some(GenerationEnd::Limit))
    );
}

#[test]
fn with_nothing_after_the_step_the_token_behind_it_is_dropped() {
    let only = Limits {
        max_after_tokens: 0,
        ..limits()
    };
    let mut t = Tracker::new(only.clone(), 100, &[], table());
    for (token, pushed) in [
        (1, Pushed::Kept),
        (4, Pushed::Kept),
        (4, Pushed::Kept),
        (2, Pushed::Dropped),
    ] {
        assert_eq!(t.push(token), pushed);
    }
    assert_eq!((t.len(), t.step_len()), (3, 3));
    assert_eq!(t.end(), Some(GenerationEnd::Limit));
    // That the response ended is kept, though.
    assert_eq!(
        run(only.clone(), 100, &[1, 4, 0]),
        (3, 2, StepBoundary::Newline, Some(GenerationEnd::EndToken))
    );
    // A step cut at its limit needs no further token.
    let cut = Limits {
        max_step_tokens: 2,
        ..only
    };
    assert_eq!(
        run(cut, 100, &[1, 2]),
        (2, 2, StepBoundary::Limit, Some(GenerationEnd::Limit))
    );
}

#[test]
fn the_step_is_the_same_whatever_may_follow() {
    for tokens in [[1, 4, 4, 2], [1, 5, 7, 1], [4, 1, 6, 1]] {
        let steps: Vec<usize> = [0, 1, 100]
            .map(|max_after_tokens| {
                let limits = Limits {
                    max_after_tokens,
                    ..limits()
                };
                run(limits, 100, &tokens).1
            })
            .to_vec();
        assert_eq!(steps, [3, 3, 3], "{tokens:?}");
    }
}

#[test]
fn the_generation_and_the_context_are_limited() {
    let three = Limits {
        max_tokens: 3,
        ..limits()
    };
    let end = Some(GenerationEnd::Limit);
    assert_eq!(
        run(three, 100, &[1, 2, 3, 4]),
        (3, 3, StepBoundary::Inside, end)
    );
    assert_eq!(
        run(limits(), 2, &[1, 2, 3]),
        (2, 2, StepBoundary::Inside, end)
    );
    assert_eq!(run(limits(), 0, &[]), (0, 0, StepBoundary::Inside, end));
}

#[test]
fn a_stop_text_is_found_across_tokens() {
    let stop = Limits {
        stop: vec!["STOP".into(), "x".into(), String::new()],
        ..limits()
    };
    let end = Some(GenerationEnd::StopText);
    assert_eq!(
        run(stop.clone(), 100, &[1, 10, 11, 1]),
        (3, 3, StepBoundary::Inside, end)
    );
    // After the step too; and not where something lies between.
    assert_eq!(run(stop.clone(), 100, &[1, 4, 10, 11]).3, end);
    assert_eq!(run(stop, 100, &[10, 1, 11]).3, None);
    let one = Limits {
        stop: vec!["!".into()],
        ..limits()
    };
    assert_eq!(run(one, 100, &[1, 2, 11]).3, end);
}

/// A response is generated step by step: its stop text may not be.
#[test]
fn a_stop_text_that_begins_in_an_earlier_step_is_found() {
    let limits = Limits {
        stop: vec!["STOP".into()],
        ..limits()
    };
    let end_after = |before: &[u32]| {
        let mut t = Tracker::new(limits.clone(), 100, before, table());
        t.push(11);
        t.end()
    };
    assert_eq!(end_after(&[1, 10]), Some(GenerationEnd::StopText));
    assert_eq!(end_after(&[1]), None);
    assert_eq!(end_after(&[10, 1]), None);
}
