use core::cell::Cell;

use burn::tensor::backend::Backend;
use circuitscope_core::{HeadGrid, Polarity, Progress, Seed, draw};
use circuitscope_measures::Scores;

use crate::{About, Discover, Evidence, Measured, Result};

/// What is known of it.
pub(super) static ABOUT: About = About::new("random", "uniform random scores")
    .control()
    .quick();

/// Control: uniform random scores from stream `random` of the seed. Its AUC is 0.5 on average; its
/// spread shows what chance alone can do on a model with so few heads.
#[derive(Debug, Clone, Copy, Default)]
pub struct Random;

impl<B: Backend> Discover<B> for Random {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        seed: Seed,
        _: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        Ok(Box::new(Draws {
            grid: evidence.grid(),
            seed,
            next: Cell::new(0),
        }))
    }
}

/// Every resample and every relabelling is another draw: what is said of them is said of chance.
struct Draws {
    grid: HeadGrid,
    seed: Seed,
    next: Cell<u64>,
}

impl Draws {
    fn another(&self) -> Seed {
        let at = self.next.replace(self.next.get() + 1);
        self.seed.nth("random/resample", at)
    }

    fn draw(&self, seed: Seed) -> Scores {
        let heads = self.grid.len();
        let mut rng = seed.stream("random").rng();
        let nodes = (0..heads).map(|_| draw::unit(&mut rng)).collect();
        let edges: Vec<f64> = (0..heads * heads).map(|_| draw::unit(&mut rng)).collect();
        Scores::of_nodes(self.grid, nodes)
            .with_edges(|source, destination| edges[source * heads + destination])
    }
}

impl Measured for Draws {
    fn scores(&self, rows: Option<&[usize]>) -> Result<Scores> {
        let seed = rows.map_or(self.seed, |_| self.another());
        Ok(self.draw(seed))
    }

    fn relabelled(&self, labellings: &[Vec<Polarity>]) -> Option<Result<Vec<Vec<f64>>>> {
        let draws = labellings.iter().map(|_| self.draw(self.another()).nodes);
        Some(Ok(draws.collect()))
    }
}
