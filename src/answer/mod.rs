//! Final answers: how a number or a letter is read from a model's text and from a
//! reference answer.
//!
//! [`lex`] cuts a text into tokens (numerals, words, LaTeX, signs); [`number`]
//! and [`letter`] read them; [`value`] is a number's exact value; [`Matcher`] decides
//! where in a response the answer is looked for. What is not
//! clearly one number, or one letter, is not read at all: an expression, a range,
//! a list, a date, digits beside letters.

mod letter;
mod lex;
mod matcher;
mod number;
#[cfg(test)]
mod tests;
mod value;
mod words;

pub use matcher::{Matcher, reference};
pub use value::Value;
