//! Words that change what a number or a letter beside them means.

/// Join two numbers into a list, a range or an expression.
pub(super) const JOIN: [&str; 24] = [
    "or",
    "and",
    "to",
    "through",
    "till",
    "until",
    "of",
    "out",
    "in",
    "over",
    "by",
    "vs",
    "versus",
    "mod",
    "modulo",
    "divided",
    "multiplied",
    "times",
    "plus",
    "minus",
    "x",
    "remainder",
    "choose",
    "point",
];

/// The same, within an expression: its value may follow.
pub(super) const OPERATORS: [&str; 9] = [
    "over",
    "mod",
    "modulo",
    "divided",
    "multiplied",
    "times",
    "plus",
    "minus",
    "x",
];

/// May come between such a word and the number.
pub(super) const BETWEEN: [&str; 8] = [
    "by",
    "of",
    "about",
    "approximately",
    "maybe",
    "perhaps",
    "possibly",
    "even",
];

/// After a number that should stand alone: it does not.
pub(super) const MORE: [&str; 9] = [
    "or", "and", "but", "not", "to", "through", "plus", "minus", "times",
];

/// After a number: it is a part of what is meant.
pub(super) const PART_AFTER: [&str; 33] = [
    "or",
    "plus",
    "minus",
    "th",
    "st",
    "nd",
    "rd",
    "squared",
    "cubed",
    "factorial",
    "pi",
    "dozen",
    "dozens",
    "hundreds",
    "thousands",
    "millions",
    "billions",
    "trillions",
    "half",
    "halves",
    "third",
    "thirds",
    "quarter",
    "quarters",
    "fourths",
    "fifths",
    "sixths",
    "eighths",
    "tenths",
    "hundredths",
    "thousandths",
    "choose",
    "sqrt",
];

/// The powers of ten that a word after a number means.
pub(super) const SCALES: [(&str, i32); 5] = [
    ("hundred", 2),
    ("thousand", 3),
    ("million", 6),
    ("billion", 9),
    ("trillion", 12),
];

/// Before a number: it is a part of an expression, a bound, or the label of something.
pub(super) const PART_BEFORE: [&str; 46] = [
    "twice", "double", "triple", "half", "times", "by", "plus", "over", "sqrt", "root", "log",
    "ln", "exp", "sin", "cos", "tan", "mod", "modulo", "pi", "than", "least", "most", "under",
    "above", "below", "between", "except", "version", "step", "figure", "fig", "table", "section",
    "chapter", "page", "equation", "eq", "problem", "question", "part", "example", "exercise",
    "case", "note", "line", "choose",
];

/// Before a number: it is below zero.
pub(super) const NEGATIVE: [&str; 2] = ["negative", "minus"];

/// Before an answer: it is another one.
pub(super) const NOT: [&str; 6] = ["not", "isn't", "isn’t", "never", "neither", "nor"];

/// Between a fraction and the whole number before it.
pub(super) const HALVES: [&str; 5] = ["half", "third", "quarter", "fourth", "fifth"];

/// Letters that are variables in plain text.
pub(super) const VARIABLES: [&str; 15] = [
    "x", "y", "z", "n", "k", "i", "j", "p", "q", "r", "t", "π", "θ", "e", "b",
];

/// Before a letter that is the answer.
pub(super) const LEAD: [&str; 28] = [
    "think",
    "believe",
    "guess",
    "say",
    "is",
    "option",
    "choice",
    "answer",
    "letter",
    "be",
    "indeed",
    "therefore",
    "thus",
    "hence",
    "then",
    "just",
    "still",
    "also",
    "really",
    "again",
    "fact",
    "with",
    "as",
    "choose",
    "select",
    "pick",
    "statement",
    "but",
];

/// After an answer: something else begins. After a letter, other words make it an
/// article or a part of a name.
pub(super) const FOLLOW: [&str; 36] = [
    "because",
    "since",
    "as",
    "is",
    "which",
    "with",
    "for",
    "but",
    "not",
    "by",
    "if",
    "due",
    "so",
    "then",
    "that",
    "given",
    "therefore",
    "thus",
    "hence",
    "was",
    "would",
    "seems",
    "and",
    "or",
    "where",
    "when",
    "while",
    "though",
    "although",
    "rather",
    "instead",
    "according",
    "based",
    "here",
    "too",
    "only",
];
