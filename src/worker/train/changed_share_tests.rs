//! What training changed of the weights, once they are saved.

use std::sync::Mutex;

use super::*;
use genius::protocol::{Figure, Message};

impl Bench {
    /// The run's share of changed weights, in both places, and its warnings of rounding.
    fn changed_share(&self, output: &str, model: &Path) -> (f64, Vec<String>) {
        let mut job = self.context(output).job;
        job.inputs.insert("model".to_owned(), model.to_owned());
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&warnings);
        let ctx = Context::new(
            job,
            Arc::new(move |message| {
                if let Message::Log {
                    level: Level::Warn,
                    text,
                } = message
                    && text.contains("save_dtype")
                {
                    sink.lock().unwrap().push(text);
                }
            }),
            Arc::new(AtomicBool::new(false)),
        );
        let figures = run(&ctx).unwrap();
        let file = self.dir.path().join(output).join("metrics/metrics.json");
        let counts: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let Figure { name, value, .. } = figures.last().unwrap();
        assert_eq!(name, "changed_share");
        assert_eq!(value, &counts["changed_share"]);
        let warnings = std::mem::take(&mut *warnings.lock().unwrap());
        (value.as_f64().unwrap(), warnings)
    }
}

#[test]
fn what_rounding_undoes_is_measured_and_warned_of() {
    let mut bench = Bench::new();
    bench.params["learning_rate"] = 5e-7.into();
    for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
        let model = stored_as(kind);
        bench.params["save_dtype"] = "f32".into();
        let (share, warnings) = bench.changed_share("f32", model.path());
        assert!(share > 0.9, "{kind:?} in f32: {share}");
        assert!(warnings.is_empty(), "{warnings:?}");

        // Rounding f32 or f16 weights to bf16 changes them all, and is not training's doing.
        bench.params["save_dtype"] = "bf16".into();
        let (share, warnings) = bench.changed_share("bf16", model.path());
        assert!(share < 0.1, "{kind:?} in bf16: {share}");
        let [warning] = &warnings[..] else {
            panic!("{warnings:?}");
        };
        assert!(warning.contains("`save_dtype: f32` keeps it"), "{warning}");
    }
}

#[test]
fn a_change_that_bf16_shows_is_not_warned_of() {
    let mut bench = Bench::new();
    bench.params["learning_rate"] = 1e-2.into();
    bench.params["save_dtype"] = "bf16".into();
    let (share, warnings) = bench.changed_share("a", &model_folder());
    assert!(share > LOST_BELOW, "{share}");
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn the_changed_share_counts_elements() {
    let mut trainer = trainer(Kind::Float);
    assert_eq!(
        trainer.changed_share(&model_folder(), Kind::Float).unwrap(),
        0.0
    );
    let all: usize = trainer.trained().values().map(Tensor::numel).sum();
    let name = "model.norm.weight";
    let len = trainer.trained()[name].numel();
    tch::no_grad(|| {
        let mut norm = trainer.trained()[name].shallow_clone();
        let _ = norm.g_add_scalar_(1.0);
    });
    for kind in [Kind::Float, Kind::BFloat16] {
        let share = trainer.changed_share(&model_folder(), kind).unwrap();
        assert_eq!(share, len as f64 / all as f64);
    }
}
