//! Every integration test, in one binary, so that linking is paid for once.

mod suite {
    mod cache;
    mod command_line;
    mod commands;
    mod explain;
    // /proc and LD_PRELOAD
    #[cfg(target_os = "linux")]
    mod faults;
    mod layering;
    mod machine;
    #[cfg(feature = "worker")]
    mod models;
    #[cfg(target_os = "linux")]
    mod outputs;
    mod process;
    #[cfg(feature = "worker")]
    mod programs;
    mod project;
    mod runs;
    mod scripts;
    mod shared;
    mod show;
    // a pseudo-terminal
    #[cfg(target_os = "linux")]
    mod terminal;
    #[cfg(feature = "worker")]
    mod tiny_pipeline;
    mod trust;
}
