//! `genius init`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{CliError, Terminal};

const PIPELINE: &str = include_str!("genius.yaml");
/// What the pipeline reads, beside it.
const DATA: [(&str, &str); 2] = [
    ("queries.jsonl", include_str!("queries.jsonl")),
    ("benchmark.jsonl", include_str!("benchmark.jsonl")),
];

/// Write a pipeline to start from: every stage of the method, with comments.
///
/// Beside it come `queries.jsonl` and `benchmark.jsonl`, a few lines each, which
/// it reads; existing files of those names are kept. Folders are not
/// created.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file to write.
    #[arg(default_value = "genius.yaml", value_name = "FILE")]
    file: PathBuf,
    /// Overwrite FILE if it exists, but never the data beside it.
    #[arg(long)]
    force: bool,
}

/// Writes the files.
///
/// # Errors
/// When FILE exists already, or its folder does not.
pub fn run(args: &Args, terminal: &Terminal) -> Result<ExitCode, CliError> {
    let written = init(&args.file, args.force)?;
    let names: Vec<String> = written.iter().map(|p| p.display().to_string()).collect();
    terminal.status(format!(
        "wrote {}\nnext: genius validate {file}; genius run {file}\n",
        names.join(", "),
        file = args.file.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Writes the pipeline, and its data where there is none; the files written.
fn init(file: &Path, force: bool) -> Result<Vec<PathBuf>, CliError> {
    if !write(file, PIPELINE, force)? {
        return Err(CliError::Exists {
            path: file.to_owned(),
        });
    }
    let mut written = vec![file.to_owned()];
    for (name, content) in DATA {
        let path = file.with_file_name(name);
        if write(&path, content, false)? {
            written.push(path);
        }
    }
    Ok(written)
}

/// Returns whether it was written; an existing file is kept unless `force` is set.
fn write(path: &Path, content: &str, force: bool) -> Result<bool, CliError> {
    let io = |source| CliError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    };
    let mut options = OpenOptions::new();
    if force {
        options.write(true).create(true).truncate(true);
    } else {
        options.write(true).create_new(true);
    }
    match options.open(path) {
        Ok(mut file) => file
            .write_all(content.as_bytes())
            .map(|()| true)
            .map_err(io),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(io(e)),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::kind::StageKind;
    use crate::spec;

    #[test]
    fn the_written_pipeline_is_valid_and_has_every_stage_of_the_method() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.yaml");
        assert_eq!(init(&file, false).unwrap().len(), 3);
        let pipeline = spec::load(&file, &[]).unwrap_or_else(|e| panic!("{e}"));
        let of_the_method = |kind: &StageKind| *kind != StageKind::Command;
        for kind in StageKind::ALL.iter().copied().filter(of_the_method) {
            assert!(pipeline.stages.iter().any(|s| s.kind() == kind), "{kind:?}");
        }
        let names: Vec<&str> = pipeline.variants.iter().map(|v| v.name.as_str()).collect();
        assert_snapshot!(names.join("\n"), @r"
        wo-foresight
        sweep:learning_rate=5e-7,loss=aco
        sweep:learning_rate=5e-7,loss=dpo
        sweep:learning_rate=1e-6,loss=aco
        sweep:learning_rate=1e-6,loss=dpo
        ");
    }

    #[test]
    fn nothing_is_overwritten_without_force() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("genius.yaml");
        let data = folder.path().join("queries.jsonl");
        std::fs::write(&file, "mine").unwrap();
        std::fs::write(&data, "mine").unwrap();
        let error = init(&file, false).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        let shown = error
            .render(false)
            .replace(&format!("{}/", folder.path().display()), "");
        assert_snapshot!(shown.trim_end(), @r"
        error: genius.yaml already exists
          = help: `--force` overwrites it; or name another file
        ");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
        init(&file, true).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), PIPELINE);
        assert_eq!(
            std::fs::read_to_string(&data).unwrap(),
            "mine",
            "data is never overwritten"
        );
        assert!(
            init(&folder.path().join("no/genius.yaml"), false).is_err(),
            "no folder is created"
        );
    }
}
