//! Tests of what rankings are worth.

mod compare;
mod field;
mod measures;
