//! `capture`: prompts in, activations out.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use circuitscope::Seed;
use circuitscope::files::{self, Entry, Metadata, Writer};
use circuitscope::hooks::Site;
use circuitscope::model::{Error, Loaded, PaddedRows, PaddingSide, SiteSink, capture_sites_into};
use circuitscope::{PromptStart, task_prompts};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{bos, inputs};
use crate::args::{CAPTURED_PAIRS, CaptureArgs, CapturePrompts};
use crate::device::B;
use crate::output::{Printer, count, note, table};
use crate::progress::Terminal;
use crate::provenance::{self, Provenance, human_bytes};

/// Rows of token ids of one length, and which of them are real.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    tokens: Vec<Vec<u32>>,
    #[serde(default)]
    attention_mask: Option<Vec<Vec<u8>>>,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    output: String,
    prompts: usize,
    lengths: Vec<usize>,
    sites: BTreeMap<String, Vec<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prepend_bos: Option<PromptStart>,
    provenance: Provenance,
}

pub(crate) fn run(args: &CaptureArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    let mut provenance = provenance::start();
    let device = args.device.device.open()?;
    provenance.on(&device);
    inputs::writable_file("--output", &args.output)?;
    let model = inputs::load_model(&args.model, &device, progress)?;
    let sites = model.model.config().catalog().resolve(&args.sites)?;
    let (prompts, bos) = prompts(args, &model, &mut provenance)?;
    // Now what is read is known.
    inputs::writable_file("--output", &args.output)?;
    let rows = rows(args, &model, prompts)?;
    let config = model.model.config();
    let settings = inputs::capture_settings(&args.model, &device);
    let batch = settings.batch_tokens(config, rows.pos(), &sites);
    let reduce = args.reduce.into();
    let plain = device.plain();
    let lengths: Vec<usize> = rows.prompts().iter().map(Vec::len).collect();
    let mut metadata = provenance.metadata();
    metadata.insert("model".to_owned(), json!(model.provenance));
    metadata.insert("lengths".to_owned(), json!(lengths));
    metadata.insert("tokens".to_owned(), json!(rows.prompts()));
    if let Some(bos) = &bos {
        metadata.insert("prepend_bos".to_owned(), json!(bos.done));
    }
    let mut stream = Stream {
        path: &args.output,
        metadata,
        file: None,
        shapes: BTreeMap::new(),
    };
    capture_sites_into(
        &model.model,
        &rows,
        &sites,
        reduce,
        batch,
        plain,
        progress,
        &mut stream,
    )?;
    let Stream { file, shapes, .. } = stream;
    file.context("nothing was captured")?.finish()?;

    let sites = shapes
        .into_iter()
        .map(|(site, shape)| (site.to_string(), shape))
        .collect();
    let report = Report {
        output: args.output.display().to_string(),
        prompts: rows.len(),
        lengths,
        sites,
        prepend_bos: bos,
        provenance: provenance.now(),
    };
    printer.print(&report, || report.text())
}

/// With what was put before each, where they were texts.
fn prompts(
    args: &CaptureArgs,
    model: &Loaded<B>,
    provenance: &mut Provenance,
) -> Result<(Tokens, Option<PromptStart>)> {
    let mut texts = if let Some(path) = &args.prompts.tokens {
        provenance.input(path)?;
        return Ok((Tokens::read(path)?, None));
    } else if let Some(path) = &args.prompts.prompts {
        provenance.input(path)?;
        inputs::read_prompts(path)?
    } else if let Some(task) = &args.prompts.task {
        let seed = Seed::new(args.seed.seed);
        let task = task.open(provenance)?;
        let pairs = args
            .examples
            .unwrap_or_else(|| task.examples_or(CAPTURED_PAIRS));
        let drawn = task_prompts(model, &task, pairs, seed)?;
        for said in &drawn.notes {
            note(&format!("note: {said}"));
        }
        drawn.texts
    } else {
        bail!("no prompts: use --task, --prompts or --tokens");
    };
    let place = |at| match &args.prompts.prompts {
        Some(path) => format!("{}: {}", path.display(), inputs::prompt(at)),
        None => inputs::prompt(at),
    };
    let bos = bos::settle(model, &args.model, args.chat, &mut texts, place)?;
    let tokens = inputs::encode(model, &texts, bos.done, place)?;
    let tokens = Tokens {
        tokens,
        attention_mask: None,
    };
    Ok((tokens, Some(bos)))
}

/// The prompts in rows of one length, if the model takes them: errors name the file that they come
/// from.
fn rows(args: &CaptureArgs, model: &Loaded<B>, mut prompts: Tokens) -> Result<PaddedRows> {
    let rows = match prompts.attention_mask.take() {
        Some(mask) => prompts.padded(mask),
        None => PaddedRows::new(prompts.tokens, PaddingSide::Right),
    };
    let fits = rows.and_then(|rows| {
        model.model.config().check_tokens(rows.prompts())?;
        Ok(rows)
    });
    let CapturePrompts {
        tokens: rows_file,
        prompts: lines_file,
        ..
    } = &args.prompts;
    let Some(path) = rows_file.as_ref().or(lines_file.as_ref()) else {
        return Ok(fits?);
    };
    match fits {
        Err(Error::TokenOutOfRange {
            prompt,
            token,
            d_vocab,
        }) => bail!(
            "{}: row {prompt} of tokens: found {token}, expected 0 to {}",
            path.display(),
            d_vocab - 1
        ),
        outcome => outcome.with_context(|| path.display().to_string()),
    }
}

impl Tokens {
    fn read(path: &Path) -> Result<Self> {
        let text = files::read(path)?;
        let tokens: Self =
            serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        let wrong = |row: usize, problem: String| {
            bail!("{}: row {row} of {problem}", path.display());
        };
        if tokens.tokens.is_empty() {
            bail!(
                "{}: tokens: found no row, expected at least one",
                path.display()
            );
        }
        if let Some(row) = tokens.tokens.iter().position(Vec::is_empty) {
            return wrong(row, "tokens: found none, expected at least one".to_owned());
        }
        if let Some(mask) = &tokens.attention_mask {
            if mask.len() != tokens.tokens.len() {
                bail!(
                    "{}: attention_mask: found {}, expected {} as in tokens",
                    path.display(),
                    count(mask.len(), "row"),
                    tokens.tokens.len()
                );
            }
            for (row, (mask, tokens)) in mask.iter().zip(&tokens.tokens).enumerate() {
                if mask.len() != tokens.len() {
                    let (found, expected) = (mask.len(), tokens.len());
                    return wrong(
                        row,
                        format!(
                            "attention_mask: found {found} entries, expected {expected} as in tokens"
                        ),
                    );
                }
            }
        }
        Ok(tokens)
    }

    /// The rows in the same length, filled up on the right. `mask` goes with them.
    fn padded(self, mut mask: Vec<Vec<u8>>) -> Result<PaddedRows, Error> {
        let pos = self.tokens.iter().map(Vec::len).max().unwrap_or(0);
        let mut tokens = self.tokens;
        for row in &mut tokens {
            row.resize(pos, 0);
        }
        for row in &mut mask {
            row.resize(pos, 0);
        }
        PaddedRows::from_masked(&tokens, &mask)
    }
}

/// The captured sites on their way into a file: each row goes to its place as it comes, so that more can be
/// captured than memory holds.
struct Stream<'a> {
    path: &'a Path,
    metadata: Metadata,
    /// Begun once the shapes are known.
    file: Option<Writer>,
    shapes: BTreeMap<Site, Vec<usize>>,
}

impl SiteSink for Stream<'_> {
    fn begin(&mut self, shapes: &BTreeMap<Site, Vec<usize>>) -> Result<(), Error> {
        self.shapes.clone_from(shapes);
        let tensors = shapes.iter();
        let tensors = tensors.map(|(site, shape)| Entry::of::<f32>(site.to_string(), shape));
        let metadata = core::mem::take(&mut self.metadata);
        let file = Writer::create(self.path, tensors.collect(), metadata)?;
        if file.length() > SAID {
            note(&format!(
                "note: {} will take {}",
                self.path.display(),
                human_bytes(file.length())
            ));
        }
        self.file = Some(file);
        Ok(())
    }

    fn rows(
        &mut self,
        site: Site,
        first: usize,
        width: usize,
        values: &[f32],
    ) -> Result<(), Error> {
        let file = self.file.as_mut().expect("begun before its rows");
        Ok(file.rows(&site.to_string(), first * width, values)?)
    }
}

/// Files of more bytes are said to be large.
const SAID: u64 = 1 << 30;

impl Report {
    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .sites
            .iter()
            .map(|(site, shape)| vec![site.clone(), format!("{shape:?}")])
            .collect();
        let memory = self
            .provenance
            .peak_memory_bytes
            .map_or_else(String::new, |bytes| {
                format!(", at most {} of memory", human_bytes(bytes))
            });
        let bos = self.prepend_bos.as_ref();
        let bos = bos.map_or_else(String::new, |bos| format!("{}\n", bos.sentence()));
        format!(
            "{}\n{bos}wrote {} for {} in {:.2} s{memory}",
            table(&["site", "shape"], &rows),
            self.output,
            count(self.prompts, "prompt"),
            self.provenance.seconds
        )
    }
}
