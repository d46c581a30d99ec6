//! The vocabulary of circuitscope: heads, nodes, edges, circuits, polarities and seeds.
//!
//! Everything here is plain data on the host. The crate depends on no tensor library, so that
//! whatever consumes integer codes, scores or circuits can be used and tested without one.
//! Strings are parsed once, strictly, into these types; a string that does not parse is an error
//! that states the rule.
//!
//! ```
//! use circuitscope_core::{Edge, HeadGrid, HeadId, Seed};
//!
//! # fn main() -> Result<(), circuitscope_core::ParseError> {
//! let head: HeadId = "L9H6".parse()?;
//! assert_eq!(head, "9.6".parse()?);
//! assert_eq!(HeadGrid::new(12, 12).index(head), Some(114));
//!
//! let edge: Edge = "a5.h5->a8.h6<k>".parse()?;
//! assert_eq!(edge.to_string(), "a5.h5->a8.h6<k>");
//!
//! // One seed, named streams: asking for another stream never disturbs this one.
//! assert_eq!(Seed::new(7).stream("sae"), Seed::new(7).stream("sae"));
//! assert_ne!(Seed::new(7).stream("sae"), Seed::new(7).stream("prompts"));
//! # Ok(())
//! # }
//! ```

mod circuit;
pub mod draw;
mod exec;
mod graph;
mod head;
mod metric;
mod names;
mod nearest;
mod node;
mod polarity;
mod progress;
mod seed;
pub mod workers;

pub use circuit::Circuit;
pub use exec::Exec;
pub use graph::Graph;
pub use head::{HeadGrid, HeadId};
pub use metric::Metric;
pub use nearest::{did_you_mean, nearest};
pub use node::{Edge, Node, Port};
pub use polarity::Polarity;
pub use progress::{NoProgress, Progress, Stage, TRAINING};
pub use seed::Seed;

/// A name that is not one of a closed list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} `{name}`{}: expected {known}", did_you_mean(nearest.as_deref()))]
pub struct UnknownName {
    /// What was wanted, without an article, e.g. `metric`.
    pub what: &'static str,
    /// As given.
    pub name: String,
    /// The most similar name.
    pub nearest: Option<&'static str>,
    /// All names.
    pub known: String,
}

/// The code of a vector on which no feature of a dictionary is active.
pub const INACTIVE: i32 = -1;

/// A string that names no head, node, edge or polarity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not {what}: expected {expected}")]
pub struct ParseError {
    /// What was wanted, with its article, e.g. `a head`.
    pub what: &'static str,
    /// The string that was given.
    pub found: String,
    /// The accepted forms.
    pub expected: &'static str,
}

impl ParseError {
    pub(crate) fn new(what: &'static str, found: &str, expected: &'static str) -> Self {
        Self {
            what,
            found: found.to_owned(),
            expected,
        }
    }
}
