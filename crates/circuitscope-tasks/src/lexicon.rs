use serde::Deserialize;

use crate::Result;
use crate::data::DataFile;

pub(crate) const FILE: DataFile = DataFile {
    name: "reference/lexicon.json",
    text: include_str!("../data/reference/lexicon.json"),
};

/// The reference model's words and prompts: words joined by single spaces, one token each.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "some fields are for the tokenizer or for readers of the file"
)]
pub(crate) struct Lexicon {
    schema: u32,
    source: String,
    pub(crate) ioi: Ioi,
    pub(crate) greater_than: GreaterThan,
    pub(crate) docstring: Docstring,
    pub(crate) induction: Induction,
    numbers: Vec<String>,
    special: Vec<String>,
    vocabulary: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ioi {
    #[expect(dead_code, reason = "for readers of the file")]
    structure: String,
    pub(crate) templates: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) places: Vec<String>,
    pub(crate) objects: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GreaterThan {
    #[expect(dead_code, reason = "for readers of the file")]
    structure: String,
    pub(crate) template: String,
    pub(crate) nouns: Vec<String>,
    pub(crate) first_century: u8,
    pub(crate) last_century: u8,
    pub(crate) first_year: u8,
    pub(crate) last_year: u8,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Docstring {
    #[expect(dead_code, reason = "for readers of the file")]
    structure: String,
    pub(crate) template: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) descriptions: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Induction {
    #[expect(dead_code, reason = "for readers of the file")]
    structure: String,
    pub(crate) pool: Vec<String>,
    /// Words before the segment.
    pub(crate) first: usize,
    /// Words of the segment.
    pub(crate) repeated: usize,
}

impl Lexicon {
    pub(crate) fn load() -> Result<Self> {
        let lexicon: Self = FILE.parse()?;
        FILE.check_schema(lexicon.schema)?;
        Ok(lexicon)
    }
}
