//! Whether intervals hold what they claim to, where the truth is known.
//!
//! Activations of 40 heads are drawn, 12 of which tell positives from negatives, more or less: the number that an
//! interval is for is the mean AUC over a thousand such draws, and it has to lie in about 95 of 100 intervals.

use burn::tensor::{Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use circuitscope_core::{HeadGrid, NoProgress, Polarity, Seed, draw};
use circuitscope_eval::methods::{MeanDifference, Sae, SaeSettings};
use circuitscope_eval::{Discover as _, Evidence};
use circuitscope_measures::Ranking;
use circuitscope_score::stats::{Deviations, PairedComparison, Resample, half_samples};
use circuitscope_score::{CodeTable, node_scores};

const GRID: HeadGrid = HeadGrid::new(5, 8);
const PAIRS: usize = 24;
const D: usize = 4;
/// Draws whose intervals are counted.
const DRAWS: u64 = 200;
/// Draws that the truth is the mean of.
const TRUTH: u64 = 1000;

/// Whether a head tells the classes apart.
fn planted(head: usize) -> bool {
    head % 10 < 3
}

/// Pairs whose two prompts share most of their noise; planted heads add a little on positives, each as much as its
/// place says.
fn drawn(at: u64) -> Evidence<Flex> {
    let mut rng = Seed::new(5).nth("coverage", at).rng();
    let mut normal = || draw::normal_pair(&mut rng)[0] as f32;
    let mut rows = vec![Vec::new(); 2 * PAIRS];
    for pair in 0..PAIRS {
        for head in 0..GRID.len() {
            // Half of the planted heads are loud on some pairs alone.
            let loud = planted(head) && (head % 2 == 0 || pair % 3 == 0);
            let size = if loud { 0.25 + 0.05 * head as f32 } else { 0.0 };
            for at in 0..D {
                let shared = normal();
                let towards = if at == head % D { size } else { 0.0 };
                rows[pair].push(shared + 0.6 * normal() + towards);
                rows[PAIRS + pair].push(shared + 0.6 * normal());
            }
        }
    }
    let data = TensorData::new(rows.concat(), [2 * PAIRS, GRID.len(), D]);
    let labels = [[Polarity::Positive; PAIRS], [Polarity::Negative; PAIRS]].concat();
    let pairs = (0..PAIRS).map(|pair| (pair, PAIRS + pair)).collect();
    Evidence::new(GRID, Tensor::from_data(data, &FlexDevice), labels, pairs).unwrap()
}

fn auc(nodes: &[f64]) -> f64 {
    let truth: Vec<bool> = (0..GRID.len()).map(planted).collect();
    Ranking::new(&truth, nodes).unwrap().auc()
}

/// AUC of the distance of the class means.
fn of_means(evidence: &Evidence<Flex>, halves: &[&[usize]]) -> (f64, Vec<f64>) {
    let method = MeanDifference::default();
    let measured = method.measure(evidence, Seed::new(0), &NoProgress).unwrap();
    let all = auc(&measured.scores(None).unwrap().nodes);
    let mut of_halves = Vec::new();
    let each = measured.each(halves, &mut |scores| {
        of_halves.push(auc(&scores.nodes));
        Ok(())
    });
    each.unwrap();
    (all, of_halves)
}

/// AUC of the count of codes that positives alone have, of one dictionary.
fn of_counts(evidence: &Evidence<Flex>, halves: &[&[usize]]) -> (f64, Vec<f64>) {
    let settings = SaeSettings::default().with_n_codes(24);
    let sae = Sae::untrained(settings);
    let encoded = sae.encode(evidence, &[Seed::new(1)], &NoProgress).unwrap();
    let count = |table: &CodeTable| {
        let scores = node_scores(table).unwrap();
        auc(&scores
            .iter()
            .map(|score| f64::from(score.unique))
            .collect::<Vec<_>>())
    };
    let table = &encoded[0].table;
    let of_halves = halves
        .iter()
        .map(|rows| count(&table.select(rows).unwrap()));
    (count(table), of_halves.collect())
}

#[test]
fn intervals_hold_the_truth_as_often_as_they_say() {
    let methods = [of_means, of_counts];
    let mut truth = [0.0; 2];
    for at in 0..TRUTH {
        let evidence = drawn(DRAWS + at);
        for (truth, method) in truth.iter_mut().zip(methods) {
            *truth += method(&evidence, &[]).0 / TRUTH as f64;
        }
    }
    let lead = truth[0] - truth[1];
    let (mut held, mut lead_held) = ([0; 2], 0);
    for at in 0..DRAWS {
        let evidence = drawn(at);
        let seed = Seed::new(at);
        let halves = half_samples(evidence.labels(), evidence.pairs(), 100, seed).unwrap();
        let rows: Vec<&[usize]> = halves.iter().map(Resample::rows).collect();
        let scale = halves[0].scale();
        let found = methods.map(|method| method(&evidence, &rows));
        for ((held, (estimate, of_halves)), truth) in held.iter_mut().zip(&found).zip(truth) {
            let deviations = Deviations::new(*estimate, of_halves, scale).unwrap();
            let interval = deviations.interval(0.95).unwrap().within(0.0, 1.0);
            assert!(interval.contains(*estimate));
            *held += usize::from(interval.contains(truth));
        }
        let [(means, of_means), (counts, of_counts)] = &found;
        let ahead: Vec<f64> = of_means.iter().zip(of_counts).map(|(a, b)| a - b).collect();
        let difference = Deviations::new(means - counts, &ahead, scale).unwrap();
        let comparison = PairedComparison::new(&difference, 0.95).unwrap();
        lead_held += usize::from(comparison.interval.contains(lead));
    }
    let shares = [held[0], held[1], lead_held].map(|held| held as f64 / DRAWS as f64);
    println!("truth {truth:.3?}; means, counts, lead: {shares:.3?}");
    for share in shares {
        assert!((0.90..=0.98).contains(&share), "{shares:?}");
    }
}
