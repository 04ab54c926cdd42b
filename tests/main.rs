//! Every integration test, in one binary, so that linking is paid for once.

mod suite {
    mod layering;
    #[cfg(feature = "worker")]
    mod real_model;
}
