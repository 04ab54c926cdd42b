//! From a pipeline to a DAG with keys: nothing here runs anything.
