//! Conversations: the text of the first turn of the user. Entry: [`first_user_turn`].

use serde_json::{Map, Value};

use super::layout::{Found, kind_of, names_of};

/// Roles whose turns are queries, in lower case.
const USER_ROLES: [&str; 3] = ["user", "human", "prompter"];

/// Roles whose turns are skipped.
const OTHER_ROLES: [&str; 17] = [
    "system",
    "developer",
    "assistant",
    "gpt",
    "chatgpt",
    "bot",
    "chatbot",
    "ai",
    "model",
    "bing",
    "bard",
    "tool",
    "function",
    "function_call",
    "function_response",
    "observation",
    "ipython",
];

/// Keys of a turn's role, and of its text.
const ROLE_KEYS: [&str; 2] = ["role", "from"];
const TEXT_KEYS: [&str; 4] = ["content", "value", "text", "parts"];

/// The text of the first turn of a user.
///
/// # Errors
/// With what is wrong, where a turn before it, or it, cannot be understood.
pub(super) fn first_user_turn(turns: &[Value]) -> Result<Found, String> {
    for (number, turn) in (1..).zip(turns) {
        let Value::Object(turn) = turn else {
            return Err(format!(
                "turn {number} is {}, not an object with a role and a text",
                kind_of(turn)
            ));
        };
        if is_user(turn).map_err(|what| format!("turn {number} {what}"))? {
            return content(turn).map_err(|what| format!("turn {number} {what}"));
        }
    }
    Ok(Found::NoUserTurn)
}

fn is_user(turn: &Map<String, Value>) -> Result<bool, String> {
    let role = ROLE_KEYS.iter().find_map(|key| turn.get(*key));
    let Some(role) = role else {
        return Err(format!(
            "has no `role` or `from`; there are {}",
            names_of(turn)
        ));
    };
    let Some(word) = role.as_str() else {
        return Err(format!("has {} as its role", kind_of(role)));
    };
    let lower = word.trim().to_lowercase();
    if USER_ROLES.contains(&lower.as_str()) {
        Ok(true)
    } else if OTHER_ROLES.contains(&lower.as_str()) {
        Ok(false)
    } else {
        Err(format!("has the unknown role {word:?}"))
    }
}

fn content(turn: &Map<String, Value>) -> Result<Found, String> {
    let there: Vec<&Value> = TEXT_KEYS.iter().filter_map(|key| turn.get(*key)).collect();
    if there.is_empty() {
        return Err(format!(
            "has no `content`, `value`, `text` or `parts`; there are {}",
            names_of(turn)
        ));
    }
    let mut given = there.into_iter().filter(|value| !value.is_null());
    match (given.next(), given.next()) {
        (None, _) => Ok(Found::Null),
        (Some(one), None) => text_of(one),
        (Some(one), Some(other)) if one == other => text_of(one),
        _ => Err("has several texts that differ".to_owned()),
    }
}

/// The text of a turn's content: a text, or parts that are texts.
fn text_of(content: &Value) -> Result<Found, String> {
    match content {
        Value::Null => Ok(Found::Null),
        Value::String(text) => Ok(Found::Text(text.clone())),
        Value::Object(part) => part_text(part),
        Value::Array(parts) => {
            let bare = parts.iter().filter(|part| part.is_string()).count();
            if bare > 1 || (bare == 1 && parts.len() > 1 && parts.iter().all(is_text_part)) {
                return Err("has a list of texts: is that one text or several?".to_owned());
            }
            let mut whole = String::new();
            for part in parts {
                match text_of(part)? {
                    Found::Text(text) => whole.push_str(&text),
                    // A part of a question is not the question.
                    other => return Ok(other),
                }
            }
            Ok(Found::Text(whole))
        }
        other => Err(format!("has {} as its text", kind_of(other))),
    }
}

fn is_text_part(part: &Value) -> bool {
    part.is_string() || part.get("text").is_some_and(Value::is_string)
}

/// The text of a part; a picture, a sound or a file has none.
fn part_text(part: &Map<String, Value>) -> Result<Found, String> {
    let kind = ["type", "content_type"]
        .iter()
        .find_map(|key| part.get(*key))
        .and_then(Value::as_str);
    let textual = matches!(kind, None | Some("text" | "input_text"));
    match (textual, part.get("text"), part.get("parts")) {
        (true, Some(text), None) => text_of(text),
        (true, None, Some(parts)) => text_of(parts),
        _ => Ok(Found::NotText),
    }
}
