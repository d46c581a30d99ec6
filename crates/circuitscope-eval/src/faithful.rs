use burn::tensor::backend::Backend;
use circuitscope_core::{HeadId, Progress};
use serde::{Deserialize, Serialize};

use crate::causal::{CausalEvidence, Metric, PatchedRuns, mean};
use crate::measures::{MIB_SIZES, Order, circuit_size, cmd, cpr, faithfulness};
use crate::{Error, Result, Scores};

/// What circuits of growing size, taken from the top of a ranking, keep of the behaviour when the rest
/// of the model is ablated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Faithfulness {
    /// What was read from the output.
    pub metric: Metric,
    /// Pairs of prompts run.
    pub pairs: usize,
    /// `m(M)`: the metric of the full model.
    pub full: f64,
    /// `m(∅)`: the metric with every node ablated.
    pub empty: f64,
    /// Circuits of heads; all MLPs are kept, as MIB does with nodes without a score.
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
    /// Area under faithfulness of the signed circuits ([`cpr`]).
    pub cpr: f64,
    /// Area of the distance from 1 of the absolute circuits ([`cmd`]).
    pub cmd: f64,
}

/// One circuit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Share of members that was asked for.
    pub share: f64,
    /// Members kept.
    pub size: usize,
    /// See [`faithfulness`].
    pub faithfulness: f64,
    /// KL divergence of the circuit's output from the full model's, in nats.
    pub kl: f64,
}

/// What a chosen set of heads keeps, what is left without it, and whether each member is needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CircuitQuality {
    /// Share of the behaviour that the circuit keeps with all other heads ablated.
    pub faithfulness: f64,
    /// Share of the behaviour that is left with the circuit's heads ablated and all others kept: near 0
    /// for a complete circuit (Wang et al. 2022, arXiv 2211.00593, §4.1 with K = C).
    pub without: f64,
    /// For each member, what the circuit loses without it, as a share of the whole effect: minimality
    /// (ibid. with the circuit itself as the set).
    pub marginal: Vec<(HeadId, f64)>,
}

/// The edges of a model of which only some heads are kept; inputs and MLPs stay.
pub(crate) fn kept_heads<B: Backend>(runs: &PatchedRuns<'_, B>, kept: &[bool]) -> Vec<f32> {
    let graph = runs.graph();
    let grid = graph.grid();
    let mut set = vec![1.0; graph.readers() * graph.writers()];
    for (at, _) in kept.iter().enumerate().filter(|(_, kept)| !**kept) {
        let head = grid.head(at);
        let writer = graph.head_writer(head);
        for reader in 0..graph.readers() {
            set[reader * graph.writers() + writer] = 0.0;
        }
    }
    set
}

/// Measures circuits taken from the top of `scores` on the first `pairs` pairs.
///
/// Heads are ordered by the signed node scores of the graph where there are any, else by the scores
/// themselves.
///
/// # Errors
/// [`crate::measures::Error::NoEffect`] where ablating everything changes nothing; a request to stop.
pub fn measure_faithfulness<B: Backend>(
    causal: &CausalEvidence<B>,
    scores: &Scores,
    pairs: usize,
    progress: &dyn Progress,
) -> Result<Faithfulness> {
    let runs = PatchedRuns::new(causal, pairs)?;
    let graph = causal.graph();
    let metric = causal.metric();
    let size = graph.readers() * graph.writers();
    let (full, empty) = runs.full_and_empty(metric)?;
    faithfulness(full, empty, full)?;

    let curve = |members: usize, values: &[f64], set: &dyn Fn(&[usize]) -> Vec<f32>| {
        let points = |order: Order| {
            let ranking = order.ranking(values);
            let mut points = Vec::new();
            for share in MIB_SIZES {
                if progress.cancelled() {
                    return Err(Error::Cancelled);
                }
                let size = circuit_size(share, members);
                // Growing circuits repeat while they are small.
                let same = points.last().filter(|last: &&Point| last.size == size);
                let (faithfulness, kl) = if let Some(last) = same {
                    (last.faithfulness, last.kl)
                } else {
                    let values = runs.run(&[&set(&ranking[..size])], 0, &[metric, Metric::Kl])?;
                    let kept = faithfulness(mean(&values[0][0]), empty, full)?;
                    (kept, -mean(&values[1][0]))
                };
                points.push(Point {
                    share,
                    size,
                    faithfulness,
                    kl,
                });
            }
            Ok(points)
        };
        let area = |points: &[Point]| -> Vec<(f64, f64)> {
            points.iter().map(|p| (p.share, p.faithfulness)).collect()
        };
        let signed = points(Order::Signed)?;
        let absolute = if values.iter().all(|score| *score >= 0.0) {
            signed.clone()
        } else {
            points(Order::Absolute)?
        };
        Ok::<_, Error>(Curve {
            members,
            cpr: cpr(&area(&signed)),
            cmd: cmd(&area(&absolute)),
            signed,
            absolute,
        })
    };

    let grid = graph.grid();
    let signed = scores.graph.as_ref().and_then(|graph| graph.nodes.as_ref());
    let heads: Vec<f64> = match signed {
        Some(nodes) => grid
            .heads()
            .map(|head| nodes[graph.head_writer(head)])
            .collect(),
        None => scores.nodes.clone(),
    };
    let nodes = curve(grid.len(), &heads, &|chosen| {
        let mut kept = vec![false; grid.len()];
        for &at in chosen {
            kept[at] = true;
        }
        kept_heads(&runs, &kept)
    })?;
    let edges = match scores.graph.as_ref().and_then(|graph| graph.edges.as_ref()) {
        None => None,
        Some(edges) => {
            let all: Vec<(usize, usize)> = graph.edges().collect();
            let values: Vec<f64> = all
                .iter()
                .map(|&(writer, reader)| edges[writer * graph.readers() + reader])
                .collect();
            Some(curve(all.len(), &values, &|chosen| {
                let mut set = vec![0.0; size];
                for &at in chosen {
                    let (writer, reader) = all[at];
                    set[reader * graph.writers() + writer] = 1.0;
                }
                set
            })?)
        }
    };
    Ok(Faithfulness {
        metric,
        pairs: runs.rows().len(),
        full,
        empty,
        nodes,
        edges,
    })
}

/// Measures a chosen circuit of heads on the first `pairs` pairs.
///
/// # Errors
/// [`crate::measures::Error::NoEffect`] where ablating all heads changes nothing.
pub fn circuit_quality<B: Backend>(
    causal: &CausalEvidence<B>,
    circuit: &[HeadId],
    pairs: usize,
) -> Result<CircuitQuality> {
    let runs = PatchedRuns::new(causal, pairs)?;
    let grid = causal.graph().grid();
    let metric = causal.metric();
    let members: Vec<usize> = circuit
        .iter()
        .filter_map(|&head| grid.index(head))
        .collect();
    let of = |kept: &dyn Fn(usize) -> bool| {
        let kept: Vec<bool> = (0..grid.len()).map(kept).collect();
        runs.mean_of(&kept_heads(&runs, &kept), 0, metric)
    };
    let full = mean(&runs.clean(metric)?);
    let empty = of(&|_| false)?;
    let kept = of(&|at| members.contains(&at))?;
    let marginal = members.iter().map(|&member| {
        let less = of(&|at| at != member && members.contains(&at))?;
        let share = faithfulness(kept, less, less + full - empty)?;
        Ok((grid.head(member), share))
    });
    Ok(CircuitQuality {
        faithfulness: faithfulness(kept, empty, full)?,
        without: faithfulness(of(&|at| !members.contains(&at))?, empty, full)?,
        marginal: marginal.collect::<Result<_>>()?,
    })
}
