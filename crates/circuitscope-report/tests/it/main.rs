//! Tests of pages and pictures.
#![expect(clippy::unwrap_used, reason = "test helpers fail by panicking")]

mod circuit;
mod comparison;
mod report;
mod sample;
