use crate::{Error, Result};

/// Where short prompts of a batch are filled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PaddingSide {
    /// Before the prompt.
    Left,
    /// After it.
    #[default]
    Right,
}

/// Prompts with their place in rows of one length: what a caller who pads hands over, and in which
/// results come back to him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaddedRows {
    /// The real tokens of each row.
    pub(crate) prompts: Vec<Vec<u32>>,
    /// Where they begin.
    pub(crate) first: Vec<usize>,
    /// Length of the rows.
    pub(crate) pos: usize,
}

impl PaddedRows {
    /// Prompts padded on one side to the longest.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`].
    pub fn new(prompts: Vec<Vec<u32>>, side: PaddingSide) -> Result<Self> {
        if let Some(prompt) = prompts.iter().position(Vec::is_empty) {
            return Err(Error::EmptyPrompt { prompt });
        }
        let pos = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let first = prompts.iter().map(|prompt| match side {
            PaddingSide::Left => pos - prompt.len(),
            PaddingSide::Right => 0,
        });
        Ok(Self {
            first: first.collect(),
            prompts,
            pos,
        })
    }

    /// Rows of one length with an attention mask (1 real, 0 padding) of the same shape.
    ///
    /// # Errors
    /// [`Error::Mask`] unless every row is padded on one side only and has a real token.
    ///
    /// ```
    /// use circuitscope_model::PaddedRows;
    ///
    /// # fn main() -> Result<(), circuitscope_model::Error> {
    /// let rows = PaddedRows::from_masked(&[vec![0, 5, 6], vec![7, 8, 9]], &[vec![0, 1, 1], vec![1; 3]])?;
    /// assert_eq!(rows.prompts(), [vec![5, 6], vec![7, 8, 9]]);
    /// assert!(PaddedRows::from_masked(&[vec![5, 6, 7]], &[vec![1, 0, 1]]).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_masked(tokens: &[Vec<u32>], mask: &[Vec<u8>]) -> Result<Self> {
        let pos = tokens.first().map_or(0, Vec::len);
        if tokens.len() != mask.len() {
            let found = format!("{} rows for {} of tokens", mask.len(), tokens.len());
            return Err(Error::Mask {
                row: mask.len().min(tokens.len()),
                found,
                expected: "one row for each",
            });
        }
        let (mut first, mut prompts) = (Vec::new(), Vec::new());
        for (row, (tokens, mask)) in tokens.iter().zip(mask).enumerate() {
            let bad = |found: String, expected| {
                Err(Error::Mask {
                    row,
                    found,
                    expected,
                })
            };
            if tokens.len() != pos || mask.len() != pos {
                let found = format!("{} tokens and {} mask entries", tokens.len(), mask.len());
                return bad(found, "rows of one length");
            }
            if let Some(value) = mask.iter().find(|&&value| value > 1) {
                return bad(value.to_string(), "1 (real) or 0 (padding)");
            }
            let Some(start) = mask.iter().position(|&value| value == 1) else {
                return bad("no real token".to_owned(), "at least one");
            };
            let length: usize = mask.iter().map(|&value| usize::from(value)).sum();
            if mask[start..start + length].contains(&0) {
                return bad(
                    "padding between real tokens".to_owned(),
                    "padding on the left or right only",
                );
            }
            first.push(start);
            prompts.push(tokens[start..start + length].to_vec());
        }
        Ok(Self {
            prompts,
            first,
            pos,
        })
    }

    /// The real tokens of each row.
    pub fn prompts(&self) -> &[Vec<u32>] {
        &self.prompts
    }

    /// Number of rows.
    pub const fn len(&self) -> usize {
        self.prompts.len()
    }

    /// Whether there are no rows.
    pub const fn is_empty(&self) -> bool {
        self.prompts.is_empty()
    }

    /// Length of the rows, padding included.
    pub const fn pos(&self) -> usize {
        self.pos
    }
}
