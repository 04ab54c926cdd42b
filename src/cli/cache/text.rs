//! The text that `genius cache` prints.

use std::path::Path;

use jiff::Timestamp;

use super::units::{age, counted, size, span};
use crate::store::{
    DamagedThing, GcDone, GcOptions, GcPlan, GcReason, Kept, PARTIAL_AGE, Repair, Share, Touched,
    Usage, VerifyReport,
};
use crate::text::one_line;

/// The table of `ls`.
pub(super) fn results(results: &[Kept], now: Timestamp) -> String {
    if results.is_empty() {
        return String::new();
    }
    let mut rows = vec![
        [
            "KEY",
            "KIND",
            "STAGE",
            "PIPELINE",
            "SIZE",
            "MADE",
            "LAST USED",
        ]
        .map(str::to_owned),
    ];
    rows.extend(results.iter().map(|r| {
        [
            r.key.short(),
            r.kind.clone(),
            r.stage.clone().unwrap_or_else(|| "-".to_owned()),
            r.pipeline.clone().unwrap_or_else(|| "-".to_owned()),
            size(r.bytes),
            age(r.made, now),
            age(r.last_used, now),
        ]
    }));
    table(&rows, &[4], "")
}

/// Lists the kinds that exist.
pub(super) fn no_such_kind(kind: &str, kinds: &[String]) -> String {
    format!(
        "The cache has no results of kind `{kind}`, only of {}.\n",
        kinds.join(", ")
    )
}

/// The report of `du`.
pub(super) fn usage(root: &Path, usage: &Usage) -> String {
    let row = |what: &str, bytes, count, unit| [what.to_owned(), size(bytes), counted(count, unit)];
    let mut trees = row(
        "trees",
        usage.trees.extra_bytes,
        usage.trees.count,
        "folder",
    );
    if usage.trees.apparent_bytes > usage.trees.extra_bytes {
        let linked = usage.trees.apparent_bytes - usage.trees.extra_bytes;
        trees[2].push_str(&format!(", with {} of links to blobs", size(linked)));
    }
    let mut rows = vec![
        row("blobs", usage.blobs.bytes, usage.blobs.count, "file"),
        trees,
        row("records", usage.records.bytes, usage.records.count, "file"),
        row("runs", usage.runs.bytes, usage.runs.count, "folder"),
        row("partial", usage.partial.bytes, usage.partial.count, "file"),
        row("tmp", usage.tmp.bytes, usage.tmp.count, "entry|entries"),
    ];
    if usage.unknown.count > 0 {
        let amount = usage.unknown;
        rows.push(row("unknown", amount.bytes, amount.count, "entry|entries"));
    }
    let mut text = format!("{}  {}\n", root.display(), size(usage.total_bytes));
    text.push_str(&table(&rows, &[1], "  "));
    for (title, shares) in [
        ("By stage kind", &usage.by_kind),
        ("By pipeline", &usage.by_pipeline),
    ] {
        if !shares.is_empty() {
            let rows: Vec<_> = shares.iter().map(share).collect();
            text.push_str(&format!("\n{title}\n{}", table(&rows, &[1], "  ")));
        }
    }
    text
}

fn share(share: &Share) -> [String; 3] {
    [
        share.name.clone(),
        size(share.bytes),
        counted(share.records, "result"),
    ]
}

/// What `gc` would remove, or (with `done`) removed.
pub(super) fn collection(
    plan: &GcPlan,
    done: Option<&GcDone>,
    options: &GcOptions,
    now: Timestamp,
) -> String {
    let mut text = String::new();
    if !plan.records.is_empty() {
        let mut rows =
            vec![["RESULT", "STAGE", "PIPELINE", "SIZE", "LAST USED", "WHY"].map(str::to_owned)];
        rows.extend(plan.records.iter().map(|r| {
            [
                r.short_id(),
                r.stage.clone().unwrap_or_else(|| "-".to_owned()),
                r.pipeline.clone().unwrap_or_else(|| "-".to_owned()),
                size(r.bytes),
                r.last_used.map_or_else(String::new, |used| age(used, now)),
                r.why.map_or("", why).to_owned(),
            ]
        }));
        text.push_str(&table(&rows, &[3], ""));
        text.push('\n');
    }
    let counts = |records, trees, blobs, partials, runs, leftovers| {
        [
            (records, "result"),
            (trees, "laid-out tree"),
            (blobs, "blob"),
            (partials, "partial result"),
            (runs, "run"),
            (leftovers, "leftover"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| counted(count, name))
        .collect::<Vec<_>>()
        .join(", ")
    };
    match done {
        _ if plan.is_empty() => text.push_str("Nothing to remove.\n"),
        None => {
            let what = counts(
                plan.records.len(),
                plan.trees.len(),
                plan.blobs.len(),
                plan.partials.len(),
                plan.runs.len(),
                plan.leftovers.len(),
            );
            let freed = size(plan.freed_bytes);
            text.push_str(&format!("Would remove {what}: {freed} would be free.\n"));
        }
        Some(d) => {
            let what = counts(d.records, d.trees, d.blobs, d.partials, d.runs, d.leftovers);
            let what = if what.is_empty() { "nothing" } else { &what };
            let freed = size(d.freed_bytes);
            text.push_str(&format!("Removed {what}: {freed} freed.\n"));
            if d.spared > 0 {
                let spared = counted(d.spared, "more|more");
                text.push_str(&format!(
                    "Left {spared} that a run began to use meanwhile.\n"
                ));
            }
            if d.refused > 0 {
                let refused = counted(d.refused, "more|more");
                text.push_str(&format!(
                    "Left {refused} that belong to another user, who has to remove them.\n"
                ));
            }
        }
    }
    text.push_str(&kept(plan, options));
    if plan.kept.undated > 0 {
        text.push_str(&undated(plan.kept.undated, done));
    }
    text
}

/// The note on times in the future.
fn undated(count: usize, done: Option<&GcDone>) -> String {
    let entries = counted(count, "entry|entries");
    let mut text = format!(
        "  {entries} with times in the future, so a clock was wrong: counted as made just now"
    );
    match done {
        Some(done) if done.dated < count => text.push_str(&format!(
            "; {} belong to another user, and keep the time.\n",
            count - done.dated
        )),
        Some(_) => text.push_str(", and dated so.\n"),
        None => text.push_str(".\n"),
    }
    text
}

/// What stays and why, and whether it fits.
fn kept(plan: &GcPlan, options: &GcOptions) -> String {
    let kept = &plan.kept;
    let minutes = options.grace.as_secs() / 60;
    let young = format!("younger than {}", counted(minutes as usize, "minute"));
    let runs_under_way = counted(kept.live_runs, "run under way|runs under way");
    let reasons: Vec<String> = [
        (
            kept.records_listed,
            format!("used by {}", counted(kept.runs, "run")),
        ),
        (kept.records_live, format!("used by {runs_under_way}")),
        (kept.records_young, young.clone()),
        (kept.records_newer, "of a newer Genius".to_owned()),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, reason)| format!("{} {reason}", counted(count, "result")))
    .collect();
    let blobs = kept.blobs_named + kept.blobs_young;
    let mut text = format!(
        "Kept: {}; {} of {}.\n",
        if reasons.is_empty() {
            "no results".to_owned()
        } else {
            reasons.join(", ")
        },
        size(kept.blob_bytes),
        counted(blobs, "blob"),
    );
    if kept.blobs_young > 0 {
        let since = if kept.live_runs > 0 {
            "younger than a run under way, or than the grace of ten minutes"
        } else {
            &young
        };
        text.push_str(&format!(
            "  {} no result names, but {} {since}.\n",
            counted(kept.blobs_young, "blob"),
            if kept.blobs_young == 1 { "is" } else { "are" },
        ));
    }
    if kept.partials > 0 {
        let within = options.older_than.unwrap_or(PARTIAL_AGE);
        text.push_str(&format!(
            "  {} of {}, used within {}.\n",
            counted(kept.partials, "partial result"),
            size(kept.partial_bytes),
            span(within),
        ));
    }
    if kept.unknown > 0 {
        text.push_str(&format!(
            "  {} that Genius does not know: left alone.\n",
            counted(kept.unknown, "entry|entries")
        ));
    }
    if let Some(over) = plan.over_budget_bytes {
        text.push_str(&format!(
            "The budget of {} cannot be met: what is left is {} more, and is used by runs under \
             way or younger than {}. Try again when they are done.\n",
            size(options.max_bytes.unwrap_or(0)),
            size(over),
            counted(minutes as usize, "minute"),
        ));
    }
    text
}

fn why(reason: GcReason) -> &'static str {
    match reason {
        GcReason::PipelineGone => "its pipeline file is gone",
        GcReason::TooOld => "not used since the given age",
        GcReason::Unlisted => "no run used it",
        GcReason::OverBudget => "least recently used",
        GcReason::Damaged => "damaged",
        GcReason::OlderFormat => "of an older format",
    }
}

/// What `verify` found.
pub(super) fn verification(report: &VerifyReport, root: &Path) -> String {
    let mut text = String::new();
    for damage in &report.damage {
        let what = match damage.what {
            DamagedThing::Blob => "blob",
            DamagedThing::Record => "record",
            DamagedThing::Tree => "laid-out tree",
            DamagedThing::Partial => "partial result",
        };
        let path = damage.path.strip_prefix(root).unwrap_or(&damage.path);
        text.push_str(&format!(
            "broken {what} {}\n  {}\n",
            one_line(&path.display().to_string()),
            one_line(&damage.why.to_string())
        ));
        if damage.touches.is_empty() && damage.what != DamagedThing::Partial {
            text.push_str("  no result needs it\n");
        }
        for touched in &damage.touches {
            text.push_str(&format!("  touches {}\n", one_line(&name(touched))));
        }
        let done = match damage.repaired {
            None => continue,
            Some(Repair::Removed) => "removed",
            Some(Repair::LaidOutAgain) => "laid out again from sound blobs",
            Some(Repair::NothingLeft) => "nothing left to remove",
        };
        text.push_str(&format!("  -> {done}\n"));
    }
    if !report.damage.is_empty() {
        text.push('\n');
    }
    let partials = match report.partials {
        0 => String::new(),
        n => format!(" and {}", counted(n, "partial result")),
    };
    text.push_str(&format!(
        "Read {} ({}), {}{} {}{partials}: ",
        counted(report.blobs, "blob"),
        size(report.blob_bytes),
        counted(report.records, "record"),
        if partials.is_empty() { " and" } else { "," },
        counted(report.trees, "laid-out tree"),
    ));
    let broken = report.damage.len();
    text.push_str(&match (broken, report.ok()) {
        (0, _) => "all sound.\n".to_owned(),
        (_, true) => format!("{} broken, and repaired.\n", counted(broken, "was|were")),
        (_, false) => format!("{} broken.\n", counted(broken, "is|are")),
    });
    if report.records_of_other_formats > 0 {
        text.push_str(&format!(
            "{} of other formats: these cannot be checked.\n",
            counted(report.records_of_other_formats, "record")
        ));
    }
    if !report.forgotten.is_empty() {
        text.push_str("Removed, and computed again when next needed:\n");
        for touched in &report.forgotten {
            text.push_str(&format!("  {}\n", one_line(&name(touched))));
        }
    }
    if !report.ok() {
        text.push_str(
            "`genius cache verify --repair` removes what is damaged; results that need it are computed again.\n",
        );
    }
    text
}

/// `stage train (5893...) of quickstart (/home/.../quickstart.yaml)`.
fn name(touched: &Touched) -> String {
    let stage = touched.stage.as_ref().map_or_else(
        || format!("result {}", touched.key.short()),
        |stage| format!("stage {stage} ({})", touched.key.short()),
    );
    let pipelines: Vec<String> = touched
        .pipelines
        .iter()
        .map(|p| match &p.path {
            Some(path) => format!("{} ({})", p.name, path.display()),
            None => p.name.clone(),
        })
        .collect();
    if pipelines.is_empty() {
        stage
    } else {
        format!("{stage} of {}", pipelines.join(", "))
    }
}

/// Columns two spaces apart; those in `right` are flush right.
fn table<const N: usize>(rows: &[[String; N]], right: &[usize], indent: &str) -> String {
    let shown = |row: &[String; N]| row.each_ref().map(|cell| one_line(cell).into_owned());
    let rows: Vec<[String; N]> = rows.iter().map(shown).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(i, cell)| {
                if right.contains(&i) {
                    format!("{cell:>w$}", w = widths[i])
                } else {
                    format!("{cell:<w$}", w = widths[i])
                }
            })
            .collect();
        text.push_str(indent);
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
