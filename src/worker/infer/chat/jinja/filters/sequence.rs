//! Filters of lists and mappings.

use super::super::ast::BinOp;
use super::super::is;
use super::super::unicode::is_space;
use super::super::value::{View, view_items};
use super::{
    CallArgs, Error, Machine, Result, Value, attribute, fold, path, required, sort, truth,
};

pub(super) fn apply(
    machine: &mut Machine,
    name: &str,
    value: Value,
    args: CallArgs,
) -> Result<Value> {
    match name {
        "length" | "count" => {
            args.none(name)?;
            length(machine, &value)
        }
        "list" => {
            args.none(name)?;
            let items = machine.iterate(&value)?;
            machine.list(items)
        }
        "first" | "last" => {
            args.none(name)?;
            end(machine, name, &value)
        }
        "items" => {
            args.none(name)?;
            items(machine, &value)
        }
        "join" => join(machine, &value, args),
        "reverse" => {
            args.none(name)?;
            reverse(machine, &value)
        }
        "sort" => sort::sort(machine, &value, args),
        "dictsort" => sort::dict_sort(machine, &value, args),
        "unique" => unique(machine, &value, args),
        "min" | "max" => sort::extreme(machine, name, &value, args),
        "sum" => sum(machine, &value, args),
        "batch" => batch(machine, &value, args),
        "slice" => slice(machine, &value, args),
        "groupby" => sort::group_by(machine, &value, args),
        "map" => map(machine, &value, args),
        "xmlattr" => xml_attributes(machine, &value, args),
        _ => select(machine, name, &value, args),
    }
}

/// `first` and `last`.
fn end(machine: &mut Machine, name: &str, value: &Value) -> Result<Value> {
    if name == "first" && machine.is_iterator(value) {
        // The rest stays in the iterator.
        return machine.next(value);
    }
    let item = if name == "first" {
        machine.iterate(value)?.first().cloned()
    } else {
        reversible(machine, value)?;
        machine.iterate(value)?.pop()
    };
    Ok(item.unwrap_or_else(|| Value::undefined(format!("No {name} item, sequence was empty."))))
}

fn items(machine: &mut Machine, value: &Value) -> Result<Value> {
    match value {
        Value::Undefined(_) => machine.iterator(Vec::new()),
        Value::Dict(dict) => machine.iterator(view_items(View::Items, dict)?),
        _ => Err(Error::new("Can only get item pairs from a mapping.")),
    }
}

fn reverse(machine: &mut Machine, value: &Value) -> Result<Value> {
    if let Value::Str(s) = value {
        return machine.text(s.chars().rev().collect());
    }
    let once = machine.is_iterator(value);
    let mut items = machine.iterate(value)?;
    items.reverse();
    if once {
        machine.list(items)
    } else {
        machine.iterator(items)
    }
}

fn sum(machine: &mut Machine, value: &Value, args: CallArgs) -> Result<Value> {
    let [by, start] = args.bind("sum", ["attribute", "start"])?;
    let mut total = start.unwrap_or(Value::Int(0));
    if matches!(total, Value::Str(_) | Value::Markup(_)) {
        return Err(Error::new("sum() can't sum strings"));
    }
    let path = path(by.as_ref().unwrap_or(&Value::None));
    for item in machine.iterate(value)? {
        let item = attribute(machine, &item, &path, None)?;
        total = machine.binary(BinOp::Add, &total, &item)?;
    }
    Ok(total)
}

fn batch(machine: &mut Machine, value: &Value, args: CallArgs) -> Result<Value> {
    let [count, fill] = args.bind("batch", ["linecount", "fill_with"])?;
    let count = int(required(count, "batch")?)?;
    let mut rows: Vec<Vec<Value>> = Vec::new();
    for item in machine.iterate(value)? {
        match rows.last_mut() {
            Some(row) if i128::try_from(row.len()).ok() != Some(count) => row.push(item),
            // Jinja2 begins with an empty row, which a count of 0 gives away.
            None if count == 0 => rows.extend([Vec::new(), vec![item]]),
            _ => rows.push(vec![item]),
        }
    }
    if let (Some(row), Some(fill)) = (rows.last_mut(), fill.filter(|f| !matches!(f, Value::None))) {
        let wanted = usize::try_from(count).unwrap_or(0);
        machine.allocate(wanted.saturating_mul(size_of::<Value>()))?;
        while row.len() < wanted {
            row.push(fill.clone());
        }
    }
    lists(machine, rows)
}

fn slice(machine: &mut Machine, value: &Value, args: CallArgs) -> Result<Value> {
    let [slices, fill] = args.bind("slice", ["slices", "fill_with"])?;
    let items = machine.iterate(value)?;
    let slices = int(required(slices, "slice")?)?;
    if slices == 0 {
        return Err(Error::new("integer division or modulo by zero"));
    }
    let slices = usize::try_from(slices).unwrap_or(0);
    machine.allocate(slices.saturating_mul(size_of::<Value>()))?;
    let fill = fill.filter(|f| !matches!(f, Value::None));
    let mut rows = Vec::new();
    let mut rest = items.as_slice();
    for i in 0..slices {
        let longer = items.len() % slices;
        let len = items.len() / slices + usize::from(i < longer);
        let (row, after) = rest.split_at(len);
        rest = after;
        let mut row = row.to_vec();
        if let Some(fill) = fill.as_ref().filter(|_| i >= longer) {
            row.push(fill.clone());
        }
        rows.push(row);
    }
    lists(machine, rows)
}

fn lists(machine: &mut Machine, rows: Vec<Vec<Value>>) -> Result<Value> {
    let rows = rows.into_iter().map(Value::list).collect::<Result<_>>()?;
    machine.iterator(rows)
}

fn int(value: Value) -> Result<i128> {
    value
        .as_int()
        .ok_or_else(|| Error::new(format!("an integer is needed, not '{}'", value.type_name())))
}

fn length(machine: &mut Machine, value: &Value) -> Result<Value> {
    let len = match value {
        Value::Undefined(_) => 0,
        Value::Str(s) | Value::Markup(s) => s.chars().count(),
        Value::List(i) | Value::Tuple(i) | Value::Group(i) => i.items.len(),
        Value::Dict(d) | Value::View(_, d) => d.entries.len(),
        Value::Range(r) => return Ok(Value::Int(r.len())),
        Value::Object(id) if machine.is_loop(value) => {
            return machine.loop_length(*id).map(Value::Int);
        }
        _ => {
            return Err(Error::new(format!(
                "object of type '{}' has no len()",
                value.type_name()
            )));
        }
    };
    Ok(Value::Int(i128::try_from(len).unwrap_or(i128::MAX)))
}

/// Refuses what Python cannot go through from its end.
fn reversible(machine: &Machine, value: &Value) -> Result<()> {
    if machine.is_iterator(value) {
        return Err(Error::new("an iterator is not reversible"));
    }
    Ok(())
}

fn join(machine: &mut Machine, value: &Value, args: CallArgs) -> Result<Value> {
    let [sep, by] = args.bind("join", ["d", "attribute"])?;
    let sep = machine.string(&sep.unwrap_or_else(|| Value::str("")))?;
    let path = path(by.as_ref().unwrap_or(&Value::None));
    let mut out = String::new();
    for (i, item) in machine.iterate(value)?.iter().enumerate() {
        if i > 0 {
            machine.allocate(sep.len())?;
            out.push_str(&sep);
        }
        let item = attribute(machine, item, &path, None)?;
        machine.print(&item, &mut out)?;
    }
    Ok(Value::str(out))
}

fn unique(machine: &mut Machine, value: &Value, args: CallArgs) -> Result<Value> {
    let [case, by] = args.bind("unique", ["case_sensitive", "attribute"])?;
    let case = truth(machine, case)?;
    let path = path(by.as_ref().unwrap_or(&Value::None));
    let mut seen: Vec<Value> = Vec::new();
    let mut kept = Vec::new();
    for item in machine.iterate(value)? {
        let key = fold(attribute(machine, &item, &path, None)?, case);
        key.check_hashable()?;
        machine.spend(seen.len())?;
        if !seen.iter().any(|s| s.equal(&key)) {
            seen.push(key);
            kept.push(item);
        }
    }
    machine.iterator(kept)
}

fn map(machine: &mut Machine, value: &Value, mut args: CallArgs) -> Result<Value> {
    if !machine.truth(value)? {
        return machine.iterator(Vec::new());
    }
    let mut mapped = Vec::new();
    if args.positional.is_empty() && args.named.iter().any(|(n, _)| &**n == "attribute") {
        let [by, default] = args.bind("map", ["attribute", "default"])?;
        let path = path(&required(by, "map")?);
        let default = default.filter(|d| !matches!(d, Value::None));
        for item in machine.iterate(value)? {
            mapped.push(attribute(machine, &item, &path, default.as_ref())?);
        }
        return machine.iterator(mapped);
    }
    if args.positional.is_empty() {
        return Err(Error::new("map requires a filter argument"));
    }
    let filter = filter_name(args.positional.remove(0))?;
    if !super::exists(&filter) {
        return Err(Error::new(format!("No filter named '{filter}'.")));
    }
    for item in machine.iterate(value)? {
        mapped.push(super::apply(machine, &filter, item, args.clone())?);
    }
    machine.iterator(mapped)
}

fn filter_name(value: Value) -> Result<std::rc::Rc<str>> {
    match value {
        Value::Str(name) => Ok(name),
        other => Err(Error::new(format!(
            "No filter or test named {}.",
            other.type_name()
        ))),
    }
}

/// `select`, `reject`, `selectattr` and `rejectattr`.
fn select(machine: &mut Machine, name: &str, value: &Value, mut args: CallArgs) -> Result<Value> {
    if !machine.truth(value)? {
        return machine.iterator(Vec::new());
    }
    let mut parts = Vec::new();
    if name.ends_with("attr") {
        if args.positional.is_empty() {
            return Err(Error::new("Missing parameter for attribute name"));
        }
        parts = path(&args.positional.remove(0));
    }
    let test = if args.positional.is_empty() {
        None
    } else {
        Some(filter_name(args.positional.remove(0))?)
    };
    if let Some(test) = test.as_ref().filter(|t| !is::exists(t)) {
        return Err(Error::new(format!("No test named '{test}'.")));
    }
    let wanted = name.starts_with("select");
    let mut kept = Vec::new();
    for item in machine.iterate(value)? {
        let tested = attribute(machine, &item, &parts, None)?;
        let passes = match &test {
            Some(test) => is::apply(machine, test, &tested, args.clone())?,
            None => machine.truth(&tested)?,
        };
        if passes == wanted {
            kept.push(item);
        }
    }
    machine.iterator(kept)
}

fn xml_attributes(machine: &mut Machine, value: &Value, args: CallArgs) -> Result<Value> {
    let [space] = args.bind("xmlattr", ["autospace"])?;
    let space = space.map_or(Ok(true), |s| machine.truth(&s))?;
    let Some(dict) = machine.mapping(value) else {
        return Err(Error::new(format!(
            "'{}' is not a mapping",
            value.type_name()
        )));
    };
    let mut parts = Vec::new();
    for (key, value) in &dict.entries {
        if matches!(value, Value::None | Value::Undefined(_)) {
            continue;
        }
        let Value::Str(key) = key else {
            return Err(Error::new("an attribute's name is not a text"));
        };
        if key.contains(|c: char| {
            (c.is_ascii() && is_space(c) && c < '\u{1c}') || c == ' ' || "/>=".contains(c)
        }) {
            return Err(Error::new(format!(
                "Invalid character in attribute name: {key:?}"
            )));
        }
        let text = match value {
            Value::Markup(s) => s.to_string(),
            other => super::text::escaped(&machine.string(other)?),
        };
        machine.allocate(text.len() + key.len())?;
        parts.push(format!("{}=\"{text}\"", super::text::escaped(key)));
    }
    let mut text = parts.join(" ");
    if space && !text.is_empty() {
        text.insert(0, ' ');
    }
    machine.text(text)
}
