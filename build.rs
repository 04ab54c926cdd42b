//! Names the source in the programs, and gives those that link libtorch a run
//! path to it.
//!
//! torch-sys says where libtorch lies (`DEP_TCH_LIBTORCH_LIB`, because its
//! `links` key is `tch` and it is a direct dependency), but its own run path
//! does not reach the programs of another package.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.lock");
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rustc-env=GENIUS_SOURCE={:016x}", source_hash());
    // For the test that `src/processor.rs` looks for each of them.
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    println!("cargo::rustc-env=GENIUS_TARGET_FEATURES={features}");
    if std::env::var_os("CARGO_FEATURE_WORKER").is_none() {
        return;
    }
    let Some(lib) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") else {
        println!(
            "cargo::warning=torch-sys did not say where libtorch is; set LD_LIBRARY_PATH to run the worker"
        );
        return;
    };
    let lib = lib.to_string_lossy();
    // Only there: `genius` and the tests of the library link no libtorch.
    println!("cargo::rustc-link-arg-bin=genius-worker=-Wl,-rpath,{lib}");
    // rustc links with --as-needed, and no symbol of libtorch_cuda is named by
    // anyone: without this it is dropped, and CUDA is then "not available".
    let on_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if on_linux && Path::new(&*lib).join("libtorch_cuda.so").exists() {
        for flag in [
            format!("-L{lib}"),
            "-Wl,--no-as-needed".into(),
            "-ltorch_cuda".into(),
            "-Wl,--as-needed".into(),
        ] {
            println!("cargo::rustc-link-arg-bin=genius-worker={flag}");
        }
    }
}

/// Names the source that both programs are built from (`protocol::VERSION`).
fn source_hash() -> u64 {
    let mut files = vec![PathBuf::from("Cargo.lock")];
    collect(Path::new("src"), &mut files);
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        std::fs::read(&file).unwrap_or_default().hash(&mut hasher);
    }
    hasher.finish()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
