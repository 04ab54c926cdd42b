//! The end of a run: what ran, what was reused, the figures, the trained model.

use serde_json::Value;

use crate::kind::StageKind;
use crate::protocol::Figure;
use crate::run::{RunReport, StageReport, Status};
use crate::text::{duration, one_line};

/// The text at the end of a run; `command` resumes an interrupted run.
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
        let figures: Vec<String> = stage
            .figures
            .iter()
            .filter(|figure| figure.benchmark.is_none())
            .map(|figure| format!("{} {}", figure.name, shown(figure)))
            .collect();
        let line = format!(
            "  {:<width$}  {:<8}  {:>6}  {}",
            stage.stage,
            word(stage.status),
            time,
            figures.join(", "),
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

fn shown(figure: &Figure) -> String {
    let value = number(&figure.value);
    match figure.standard_error {
        Some(error) => format!("{value} ± {}", number(&error.into())),
        None => value,
    }
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

/// Figures of benchmarks, a row a figure, the stages side by side.
fn benchmarks(report: &RunReport) -> String {
    let rows = |stage: &StageReport| -> Vec<(String, String)> {
        let figures = stage.figures.iter().filter(|f| f.benchmark.is_some());
        figures.map(|f| (f.full_name(), shown(f))).collect()
    };
    let columns: Vec<_> = report.stages.iter().map(|s| (&s.stage, rows(s))).collect();
    let columns: Vec<_> = columns
        .iter()
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in columns.iter().flat_map(|(_, rows)| rows) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return String::new();
    }
    let width = names.iter().map(|n| one_line(n).chars().count());
    let width = width.max().unwrap_or(0);
    let mut text = format!("\n  {:<width$}", "benchmark");
    let mut lines: Vec<String> = names
        .iter()
        .map(|name| format!("  {:<width$}", one_line(name)))
        .collect();
    for (stage, rows) in columns {
        let cells = rows.iter().map(|(_, shown)| shown);
        let column = cells.chain([*stage]).map(|text| text.chars().count());
        let column = column.max().unwrap_or(0);
        text.push_str(&format!("  {stage:>column$}"));
        for (line, name) in lines.iter_mut().zip(&names) {
            let cell = rows.iter().find(|(n, _)| n == name);
            let cell = cell.map_or("-", |(_, shown)| shown);
            line.push_str(&format!("  {cell:>column$}"));
        }
    }
    format!("{text}\n{}\n", lines.join("\n"))
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

    fn stage(name: &str, figures: serde_json::Value) -> serde_json::Value {
        serde_json::json!({
            "stage": name, "kind": "eval", "status": "executed", "seconds": 0.5, "figures": figures,
        })
    }

    #[test]
    fn benchmarks_are_side_by_side_with_standard_errors() {
        let standard = |value: f64, error: f64| {
            serde_json::json!({
                "benchmark": "sums", "name": "standard", "value": value,
                "standard_error": error, "unit": "fraction",
            })
        };
        let n =
            serde_json::json!({ "benchmark": "sums", "name": "n", "value": 32, "unit": "count" });
        let engine = serde_json::json!({ "name": "engine", "value": "native f32", "unit": "text" });
        let report: RunReport = serde_json::from_value(serde_json::json!({
            "run_id": "r", "pipeline": "p", "pipeline_path": "p.yaml", "interrupted": false,
            "seconds": 1.0,
            "stages": [
                stage("before", serde_json::json!([standard(0.09375, 0.05235), engine])),
                stage("after", serde_json::json!([standard(0.15625, 0.06521), n])),
            ],
        }))
        .unwrap();
        insta::assert_snapshot!(render(&report, ""), @"
          before  executed   0.50s  engine native f32
          after   executed   0.50s

          benchmark                 before             after
          sums/standard  0.09375 ± 0.05235  0.1562 ± 0.06521
          sums/n                         -                32

        2 executed, 0 cached in 1.00s
        ");
    }
}
