//! Activations made up so that it is known which heads tell positives from negatives, and how.

use burn::tensor::{Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use circuitscope::eval::Evidence;
use circuitscope::{HeadGrid, HeadId, Polarity, Seed, draw};

/// What planted heads do on positives that they do not do on negatives.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plant {
    /// They add one of four directions, and nothing on negatives.
    Switch,
    /// They add one of four directions, on nine of ten positives and three of ten negatives.
    Often,
    /// They add one of four directions on all prompts, three times as strongly on positives.
    Louder,
}

pub(crate) const PLANTS: [(&str, Plant); 3] = [
    ("planted switch", Plant::Switch),
    ("planted often", Plant::Often),
    ("planted louder", Plant::Louder),
];

const GRID: HeadGrid = HeadGrid::new(6, 8);
const D: usize = 48;
/// Heads that are planted, of 48.
const PLANTED: [HeadId; 6] = [
    HeadId::new(0, 3),
    HeadId::new(1, 6),
    HeadId::new(2, 1),
    HeadId::new(3, 3),
    HeadId::new(4, 0),
    HeadId::new(5, 7),
];

/// Every head writes a direction of its own, of a length of its own, and noise. A third of the others
/// add one of four directions on half of all prompts, whatever their label: they vary, and say nothing.
pub(crate) fn evidence(plant: Plant, pairs: usize, seed: Seed) -> (Evidence<Flex>, Vec<bool>) {
    let mut rng = seed.stream("planted").rng();
    let mut direction = || -> Vec<f64> {
        (0..D / 2)
            .flat_map(|_| draw::normal_pair(&mut rng))
            .map(|x| x / (D as f64).sqrt())
            .collect()
    };
    let own: Vec<Vec<f64>> = (0..GRID.len()).map(|_| direction()).collect();
    let events: Vec<Vec<Vec<f64>>> = (0..GRID.len())
        .map(|_| (0..4).map(|_| direction()).collect())
        .collect();
    let mut noise = || direction();
    let truth: Vec<bool> = GRID.heads().map(|head| PLANTED.contains(&head)).collect();
    let mut data = Vec::with_capacity(2 * pairs * GRID.len() * D);
    let mut choose = seed.stream("planted/choose").rng();
    for example in 0..2 * pairs {
        let positive = example < pairs;
        for head in 0..GRID.len() {
            let event = &events[head][draw::below(&mut choose, 4)];
            let chance = draw::below(&mut choose, 10);
            let strength = match (truth[head], plant) {
                (true, Plant::Switch) => f64::from(u8::from(positive)),
                (true, Plant::Often) => f64::from(u8::from(chance < if positive { 9 } else { 3 })),
                (true, Plant::Louder) => {
                    if positive {
                        1.5
                    } else {
                        0.5
                    }
                }
                (false, _) if head % 3 == 0 => f64::from(u8::from(chance < 5)),
                (false, _) => 0.0,
            };
            let size = 0.5 + (head % 5) as f64 / 2.0;
            let noise = noise();
            data.extend(
                (0..D)
                    .map(|i| (size * (own[head][i] + strength * event[i] + 0.3 * noise[i])) as f32),
            );
        }
    }
    let activations = TensorData::new(data, [2 * pairs, GRID.len(), D]);
    let activations = Tensor::<Flex, 3>::from_data(activations, &FlexDevice);
    let mut labels = vec![Polarity::Positive; pairs];
    labels.resize(2 * pairs, Polarity::Negative);
    let matched = (0..pairs).map(|pair| (pair, pairs + pair)).collect();
    // There are no positions here: both views are the same.
    let evidence = Evidence::new(GRID, activations, labels, matched);
    let evidence = evidence.and_then(|evidence| evidence.clone().with_last(evidence));
    match evidence {
        Ok(evidence) => (evidence, truth),
        Err(error) => unreachable!("one vector for each head and label: {error}"),
    }
}
