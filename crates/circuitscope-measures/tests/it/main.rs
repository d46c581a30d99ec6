//! Tests of what rankings are worth.

mod field;
mod measures;
