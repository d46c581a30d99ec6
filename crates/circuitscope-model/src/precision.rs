use burn::tensor::DType;
use circuitscope_core::names;
use serde::{Deserialize, Serialize};

/// The type that weights are held and multiplied in.
///
/// In half precision, norms, softmax, rotations, soft caps, logits and means over positions are still
/// computed in f32. Against f32 on the same weights, the largest difference of the logits relative to
/// the largest logit stays below 0.005 (f16) and 0.05 (bf16) on every
/// fixture with norms (`cargo xtask parity`). Compiled programs need f32.
///
/// ```
/// use circuitscope_model::Precision;
///
/// assert_eq!("bf16".parse(), Ok(Precision::Bf16));
/// assert!("float".parse::<Precision>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// 16-bit brain floats.
    Bf16,
}

names!(pub Precision { F32 => "f32", F16 => "f16", Bf16 => "bf16" } or "a precision", "f32, f16 or bf16");

impl Precision {
    pub(crate) const fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}
