//! `capture`: prompts in, activations out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use circuitscope::core::Seed;
use circuitscope::hooks::Site;
use circuitscope::model::{Error, Loaded, PaddedRows, PaddingSide, SiteValues, capture_sites};
use circuitscope::task_prompts;
use safetensors::{Dtype, View};
use serde::{Deserialize, Serialize};

use super::bos::Bos;
use super::inputs;
use crate::args::{CaptureArgs, CapturePrompts};
use crate::device::B;
use crate::output::{Printer, count, note, table};
use crate::progress::Terminal;
use crate::provenance::{Provenance, human_bytes};

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
    prepend_bos: Option<Bos>,
    provenance: Provenance,
}

pub(crate) fn run(args: &CaptureArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    let mut provenance = Provenance::start();
    let device = args.device.device.open()?;
    provenance.on(&device);
    inputs::writable_file(&args.output)?;
    let model = inputs::load_model(&args.model, &device, progress)?;
    let sites = model.model.config().catalog().resolve(&args.sites)?;
    let (prompts, bos) = prompts(args, &model, &mut provenance)?;
    let rows = rows(args, &model, prompts)?;
    let config = model.model.config();
    let settings = inputs::capture_settings(&args.model, &device);
    let batch = settings.batch_tokens(config, rows.pos(), &sites);
    let reduce = args.reduce.into();
    let plain = device.plain();
    let captured = capture_sites(&model.model, &rows, &sites, reduce, batch, plain, progress)?;
    let lengths: Vec<usize> = rows.prompts().iter().map(Vec::len).collect();
    let mut metadata = provenance.metadata();
    metadata.insert(
        "model".to_owned(),
        serde_json::to_string(&model.provenance)?,
    );
    metadata.insert("lengths".to_owned(), serde_json::to_string(&lengths)?);
    metadata.insert("tokens".to_owned(), serde_json::to_string(rows.prompts())?);
    if let Some(bos) = &bos {
        metadata.insert("prepend_bos".to_owned(), bos.done.to_string());
    }
    write(&args.output, &captured, metadata)?;

    let sites = captured
        .into_iter()
        .map(|(site, captured)| (site.to_string(), captured.shape))
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
) -> Result<(Tokens, Option<Bos>)> {
    let mut texts = if let Some(path) = &args.prompts.tokens {
        provenance.input(path)?;
        return Ok((Tokens::read(path)?, None));
    } else if let Some(path) = &args.prompts.prompts {
        provenance.input(path)?;
        inputs::read_prompts(path)?
    } else if let Some(task) = args.prompts.task {
        let seed = Seed::new(args.seed.seed);
        let set = task_prompts(model, task, args.examples, seed)?.set;
        for said in &set.notes {
            note(&format!("note: {said}"));
        }
        set.labelled().texts
    } else {
        bail!("no prompts: use --task, --prompts or --tokens");
    };
    let bos = Bos::settle(model, &args.model, args.chat, &mut texts)?;
    let tokens = Tokens {
        tokens: inputs::encode(model, &texts, bos.done)?,
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
        let text = fs_err::read(path)?;
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

/// A tensor on its way into a file.
struct Written<'a>(&'a SiteValues);

impl View for Written<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(bytemuck::cast_slice(&self.0.data))
    }

    fn data_len(&self) -> usize {
        size_of_val(self.0.data.as_slice())
    }
}

fn write(
    path: &Path,
    captured: &BTreeMap<Site, SiteValues>,
    metadata: BTreeMap<String, String>,
) -> Result<()> {
    let views = captured
        .iter()
        .map(|(site, values)| (site.to_string(), Written(values)));
    let bytes = safetensors::serialize(views, Some(metadata.into_iter().collect()))?;
    circuitscope::core::files::write_atomic(path, |out| out.write_all(&bytes))?;
    Ok(())
}

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
        let bos = bos.map_or_else(String::new, |bos| format!("{}\n", bos.text()));
        format!(
            "{}\n{bos}wrote {} for {} in {:.2} s{memory}",
            table(&["site", "shape"], &rows),
            self.output,
            count(self.prompts, "prompt"),
            self.provenance.seconds
        )
    }
}
