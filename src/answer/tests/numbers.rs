//! Numbers: whole ones, exact ones, and what is none.

use super::*;

/// What a box that holds this is read as.
fn boxed(inside: &str) -> Option<String> {
    Matcher::Paper.extract(Answer::Number, &format!("7, so \\boxed{{{inside}}}"))
}

/// Holds every case against what is read of it, and shows all that differ.
#[track_caller]
fn check<'a>(
    cases: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    read: impl Fn(&str) -> Option<String>,
) {
    let wrong: Vec<_> = cases
        .into_iter()
        .map(|(text, want)| (text, read(text), want))
        .filter(|(_, read, want)| read.as_deref() != *want)
        .collect();
    assert!(wrong.is_empty(), "text, read, wanted: {wrong:#?}");
}

/// What is read after "the answer is", by both matchers, and by the paper's
/// where it is the last number of a text.
#[track_caller]
fn answer(text: &str) -> Option<String> {
    let sentence = format!("We have 7.\nThe answer is {text}");
    let paper = number(Matcher::Paper, &sentence);
    let standard = number(Matcher::Standard, &sentence);
    assert_eq!(standard, paper, "{text:?}");
    let hashes = number(Matcher::Standard, &format!("7\n#### {text}"));
    assert_eq!(hashes, paper, "#### {text:?}");
    let last = number(Matcher::Paper, &format!("We have 7.\nSo it is {text}"));
    assert_eq!(last, paper, "last: {text:?}");
    paper
}

#[test]
fn numbers_in_boxes_are_read_whole() {
    let cases = [
        ("42", "42"),
        ("\\frac{1}{2}", "0.5"),
        ("\\dfrac{1}{3}", "1/3"),
        ("\\tfrac{3}{4}", "0.75"),
        ("\\cfrac{6}{4}", "1.5"),
        ("\\frac12", "0.5"),
        ("\\frac 1 2", "0.5"),
        ("\\frac1{2}", "0.5"),
        ("\\frac{1}2", "0.5"),
        ("-\\frac{1}{2}", "-0.5"),
        ("\\frac{-1}{2}", "-0.5"),
        ("-\\frac{-1}{2}", "0.5"),
        ("\\frac{1,000}{3}", "1000/3"),
        ("2\\frac{2}{3}", "8/3"),
        ("-2\\frac{1}{2}", "-2.5"),
        ("10^5", "100000"),
        ("2^{10}", "1024"),
        ("2^{2^{3}}", "256"),
        ("10^{-3}", "0.001"),
        ("-2^2", "-4"),
        ("1.5 \\times 10^{3}", "1500"),
        ("3 \\cdot 10^{-2}", "0.03"),
        ("1{,}234", "1234"),
        ("9{,}500", "9500"),
        ("371,\\!043,\\!400", "371043400"),
        ("11,\\! 111,\\! 100", "11111100"),
        ("1\\,234\\,567", "1234567"),
        ("1{,}234.5", "1234.5"),
        ("-5", "-5"),
        ("- 5", "-5"),
        ("\u{2212}5", "-5"),
        ("(-5)", "-5"),
        ("(5)", "5"),
        ("\\left(5\\right)", "5"),
        ("{42}", "42"),
        ("\\text{42}", "42"),
        ("\\mathbf{42}", "42"),
        ("\\textbf{42}", "42"),
        ("42\\text{ dollars}", "42"),
        ("42 \\text{ cm}^2", "42"),
        ("42 \\mathrm{~m}^{2}", "42"),
        ("42\\,\\text{m/s}", "42"),
        ("42 dollars", "42"),
        ("5 km", "5"),
        ("5\\%", "5"),
        ("50\\text{ percent}", "50"),
        ("90^\\circ", "90"),
        ("90^{\\circ}", "90"),
        ("\\$1,234.50", "1234.5"),
        ("\\text{\\$}5", "5"),
        ("$5$", "5"),
        ("x=5", "5"),
        ("x_1 = 5", "5"),
        ("f(2) = 5", "5"),
        ("\\theta = 45^\\circ", "45"),
        ("AB = 12", "12"),
        ("x \\approx 3.14", "3.14"),
        ("2 + 2 = 4", "4"),
        ("\\text{The answer is } 42", "42"),
        ("0.5", "0.5"),
        (".5", "0.5"),
        ("5.", "5"),
        ("\\frac{0.5}{2}", "0.25"),
        ("3 million", "3000000"),
        ("\\displaystyle \\frac{7}{2}", "3.5"),
        ("\\boxed{5}", "5"),
    ];
    check(cases.map(|(inside, want)| (inside, Some(want))), boxed);
}

#[test]
fn boxes_with_more_than_a_number_are_not_read() {
    let cases = [
        "(2,3)",
        "(2, 3)",
        "[2,3]",
        "(3,4]",
        "(x, 3)",
        "(1,234)",
        "\\{1,2\\}",
        "\\left(2,3\\right)",
        "2, 3",
        "3,4,5",
        "1,23",
        "12,34",
        "1.234,5",
        "1.234.567",
        "0,123",
        "1 234",
        "5\\text{ or }6",
        "5 or 6",
        "2 \\text{ and } 3",
        "5 or more",
        "x=5, y=6",
        "x=5\\text{ or }x=6",
        "\\sqrt{2}",
        "3\\sqrt{2}",
        "\\frac{\\sqrt{3}}{2}",
        "\\frac{x}{2}",
        "\\frac{1}{2}x",
        "\\frac{1}{0}",
        "\\frac123",
        "12\\pi",
        "2x",
        "2 x",
        "x^2",
        "x+5",
        "5+x",
        "2^x",
        "2^{x}",
        "2^{2^{99}}",
        "5i",
        "3+4i",
        "x \\geq 5",
        "5 \\le x",
        "x \\neq 5",
        "x \\in 5",
        "\\pm 5",
        "5 \\pm 1",
        "5!",
        "2:3",
        "10-12",
        "10 - 12",
        "101_2",
        "1011_{2}",
        "0.\\overline{3}",
        "0.333\\ldots",
        "|5|",
        "5 \\pmod 7",
        "2 5/3",
        "3(4)",
        "-(",
        "\\log 5",
        "\\binom{5}{2}",
        "2x = 10",
        "x^2 = 9",
        "10^{5000}",
        "5 hundredths",
        "5 dozen",
        "not 5",
        "1/2 = 0.4",
        "0.5 = 50\\%",
        "\\sqrt[3]{5}",
        "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
        "1 + 2 + 3",
        "7 \\text{ million}",
    ];
    check(cases.map(|inside| (inside, None)), boxed);
}

#[test]
fn the_last_box_decides() {
    let cases = [
        ("\\boxed{3} and \\boxed{4}", Some("4")),
        ("\\fbox{42}", Some("42")),
        ("\\boxed 42", Some("42")),
        ("$\\boxed5$", Some("5")),
        ("\\boxed{ 42 }", Some("42")),
        // An empty one is a place for the answer, not the answer.
        ("\\boxed{7} goes into \\boxed{}", Some("7")),
        ("9, so \\boxed{\\pi}", None),
        ("x = 5, so \\boxed{x + y}", None),
        (
            "\\boxed{\\text{none}} The answer is \\boxed{\\pi}, as x = 5",
            None,
        ),
        // Cut off: the digits may go on.
        ("9, so \\boxed{8", None),
        ("The answer is 12. \\boxed{1", Some("12")),
        ("The answer is \\boxed{8", None),
    ];
    check(cases, |text| number(Matcher::Paper, text));
}

#[test]
fn numbers_in_words_are_read_whole() {
    let cases = [
        ("1/2", "0.5"),
        ("1/2.", "0.5"),
        ("2/3", "2/3"),
        ("-1/2", "-0.5"),
        ("2 2/3", "8/3"),
        ("2 and 2/3", "8/3"),
        ("½", "0.5"),
        ("2½ cups", "2.5"),
        ("1e3", "1000"),
        ("1.5e-3", "0.0015"),
        ("2E+2", "200"),
        ("1.5 x 10^3", "1500"),
        ("10^5", "100000"),
        ("-5", "-5"),
        ("\u{2212}5", "-5"),
        ("–5", "-5"),
        ("+7", "7"),
        ("negative 5", "-5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("$5", "5"),
        ("\\$5", "5"),
        ("€5", "5"),
        ("5€", "5"),
        ("£1,234.50 in all", "1234.5"),
        ("50%", "50"),
        ("50 percent", "50"),
        ("5 km", "5"),
        ("12 m^2", "12"),
        ("20 °C", "20"),
        ("007", "7"),
        ("1,000,000", "1000000"),
        ("1\u{202f}234", "1234"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("5.", "5"),
        ("5, because 3 is too few", "5"),
        ("5 - because it is", "5"),
        ("5 (five)", "5"),
        ("5.\n- 6 is not", "5"),
        ("**42**", "42"),
        ("**42**.", "42"),
        ("*42*", "42"),
        ("__42__", "42"),
        ("`42`", "42"),
        ("\"42\"", "42"),
        ("$42$", "42"),
        ("$\\frac{1}{2}$", "0.5"),
        ("\\(42\\)", "42"),
        ("\\[42\\]", "42"),
        ("(42)", "42"),
        ("２４", "24"),
        ("−４２", "-42"),
        ("٤٢", "42"),
        ("۴۲", "42"),
        ("2 + 2 = 4", "4"),
        ("10 - 12 = -2", "-2"),
        ("3 million", "3000000"),
        (
            "123456789012345678901234567890",
            "123456789012345678901234567890",
        ),
    ];
    check(cases.map(|(text, want)| (text, Some(want))), |text| {
        // Another number after the answer is what the last-number rule takes.
        if text.contains("too few") || text.contains("- 6") {
            number(Matcher::Standard, &format!("The answer is {text}"))
        } else {
            answer(text)
        }
    });
}

/// Texts that are not a number, or more than one.
const NOT_A_NUMBER: [&str; 92] = [
    "3,4,5",
    "3, 4, 5",
    "1,23",
    "12,34",
    "1.234,5",
    "1.2.3",
    "1 234",
    "5 6",
    "--5",
    "5-",
    "3x",
    "5km",
    "1st",
    "0x1F",
    "1:30",
    "2024-05-01",
    "05/01/2024",
    "10-12",
    "10–12",
    "10 to 12",
    "5 or 6",
    "5 and 6",
    "5 out of 6",
    "1 in 5",
    "5; 6",
    "5, or 6",
    "5 - 3",
    "5 + 3",
    "5 * 3",
    "5*3",
    "5 × 3",
    "5 x 3",
    "5 divided by 3",
    "1/2/3",
    "1/0",
    "5/x",
    "5^x",
    "5²",
    "5!",
    "5...",
    "5…",
    "0.333...",
    "5%-10%",
    "$5-$6",
    "5 and a half",
    "5 squared",
    "5 dozen",
    "5 millions",
    "±5",
    "+-5",
    "<5",
    ">= 5",
    "≥5",
    "√5",
    "5√2",
    "2π",
    "5 π",
    "5_2",
    "1'000",
    "5'10\"",
    "5'6",
    "5-year",
    "v1.2",
    "10e9999999",
    "①",
    "5️⃣",
    "５，６",
    "between 5 and 6",
    "at least 5",
    "more than 5",
    "step 5",
    "3(4)",
    "f(5)",
    "(5, 6)",
    "5 plus 6",
    "x=5, y=6",
    "5, 6 and 7",
    "1,000,00",
    "2 hours and 30 minutes",
    "2 hours 30 minutes",
    "5 feet 10 inches",
    "3 : 4",
    "5 or more",
    "5 plus",
    "up to 5",
    "twice 5",
    "12\\text{,}000",
    "2\\text{ hours }30\\text{ minutes}",
    "5\\text{th}",
    "0.\\overline{3}",
    "0.(3)",
    "\\left| -3 \\right|",
];

#[test]
fn what_is_not_a_number_is_not_read() {
    let none = NOT_A_NUMBER.map(|text| (text, None));
    for matcher in [Matcher::Standard, Matcher::Paper] {
        check(none, |text| {
            number(matcher, &format!("7. The answer is {text}"))
        });
    }
    check(none, |text| {
        number(Matcher::Paper, &format!("7. It is {text}"))
    });
    check(none, |text| reference(Answer::Number, text));
}

#[test]
fn the_last_number_is_one_that_stands_alone() {
    let cases = [
        ("16 - 3 - 4 = <<16-3-4=9>>9 eggs", Some("9")),
        ("She makes 9 * 2 = $<<9*2=18>>18", Some("18")),
        ("<think>3</think><answer>42</answer>", Some("42")),
        ("So x = 5 = 5.0", Some("5")),
        ("- 5 apples", Some("5")),
        ("Costs:\n- 5 apples\n- 6 pears", Some("6")),
        ("It is 9. See step 2.", None),
        ("It is 9, not 8", None),
        ("x^2 - 5x + 6", None),
        ("The roots are x = 2 and x = 3", None),
    ];
    check(cases, |text| number(Matcher::Paper, text));
}

#[test]
fn announcements_are_passed_over_until_one_has_a_number() {
    let cases = [
        (
            "Final Answer: The final answer is $5$. I hope it is correct.",
            Some("5"),
        ),
        ("answer is: 5.", Some("5")),
        ("Answer: **5**", Some("5")),
        ("The answer isn't 5", None),
        ("#### 1. First, add\n#### 2. Then, halve\n#### 9", Some("9")),
        ("#### Step 1\nThe answer is 9", Some("9")),
        // A number that cannot be read is not another one.
        ("#### 1.2.3\nThe answer is 9", None),
        ("The answer is 5 or 6. The answer is 9", None),
    ];
    check(cases, |text| number(Matcher::Standard, text));
}

#[test]
fn equal_values_are_one_text() {
    for same in [
        ["0.5", "1/2", "\\frac{1}{2}", "\\frac{2}{4}", ".50", "½"],
        [
            "1/3",
            "\\frac13",
            "2/6",
            "⅓",
            "\\dfrac{1}{3}",
            "\\frac{3}{9}",
        ],
        ["1000", "1,000", "10^3", "1e3", "$1,000.00", "1000.0"],
        ["-0.25", "-1/4", "-\\frac14", "−.25", "-25e-2", "-2.5e-1"],
        [
            "8/3",
            "2 2/3",
            "2\\frac{2}{3}",
            "16/6",
            "2 ⅔",
            "\\frac{8}{3}",
        ],
    ] {
        let read: Vec<_> = same
            .iter()
            .map(|text| reference(Answer::Number, text))
            .collect();
        assert!(
            read[0].is_some() && read.iter().all(|r| *r == read[0]),
            "{same:?}: {read:?}"
        );
    }
    // Near is not equal.
    assert_ne!(
        reference(Answer::Number, "1/3"),
        reference(Answer::Number, "0.3333333333333333")
    );
    assert_ne!(
        reference(Answer::Number, "0.1"),
        reference(Answer::Number, "0.1000000000000000055511151231257827")
    );
}
