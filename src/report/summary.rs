//! The end of a run: what ran, what was reused, the figures, the trained model.

use serde_json::Value;

use crate::kind::StageKind;
use crate::run::{RunReport, StageReport, Status};
use crate::text::{duration, one_line};

/// The text at the end of a run; `command` is how to go on after an interruption.
pub fn render(report: &RunReport, command: &str) -> String {
    let mut text = String::from("\n");
    let width = report
        .stages
        .iter()
        .map(|s| s.stage.chars().count())
        .max()
        .unwrap_or(0);
    for stage in &report.stages {
        let time = match stage.status {
            Status::Executed | Status::Failed => duration(stage.seconds),
            Status::Cached | Status::Skipped => String::new(),
        };
        let figures = if stage.kind == Some(StageKind::Eval) {
            String::new()
        } else {
            figures(stage)
        };
        let line = format!(
            "  {:<width$}  {:<8}  {:>6}  {figures}",
            stage.stage,
            word(stage.status),
            time,
        );
        text.push_str(&one_line(line.trim_end()));
        text.push('\n');
    }
    text.push_str(&benchmarks(report));
    let count = |status| report.stages.iter().filter(|s| s.status == status).count();
    let mut counts = vec![
        format!("{} executed", count(Status::Executed)),
        format!("{} cached", count(Status::Cached)),
    ];
    for (status, name) in [(Status::Failed, "failed"), (Status::Skipped, "skipped")] {
        if count(status) > 0 {
            counts.push(format!("{} {name}", count(status)));
        }
    }
    text.push_str(&format!(
        "\n{} in {}\n",
        counts.join(", "),
        duration(report.seconds)
    ));
    let warned: Vec<(&str, &str)> = report
        .stages
        .iter()
        .flat_map(|s| s.warnings.iter().map(|w| (s.stage.as_str(), w.as_str())))
        .collect();
    if !warned.is_empty() {
        text.push_str("Warnings:\n");
        for (stage, warning) in warned {
            text.push_str(&format!("  {stage}: {warning}\n"));
        }
    }
    for stage in report
        .stages
        .iter()
        .filter(|s| s.kind == Some(StageKind::Train))
    {
        if let Some(folder) = stage.outputs.get("model") {
            text.push_str(&format!(
                "Trained model ({}): {}\n",
                stage.stage,
                folder.display()
            ));
        }
    }
    if report.interrupted {
        text.push_str(&format!(
            "Interrupted. What is finished is kept; to go on, run the same again:\n  {command}\n"
        ));
    }
    text
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Executed => "executed",
        Status::Cached => "cached",
        Status::Failed => "failed",
        Status::Skipped => "skipped",
    }
}

fn figures(stage: &StageReport) -> String {
    stage
        .summary
        .iter()
        .map(|(name, value)| format!("{name} {}", number(value)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Whole numbers as they are, others with four significant digits.
fn number(value: &Value) -> String {
    match value {
        Value::Number(n) if n.is_f64() => {
            let x = n.as_f64().unwrap_or_default();
            let digits = if x == 0.0 {
                0
            } else {
                x.abs().log10().floor() as i32
            };
            let text = match digits {
                -4..=3 => format!("{x:.*}", usize::try_from(3 - digits).unwrap_or(0)),
                4..=9 => format!("{x:.0}"),
                _ => return format!("{x:.3e}"),
            };
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text
            }
        }
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// Figures of the eval stages side by side, a row a figure.
fn benchmarks(report: &RunReport) -> String {
    let evals: Vec<&StageReport> = report
        .stages
        .iter()
        .filter(|s| s.kind == Some(StageKind::Eval) && !s.summary.is_empty())
        .collect();
    let mut names: Vec<&str> = Vec::new();
    for (name, value) in evals.iter().flat_map(|s| &s.summary) {
        // Words (the engine) stand in the stage's own line.
        if !value.is_string() && !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return String::new();
    }
    let width = names.iter().map(|n| one_line(n).chars().count());
    let width = width.max().unwrap_or(0);
    let column = evals
        .iter()
        .map(|s| s.stage.chars().count())
        .max()
        .unwrap_or(0)
        .max(8);
    let mut text = format!("\n  {:<width$}", "benchmark");
    for eval in &evals {
        text.push_str(&format!("  {:>column$}", eval.stage));
    }
    text.push('\n');
    for name in names {
        text.push_str(&format!("  {:<width$}", one_line(name)));
        for eval in &evals {
            let value = eval.summary.iter().find(|(n, _)| n == name);
            let shown = value.map_or_else(|| "-".to_owned(), |(_, v)| number(v));
            text.push_str(&format!("  {shown:>column$}"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_significant_digits() {
        let shown: Vec<String> = [0.25, 1.0 / 3.0, 27.91, 1234.5, 5e-7, 0.0, 123456.7]
            .iter()
            .map(|x| number(&serde_json::json!(x)))
            .collect();
        assert_eq!(
            shown,
            ["0.25", "0.3333", "27.91", "1234", "5.000e-7", "0", "123457"]
        );
        assert_eq!(number(&serde_json::json!(12)), "12");
    }
}
