//! [`suggest`]: what a person may have meant.

/// "did you mean" the nearest, or else what there is.
pub fn suggest(name: &str, known: &[String]) -> String {
    let nearest = known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(name, k), k))
        .filter(|(distance, k)| *distance <= (k.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((_, near)) => format!("did you mean `{near}`?"),
        None => {
            let some: Vec<String> = known.iter().take(12).map(|k| format!("`{k}`")).collect();
            let more = if known.len() > 12 { ", ..." } else { "" };
            format!("there is {}{more}", some.join(", "))
        }
    }
}
