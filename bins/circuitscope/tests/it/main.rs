//! The built program, driven as a user drives it.

#![expect(
    clippy::unwrap_used,
    reason = "clippy knows tests, but not their helpers, where unwrap is the failure"
)]

mod answers;
mod book;
mod cards;
mod commands;
mod config;
mod errors;
mod families;
mod features;
mod formats;
mod gpu;
mod graph;
mod help;
#[cfg(feature = "hub")]
mod hub;
mod judged_files;
mod matrix;
mod norm_after;
mod numerics;
mod own_tasks;
mod pairs;
mod published;
mod real;
mod recommended;
mod reliability;
mod resume;
mod shell;
mod support;
#[cfg(feature = "sweep")]
mod sweep;
mod trust;
