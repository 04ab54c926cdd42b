//! Figures of terminal candidates beside the others: [`TerminalFigures`]. If the two
//! are scored differently, it shows here first.

use serde_json::Value;

use super::mean::Mean;
use super::score::is_terminal;
use crate::artifact::StepRecord;

/// Shares and means over steps.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TerminalFigures {
    /// Share of candidates without foresight tokens (an end token is not one).
    pub share: Mean,
    /// Their share among the candidates drawn as beams.
    pub selected: Mean,
    /// f of those that have one.
    pub f: Mean,
    /// f of the other candidates.
    pub f_other: Mean,
}

impl TerminalFigures {
    /// Adds a step.
    pub fn add(&mut self, step: &StepRecord) {
        for c in &step.candidates {
            let terminal = is_terminal(c);
            self.share.add_if(terminal);
            if let Some(f) = c.f {
                let mean = if terminal {
                    &mut self.f
                } else {
                    &mut self.f_other
                };
                mean.add(f);
            }
        }
        let drawn = |&i: &u32| step.candidates.get(i as usize);
        for c in step.selected.iter().filter_map(drawn) {
            self.selected.add_if(is_terminal(c));
        }
    }

    /// Adds the figures to those of a `metrics.json`.
    pub fn write(&self, metrics: &mut Value) {
        for (name, mean) in [
            ("terminal_share", self.share),
            ("selected_terminal_share", self.selected),
            ("mean_f_terminal", self.f),
            ("mean_f_other", self.f_other),
        ] {
            metrics[name] = mean.json();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    use crate::artifact::{CandidateRecord, Content, Finish, StepEnd};

    fn candidate(index: u32, foresight: usize, f: Option<f64>) -> CandidateRecord {
        CandidateRecord {
            index,
            parent: 0,
            rollout: index,
            step_token_ids: vec![1],
            step_logprobs: vec![-1.0],
            step_text: "a\n".into(),
            step_end: StepEnd::Newline,
            content: Content::Text,
            foresight_token_ids: vec![2; foresight],
            foresight_logprobs: vec![-1.0; foresight],
            foresight_text: String::new(),
            completion: false,
            finish: Finish::EndToken,
            f,
            probability: 0.0,
            ended: false,
        }
    }

    #[test]
    fn terminal_candidates_stand_beside_the_others() {
        let mut figures = TerminalFigures::default();
        figures.add(&StepRecord {
            step: 1,
            beams: vec![],
            // An end token alone is not a foresight; the last one has no f.
            candidates: vec![
                candidate(0, 1, Some(-0.5)),
                candidate(1, 3, Some(-1.0)),
                candidate(2, 2, Some(-2.0)),
                candidate(3, 1, None),
            ],
            selected: vec![0, 1, 9],
            light: false,
        });
        let mut metrics = json!({});
        figures.write(&mut metrics);
        assert_eq!(
            metrics,
            json!({
                "terminal_share": 0.5,
                "selected_terminal_share": 0.5,
                "mean_f_terminal": -0.5,
                "mean_f_other": -1.5,
            })
        );
        let mut nothing = json!({});
        TerminalFigures::default().write(&mut nothing);
        assert_eq!(nothing["mean_f_other"], Value::Null);
    }
}
