//! Every integration test, in one binary, so that linking is paid for once.

mod suite {
    mod layering;
    #[cfg(feature = "worker")]
    mod programs;
    #[cfg(feature = "worker")]
    mod tiny_pipeline;
}
