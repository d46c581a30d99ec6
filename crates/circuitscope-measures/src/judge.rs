use std::collections::BTreeSet;

use circuitscope_tasks::GroundTruth;
use serde::{Deserialize, Serialize};

use crate::{Error, Ranking, Result, Scores, directed_pairs, mean_std};

/// What a known circuit says of one set of scores.
///
/// Node measures run over all heads of the model; edge measures over all pairs of heads of which the
/// writer sits in an earlier layer than the reader, true where the circuit joins the two by an edge
/// of any port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Which account of the circuit: see `circuitscope_tasks::GroundTruth`.
    pub truth: String,
    /// Area under the ROC curve of heads, trapezoid rule.
    pub node_auc: f64,
    /// The same by the pessimistic staircase that ACDC's figures use.
    pub node_auc_pessimistic: f64,
    /// Average precision of heads.
    pub node_average_precision: f64,
    /// Highest F1 over all thresholds.
    pub best_f1: f64,
    /// Number of heads chosen at that threshold.
    pub best_f1_size: usize,
    /// Precision of the top k heads, k the size of the true circuit.
    pub precision_at_size: f64,
    /// Highest value over all thresholds of what the authors' code prints as F1:
    /// `2·tpr·(1−fpr)/(tpr+1−fpr)`.
    pub paper_f1: f64,
    /// Area under the ROC curve of directed head pairs, trapezoid rule; absent where the method
    /// scores no pairs or the circuit names no edges.
    pub edge_auc: Option<f64>,
    /// The same, pessimistic.
    pub edge_auc_pessimistic: Option<f64>,
    /// Average precision of directed head pairs.
    #[serde(default)]
    pub edge_average_precision: Option<f64>,
    /// Highest F1 of directed head pairs over all thresholds.
    #[serde(default)]
    pub edge_best_f1: Option<f64>,
    /// Precision of the top k pairs, k the number of true ones.
    #[serde(default)]
    pub edge_precision_at_size: Option<f64>,
    /// Area under the ROC curve of all edges of the computation graph, ports apart, input, MLPs and logits among their ends, by the
    /// size of their scores; absent where the method does not score them or the circuit names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph_edge_auc: Option<f64>,
    /// What the authors' code calls an edge AUC: heads ranked by how often they occur among the top
    /// pairs, judged against the true *heads*.
    pub paper_edge_auc: Option<f64>,
}

impl Judgement {
    /// Everything in it that lies between 0 and 1, by name.
    pub(crate) fn shares(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let all = [
            ("node_auc", Some(self.node_auc)),
            ("node_auc_pessimistic", Some(self.node_auc_pessimistic)),
            ("node_average_precision", Some(self.node_average_precision)),
            ("best_f1", Some(self.best_f1)),
            ("precision_at_size", Some(self.precision_at_size)),
            ("paper_f1", Some(self.paper_f1)),
            ("edge_auc", self.edge_auc),
            ("edge_auc_pessimistic", self.edge_auc_pessimistic),
            ("edge_average_precision", self.edge_average_precision),
            ("edge_best_f1", self.edge_best_f1),
            ("edge_precision_at_size", self.edge_precision_at_size),
            ("graph_edge_auc", self.graph_edge_auc),
            ("paper_edge_auc", self.paper_edge_auc),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// Judges scores by a known circuit.
///
/// # Errors
/// [`Error::Shape`] if the circuit belongs to a model of another shape; [`Error::OneClass`] if the
/// circuit contains no head, or every head.
pub fn judge(scores: &Scores, truth: &GroundTruth) -> Result<Judgement> {
    if truth.circuit.grid != scores.grid {
        return Err(Error::Shape {
            what: "heads of the known circuit's model",
            found: truth.circuit.grid.len(),
            expected: scores.grid.len(),
        });
    }
    let heads = truth.circuit.head_mask();
    let nodes = Ranking::new(&heads, &scores.nodes)?;
    let best = nodes.best_f1();
    let edges = match &scores.edges {
        Some(edges) if !truth.circuit.head_pairs().is_empty() => Some(edge_ranking(edges, truth)?),
        _ => None,
    };
    let paper_edge_auc = match &scores.paper_edge_head_counts {
        Some(counts) => {
            let counts: Vec<f64> = counts.iter().map(|&count| f64::from(count)).collect();
            Some(Ranking::new(&heads, &counts)?.auc())
        }
        None => None,
    };
    Ok(Judgement {
        truth: truth.variant.clone(),
        node_auc: nodes.auc(),
        node_auc_pessimistic: nodes.auc_pessimistic(),
        node_average_precision: nodes.average_precision(),
        best_f1: best.f1,
        best_f1_size: best.size,
        precision_at_size: nodes.precision_at_size(),
        paper_f1: nodes.best_paper_f1(),
        edge_auc: edges.as_ref().map(Ranking::auc),
        edge_auc_pessimistic: edges.as_ref().map(Ranking::auc_pessimistic),
        edge_average_precision: edges.as_ref().map(Ranking::average_precision),
        edge_best_f1: edges.as_ref().map(|edges| edges.best_f1().f1),
        edge_precision_at_size: edges.as_ref().map(Ranking::precision_at_size),
        graph_edge_auc: graph_edges(scores, truth)?.as_ref().map(Ranking::auc),
        paper_edge_auc,
    })
}

/// All edges of the graph, if they have scores and the circuit names some.
fn graph_edges(scores: &Scores, truth: &GroundTruth) -> Result<Option<Ranking>> {
    let Some((graph, values)) = scores
        .graph
        .as_ref()
        .and_then(|scores| Some((scores.graph, scores.edges.as_ref()?)))
    else {
        return Ok(None);
    };
    let named = truth.circuit.edges.iter();
    let named: BTreeSet<(usize, usize)> =
        named.flat_map(|edge| graph.edge_indices(*edge)).collect();
    if named.is_empty() || named.len() == graph.n_edges() {
        return Ok(None);
    }
    let (truth, sizes): (Vec<bool>, Vec<f64>) = graph
        .edges()
        .map(|at| {
            let size = values[at.0 * graph.readers() + at.1].abs();
            (named.contains(&at), size)
        })
        .unzip();
    Ranking::new(&truth, &sizes).map(Some)
}

fn edge_ranking(edges: &[f64], truth: &GroundTruth) -> Result<Ranking> {
    let grid = truth.circuit.grid;
    let joined: BTreeSet<(usize, usize)> = truth
        .circuit
        .head_pairs()
        .into_iter()
        .filter_map(|(source, destination)| Some((grid.index(source)?, grid.index(destination)?)))
        .collect();
    let (truth, scores): (Vec<bool>, Vec<f64>) = directed_pairs(grid)
        .map(|pair| (joined.contains(&pair), edges[pair.0 * grid.len() + pair.1]))
        .unzip();
    Ranking::new(&truth, &scores)
}

/// A mean with its spread over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Population standard deviation (divisor n), as the authors report it.
    pub std: f64,
}

impl Spread {
    /// Of some values; `None` if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() {
            return None;
        }
        let (mean, std) = mean_std(&values);
        Some(Self { mean, std })
    }
}
