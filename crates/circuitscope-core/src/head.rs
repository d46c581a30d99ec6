use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ParseError;

/// One attention head, written `L9H6`: layer 9, head 6, both counted from zero.
///
/// Parses `L9H6`, `9.6` and `a9.h6` (the EAP-IG node name); always prints `L9H6`. Orders by layer,
/// then head, which is the order of heads in every table and tensor of the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeadId {
    /// Layer, from 0.
    pub layer: usize,
    /// Head within the layer, from 0.
    pub head: usize,
}

impl HeadId {
    /// The head `head` of layer `layer`.
    #[must_use]
    pub const fn new(layer: usize, head: usize) -> Self {
        Self { layer, head }
    }
}

impl fmt::Display for HeadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}H{}", self.layer, self.head)
    }
}

impl FromStr for HeadId {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let parts = if let Some(rest) = s.strip_prefix('L') {
            rest.split_once('H')
        } else if let Some(rest) = s.strip_prefix('a') {
            rest.split_once(".h")
        } else {
            s.split_once('.')
        };
        parts
            .and_then(|(layer, head)| Some(Self::new(number(layer)?, number(head)?)))
            .ok_or_else(|| ParseError::new("a head", s, "`L9H6`, `9.6` or `a9.h6`"))
    }
}

/// Digits only: `usize::from_str` alone would also take a leading `+`.
pub(crate) fn number(s: &str) -> Option<usize> {
    if s.bytes().all(|b| b.is_ascii_digit()) {
        s.parse().ok()
    } else {
        None
    }
}

impl Serialize for HeadId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HeadId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// How many layers, and heads in each, a model has: the axis that codes and scores run along.
///
/// Heads are numbered layer by layer: `index = layer * n_heads + head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeadGrid {
    /// Number of layers.
    pub n_layers: usize,
    /// Number of heads in each layer.
    pub n_heads: usize,
}

impl HeadGrid {
    /// A grid of `n_layers` × `n_heads`.
    #[must_use]
    pub const fn new(n_layers: usize, n_heads: usize) -> Self {
        Self { n_layers, n_heads }
    }

    /// Number of heads in the model.
    pub const fn len(self) -> usize {
        self.n_layers * self.n_heads
    }

    /// Whether the model has no heads.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether `head` exists in this model.
    pub const fn contains(self, head: HeadId) -> bool {
        head.layer < self.n_layers && head.head < self.n_heads
    }

    /// Why `head` is none of this model: what was found, and what was expected. Nothing where it exists.
    ///
    /// ```
    /// use circuitscope_core::{HeadGrid, HeadId};
    /// let grid = HeadGrid::new(4, 8);
    /// assert_eq!(grid.lacks(HeadId::new(3, 7)), None);
    /// let said = grid.lacks(HeadId::new(4, 0)).unwrap();
    /// assert_eq!(said, "found a model of 4 layers and 8 heads, expected a head from L0H0 to L3H7");
    /// ```
    #[must_use]
    pub fn lacks(self, head: HeadId) -> Option<String> {
        let last = HeadId::new(
            self.n_layers.saturating_sub(1),
            self.n_heads.saturating_sub(1),
        );
        (!self.contains(head)).then(|| {
            format!(
                "found a model of {} layers and {} heads, expected a head from L0H0 to {last}",
                self.n_layers, self.n_heads
            )
        })
    }

    /// Position of `head` on the head axis, or `None` if the model has no such head.
    pub const fn index(self, head: HeadId) -> Option<usize> {
        if self.contains(head) {
            Some(head.layer * self.n_heads + head.head)
        } else {
            None
        }
    }

    /// The head at `index` of the head axis.
    ///
    /// # Panics
    /// If `index >= self.len()`.
    #[must_use]
    pub fn head(self, index: usize) -> HeadId {
        assert!(
            index < self.len(),
            "head index {index} of a model with {} heads",
            self.len()
        );
        HeadId::new(index / self.n_heads, index % self.n_heads)
    }

    /// All heads, in index order.
    pub fn heads(self) -> impl ExactSizeIterator<Item = HeadId> {
        (0..self.len()).map(move |index| self.head(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rejects_what_is_not_a_head() {
        for s in [
            "", "L", "L1", "LH", "L1H", "L-1H2", "L+1H2", "1.2.3", "a1.2", "H1L2", "9,6", " 9.6",
        ] {
            assert!(s.parse::<HeadId>().is_err(), "{s:?}");
        }
        let message = "L1".parse::<HeadId>().unwrap_err().to_string();
        assert_eq!(
            message,
            "\"L1\" is not a head: expected `L9H6`, `9.6` or `a9.h6`"
        );
    }

    #[test]
    fn grid_orders_layer_by_layer() {
        let grid = HeadGrid::new(2, 3);
        let names: Vec<_> = grid.heads().map(|head| head.to_string()).collect();
        assert_eq!(names, ["L0H0", "L0H1", "L0H2", "L1H0", "L1H1", "L1H2"]);
        assert_eq!(grid.index(HeadId::new(1, 3)), None);
        assert_eq!(grid.index(HeadId::new(2, 0)), None);
    }

    proptest! {
        #[test]
        fn every_form_parses_back(layer in 0usize..200, head in 0usize..200) {
            let id = HeadId::new(layer, head);
            prop_assert_eq!(id.to_string().parse::<HeadId>().unwrap(), id);
            prop_assert_eq!(format!("{layer}.{head}").parse::<HeadId>().unwrap(), id);
            prop_assert_eq!(format!("a{layer}.h{head}").parse::<HeadId>().unwrap(), id);
        }

        #[test]
        fn index_and_head_are_inverse(n_layers in 1usize..9, n_heads in 1usize..9, at in 0usize..81) {
            let grid = HeadGrid::new(n_layers, n_heads);
            let at = at % grid.len();
            prop_assert_eq!(grid.index(grid.head(at)), Some(at));
        }
    }
}
