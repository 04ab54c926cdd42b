//! The `model` stage through both programs, on folders that are not quite a model.

use std::path::{Path, PathBuf};
use std::process::Output;

use super::programs::{genius, last_json, output_folder, package, words};

/// A pipeline of one stage over a copy of the tiny model.
struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(project.model()).unwrap();
        for entry in std::fs::read_dir(package("examples/tiny-model")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), project.model().join(entry.file_name())).unwrap();
        }
        let text = "version: 1\nname: m\nstages:\n  policy: { uses: model, with: { source: { path: model } } }\n";
        std::fs::write(project.path().join("m.yaml"), text).unwrap();
        project
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn model(&self) -> PathBuf {
        self.path().join("model")
    }

    fn run(&self) -> Output {
        genius()
            .args(["run", "--json", "--cache"])
            .arg(self.path().join("cache"))
            .arg(self.path().join("m.yaml"))
            .output()
            .expect("genius starts")
    }

    /// The folder that the stage made.
    fn output(&self) -> PathBuf {
        let output = self.run();
        assert!(output.status.success(), "{}", words(&output));
        output_folder(&last_json(&output), "policy", "model")
    }
}

#[test]
fn strays_beside_the_weights_change_no_model() {
    let project = Project::new();
    let plain = project.output();
    let weights = project.model().join("model.safetensors");
    for stray in ["consolidated.safetensors", "model.fp16.safetensors"] {
        std::fs::copy(&weights, project.model().join(stray)).unwrap();
    }
    assert_eq!(project.output(), plain, "the same tree");
}

#[test]
fn what_is_wrong_with_a_model_is_named_where_it_is() {
    let config = std::fs::read_to_string(package("examples/tiny-model/config.json")).unwrap();
    let heads = config
        .replace(
            r#""num_attention_heads":4"#,
            r#""num_attention_heads":3074457345618258604"#,
        )
        .replace(r#""head_dim":16"#, r#""head_dim":6"#);
    let rope = config.replace(r#""rope_scaling":null"#, r#""rope_scaling":{"factor":2.0}"#);
    assert!(heads != config && rope != config);
    for (file, text, said) in [
        (
            "config.json",
            heads.as_str(),
            "num_attention_heads: 3074457345618258604",
        ),
        (
            "config.json",
            rope.as_str(),
            "rope_scaling.rope_type: it is missing",
        ),
        ("generation_config.json", "{", "is damaged"),
        ("adapter_config.json", "{}", "adapter (LoRA)"),
        (
            "model.safetensors",
            "version https://git-lfs",
            "a Git LFS pointer",
        ),
        (
            "model.safetensors.index.json",
            r#"{"weight_map": {"x": "../model.safetensors"}}"#,
            "which is not in its folder",
        ),
    ] {
        let project = Project::new();
        std::fs::write(project.model().join(file), text).unwrap();
        let output = project.run();
        assert!(!output.status.success(), "{file}: {text}");
        let words = words(&output);
        assert!(words.contains(said), "{said}: {words}");
        let own = project.model();
        assert!(words.contains(&*own.to_string_lossy()), "{words}");
    }
}
