//! Tests of the pipeline file as a whole.
