//! The rotary embedding of a config.json: base and [`RopeScaling`].
//!
//! transformers before 5 wrote `rope_theta` and `rope_scaling`, with the type
//! under `type` and later `rope_type`; 5 writes `rope_parameters`, which holds all
//! of it. Files with both forms are taken where they agree.

use serde_json::Value;

use super::fields::{Fields, Problem};
use super::limits;

/// Stretching of the rotary frequencies for longer contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// Llama 3.1's: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above context / this are low.
        low_freq_factor: f64,
        /// Wavelengths below context / this are high.
        high_freq_factor: f64,
        /// Context of the model before stretching, tokens.
        original_max_position_embeddings: f64,
    },
}

/// transformers' `default_theta`.
const DEFAULT_THETA: f64 = 10_000.0;

const THETA: &str = "rope_theta";
const PARTIAL: &str = "partial_rotary_factor";
const CONTEXT: &str = "original_max_position_embeddings";
/// transformers' other types, which another engine may have.
const OTHERS: [&str; 7] = [
    "linear",
    "dynamic",
    "yarn",
    "longrope",
    "su",
    "mrope",
    "proportional",
];
/// What a `llama3` scaling needs.
const LLAMA3: [&str; 3] = ["factor", "low_freq_factor", "high_freq_factor"];

/// Base and scaling; `context` is the model's own.
pub(super) fn read(file: &Fields<'_>, context: i64) -> Result<(f64, RopeScaling), Problem> {
    let theta = theta(file)?;
    partial(file)?;
    let original = original(file)?;
    let older = section(file, "rope_scaling", context, original)?;
    let newer = section(file, "rope_parameters", context, original)?;
    let scaling = match (&older, &newer) {
        (Some(a), Some(b)) if a.scaling != b.scaling => {
            return Err(file.problem(
                "rope_scaling",
                "it is another scaling than that of `rope_parameters`; keep one of the two",
            ));
        }
        (Some(a), _) => a.scaling,
        (None, Some(b)) => b.scaling,
        (None, None) => RopeScaling::Default,
    };
    let given = [
        (THETA.to_owned(), theta),
        (format!("rope_scaling.{THETA}"), older.and_then(|s| s.theta)),
        (
            format!("rope_parameters.{THETA}"),
            newer.and_then(|s| s.theta),
        ),
    ];
    let mut given = given
        .into_iter()
        .filter_map(|(key, theta)| Some((key, theta?)));
    let Some((first, theta)) = given.next() else {
        return Ok((DEFAULT_THETA, scaling));
    };
    match given.find(|(_, other)| *other != theta) {
        Some((key, other)) => Err(file.problem(
            &key,
            format!("{other} is not the {theta} of `{first}`; keep one of the two"),
        )),
        None => Ok((theta, scaling)),
    }
}

/// The fields of `rope_scaling` or `rope_parameters`.
#[derive(Clone, Copy)]
struct Section {
    theta: Option<f64>,
    scaling: RopeScaling,
}

fn section<'a>(
    file: &Fields<'a>,
    key: &'a str,
    context: i64,
    original: Option<f64>,
) -> Result<Option<Section>, Problem> {
    let Some(rope) = file.object(key)? else {
        return Ok(None);
    };
    if rope.keys().next().is_none() {
        return Ok(None);
    }
    if let Some((name, _)) = rope.keys().find(|(_, v)| matches!(v, Value::Object(_))) {
        return Err(rope.problem(
            name,
            "parameters for a kind of layer are not supported; where all layers share them, \
             write them without that level",
        ));
    }
    partial(&rope)?;
    let theta = theta(&rope)?;
    let scaling = match kind(&rope)? {
        "default" => {
            known(&rope, "default", &[])?;
            RopeScaling::Default
        }
        "llama3" => {
            known(&rope, "llama3", &[LLAMA3.as_slice(), &[CONTEXT]].concat())?;
            llama3(&rope, context, original)?
        }
        other if !OTHERS.contains(&other) => {
            let key = if rope.text("rope_type")?.is_some() {
                "rope_type"
            } else {
                "type"
            };
            return Err(rope.problem(
                key,
                format!("`{other}` is not a rotary scaling that any engine has"),
            ));
        }
        other => {
            return Err(Problem::Unsupported(format!(
                "rotary scaling `{other}` is not supported; `default` and `llama3` are"
            )));
        }
    };
    Ok(Some(Section { theta, scaling }))
}

/// The type, under either name.
fn kind<'a>(rope: &Fields<'a>) -> Result<&'a str, Problem> {
    match (rope.text("rope_type")?, rope.text("type")?) {
        (Some(a), Some(b)) if a != b => {
            Err(rope.problem("type", format!("`{b}` is not the `{a}` of `rope_type`")))
        }
        (Some(kind), _) | (None, Some(kind)) => Ok(kind),
        (None, None) => match rope.keys().find(|(key, _)| ![THETA, PARTIAL].contains(key)) {
            // A factor without a type: the old `linear`, or a type that was lost.
            Some((key, _)) => Err(rope.problem(
                "rope_type",
                format!("it is missing, and so it is not known what `{key}` means"),
            )),
            None => Ok("default"),
        },
    }
}

/// Refuses keys that the type does not have: they mean that another was meant.
fn known(rope: &Fields<'_>, kind: &str, keys: &[&str]) -> Result<(), Problem> {
    let own = ["rope_type", "type", THETA, PARTIAL];
    match rope
        .keys()
        .find(|(key, _)| !own.contains(key) && !keys.contains(key))
    {
        Some((key, _)) => {
            Err(rope.problem(key, format!("a scaling of type `{kind}` has no such key")))
        }
        None => Ok(()),
    }
}

fn llama3(rope: &Fields<'_>, context: i64, outer: Option<f64>) -> Result<RopeScaling, Problem> {
    let number = |key: &str| {
        rope.number(key, 1e-6..=1e6)?
            .ok_or_else(|| rope.problem(key, "it is missing, and `llama3` needs it"))
    };
    let [factor, low_freq_factor, high_freq_factor] =
        [number(LLAMA3[0])?, number(LLAMA3[1])?, number(LLAMA3[2])?];
    if factor < 1.0 {
        return Err(rope.problem("factor", format!("{factor} is below 1")));
    }
    if high_freq_factor <= low_freq_factor {
        return Err(rope.problem(
            "high_freq_factor",
            format!("{high_freq_factor} is not above the {low_freq_factor} of `low_freq_factor`"),
        ));
    }
    let inner = original(rope)?;
    if let (Some(inner), Some(outer)) = (inner, outer)
        && inner != outer
    {
        return Err(rope.problem(
            CONTEXT,
            format!("{inner} is not the {outer} beside it; keep one of the two"),
        ));
    }
    Ok(RopeScaling::Llama3 {
        factor,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings: inner.or(outer).unwrap_or(context as f64),
    })
}

fn theta(fields: &Fields<'_>) -> Result<Option<f64>, Problem> {
    fields.number(THETA, 1e-3..=1e15)
}

fn original(fields: &Fields<'_>) -> Result<Option<f64>, Problem> {
    fields.number(CONTEXT, 1.0..=limits::CONTEXT as f64)
}

fn partial(fields: &Fields<'_>) -> Result<(), Problem> {
    match fields.number(PARTIAL, 0.0..=1.0)? {
        Some(share) if share < 1.0 => Err(Problem::Unsupported(format!(
            "rotary embeddings on a share of each head (`{PARTIAL}` is {share}) are not supported"
        ))),
        _ => Ok(()),
    }
}
