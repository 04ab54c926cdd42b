//! Checks between stages: every need is met by a stage that produces it
//! ([`check_needs`]), and there are no cycles ([`check_cycles`]).

use std::collections::{BTreeMap, HashMap};

use super::diagnostic::{Problem, Report};
use super::stage::Draft;
use super::yaml::Span;
use crate::kind::{Input, Need, StageKind};
use crate::text::{choice, list, nearest, suggest};

/// Checks that every need is a stage that produces what the slot takes, and records
/// the output in the draft.
pub(super) fn check_needs(drafts: &mut [Draft], names: &[&str], report: &mut Report) {
    let index: HashMap<String, usize> = drafts
        .iter()
        .enumerate()
        .map(|(i, d)| (d.name().to_owned(), i))
        .collect();
    for at in 0..drafts.len() {
        if report.is_full() {
            return;
        }
        let mut resolved = BTreeMap::new();
        let draft = &drafts[at];
        for (slot, wanted, span) in draft
            .needs
            .iter()
            .filter(|(_, wanted, _)| !wanted.is_empty())
        {
            // A stage may have any number of needs, and each requires a search.
            if report.is_full() {
                return;
            }
            let (stage, output) = split(wanted);
            let Some(target) = index.get(stage).map(|&i| &drafts[i]) else {
                let others = names.iter().copied().filter(|n| *n != draft.name());
                report.add(
                    Problem::new(*span, format!("there is no stage `{stage}`"))
                        .maybe_hint(suggest(stage, others.collect::<Vec<_>>())),
                );
                continue;
            };
            let (Some(kind), Some(made)) = (draft.kind, target.kind) else {
                continue;
            };
            let input = kind.inputs().iter().find(|i| i.slot == slot);
            if input.is_none() && kind != StageKind::Command {
                continue;
            }
            match choose(input, output, target, made) {
                Ok(output) => {
                    let need = Need {
                        from: stage.to_owned(),
                        output,
                    };
                    resolved.insert(slot.clone(), need);
                }
                Err(lacking) => {
                    report.add(explain(draft, slot, *span, target, output, lacking, drafts));
                }
            }
        }
        drafts[at].resolved = resolved;
    }
}

/// `STAGE.OUTPUT`, or a stage alone.
pub(super) fn split(wanted: &str) -> (&str, Option<&str>) {
    match wanted.split_once('.') {
        Some((stage, output)) => (stage, Some(output)),
        None => (wanted, None),
    }
}

/// The output of `target` that an input takes, or the name of the missing one.
fn choose(
    input: Option<&Input>,
    named: Option<&str>,
    target: &Draft,
    made: StageKind,
) -> Result<String, Option<String>> {
    let has = |name: &str| target.outputs.iter().any(|o| o == name);
    let wanted = match (input, named) {
        // A command may produce any artifact under any name.
        (_, Some(named)) if made == StageKind::Command => named.to_owned(),
        (Some(input), Some(named)) if named != input.artifact && has(named) => {
            return Err(Some(input.artifact.to_owned()));
        }
        (_, Some(named)) => named.to_owned(),
        (Some(input), None) => input.artifact.to_owned(),
        (None, None) => target.outputs.first().ok_or(None)?.clone(),
    };
    if has(&wanted) {
        Ok(wanted)
    } else {
        Err(Some(wanted))
    }
}

/// The problem with a need, with a hint at what would fit.
fn explain(
    draft: &Draft,
    slot: &str,
    span: Span,
    target: &Draft,
    named: Option<&str>,
    lacking: Option<String>,
    drafts: &[Draft],
) -> Problem {
    let kind = target.kind.map_or("?", StageKind::name);
    let Some(lacking) = lacking else {
        return Problem::new(
            span,
            format!("stage `{}` ({kind}) produces nothing", target.name()),
        )
        .hint("declare its outputs: `with: { outputs: { NAME: {} } }`");
    };
    let made = || target.outputs.iter().map(String::as_str);
    match named {
        // The output exists, but the input takes something else.
        Some(named) if named != lacking => {
            let problem = Problem::new(
                span,
                format!("input `{slot}` takes `{lacking}`, not `{named}`"),
            );
            return if made().any(|o| o == lacking) {
                problem.hint(format!("write `{slot}: {}`", target.name()))
            } else {
                problem.hint(format!("`{}` makes {}", target.name(), list(made())))
            };
        }
        Some(named) => {
            let hint = match nearest(named, made()) {
                Some(near) => format!("did you mean `{}.{near}`?", target.name()),
                None if target.outputs.is_empty() => {
                    format!("`{}` produces nothing", target.name())
                }
                None => format!("`{}` makes {}", target.name(), list(made())),
            };
            return Problem::new(
                span,
                format!(
                    "stage `{}` ({kind}) does not produce `{named}`",
                    target.name()
                ),
            )
            .hint(hint);
        }
        None => {}
    }
    let fit = drafts
        .iter()
        .filter(|d| d.name() != draft.name() && d.outputs.contains(&lacking))
        .map(Draft::name);
    let fit = list(fit);
    let kinds = StageKind::ALL
        .iter()
        .filter(|k| k.outputs().contains(&lacking.as_str()))
        .map(|k| k.name());
    let kinds = choice(kinds);
    let hint = if !fit.is_empty() {
        format!("`{lacking}` comes from {fit}")
    } else if !kinds.is_empty() {
        format!("no stage here produces `{lacking}`; a stage of kind {kinds} does")
    } else {
        format!("`{}` makes {}", target.name(), list(made()))
    };
    let message = format!(
        "stage `{}` ({kind}) does not produce `{lacking}`",
        target.name()
    );
    Problem::new(span, message)
        .hint(hint)
        .label(format!("`{slot}` takes a stage that produces `{lacking}`"))
}

/// Each cycle is reported once, at the need that closes it.
pub(super) fn check_cycles(drafts: &[Draft], report: &mut Report) {
    let index: HashMap<&str, usize> = drafts
        .iter()
        .enumerate()
        .map(|(i, d)| (d.name(), i))
        .collect();
    let mut done = vec![false; drafts.len()];
    // A stage's position in the trail.
    let mut standing: Vec<Option<usize>> = vec![None; drafts.len()];
    for start in 0..drafts.len() {
        // Depth first, without recursion: (stage, next need to follow).
        let mut trail: Vec<(usize, usize)> = if done[start] {
            Vec::new()
        } else {
            standing[start] = Some(0);
            vec![(start, 0)]
        };
        while let Some((stage, next)) = trail.last_mut() {
            let here = *stage;
            let Some((_, wanted, span)) = drafts[here].needs.get(*next) else {
                done[here] = true;
                standing[here] = None;
                trail.pop();
                continue;
            };
            *next += 1;
            let Some(&target) = index.get(split(wanted).0) else {
                continue;
            };
            if let Some(from) = standing[target] {
                let circle: Vec<&str> = trail[from..]
                    .iter()
                    .map(|(s, _)| drafts[*s].name())
                    .chain([split(wanted).0])
                    .collect();
                report.add(
                    Problem::new(
                        *span,
                        format!(
                            "stages depend on each other in a cycle: {}",
                            circle.join(" -> ")
                        ),
                    )
                    .label("closes the cycle"),
                );
            } else if !done[target] {
                standing[target] = Some(trail.len());
                trail.push((target, 0));
            }
        }
    }
}
