use rand::Rng;
use serde::Deserialize;

use super::{draw, variables, words};
use crate::data::{DataFile, data_file};
use crate::generator::Generator;
use crate::known::{GPT2_SMALL, PLANTED};
use crate::lexicon;
use crate::spec::Published;
use crate::template::Template;
use crate::{PromptPair, Result, TaskSpec, TokenEncoder, Vocabulary};

const GPT2: DataFile<'static> = data_file!("ioi/gpt2.json");

const ANSWER: &str = " [A]";
/// Names of one pair.
const NAMES: usize = 3;

/// Indirect object identification: of two people named, one is named again as the giver; the receiver is
/// the other (Wang et al. 2022, arXiv 2211.00593).
pub static IOI: TaskSpec = TaskSpec::new(
    "ioi",
    "of two people named, one is named again as the giver; the receiver is the other",
    "three names or more of one length in tokens after a space",
    |vocabulary, tokens| Ok(Box::new(Ioi::load(vocabulary, tokens)?)),
)
.with_published(&[
    Published {
        model: GPT2_SMALL,
        file: data_file!("ioi/ground_truth.json"),
    },
    PLANTED,
]);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    schema: u32,
    #[expect(dead_code, reason = "documents the file for its readers")]
    source: String,
    templates: Vec<String>,
    names: Vec<String>,
    places: Vec<String>,
    objects: Vec<String>,
}

/// The task's section of the reference model's words.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    #[expect(dead_code, reason = "for readers of the file")]
    structure: String,
    templates: Vec<String>,
    names: Vec<String>,
    places: Vec<String>,
    objects: Vec<String>,
}

/// Indirect object identification (Wang et al. 2022, arXiv 2211.00593).
///
/// A template introduces `[B]` and `[A]` and ends `[B] … to [A]`; half of the draws swap the
/// two in the first clause (BABA and ABBA). Positive: `[A]` is the receiver and the answer, `[B]`
/// the giver. Negative: `[A]` becomes a third name and the giver's first mention becomes the
/// receiver's name, so that three different names occur and none is repeated. Parts keep the names of their
/// places: in the negative `IO` is the third name, `S1` that of the receiver.
struct Ioi {
    templates: Vec<Template>,
    names: Vec<String>,
    places: Vec<String>,
    objects: Vec<String>,
    /// Before an answer word.
    space: &'static str,
    note: Option<String>,
}

impl Ioi {
    fn load(vocabulary: Vocabulary, tokens: Option<&TokenEncoder<'_>>) -> Result<Self> {
        match vocabulary {
            Vocabulary::Gpt2 => {
                let words: Words = GPT2.parse()?;
                GPT2.check_schema(words.schema)?;
                let templates = words.templates.iter().map(String::as_str);
                let task = Self::new(
                    GPT2,
                    templates,
                    words.names,
                    words.places,
                    words.objects,
                    " ",
                )?;
                let (names, note) =
                    words::of_one_length(&IOI.name, "names", task.names, NAMES, tokens)?;
                Ok(Self {
                    names,
                    note,
                    ..task
                })
            }
            Vocabulary::Reference => {
                let words = lexicon::section::<Reference>(&IOI.name)?;
                let templates = words.templates.iter().map(String::as_str);
                Self::new(
                    lexicon::FILE,
                    templates,
                    words.names,
                    words.places,
                    words.objects,
                    "",
                )
            }
        }
    }

    fn new<'a>(
        file: DataFile<'_>,
        templates: impl Iterator<Item = &'a str>,
        names: Vec<String>,
        places: Vec<String>,
        objects: Vec<String>,
        space: &'static str,
    ) -> Result<Self> {
        file.check_words("names", &names, NAMES)?;
        file.check_words("places", &places, 1)?;
        file.check_words("objects", &objects, 1)?;
        let templates = templates
            .map(|text| template(file, text))
            .collect::<Result<Vec<_>>>()?;
        file.require(!templates.is_empty(), || "no templates".to_owned())?;
        Ok(Self {
            templates,
            names,
            places,
            objects,
            space,
            note: None,
        })
    }
}

/// Strips the answer and checks the order of roles.
fn template(file: DataFile<'_>, text: &str) -> Result<Template> {
    let prompt = text
        .strip_suffix(ANSWER)
        .ok_or_else(|| file.error(format!("template {text:?} does not end with {ANSWER:?}")))?;
    let template = Template::parse(file, prompt, &["A", "B", "PLACE", "OBJECT"])?;
    let roles: Vec<_> = template.slots().filter(|s| s.len() == 1).collect();
    file.require(roles == ["B", "A", "B"], || {
        format!("template {text:?}: names must come in the order [B] [A] [B] [A]")
    })?;
    Ok(template)
}

impl Generator for Ioi {
    fn pair(&self, _: usize, rng: &mut dyn Rng) -> PromptPair {
        let number = draw::place(rng, &self.templates);
        let template = &self.templates[number];
        let abba = *draw::one(rng, &[false, true]);
        let names = draw::distinct(rng, &self.names, NAMES);
        let (receiver, giver, third) = (names[0], names[1], names[2]);
        let place = draw::one(rng, &self.places);
        let object = draw::one(rng, &self.objects);
        // `a` and `b` introduce the two people, `again` is the giver's second mention.
        let render = |a: &str, b: &str, again: &str| {
            let mut introduced = [(a, Some("IO")), (b, Some("S1"))];
            if !abba {
                introduced.reverse();
            }
            let (text, slots) = template.render_named(|slot, before| match (slot, before) {
                ("B", 0) => introduced[0],
                ("A", _) => introduced[1],
                ("B", _) => (again, Some("S2")),
                ("PLACE", _) => (place, Some("PLACE")),
                _ => (object, Some("OBJECT")),
            });
            let variables = variables([
                ("IO", a),
                ("S", again),
                ("order", if abba { "ABBA" } else { "BABA" }),
                ("template", &number.to_string()),
                ("place", place),
                ("object", object),
            ]);
            (text, slots, variables)
        };
        let positive = render(receiver, giver, giver);
        let negative = render(third, receiver, giver);
        PromptPair::new(
            positive.0,
            negative.0,
            vec![format!("{}{receiver}", self.space)],
            vec![format!("{}{giver}", self.space)],
        )
        .with_slots(positive.1, negative.1)
        .with_variables(positive.2, negative.2)
    }

    fn notes(&self) -> Vec<String> {
        self.note.iter().cloned().collect()
    }
}
