//! Measures against scikit-learn, methods on planted activations, judging and resuming.
#![expect(clippy::unwrap_used, reason = "test helpers fail by panicking")]

mod causal;
mod choose;
mod coverage;
mod evaluate;
mod hypotheses;
mod methods;
mod null;
mod quality;
mod resampling;
mod significance;
