//! `capture`: prompts in, activations out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use burn::tensor::TensorData;
use circuitscope::core::{Progress as _, Seed};
use circuitscope::hooks::{Capture, Reduce, Site};
use circuitscope::model::{Error, Loaded, TokenBatch, check_mask};
use circuitscope::task_prompts;
use safetensors::{Dtype, View};
use serde::{Deserialize, Serialize};

use super::inputs;
use crate::args::{CaptureArgs, CapturePrompts};
use crate::device::{B, Device};
use crate::output::{Printer, count, table};
use crate::progress::Terminal;
use crate::provenance::{Provenance, human_bytes};

/// Padded tokens in one forward pass: bounds the memory of a pass, changes no result.
const BATCH_TOKENS: usize = 2048;

/// Rows of token ids of one length, and which of them are real.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    tokens: Vec<Vec<u32>>,
    #[serde(default)]
    attention_mask: Option<Vec<Vec<u8>>>,
}

/// One captured site of all prompts.
#[derive(Debug, Default)]
struct Captured {
    shape: Vec<usize>,
    data: Vec<f32>,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    output: String,
    prompts: usize,
    lengths: Vec<usize>,
    sites: BTreeMap<String, Vec<usize>>,
    provenance: Provenance,
}

pub(crate) fn run(args: &CaptureArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    let mut provenance = Provenance::start();
    let device = args.device.device.open()?;
    provenance.on(&device);
    inputs::writable_file(&args.output)?;
    let model = inputs::load_model(&args.model, &device, progress)?;
    let sites = model.model.config().catalog().resolve(&args.sites)?;
    let prompts = prompts(args, &model, &mut provenance)?;
    let (tokens, mask) = prompts.padded();
    check(args, &model, &tokens, &mask)?;

    let captured = capture(&model, &tokens, &mask, &sites, args, &device, progress)?;
    let lengths: Vec<usize> = mask
        .iter()
        .map(|row| row.iter().map(|&real| usize::from(real)).sum())
        .collect();
    let mut metadata = provenance.metadata();
    metadata.insert(
        "model".to_owned(),
        serde_json::to_string(&model.provenance)?,
    );
    metadata.insert("lengths".to_owned(), serde_json::to_string(&lengths)?);
    if args.prompts.tokens.is_none() {
        metadata.insert("prepend_bos".to_owned(), args.model.prepend_bos.to_string());
    }
    write(&args.output, &captured, metadata)?;

    let sites = captured
        .into_iter()
        .map(|(site, captured)| (site.to_string(), captured.shape))
        .collect();
    let report = Report {
        output: args.output.display().to_string(),
        prompts: tokens.len(),
        lengths,
        sites,
        provenance: provenance.now(),
    };
    printer.print(&report, || report.text())
}

fn prompts(args: &CaptureArgs, model: &Loaded<B>, provenance: &mut Provenance) -> Result<Tokens> {
    let texts = if let Some(path) = &args.prompts.tokens {
        provenance.input(path)?;
        return Tokens::read(path);
    } else if let Some(path) = &args.prompts.prompts {
        provenance.input(path)?;
        inputs::read_prompts(path)?
    } else if let Some(task) = args.prompts.task {
        let seed = Seed::new(args.seed.seed);
        task_prompts(model, task, args.examples, seed)?
            .set
            .labelled()
            .texts
    } else {
        bail!("no prompts: use --task, --prompts or --tokens");
    };
    Ok(Tokens {
        tokens: inputs::encode(model, &texts, args.model.prepend_bos)?,
        attention_mask: None,
    })
}

/// Whether the model takes these rows: errors name the file that they come from.
fn check(
    args: &CaptureArgs,
    model: &Loaded<B>,
    tokens: &[Vec<u32>],
    mask: &[Vec<u8>],
) -> Result<()> {
    let fits = model.model.config().check_tokens(tokens);
    let CapturePrompts {
        tokens: rows_file,
        prompts: lines_file,
        ..
    } = &args.prompts;
    let Some(path) = rows_file.as_ref().or(lines_file.as_ref()) else {
        return Ok(fits?);
    };
    match fits.and_then(|()| check_mask(tokens, mask)) {
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

    /// Rows of one length, filled up on the right, and the mask of real tokens.
    fn padded(self) -> (Vec<Vec<u32>>, Vec<Vec<u8>>) {
        let pos = self.tokens.iter().map(Vec::len).max().unwrap_or(0);
        let mut mask = self
            .attention_mask
            .unwrap_or_else(|| self.tokens.iter().map(|row| vec![1; row.len()]).collect());
        let mut tokens = self.tokens;
        for row in &mut tokens {
            row.resize(pos, 0);
        }
        for row in &mut mask {
            row.resize(pos, 0);
        }
        (tokens, mask)
    }
}

fn capture(
    model: &Loaded<B>,
    tokens: &[Vec<u32>],
    mask: &[Vec<u8>],
    sites: &[Site],
    args: &CaptureArgs,
    device: &Device,
    progress: &Terminal,
) -> Result<BTreeMap<Site, Captured>> {
    let pos = tokens.first().map_or(1, Vec::len);
    let rows = (BATCH_TOKENS / pos).max(1);
    let reduce: Reduce = args.reduce.into();
    let mut captured: BTreeMap<Site, Captured> = BTreeMap::new();
    progress.begin("capturing", tokens.len() as u64);
    for (tokens, mask) in tokens.chunks(rows).zip(mask.chunks(rows)) {
        if progress.cancelled() {
            bail!("interrupted while capturing");
        }
        let batch = TokenBatch::from_masked(tokens, mask, device.plain())?;
        let mut tap = Capture::<B>::new(sites.iter().copied()).with_reduce(reduce);
        model.model.forward(&batch, &mut tap);
        for (site, tensor) in tap.finish()? {
            captured
                .entry(site)
                .or_default()
                .append(tensor.into_data())?;
        }
        progress.advance(tokens.len() as u64);
    }
    progress.end();
    Ok(captured)
}

impl Captured {
    /// Adds the rows of a further batch.
    fn append(&mut self, data: TensorData) -> Result<()> {
        if self.shape.is_empty() {
            self.shape = data.shape.to_vec();
        } else {
            self.shape[0] += data.shape[0];
        }
        let values = data.convert::<f32>().into_vec::<f32>();
        let mut values = values.map_err(|error| anyhow::anyhow!("the device failed: {error:?}"))?;
        self.data.append(&mut values);
        Ok(())
    }
}

impl View for &Captured {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(bytemuck::cast_slice(&self.data))
    }

    fn data_len(&self) -> usize {
        size_of_val(self.data.as_slice())
    }
}

fn write(
    path: &Path,
    captured: &BTreeMap<Site, Captured>,
    metadata: BTreeMap<String, String>,
) -> Result<()> {
    let views = captured
        .iter()
        .map(|(site, captured)| (site.to_string(), captured));
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
        format!(
            "{}\nwrote {} for {} in {:.2} s{memory}",
            table(&["site", "shape"], &rows),
            self.output,
            count(self.prompts, "prompt"),
            self.provenance.seconds
        )
    }
}
