//! Gives the programs and tests that link libtorch a run path to it.
//!
//! torch-sys says where libtorch lies (`DEP_TCH_LIBTORCH_LIB`, because its
//! `links` key is `tch` and it is a direct dependency), but its own run path
//! does not reach the programs of another package.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
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
