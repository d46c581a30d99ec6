use std::collections::BTreeMap;

use circuitscope_core::Metric;
use rand::Rng;
use serde::Deserialize;

use super::{draw, variables};
use crate::data::{DataFile, data_file};
use crate::generator::Generator;
use crate::known::{GPT2_SMALL, PLANTED};
use crate::lexicon;
use crate::spec::Published;
use crate::template::Template;
use crate::{Error, PromptPair, Result, Slot, TaskSpec, TokenEncoder, Vocabulary, following};

const GPT2: DataFile<'static> = data_file!("greater-than/gpt2.json");

/// Two-digit years, so that every last year has years before and after it: 02 to 98.
const YEARS: core::ops::RangeInclusive<u8> = 2..=98;
/// The year of the reference vocabulary's negatives, as in the GPT-2 file.
const NEGATIVE_YEAR: u8 = 1;

/// A span of years ends after it began (Hanna et al. 2023, arXiv 2305.00586).
pub static GREATER_THAN: TaskSpec = TaskSpec::new(
    "greater-than",
    "a span of years ends after it began",
    "years that part into tokens after their first two or three digits",
    |vocabulary, tokens| Ok(Box::new(GreaterThan::load(vocabulary, tokens)?)),
)
.with_metric(Metric::ProbabilityDifference)
.with_published(&[
    Published {
        model: GPT2_SMALL,
        file: data_file!("greater-than/ground_truth.json"),
    },
    PLANTED,
]);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    schema: u32,
    #[expect(dead_code, reason = "documents the file for its readers")]
    source: String,
    template: String,
    negative_year: u8,
    nouns: Vec<String>,
    years: BTreeMap<String, Vec<u8>>,
}

/// The task's section of the reference model's words.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    #[expect(dead_code, reason = "for readers of the file")]
    structure: String,
    template: String,
    nouns: Vec<String>,
    first_century: u8,
    last_century: u8,
    first_year: u8,
    last_year: u8,
}

/// Greater-than (Hanna et al. 2023, arXiv 2305.00586).
///
/// Positive: `… from the year XXYY to the year XX`, to be continued with a number above YY. YY runs
/// through 02, 03, …, 98 with the number of the pair; the century is drawn among those whose `XXYY`
/// the tokenizer splits in the middle. Negative: the same noun and century with YY = 01, after
/// which (almost) any number is right.
///
/// Where no number YY is a token, one digit is asked ([`Asked`]).
struct GreaterThan {
    template: Template,
    nouns: Vec<String>,
    asked: Asked,
    /// The years YY of positive prompts, with the centuries to draw from.
    years: Vec<(u8, Vec<String>)>,
    negative_year: u8,
}

/// Which digits of the second year are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The last two, as one token: those above YY are right, the others wrong.
    Both,
    /// The third, where each digit is a token: those above the third of the first year are right, those
    /// below it wrong. The same digit is neither: the fourth decides.
    Third,
    /// The fourth, where the first three are a token: those above the fourth of the first year are right,
    /// the others wrong. The prompt ends in three digits; the negative has 0 for the fourth.
    Fourth,
}

impl Asked {
    /// Digits of the second year that the prompt shows.
    const fn shown(self) -> usize {
        match self {
            Self::Both | Self::Third => 2,
            Self::Fourth => 3,
        }
    }

    /// Whether a positive prompt with the year YY leaves right and wrong answers.
    const fn suits(self, year: u8) -> bool {
        match self {
            Self::Both => true,
            Self::Third => year >= 10 && year < 90,
            Self::Fourth => !year.is_multiple_of(10) && year % 10 < 9,
        }
    }

    /// The year of the negative prompt.
    const fn negative(self, year: u8, negative_year: u8) -> u8 {
        match self {
            Self::Both | Self::Third => negative_year,
            Self::Fourth => year - year % 10,
        }
    }

    /// Right and wrong answers.
    fn answers(self, year: u8) -> (Vec<String>, Vec<String>) {
        let digits = |digits: core::ops::Range<u8>| digits.map(|digit| digit.to_string()).collect();
        match self {
            Self::Both => (
                (year + 1..100).map(two_digits).collect(),
                (0..=year).map(two_digits).collect(),
            ),
            Self::Third => (digits(year / 10 + 1..10), digits(0..year / 10)),
            Self::Fourth => (digits(year % 10 + 1..10), digits(0..year % 10 + 1)),
        }
    }

    /// The parts of a prompt: those of its template, digits by themselves where single ones are asked.
    fn parts(self, slots: Vec<Slot>) -> Vec<Slot> {
        let slots = slots.into_iter().flat_map(|Slot { name, range }| {
            let (first, second, middle) = match (self, name.as_str()) {
                (Self::Third | Self::Fourth, "YEAR") => ("TENS", "UNITS", range.start + 1),
                (Self::Fourth, "CENTURY2") => ("CENTURY2", "TENS2", range.end - 1),
                _ => return vec![Slot { name, range }],
            };
            vec![
                Slot::new(first, range.start..middle),
                Slot::new(second, middle..range.end),
            ]
        });
        slots.collect()
    }

    /// What the tokenizer leaves to be asked of the year `century``year`.
    fn of(century: &str, year: u8, tokens: &TokenEncoder<'_>) -> Result<Option<Self>> {
        let digits = format!("{century}{year:02}");
        for (shown, asked) in [(2, [Self::Both, Self::Third]), (3, [Self::Fourth; 2])] {
            let (stem, rest) = digits.split_at(shown);
            let rest = following(tokens, &format!("year {stem}"), rest)?;
            match rest.map(|rest| rest.len()) {
                Some(1) => return Ok(Some(asked[0])),
                Some(2) => return Ok(Some(asked[1])),
                _ => {}
            }
        }
        Ok(None)
    }
}

impl GreaterThan {
    fn load(vocabulary: Vocabulary, tokens: Option<&TokenEncoder<'_>>) -> Result<Self> {
        match vocabulary {
            Vocabulary::Gpt2 => {
                let mut words: Words = GPT2.parse()?;
                GPT2.check_schema(words.schema)?;
                let asked = match tokens {
                    None => Asked::Both,
                    Some(tokens) => {
                        let (asked, years) = split_years(words.years.into_keys(), tokens)?;
                        words.years = years;
                        asked
                    }
                };
                Self::new(
                    GPT2,
                    &words.template,
                    words.nouns,
                    asked,
                    &words.years,
                    words.negative_year,
                )
            }
            Vocabulary::Reference => {
                let words = lexicon::section::<Reference>(&GREATER_THAN.name)?;
                let years: Vec<u8> = (words.first_year..=words.last_year).collect();
                let years = (words.first_century..=words.last_century)
                    .map(|century| (century.to_string(), years.clone()))
                    .collect();
                Self::new(
                    lexicon::FILE,
                    &words.template,
                    words.nouns,
                    Asked::Both,
                    &years,
                    NEGATIVE_YEAR,
                )
            }
        }
    }

    fn new(
        file: DataFile<'_>,
        template: &str,
        nouns: Vec<String>,
        asked: Asked,
        years: &BTreeMap<String, Vec<u8>>,
        negative_year: u8,
    ) -> Result<Self> {
        file.check_words("nouns", &nouns, 1)?;
        let template = Template::parse(file, template, &["NOUN", "CENTURY", "YEAR"])?;
        file.require(
            template.slots().eq(["NOUN", "CENTURY", "YEAR", "CENTURY"]),
            || "the template must have the slots [NOUN] [CENTURY] [YEAR] [CENTURY]".to_owned(),
        )?;
        file.require(negative_year < *YEARS.start(), || {
            format!("negative_year {negative_year} is a year of the positive prompts")
        })?;
        let years = YEARS
            .filter(|year| asked.suits(*year))
            .map(|year| {
                let centuries: Vec<String> = years
                    .iter()
                    .filter(|(_, years)| years.contains(&year))
                    .map(|(century, _)| century.clone())
                    .collect();
                file.require(!centuries.is_empty(), || {
                    format!("no century has the year {year:02}")
                })?;
                Ok((year, centuries))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            template,
            nouns,
            asked,
            years,
            negative_year,
        })
    }
}

/// What can be asked of every year, and the years of each century of which it can be.
fn split_years(
    centuries: impl Iterator<Item = String>,
    tokens: &TokenEncoder<'_>,
) -> Result<(Asked, BTreeMap<String, Vec<u8>>)> {
    let mut found: Vec<(String, u8, Option<Asked>)> = Vec::new();
    for century in centuries {
        for year in YEARS {
            found.push((century.clone(), year, Asked::of(&century, year, tokens)?));
        }
    }
    for asked in [Asked::Both, Asked::Third, Asked::Fourth] {
        let mut years: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (century, year, what) in &found {
            if *what == Some(asked) && asked.suits(*year) {
                years.entry(century.clone()).or_default().push(*year);
            }
        }
        let has = |year: u8| years.values().any(|years| years.contains(&year));
        if YEARS.filter(|year| asked.suits(*year)).all(has) {
            return Ok((asked, years));
        }
    }
    let whole = found.iter().filter(|(_, _, asked)| asked.is_none()).count();
    Err(Error::Unposable {
        task: GREATER_THAN.name.clone().into_owned(),
        why: format!(
            "a year must part into tokens after its first two or three digits, the same for every year; of \
             {} years from 1102 on, {whole} part otherwise",
            found.len()
        ),
    })
}

impl Generator for GreaterThan {
    fn pair(&self, index: usize, rng: &mut dyn Rng) -> PromptPair {
        let (year, centuries) = &self.years[index % self.years.len()];
        let century = draw::one(rng, centuries);
        let noun = draw::one(rng, &self.nouns);
        let render = |year: u8| {
            let year = two_digits(year);
            let (tens, units) = year.split_at(1);
            let shown = match self.asked.shown() {
                2 => century.clone(),
                _ => format!("{century}{tens}"),
            };
            let (text, slots) = self
                .template
                .render_named(|slot, before| match (slot, before) {
                    ("NOUN", _) => (noun, Some("NOUN")),
                    ("CENTURY", 0) => (century, Some("CENTURY")),
                    ("CENTURY", _) => (&shown, Some("CENTURY2")),
                    _ => (&year, Some("YEAR")),
                });
            let variables = variables([
                ("noun", noun),
                ("century", century),
                ("year", &year),
                ("tens", tens),
                ("units", units),
            ]);
            (text, self.asked.parts(slots), variables)
        };
        let (right, wrong) = self.asked.answers(*year);
        let positive = render(*year);
        let negative = render(self.asked.negative(*year, self.negative_year));
        PromptPair::new(positive.0, negative.0, right, wrong)
            .with_slots(positive.1, negative.1)
            .with_variables(positive.2, negative.2)
    }

    fn notes(&self) -> Vec<String> {
        let asked = match self.asked {
            Asked::Both => return Vec::new(),
            Asked::Third => {
                "this model writes years digit by digit: the third digit of the year is asked; digits above \
                 the first year's are right, digits below it wrong"
            }
            Asked::Fourth => {
                "this model writes the first three digits of a year as one token: the fourth is asked; \
                 digits above the first year's are right, all others wrong"
            }
        };
        vec![asked.to_owned()]
    }
}

fn two_digits(year: u8) -> String {
    format!("{year:02}")
}
