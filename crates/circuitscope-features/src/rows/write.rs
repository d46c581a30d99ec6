//! Capturing rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use circuitscope_core::Progress;
use circuitscope_files::{Entry, FileError, Metadata, Writer, write_atomic};
use circuitscope_hooks::{Reduce, Site};
use circuitscope_model::{Loaded, PaddedRows, PaddingSide, SiteSink, capture_sites_into};
use derive_setters::Setters;
use half::f16;
use serde_json::Value;

use super::{ROWS_FILE, RowsMetadata, SCHEMA, Shard, is_vector};
use crate::{Error, Result};

/// How rows are captured.
#[derive(Debug, Clone, PartialEq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct RowSettings {
    /// What a dictionary reads.
    pub site: Site,
    /// What a transcoder writes.
    #[setters(strip_option)]
    pub site_out: Option<Site>,
    /// Leave out the first position of every context; without an answer it is left out where its residual stream is more than
    /// [`SINK`](Self::SINK) times as long as the others' on average.
    pub skip_first: Option<bool>,
    /// Rows of a shard. Default 65,536.
    pub shard_rows: usize,
    /// Padded tokens of a batch. Default 1,024.
    pub batch_tokens: usize,
    /// Whether contexts begin with a beginning-of-text token: kept with the rows.
    pub prepend_bos: bool,
    /// What else is kept with the rows.
    pub made_from: BTreeMap<String, Value>,
}

impl RowSettings {
    /// Vectors of the first position that are so many times as long as others' are those of an attention sink: the first
    /// position of SmolLM2 is at hundreds, a plain one at about 1.
    pub const SINK: f64 = 4.0;

    /// Rows of one site.
    #[must_use]
    pub fn new(site: Site) -> Self {
        Self {
            site,
            site_out: None,
            skip_first: None,
            shard_rows: 1 << 16,
            batch_tokens: 1 << 10,
            prepend_bos: false,
            made_from: BTreeMap::new(),
        }
    }
}

/// Runs the model on contexts of tokens and writes what a site has at every position, as half-precision numbers, into
/// shards in `folder`; last its [`ROWS_FILE`], so that a folder that has one is whole.
///
/// Shards have the tensors `x` `[rows, d_in]`, with a second site `y` `[rows, d_out]`, and `token` and `position` `[rows]`.
///
/// # Errors
/// Contexts that do not fit the model, a site that it lacks or whose values are no vectors, values that half precision
/// cannot hold, [`Error::Cancelled`]; a folder that has rows already; files that cannot be written. Nothing is left behind then.
pub fn write_rows<B: Backend>(
    loaded: &Loaded<B>,
    contexts: &[Vec<u32>],
    settings: &RowSettings,
    folder: &Path,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<RowsMetadata> {
    let model = &loaded.model;
    let sites: Vec<Site> = [Some(settings.site), settings.site_out]
        .into_iter()
        .flatten()
        .collect();
    for site in &sites {
        if !model.config().catalog().contains(*site) || !is_vector(*site) {
            return Err(Error::Unfit {
                what: "the site of rows".to_owned(),
                found: site.to_string(),
                expected: "a site of this model with a vector at every position, such as blocks.0.attn.hook_z".to_owned(),
            });
        }
    }
    if settings.site_out == Some(settings.site) {
        return Err(Error::Unfit {
            what: "the second site of rows".to_owned(),
            found: settings.site.to_string(),
            expected: "another site than the first".to_owned(),
        });
    }
    if contexts.is_empty() {
        return Err(Error::Unfit {
            what: "contexts".to_owned(),
            found: "none".to_owned(),
            expected: "at least one".to_owned(),
        });
    }
    fs_err::create_dir_all(folder).map_err(|source| FileError::cannot_write(folder, source))?;
    let finished = folder.join(ROWS_FILE);
    if finished.exists() {
        return Err(FileError::field(
            &finished,
            "rows",
            "some that are there already",
            "a folder without: nothing is overwritten",
        )
        .into());
    }
    let ratio = first_position(loaded, contexts, settings, device, progress)?;
    let skip_first = settings.skip_first.unwrap_or(ratio > RowSettings::SINK);
    let rows = PaddedRows::new(contexts.to_vec(), PaddingSide::Right)?;
    let mut sink = Sink {
        settings,
        folder,
        contexts,
        skip: usize::from(skip_first),
        waiting: BTreeMap::new(),
        x: Vec::new(),
        y: Vec::new(),
        token: Vec::new(),
        position: Vec::new(),
        widths: [0; 2],
        shards: Vec::new(),
    };
    let outcome = capture_sites_into(
        model,
        &rows,
        &sites,
        Reduce::None,
        settings.batch_tokens,
        device,
        progress,
        &mut sink,
    );
    if let Err(error) = outcome.and_then(|()| sink.flush()) {
        // Shards without the file that says what they are are of no use.
        for shard in &sink.shards {
            fs_err::remove_file(folder.join(&shard.file)).unwrap_or_default();
        }
        return Err(match error {
            circuitscope_model::Error::Cancelled => Error::Cancelled,
            error => error.into(),
        });
    }
    let [d_in, d_out] = sink.widths;
    let metadata = RowsMetadata {
        schema: SCHEMA,
        model: loaded.provenance.name.clone(),
        processing: loaded.provenance.processing.to_string(),
        site: settings.site.to_string(),
        site_out: settings.site_out.map(|site| site.to_string()),
        d_in,
        d_out: if settings.site_out.is_some() {
            d_out
        } else {
            d_in
        },
        prepend_bos: settings.prepend_bos,
        context: contexts.iter().map(Vec::len).max().unwrap_or(0),
        skip_first,
        first_position: ratio,
        rows: sink.shards.iter().map(|shard| shard.rows).sum(),
        shards: sink.shards,
        made_from: settings.made_from.clone(),
    };
    let mut text = serde_json::to_vec_pretty(&metadata).unwrap_or_default();
    text.push(b'\n');
    write_atomic(&finished, |out| out.write_all(&text))?;
    Ok(metadata)
}

/// Contexts on which the length of the first position is measured.
const MEASURED: usize = 8;

/// How many times as long the residual stream of the first position is as that of the others, where the site's layer reads it,
/// on the first contexts.
fn first_position<B: Backend>(
    loaded: &Loaded<B>,
    contexts: &[Vec<u32>],
    settings: &RowSettings,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<f64> {
    let some: Vec<Vec<u32>> = contexts.iter().take(MEASURED).cloned().collect();
    let lengths: Vec<usize> = some.iter().map(Vec::len).collect();
    let rows = PaddedRows::new(some, PaddingSide::Right)?;
    let stream = settings.site.layer().map_or(settings.site, Site::ResidPre);
    let mut seen = circuitscope_model::capture_sites(
        &loaded.model,
        &rows,
        &[stream],
        Reduce::None,
        settings.batch_tokens,
        device,
        progress,
    )?;
    let values = seen.remove(&stream).unwrap_or_default();
    let width: usize = values.shape.iter().skip(2).product();
    let pos = values.shape.get(1).copied().unwrap_or(1);
    let norm = |row: &[f32]| {
        row.iter()
            .map(|x| f64::from(*x).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let (mut first, mut rest) = ((0.0, 0usize), (0.0, 0usize));
    for (context, length) in values.data.chunks(pos * width).zip(lengths) {
        for (at, row) in context.chunks(width).take(length).enumerate() {
            let of = if at == 0 { &mut first } else { &mut rest };
            of.0 += norm(row);
            of.1 += 1;
        }
    }
    let mean = |(sum, count): (f64, usize)| sum / count.max(1) as f64;
    let ratio = mean(first) / mean(rest);
    Ok(if ratio.is_finite() { ratio } else { 1.0 })
}

/// What was captured on its way into shards.
struct Sink<'a> {
    settings: &'a RowSettings,
    folder: &'a Path,
    contexts: &'a [Vec<u32>],
    /// Positions left out at the begin.
    skip: usize,
    /// First rows of prompts whose other site has not come.
    waiting: BTreeMap<usize, Vec<f32>>,
    x: Vec<f16>,
    y: Vec<f16>,
    token: Vec<i32>,
    position: Vec<i32>,
    /// Of both sites.
    widths: [usize; 2],
    shards: Vec<Shard>,
}

impl SiteSink for Sink<'_> {
    fn begin(&mut self, shapes: &BTreeMap<Site, Vec<usize>>) -> circuitscope_model::Result<()> {
        let sites = [Some(self.settings.site), self.settings.site_out];
        self.widths = sites.map(|site| {
            let shape = site.and_then(|site| shapes.get(&site));
            shape.map_or(0, |shape| shape[2..].iter().product())
        });
        Ok(())
    }

    fn rows(
        &mut self,
        site: Site,
        first: usize,
        width: usize,
        values: &[f32],
    ) -> circuitscope_model::Result<()> {
        let Some(out) = self.settings.site_out else {
            return self.take(first, width, values, None);
        };
        // Both sites of a batch come one after the other, of the same prompts.
        let Some(other) = self.waiting.remove(&first) else {
            self.waiting.insert(first, values.to_vec());
            return Ok(());
        };
        let of_other = width * self.widths[usize::from(site != out)]
            / self.widths[usize::from(site == out)].max(1);
        if site == out {
            self.take(first, of_other, &other, Some(values))
        } else {
            self.take(first, width, values, Some(&other))
        }
    }
}

impl Sink<'_> {
    /// Rows of prompts from `first` on; `width` is that of all positions of `x`.
    fn take(
        &mut self,
        first: usize,
        width: usize,
        x: &[f32],
        y: Option<&[f32]>,
    ) -> circuitscope_model::Result<()> {
        let [d_in, d_out] = self.widths;
        let pos = width / d_in.max(1);
        for (at, of_prompt) in x.chunks(width).enumerate() {
            let tokens = &self.contexts[first + at];
            for position in self.skip..tokens.len() {
                let row = &of_prompt[position * d_in..][..d_in];
                self.x.extend(row.iter().copied().map(f16::from_f32));
                if let Some(y) = y {
                    let row = &y[(at * pos + position) * d_out..][..d_out];
                    self.y.extend(row.iter().copied().map(f16::from_f32));
                }
                self.token.push(tokens[position] as i32);
                self.position.push(position as i32);
            }
        }
        if self.token.len() >= self.settings.shard_rows {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> circuitscope_model::Result<()> {
        let rows = self.token.len();
        if rows == 0 {
            return Ok(());
        }
        let file = format!("shard-{:05}.safetensors", self.shards.len());
        let path: PathBuf = self.folder.join(&file);
        let [d_in, d_out] = self.widths;
        for (name, values) in [("x", &self.x), ("y", &self.y)] {
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                let width = if name == "x" { d_in } else { d_out };
                return Err(FileError::field(
                    &path,
                    format!("tensor `{name}`"),
                    format!("a value that half precision does not hold, in row {}", at / width.max(1)),
                    "values up to 65504: rows of this site need another scale, or leave out the first position",
                )
                .into());
            }
        }
        let mut entries = vec![Entry::of::<f16>("x", &[rows, d_in])];
        if d_out > 0 {
            entries.push(Entry::of::<f16>("y", &[rows, d_out]));
        }
        entries.push(Entry::of::<i32>("token", &[rows]));
        entries.push(Entry::of::<i32>("position", &[rows]));
        let mut writer = Writer::create(&path, entries, Metadata::new())?;
        writer.fill("x", &self.x)?;
        if d_out > 0 {
            writer.fill("y", &self.y)?;
        }
        writer.fill("token", &self.token)?;
        writer.fill("position", &self.position)?;
        writer.finish()?;
        self.shards.push(Shard { file, rows });
        self.x.clear();
        self.y.clear();
        self.token.clear();
        self.position.clear();
        Ok(())
    }
}
