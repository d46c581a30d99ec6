//! Tests of what rankings are worth.

mod measures;
