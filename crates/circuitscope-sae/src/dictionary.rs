use circuitscope_core::names;
use serde::{Deserialize, Serialize};

/// Which vectors of the decoder are held at unit length: the authors' code and its documentation
/// disagree, and both are kept.
///
/// The encoder is constrained alike in both: the input direction of every feature (a column of
/// `w_enc`) has unit length. The two therefore differ in one thing only.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Dictionary {
    /// As the authors' code does it: of their decoder weight, `[d_in, d_sae]` in the layout of a
    /// PyTorch linear layer, every *row* has unit length. In our layout `[d_sae, d_in]` these are
    /// the columns, one for each coordinate of the output, so that the dictionary atoms have no
    /// fixed length (their mean square is `d_in / d_sae`).
    #[default]
    PaperCompatible,
    /// As the authors' documentation says and as is usual: every dictionary atom (a row of
    /// `w_dec`, what one feature writes) has unit length, so that the sparsity penalty cannot be
    /// escaped by scaling features down and atoms up.
    UnitNormAtoms,
}

names!(pub Dictionary { PaperCompatible => "paper-compatible", UnitNormAtoms => "unit-norm-atoms" });

impl Dictionary {
    /// The axis of `w_dec` `[d_sae, d_in]` along which the constrained vectors lie: summing the
    /// squares over it gives ones.
    pub(crate) const fn decoder_axis(self) -> usize {
        match self {
            Self::PaperCompatible => 0,
            Self::UnitNormAtoms => 1,
        }
    }
}

/// The axis of `w_enc` `[d_in, d_sae]` along which a feature's input direction lies.
pub(crate) const ENCODER_AXIS: usize = 0;
