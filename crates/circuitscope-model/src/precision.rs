use core::fmt;
use core::str::FromStr;

use burn::tensor::DType;
use circuitscope_core::ParseError;
use serde::{Deserialize, Serialize};

/// The type that weights are held and multiplied in.
///
/// In half precision, norms, softmax, rotations, soft caps, logits and means over positions are still
/// computed in f32. Against f32 on the same weights, the largest difference of the logits relative to
/// the largest logit stays below 0.005 (f16) and 0.05 (bf16) on every
/// fixture with norms (`cargo xtask parity`). Compiled programs need f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// 16-bit brain floats.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    pub(crate) const fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = ParseError;

    /// ```
    /// use circuitscope_model::Precision;
    ///
    /// assert_eq!("bf16".parse(), Ok(Precision::Bf16));
    /// assert!("float".parse::<Precision>().is_err());
    /// ```
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|one| one.to_string() == s);
        found.ok_or_else(|| ParseError {
            what: "a precision",
            found: s.to_owned(),
            expected: "f32, f16 or bf16",
        })
    }
}
