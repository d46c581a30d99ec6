//! Shares of a feature by head, and where its sources stand.

/// Share of a feature that is a head's by what the feature writes: `|W_dec[i, h]| / Σ |W_dec[i, h']|`, one for each head.
///
/// `atom` is `[heads * d_head]`; one that is 0 gives every head the same share.
#[must_use]
pub fn weight_shares(atom: &[f64], heads: usize) -> Vec<f64> {
    let width = (atom.len() / heads.max(1)).max(1);
    let norm = |part: &[f64]| part.iter().map(|x| x * x).sum::<f64>().sqrt();
    let norms: Vec<f64> = atom.chunks(width).map(norm).collect();
    let all: f64 = norms.iter().sum();
    let share = |norm: f64| {
        if all > 0.0 {
            norm / all
        } else {
            1.0 / heads as f64
        }
    };
    norms.into_iter().map(share).collect()
}

/// Where a source stands to the token that reads it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// After an earlier token that is the same as the reading one.
    Induction,
    /// An earlier token that is the same as the reading one.
    Duplicate,
    /// The token before.
    Previous,
    /// The first token of the prompt.
    First,
    /// The reading token itself.
    Current,
    /// Anything else.
    Other,
}

impl Source {
    /// What `source` is to `position`; the first that holds in the order of the variants.
    #[must_use]
    pub fn of(tokens: &[u32], position: usize, source: usize) -> Self {
        let here = tokens[position];
        if source > 0 && source <= position && tokens[source - 1] == here && source - 1 != position
        {
            Self::Induction
        } else if source < position && tokens[source] == here {
            Self::Duplicate
        } else if source + 1 == position {
            Self::Previous
        } else if source == position {
            Self::Current
        } else if source == 0 {
            Self::First
        } else {
            Self::Other
        }
    }
}
