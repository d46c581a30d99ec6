//! Tests of the crate through its public interface.
#![recursion_limit = "256"]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]
#![expect(clippy::print_stdout, reason = "tests print what they measured")]

mod explain;
mod graph;
mod models;
mod paths;
mod pull;
mod real;
mod reference;
mod replace;
mod rows;
mod splice;
mod tracr;
mod viewer;
