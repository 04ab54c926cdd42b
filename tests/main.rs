//! Every integration test, in one binary, so that linking is paid for once.

mod suite {
    mod cache;
    mod command_line;
    // /proc and LD_PRELOAD
    mod commands;
    #[cfg(target_os = "linux")]
    mod faults;
    mod layering;
    mod process;
    #[cfg(feature = "worker")]
    mod programs;
    mod project;
    #[cfg(feature = "worker")]
    mod tiny_pipeline;
}
