//! Integration tests of `circuitscope-files`.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod tensors;
