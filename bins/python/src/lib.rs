//! The compiled part of the Python package `circuitscope`.
//!
//! It takes and gives what both sides have: numpy arrays, numbers and text, and settings as JSON. The package beside it
//! (`python/circuitscope`) has the names, defaults and docstrings that users see. Work runs on a thread of its own with the
//! interpreter's lock released, so that Ctrl-C, progress and other threads of Python are heard meanwhile (`work.rs`).

#![recursion_limit = "256"]
#![expect(
    clippy::needless_pass_by_value,
    reason = "arguments of functions that Python calls"
)]
#![expect(
    unreachable_pub,
    reason = "what Python sees is public to the macros that make it so"
)]

mod arrays;
mod capture;
mod discover;
mod evaluate;
mod gathered;
mod model;
mod prompts;
mod score;
mod settings;
mod work;

use pyo3::prelude::*;

/// The compiled part of the package `circuitscope`.
#[pymodule]
mod _circuitscope {
    #[pymodule_export]
    use super::capture::capture;
    #[pymodule_export]
    use super::discover::{Found, discover};
    #[pymodule_export]
    use super::evaluate::{Evaluation, evaluate};
    #[pymodule_export]
    use super::methods;
    #[pymodule_export]
    use super::model::{Model, load_model};
    #[pymodule_export]
    use super::score::{graph_file, score, score_codes, write_text};
    #[pymodule_export]
    use super::settings::setting_names;
    #[pymodule_export]
    use super::work::Error;

    /// Version of the crates.
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "as Python names it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

/// What is known of each method, as JSON.
#[pyfunction]
fn methods() -> PyResult<String> {
    let rows: Vec<serde_json::Value> = circuitscope::eval::methods::ALL
        .iter()
        .map(|about| {
            serde_json::json!({
                "name": about.name,
                "summary": about.summary,
                "control": about.control,
                "quick": about.quick,
                "needs": about.needs.words(),
                "passes": about.passes.to_string(),
                "default": about.name == circuitscope::eval::methods::DEFAULT.name,
            })
        })
        .collect();
    work::to_json(&rows)
}
