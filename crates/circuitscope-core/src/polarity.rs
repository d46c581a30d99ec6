use serde::{Deserialize, Serialize};

/// Whether the behaviour happens on an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Polarity {
    /// It happens.
    Positive,
    /// A matched example where it does not.
    Negative,
}

impl Polarity {
    /// As stored in files: 1 positive, 0 negative.
    pub const fn label(self) -> u8 {
        match self {
            Self::Positive => 1,
            Self::Negative => 0,
        }
    }

    /// Of an example on which the behaviour happens, or does not.
    #[must_use]
    pub const fn of(happens: bool) -> Self {
        if happens {
            Self::Positive
        } else {
            Self::Negative
        }
    }
}
