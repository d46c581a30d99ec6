use burn::tensor::backend::Backend;
use circuitscope_core::{Metric, Progress};
use circuitscope_measures::{
    Curve, Faithfulness, MIB_SIZES, Order, Point, Scores, accuracy_area, circuit_size, cmd, cpr,
};

use crate::ablate::HeadCircuits;
use crate::causal::{CausalEvidence, PatchedRuns, mean};
use crate::{Error, Result};

/// What a circuit gives: metric and KL, each pair by pair.
type Run<'a> = dyn Fn(&[usize]) -> Result<[Vec<f64>; 2]> + 'a;

/// Measures circuits taken from the top of `scores` on the first `pairs` pairs.
///
/// Heads are ordered by the signed node scores of the graph where there are any, else by the scores
/// themselves.
///
/// # Errors
/// [`circuitscope_measures::Error::NoEffect`] where ablating everything changes nothing; a request to stop.
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
    let baseline = runs.baseline(metric)?;
    // Nothing is run where no share means anything.
    baseline.share(baseline.full)?;

    let is_difference = metric.is_difference();
    // `run` gives metric and KL, each pair by pair, of a circuit of some members.
    let curve = |members: usize, values: &[f64], run: &Run<'_>| {
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
                let point = if let Some(last) = same {
                    Point { share, ..*last }
                } else {
                    let [values, kl] = run(&ranking[..size])?;
                    let right = values.iter().filter(|value| **value > 0.0).count();
                    Point {
                        share,
                        size,
                        faithfulness: baseline.share(mean(&values))?,
                        kl: -mean(&kl),
                        accuracy: is_difference.then(|| right as f64 / values.len() as f64),
                    }
                };
                points.push(point);
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
        let accuracy: Option<Vec<(f64, f64)>> = signed
            .iter()
            .map(|p| Some((p.share, p.accuracy?)))
            .collect();
        Ok::<_, Error>(Curve {
            accuracy_area: accuracy.and_then(|points| accuracy_area(&points)),
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
    let heads_alone = HeadCircuits::new(causal, pairs, progress)?;
    let nodes = curve(grid.len(), &heads, &|chosen| {
        let mut kept = vec![false; grid.len()];
        for &at in chosen {
            kept[at] = true;
        }
        let mut values = heads_alone.run(&kept, &[metric, Metric::Kl])?;
        Ok([values.swap_remove(0), values.swap_remove(0)])
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
                let values = runs.run(&[&set], 0, &[metric, Metric::Kl])?;
                let mut values = values.into_iter().flatten().collect::<Vec<_>>();
                Ok([values.swap_remove(0), values.swap_remove(0)])
            })?)
        }
    };
    Ok(Faithfulness {
        metric,
        pairs: runs.rows().len(),
        baseline,
        nodes,
        edges,
    })
}
