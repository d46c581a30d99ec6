//! Uniform choices.

use circuitscope_core::draw::index;
use rand::Rng;

/// One of `items`, which must not be empty.
pub(crate) fn one<'a, T>(rng: &mut dyn Rng, items: &'a [T]) -> &'a T {
    &items[place(rng, items)]
}

/// The place of one of `items`, which must not be empty.
pub(crate) fn place<T>(rng: &mut dyn Rng, items: &[T]) -> usize {
    index(rng, items.len())
}

/// `k` different members of `items`, in random order (the first `k` steps of a Fisher-Yates
/// shuffle); `items` must hold that many.
pub(crate) fn distinct<'a, T>(rng: &mut dyn Rng, items: &'a [T], k: usize) -> Vec<&'a T> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    (0..k)
        .map(|at| {
            let from = at + index(rng, order.len() - at);
            order.swap(at, from);
            &items[order[at]]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use circuitscope_core::Seed;

    #[test]
    fn distinct_draws_every_order_equally_often() {
        let mut rng = Seed::new(0).rng();
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..6000 {
            *counts
                .entry(distinct(&mut rng, &['a', 'b', 'c'], 2))
                .or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6, "every ordered pair, no repetition");
        // Binomial(6000, 1/6): mean 1000, standard deviation 29.
        assert!(counts.values().all(|&n| (850..1150).contains(&n)));
    }
}
