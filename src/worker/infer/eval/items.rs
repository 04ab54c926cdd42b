//! A benchmark's file: [`read`] gives its [`Question`]s.

use std::path::Path;

use serde_json::{Map, Value};

use genius::answer;
use genius::kind::eval::{Answer, Benchmark};
use genius::protocol::Failure;

/// One question with its right answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Question {
    /// Field `id`, if there is one; else the BLAKE3 hash of the question.
    pub(super) id: String,
    pub(super) text: String,
    /// As [`answer::reference`] gives it.
    pub(super) reference: String,
}

/// Reads the questions, the first `limit` of them.
///
/// # Errors
/// With file and line; when there is no question.
pub(super) fn read(benchmark: &Benchmark) -> Result<Vec<Question>, Failure> {
    let path = &benchmark.path;
    let bytes = std::fs::read(path).map_err(|e| {
        Failure::new(format!("cannot read {}: {e}", path.display())).hint(format!(
            "`path` of benchmark `{}` must be a JSONL file",
            benchmark.name
        ))
    })?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let line = 1 + e.as_bytes()[..good].iter().filter(|&&b| b == b'\n').count();
        at(path, line, "not UTF-8 text")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let questions: Vec<Question> = text
        .split('\n')
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .take(benchmark.limit.unwrap_or(usize::MAX))
        .map(|(index, line)| question(benchmark, index + 1, line))
        .collect::<Result<_, _>>()?;
    if questions.is_empty() {
        return Err(Failure::new(format!(
            "{} holds no question",
            path.display()
        )));
    }
    Ok(questions)
}

fn question(benchmark: &Benchmark, line: usize, text: &str) -> Result<Question, Failure> {
    let path = &benchmark.path;
    let item: Map<String, Value> = serde_json::from_str(text).map_err(|e| {
        at(path, line, &format!("not a JSON object: {e}"))
            .hint("a benchmark is JSONL: one whole object a line")
    })?;
    let field = |key: &str, name: &str| -> Result<String, Failure> {
        match item.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            // What was read as a float beyond 2^53 may have been another number.
            Some(Value::Number(number))
                if !number.is_f64() || number.as_f64().is_some_and(|x| x.abs() < 9.0e15) =>
            {
                Ok(number.to_string())
            }
            Some(Value::Number(number)) => Err(at(
                path,
                line,
                &format!("field `{name}` is {number}, too large a number to be exact"),
            )
            .hint("write it as text, in quotes")),
            Some(other) => {
                let kind = match other {
                    Value::Null => "null",
                    Value::Bool(true) => "true",
                    Value::Bool(false) => "false",
                    Value::Array(_) => "a list",
                    _ => "an object",
                };
                let what = format!("field `{name}` is {kind}, not text or a number");
                Err(at(path, line, &what))
            }
            None => {
                let mut there: Vec<&str> = item.keys().map(String::as_str).collect();
                there.sort_unstable();
                let what = format!("no field `{name}`; there are: {}", there.join(", "));
                Err(at(path, line, &what).hint(format!("name the field with `{key}`")))
            }
        }
    };
    let text = field("question_field", &benchmark.question_field)?;
    let id = match item.get("id") {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        _ => blake3::hash(text.as_bytes()).to_hex()[..32].to_owned(),
    };
    let given = field("answer_field", &benchmark.answer_field)?;
    let reference = answer::reference(benchmark.answer, &given).ok_or_else(|| {
        let (kind, hint) = match benchmark.answer {
            Answer::Number => ("one number", "a number may be a decimal, a fraction or LaTeX; `answer: choice` is for letters; leave out items whose answer is neither"),
            Answer::Choice => ("a letter from A to D", "`answer: number` is for numbers; leave out items with other choices"),
        };
        let (id, given) = (shortened(&id), shortened(&given));
        at(path, line, &format!("item `{id}`: the answer {given:?} is not {kind}")).hint(hint)
    })?;
    Ok(Question {
        id,
        text,
        reference,
    })
}

/// The beginning of a text, for a message.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn at(path: &Path, line: usize, what: &str) -> Failure {
    Failure::new(format!("{}:{line}: {what}", path.display()))
}
