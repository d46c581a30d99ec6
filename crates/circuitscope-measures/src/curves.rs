use circuitscope_core::Metric;
use serde::{Deserialize, Serialize};

use crate::Baseline;

/// What circuits of growing size, taken from the top of a ranking, keep of the behaviour when the rest
/// of the model is ablated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Faithfulness {
    /// What was read from the output.
    pub metric: Metric,
    /// Pairs of prompts run.
    pub pairs: usize,
    /// The metric of the whole model, and with everything ablated.
    #[serde(flatten)]
    pub baseline: Baseline,
    /// Circuits of heads; all MLPs are kept, as MIB does with nodes without a score, so that a circuit without heads
    /// is seldom at 0.
    pub nodes: Curve,
    /// Circuits of edges, where the method scores edges of all nodes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub edges: Option<Curve>,
}

/// Circuits of the ten sizes of MIB.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Members to choose from.
    pub members: usize,
    /// Circuits in the order of signed scores.
    pub signed: Vec<Point>,
    /// Circuits in the order of absolute scores.
    pub absolute: Vec<Point>,
    /// Area under faithfulness of the signed circuits ([`cpr`](crate::cpr)).
    pub cpr: f64,
    /// Area of the distance from 1 of the absolute circuits ([`cmd`](crate::cmd)).
    pub cmd: f64,
    /// Area under the accuracy of the signed circuits ([`accuracy_area`](crate::accuracy_area)), where the metric says which answer
    /// is ahead. CPR alone misleads: a circuit that overshoots on some pairs and fails on others has a high one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_area: Option<f64>,
}

/// One circuit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Share of members that was asked for.
    pub share: f64,
    /// Members kept.
    pub size: usize,
    /// [`Baseline::share`] of everything.
    pub faithfulness: f64,
    /// KL divergence of the circuit's output from the full model's, in nats.
    pub kl: f64,
    /// Share of pairs on which the metric is above 0, where it is a difference of right and wrong answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
}
