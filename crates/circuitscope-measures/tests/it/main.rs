//! Tests of what rankings are worth, and of comparisons.
#![expect(clippy::unwrap_used, reason = "test helpers fail by panicking")]

mod compare;
mod field;
mod measures;
