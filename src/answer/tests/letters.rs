//! Letters: marked in every way, and words and names that are none.

use super::*;

fn both(text: &str) -> Option<String> {
    let text = format!("The answer is {text}");
    let standard = choice(Matcher::Standard, &text);
    assert_eq!(standard, choice(Matcher::Paper, &text), "{text:?}");
    standard
}

#[test]
fn letters_are_read_in_every_mark() {
    for text in [
        "B",
        "B.",
        "B)",
        "(B)",
        "[B]",
        "{B}",
        "**B**",
        "**(B)**",
        "*B*",
        "`B`",
        "\"B\"",
        "$B$",
        "\\text{B}",
        "\\textbf{(B)}",
        "$\\mathbf{B}$",
        "\\(B\\)",
        ": B",
        "B: the leisure area",
        "B) the leisure area",
        "B. The leisure area",
        "(B) the leisure area",
        "B because A is not",
        "B, because",
        "B, not C",
        "B.\n\nA is wrong",
        "B (the second)",
        "(B), since (A) fails",
        "B - the leisure area",
        "B and so on",
    ] {
        assert_eq!(both(text).as_deref(), Some("B"), "{text:?}");
    }
    for (text, want) in [
        ("The answer is \\boxed{B}", Some("B")),
        ("The answer is clearly B", Some("B")),
        ("The answer is most likely (B)", Some("B")),
        ("The answer is, I think, B", Some("B")),
        ("The answer is the letter B", Some("B")),
        ("The answer is vitamin C, option B", Some("B")),
        ("The answer is not A but B", Some("B")),
        ("The answer is A. No: the answer is B.", Some("B")),
        ("The answer is not A", None),
        ("\\boxed{B}", None),
    ] {
        assert_eq!(choice(Matcher::Paper, text).as_deref(), want, "{text:?}");
    }
    assert_eq!(choice(Matcher::Standard, "Answer: C").as_deref(), Some("C"));
}

#[test]
fn words_names_and_several_letters_are_not_answers() {
    for text in [
        "A train",
        "A Tale of Two Cities",
        "A",
        "a",
        "(a)",
        "I think so",
        "E",
        "(E), not B",
        "B or C",
        "B and C",
        "(B) or (C)",
        "(B) and (C)",
        "B, C",
        "B/C",
        "B & C",
        "B C",
        "(B)(C)",
        "B or possibly C",
        "either B or C",
        "both B and C",
        "neither B nor C",
        "B–C",
        "A+",
        "B-",
        "C++",
        "C#",
        "B1",
        "B_1",
        "AB",
        "D.C.",
        "B's",
        "vitamin C",
        "Plan B",
        "group A",
        "C major",
        "B cells",
        "20 °C",
        "f(B)",
        "x-B",
        "Be",
        "not B",
    ] {
        if text == "A" {
            assert_eq!(both(text).as_deref(), Some("A"));
        } else {
            assert_eq!(both(text), None, "{text:?}");
        }
    }
}

#[test]
fn reference_letters_stand_alone() {
    for text in [
        "B",
        "(B)",
        "[B]",
        "B.",
        "B)",
        "**B**",
        " B\n",
        "so it is\n#### B",
        "\\boxed{B}",
        "\\text{B}",
    ] {
        assert_eq!(
            reference(Answer::Choice, text).as_deref(),
            Some("B"),
            "{text:?}"
        );
    }
    for text in [
        "b", "E", "AB", "A B", "A or B", "A) Paris", "2", "", "B+", "None",
    ] {
        assert_eq!(reference(Answer::Choice, text), None, "{text:?}");
    }
}
