//! What is read of answers, and what the matchers make of responses.

use super::matcher::{ANNOUNCED, ANSWER_IS, HASHES, HEADING};
use super::*;
use crate::kind::eval::Answer;

mod letters;
mod numbers;

fn number(matcher: Matcher, text: &str) -> Option<String> {
    matcher.extract(Answer::Number, text)
}

fn choice(matcher: Matcher, text: &str) -> Option<String> {
    matcher.extract(Answer::Choice, text)
}

#[test]
fn every_pattern_compiles() {
    for pattern in [&ANNOUNCED, &ANSWER_IS, &HASHES, &HEADING] {
        assert!(pattern.is_some());
    }
}

#[test]
fn numbers_have_one_form() {
    for (text, form) in [
        ("42", Some("42")),
        ("042", Some("42")),
        ("+7", Some("7")),
        ("$1,200.50", Some("1200.5")),
        ("-$3.0", Some("-3")),
        ("$-3", Some("-3")),
        ("18.", Some("18")),
        (".5", Some("0.5")),
        ("-0", Some("0")),
        ("-0.00", Some("0")),
        ("-0.25", Some("-0.25")),
        ("0", Some("0")),
        ("100", Some("100")),
        (" 9 ", Some("9")),
        ("123456789012345678901", Some("123456789012345678901")),
        ("1.2.3", None),
        ("3/4", Some("0.75")),
        ("2/3", Some("2/3")),
        ("--3", None),
        ("", None),
        ("$", None),
        (".", None),
        ("-", None),
        ("twelve", None),
    ] {
        assert_eq!(reference(Answer::Number, text).as_deref(), form, "{text:?}");
    }
}

#[test]
fn standard_numbers_stand_where_they_are_announced() {
    for (text, answer) in [
        ("2 + 2 = 4\n#### 4", Some("4")),
        // What comes after the answer is another question.
        ("#### 3\nQ: ...\n#### 5", Some("3")),
        ("####7", Some("7")),
        ("#### -1,234.50 dollars", Some("-1234.5")),
        ("#### $18.", Some("18")),
        // Hashes come before words.
        ("The answer is 9.\n#### 8", Some("8")),
        ("So the answer is 12.", Some("12")),
        ("The answer is: 12", Some("12")),
        ("Answer: $3.50", Some("3.5")),
        ("The answer is 1. Q: ... The answer is 2", Some("1")),
        ("The answer is 42\n and 43", Some("42")),
        // Not right after the words.
        ("The answer is about 42", None),
        ("The answer is \\boxed{42}", None),
        ("We get 42.", None),
        ("#### none", None),
        ("", None),
    ] {
        assert_eq!(
            number(Matcher::Standard, text).as_deref(),
            answer,
            "{text:?}"
        );
    }
}

#[test]
fn paper_numbers_are_found_more_loosely() {
    for (text, answer) in [
        ("\\boxed{3} then \\boxed{5} and 9", Some("5")),
        ("\\boxed{x = \\frac{1}{2}} 9", Some("0.5")),
        ("\\boxed{12 \\text{ m}^2}", Some("12")),
        // A box without a number, or not closed, is none.
        ("\\boxed{none} the answer is 4", Some("4")),
        ("\\boxed{7} and \\boxed{8", Some("7")),
        ("The answer is about 42, not 43", Some("42")),
        ("The answer is 1. The answer is not 2 but 3", Some("3")),
        ("5 apples, 6 pears", Some("6")),
        // Nothing after the words: the last number of all.
        ("We get 42, which the answer is.", Some("42")),
        ("It costs $1,000.00.", Some("1000")),
        ("10-3", None),
        ("no number", None),
        ("", None),
    ] {
        assert_eq!(number(Matcher::Paper, text).as_deref(), answer, "{text:?}");
    }
}

#[test]
fn standard_letters_stand_where_they_are_announced() {
    for (text, answer) in [
        ("The answer is (B).", Some("B")),
        ("The answer is B", Some("B")),
        ("Answer: C", Some("C")),
        ("The answer is (A). Q: ... The answer is (D)", Some("A")),
        ("answer is: B", Some("B")),
        ("The answer is Apple", None),
        ("The answer is option B", None),
        ("The answer is b", None),
        ("The answer is E", None),
        ("B", None),
    ] {
        assert_eq!(
            choice(Matcher::Standard, text).as_deref(),
            answer,
            "{text:?}"
        );
    }
}

#[test]
fn paper_letters_stand_alone_after_the_words() {
    for (text, answer) in [
        ("The answer is option B, not C", Some("B")),
        ("The answer is **(C)**", Some("C")),
        ("the Answer is Apple: D", Some("D")),
        ("A. The answer is not given", None),
        ("B", None),
    ] {
        assert_eq!(choice(Matcher::Paper, text).as_deref(), answer, "{text:?}");
    }
}

#[test]
fn references_are_what_follows_the_hashes() {
    assert_eq!(
        reference(Answer::Number, "4 + 4 = 8\n#### 1,008").as_deref(),
        Some("1008")
    );
    assert_eq!(reference(Answer::Number, "8.0").as_deref(), Some("8"));
    assert_eq!(reference(Answer::Number, "eight"), None);
    assert_eq!(reference(Answer::Choice, " (B) ").as_deref(), Some("B"));
    assert_eq!(reference(Answer::Choice, "E"), None);
    assert_eq!(reference(Answer::Choice, "AB"), None);
}
