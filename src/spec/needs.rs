//! The stages together: every need is met by a stage that makes it, and no
//! stage needs itself: [`check_needs`], [`check_cycles`].

use std::collections::BTreeMap;

use super::diagnostic::{Problem, Report, choice, list, suggest};
use super::stage::Draft;
use crate::stage::StageKind;

/// Every need is a stage that makes what the slot takes.
pub(super) fn check_needs(drafts: &[Draft], names: &[&str], report: &mut Report) {
    for draft in drafts {
        for (slot, wanted, span) in draft
            .needs
            .iter()
            .filter(|(_, wanted, _)| !wanted.is_empty())
        {
            let Some(target) = drafts.iter().find(|d| d.name() == wanted) else {
                let others = names.iter().copied().filter(|n| *n != draft.name());
                report.add(
                    Problem::new(*span, format!("there is no stage `{wanted}`"))
                        .maybe_hint(suggest(wanted, others.collect::<Vec<_>>())),
                );
                continue;
            };
            let input = draft
                .kind
                .and_then(|k| k.inputs().iter().find(|i| i.slot == slot));
            let (Some(input), Some(made)) = (input, target.kind) else {
                continue;
            };
            if !made.outputs().contains(&input.artifact) {
                let fit = drafts
                    .iter()
                    .filter(|d| {
                        d.name() != draft.name()
                            && d.kind
                                .is_some_and(|k| k.outputs().contains(&input.artifact))
                    })
                    .map(Draft::name);
                let fit = list(fit);
                let hint = if fit.is_empty() {
                    let kinds = StageKind::ALL
                        .iter()
                        .filter(|k| k.outputs().contains(&input.artifact))
                        .map(|k| k.name());
                    format!(
                        "no stage here makes `{}`; a stage of kind {} does",
                        input.artifact,
                        choice(kinds)
                    )
                } else {
                    format!("`{}` comes from {fit}", input.artifact)
                };
                report.add(
                    Problem::new(
                        *span,
                        format!(
                            "stage `{wanted}` ({}) makes no `{}`",
                            made.name(),
                            input.artifact
                        ),
                    )
                    .hint(hint)
                    .label(format!(
                        "`{slot}` takes a stage that makes `{}`",
                        input.artifact
                    )),
                );
            }
        }
    }
}

/// Each circle is reported once, where it is closed.
pub(super) fn check_cycles(drafts: &[Draft], report: &mut Report) {
    let index: BTreeMap<&str, usize> = drafts
        .iter()
        .enumerate()
        .map(|(i, d)| (d.name(), i))
        .collect();
    let mut done = vec![false; drafts.len()];
    for start in 0..drafts.len() {
        // Depth first, without recursion: (stage, next need to follow).
        let mut trail: Vec<(usize, usize)> = if done[start] {
            Vec::new()
        } else {
            vec![(start, 0)]
        };
        while let Some((stage, next)) = trail.last_mut() {
            let here = *stage;
            let Some((_, wanted, span)) = drafts[here].needs.get(*next) else {
                done[here] = true;
                trail.pop();
                continue;
            };
            *next += 1;
            let Some(&target) = index.get(wanted.as_str()) else {
                continue;
            };
            if let Some(from) = trail.iter().position(|(s, _)| *s == target) {
                let circle: Vec<&str> = trail[from..]
                    .iter()
                    .map(|(s, _)| drafts[*s].name())
                    .chain([wanted.as_str()])
                    .collect();
                report.add(
                    Problem::new(
                        *span,
                        format!(
                            "stages need each other in a circle: {}",
                            circle.join(" -> ")
                        ),
                    )
                    .label("closes the circle"),
                );
            } else if !done[target] {
                trail.push((target, 0));
            }
        }
    }
}
