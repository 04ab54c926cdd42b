//! Filters that sort or compare items.

use super::{
    CallArgs, Error, Machine, Ordering, Part, Result, Value, attribute, fold, order, path,
    required, truth,
};

/// A stable sort that may fail, and that leaves equal items as they are in
/// reverse too.
pub(in super::super) fn sorted<T>(
    machine: &mut Machine,
    items: Vec<T>,
    reverse: bool,
    key: impl Fn(&T) -> Value,
) -> Result<Vec<T>> {
    let mut keyed: Vec<(Value, T)> = items.into_iter().map(|i| (key(&i), i)).collect();
    if reverse {
        keyed.reverse();
    }
    let mut keyed = merge_sort(machine, keyed)?;
    if reverse {
        keyed.reverse();
    }
    Ok(keyed.into_iter().map(|(_, item)| item).collect())
}

fn merge_sort<T>(machine: &mut Machine, mut items: Vec<(Value, T)>) -> Result<Vec<(Value, T)>> {
    if items.len() < 2 {
        return Ok(items);
    }
    let right = items.split_off(items.len() / 2);
    let mut left = merge_sort(machine, items)?.into_iter().peekable();
    let mut right = merge_sort(machine, right)?.into_iter().peekable();
    let mut merged = Vec::with_capacity(left.len() + right.len());
    loop {
        let take_right = match (left.peek(), right.peek()) {
            (Some((a, _)), Some((b, _))) => order(machine, b, a)? == Ordering::Less,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => return Ok(merged),
        };
        merged.extend(if take_right {
            right.next()
        } else {
            left.next()
        });
    }
}

pub(super) fn sort(machine: &mut Machine, value: &Value, args: CallArgs) -> Result<Value> {
    let [reverse, case, by] = args.bind("sort", ["reverse", "case_sensitive", "attribute"])?;
    let (reverse, case) = (truth(machine, reverse)?, truth(machine, case)?);
    let items = machine.iterate(value)?;
    let paths: Vec<Vec<Part>> = match &by {
        Some(Value::Str(text)) => text.split(',').map(|t| path(&Value::str(t))).collect(),
        Some(other) => vec![path(other)],
        None => vec![Vec::new()],
    };
    let mut keyed = Vec::with_capacity(items.len());
    for item in items {
        let mut keys = Vec::with_capacity(paths.len());
        for path in &paths {
            keys.push(fold(attribute(machine, &item, path, None)?, case));
        }
        keyed.push((Value::list(keys)?, item));
    }
    let sorted = sorted(machine, keyed, reverse, |(key, _)| key.clone())?;
    machine.list(sorted.into_iter().map(|(_, item)| item).collect())
}

pub(super) fn dict_sort(machine: &mut Machine, value: &Value, args: CallArgs) -> Result<Value> {
    let [case, by, reverse] = args.bind("dictsort", ["case_sensitive", "by", "reverse"])?;
    let (case, reverse) = (truth(machine, case)?, truth(machine, reverse)?);
    let at = match by.as_ref().map(|b| b.as_str()) {
        None | Some(Some("key")) => 0,
        Some(Some("value")) => 1,
        _ => {
            return Err(Error::new(
                "You can only sort by either \"key\" or \"value\"",
            ));
        }
    };
    let Some(dict) = machine.mapping(value) else {
        return Err(Error::new(format!(
            "'{}' is not a mapping",
            value.type_name()
        )));
    };
    let entries = sorted(machine, dict.entries.clone(), reverse, |(k, v)| {
        fold(if at == 0 { k.clone() } else { v.clone() }, case)
    })?;
    let pairs = entries
        .into_iter()
        .map(|(k, v)| Value::tuple(vec![k, v]))
        .collect::<Result<_>>()?;
    machine.list(pairs)
}

/// `min` and `max`.
pub(super) fn extreme(
    machine: &mut Machine,
    name: &str,
    value: &Value,
    args: CallArgs,
) -> Result<Value> {
    let [case, by] = args.bind(name, ["case_sensitive", "attribute"])?;
    let case = truth(machine, case)?;
    let path = path(by.as_ref().unwrap_or(&Value::None));
    let wanted = if name == "min" {
        Ordering::Less
    } else {
        Ordering::Greater
    };
    let mut best: Option<(Value, Value)> = None;
    for item in machine.iterate(value)? {
        let key = fold(attribute(machine, &item, &path, None)?, case);
        let better = match &best {
            Some((other, _)) => order(machine, &key, other)? == wanted,
            None => true,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or_else(
        || Value::undefined("No aggregated item, sequence was empty."),
        |(_, item)| item,
    ))
}

pub(super) fn group_by(machine: &mut Machine, value: &Value, args: CallArgs) -> Result<Value> {
    let [by, default, case] = args.bind("groupby", ["attribute", "default", "case_sensitive"])?;
    let path = path(&required(by, "groupby")?);
    let default = default.filter(|d| !matches!(d, Value::None));
    let case = truth(machine, case)?;
    let mut keyed = Vec::new();
    for item in machine.iterate(value)? {
        let key = attribute(machine, &item, &path, default.as_ref())?;
        keyed.push((fold(key.clone(), case), key, item));
    }
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for (folded, key, item) in sorted(machine, keyed, false, |(folded, ..)| folded.clone())? {
        match groups.last_mut() {
            Some((last, _, items)) if last.equal(&folded) => items.push(item),
            _ => groups.push((folded, key, vec![item])),
        }
    }
    let groups = groups
        .into_iter()
        .map(|(_, key, items)| {
            let items = Value::list(items)?;
            Ok(Value::Group(Value::items(vec![key, items])?))
        })
        .collect::<Result<_>>()?;
    machine.list(groups)
}
