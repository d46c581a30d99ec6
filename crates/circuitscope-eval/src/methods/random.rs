use burn::tensor::backend::Backend;
use core::cell::Cell;

use circuitscope_core::{Progress, Seed};
use rand::RngExt as _;

use crate::{Discover, Evidence, Measured, Result, Scores};

/// Control: uniform random scores from stream `random` of the seed. Its AUC is 0.5 on average; its
/// spread shows what chance alone can do on a model with so few heads.
#[derive(Debug, Clone, Copy, Default)]
pub struct Random;

impl<B: Backend> Discover<B> for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn summary(&self) -> &'static str {
        "uniform random scores"
    }

    fn is_control(&self) -> bool {
        true
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        seed: Seed,
        _: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let grid = evidence.grid();
        let draw = move |seed: Seed| {
            let mut rng = seed.stream("random").rng();
            let nodes = (0..grid.len()).map(|_| rng.random()).collect();
            let edges: Vec<f64> = (0..grid.len() * grid.len()).map(|_| rng.random()).collect();
            Scores::of_nodes(grid, nodes)
                .with_edges(|source, destination| edges[source * grid.len() + destination])
        };
        let resamples = Cell::new(0);
        Ok(Box::new(move |rows: Option<&[usize]>| {
            // Every resample is another draw: the interval is that of chance.
            Ok(match rows {
                None => draw(seed),
                Some(_) => {
                    draw(seed.nth("random/resample", resamples.replace(resamples.get() + 1)))
                }
            })
        }))
    }
}
