//! Names that a person wrote and those that there are: [`nearest`], [`suggest`],
//! and how several are listed.

/// Names that a hint lists.
const SHOWN_NAMES: usize = 20;

/// The candidate that `name` was probably meant to be: at most a third of its
/// letters are wrong.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |s: &str| s.to_lowercase().replace('-', "_");
    let wanted = plain(name);
    if wanted.chars().count() > 200 {
        return None;
    }
    let allowed = |c: &str| (c.chars().count().max(wanted.chars().count()) / 3).max(1);
    candidates
        .into_iter()
        .filter(|c| c.chars().count().abs_diff(wanted.chars().count()) <= allowed(c))
        .map(|c| (strsim::damerau_levenshtein(&wanted, &plain(c)), c))
        .filter(|(distance, c)| {
            *distance <= allowed(c) && *distance < wanted.chars().count().max(1)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

/// "did you mean" the nearest, or else what there is.
pub fn suggest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    match nearest(name, candidates.clone()) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None => {
            let all = list(candidates);
            (!all.is_empty()).then(|| format!("there is {all}"))
        }
    }
}

/// `` `a`, `b` and `c` ``.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    join(names, "and")
}

/// `` `a`, `b` or `c` ``.
pub fn choice<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    join(names, "or")
}

fn join<'a>(names: impl IntoIterator<Item = &'a str>, word: &str) -> String {
    let mut names = names.into_iter();
    let mut quoted: Vec<String> = names
        .by_ref()
        .take(SHOWN_NAMES)
        .map(|n| format!("`{n}`"))
        .collect();
    match names.count() {
        0 => {}
        more => quoted.push(format!("{more} more")),
    }
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} {word} {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_close_or_none() {
        let known = ["learning_rate", "batch_size", "epochs"];
        assert_eq!(nearest("learning-rat", known), Some("learning_rate"));
        assert_eq!(nearest("epoch", known), Some("epochs"));
        assert_eq!(nearest("temperature", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest("x", ["y"]), None);
    }

    #[test]
    fn what_there_is_is_listed_where_nothing_is_near() {
        let known = ["train", "before", "after"];
        let hint = |name| suggest(name, known).unwrap();
        assert_eq!(hint("trian"), "did you mean `train`?");
        assert_eq!(hint("x"), "there is `train`, `before` and `after`");
        assert_eq!(suggest("x", []), None);
        let many: Vec<String> = (0..30).map(|i| format!("stage{i}")).collect();
        let listed = list(many.iter().map(String::as_str));
        assert!(listed.ends_with("`stage19` and 10 more"), "{listed}");
    }
}
