//! Compares model folders with the outputs that other programs recorded for them.
//!
//! A folder holds a model and a `reference.safetensors`. Names of its tensors say what they are:
//! `input_ids`; after `hf.`, `tl_raw.`, `tl_processed.` or nothing, a hook name, `logits` or
//! `hidden_states.{layer}`. The same after `leftpad.` or `rightpad.` for a padded batch with its
//! `attention_mask`; values at padding are left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use circuitscope_core::{Exec, NoProgress};
use circuitscope_hooks::{Capture, Site};
use circuitscope_model::{
    Decoder, LoadSettings, Norm, PaddingSide, Precision, Processing, TokenBatch, load_dir,
};
use circuitscope_testkit::{Flex, Golden, Values, device, worst_difference};
use clap::Parser;

/// Largest absolute difference in f32. Other implementations differ among each other by 1.1e-5 on the
/// same fixtures; the other form of GELU moves the logits by 1e-3, a wrong ε by up to 5e-4.
const BOUND: f32 = 5e-5;

/// Largest difference of logits computed in half precision from those in f32, relative to the largest
/// logit, before a soft cap where there is one. f16 keeps 11 bits, bf16 keeps 8.
const HALF: [(Precision, f32); 2] = [(Precision::F16, 0.005), (Precision::Bf16, 0.05)];

/// Models whose attention is so sharp, every option far from its default, that roundings count twice.
const SHARP: [&str; 1] = ["gemma3_text"];

/// The models that the repository carries.
const GOLDEN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../crates/circuitscope-model/tests/it/golden"
);

/// Compares models with recorded outputs of Hugging Face transformers and TransformerLens, prints the
/// largest difference of each, and fails if one exceeds its bound.
#[derive(Debug, Parser)]
#[command(name = "parity")]
struct Args {
    /// Folders that hold model folders, at any depth.
    #[arg(long, default_values_os_t = [PathBuf::from(GOLDEN)])]
    fixtures: Vec<PathBuf>,
}

fn main() -> Result<()> {
    run(&Args::parse().fixtures)
}

/// One comparison.
#[derive(Debug)]
struct Row {
    model: String,
    against: String,
    tensors: usize,
    worst: f32,
    place: String,
    bound: f32,
}

impl Row {
    /// Whether the bound holds.
    fn holds(&self) -> bool {
        self.worst <= self.bound
    }
}

/// Prints the table of all models under `fixtures`.
///
/// # Errors
/// If there are none, one cannot be loaded, or a bound does not hold.
#[expect(clippy::print_stdout, reason = "the table is what was asked for")]
fn run(fixtures: &[PathBuf]) -> Result<()> {
    let mut folders = Vec::new();
    for fixtures in fixtures {
        collect(fixtures, &mut folders)?;
    }
    ensure!(
        !folders.is_empty(),
        "no folder under {fixtures:?} holds a config.json and a reference.safetensors"
    );
    println!(
        "{:24} {:30} {:>7} {:>10} {:>8}      worst at",
        "model", "against", "tensors", "difference", "bound"
    );
    let mut failed = 0;
    for folder in folders {
        for row in compare(&folder)? {
            let verdict = if row.holds() { "ok  " } else { "FAIL" };
            failed += usize::from(!row.holds());
            println!(
                "{:24} {:30} {:7} {:10.1e} {:8.0e} {verdict} {}",
                row.model, row.against, row.tensors, row.worst, row.bound, row.place
            );
        }
    }
    ensure!(failed == 0, "{failed} comparisons exceed their bound");
    Ok(())
}

/// Folders with a model and a reference, at any depth, in order of their names.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let has = |file: &str| folder.join(file).exists();
    if has("config.json") && has("reference.safetensors") {
        found.push(folder.to_owned());
        return Ok(());
    }
    let entries = folder
        .read_dir()
        .with_context(|| format!("cannot read {}", folder.display()))?;
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    folders.iter().try_for_each(|folder| collect(folder, found))
}

/// Every comparison that a folder's reference allows.
fn compare(folder: &Path) -> Result<Vec<Row>> {
    let golden = Golden::read(&folder.join("reference.safetensors"));
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let mut rows = Vec::new();
    let mut configs = vec![("", folder.to_owned())];
    // The same configuration as a later release of transformers writes it.
    let copy = tempfile::tempdir()?;
    if folder.join("config.v5.json").exists() {
        for entry in folder.read_dir()? {
            let entry = entry?;
            fs_err::copy(entry.path(), copy.path().join(entry.file_name()))?;
        }
        fs_err::copy(
            folder.join("config.v5.json"),
            copy.path().join("config.json"),
        )?;
        configs.push((" (config.v5)", copy.path().to_owned()));
    }
    for (suffix, folder) in &configs {
        for (processing, prefix) in [
            (Processing::Raw, "hf."),
            (Processing::Raw, "tl_raw."),
            (Processing::Folded, "tl_processed."),
            (Processing::Raw, ""),
        ] {
            for batch in ["", "leftpad.", "rightpad."] {
                let prefix = format!("{batch}{prefix}");
                let expected = expected(&golden, &prefix);
                if expected.is_empty() {
                    continue;
                }
                let model = load(folder, processing.into())?;
                let batch = tokens(&golden, batch)?;
                let against = match prefix.as_str() {
                    "" => "recorded".to_owned(),
                    prefix => prefix.trim_end_matches('.').to_owned(),
                };
                rows.push(Row {
                    model: name.clone().into_owned(),
                    against: format!("{against}{suffix}"),
                    ..difference(&model, &batch, &expected)
                        .with_context(|| format!("{}: {prefix}", folder.display()))?
                });
            }
        }
    }
    ensure!(
        !rows.is_empty(),
        "{}: nothing to compare with",
        folder.display()
    );
    rows.extend(half_precision(folder, &golden, &name)?);
    Ok(rows)
}

fn load(folder: &Path, settings: LoadSettings) -> Result<Decoder<Flex>> {
    let settings = settings.with_exec(Exec::all_cores());
    Ok(load_dir(folder, settings, &device(), &NoProgress)?.model)
}

/// A batch and the real positions of its rows.
struct Batch {
    tokens: TokenBatch<Flex>,
    real: Vec<(usize, usize)>,
}

fn tokens(golden: &Golden, prefix: &str) -> Result<Batch> {
    let ids = golden.tokens(&format!("{prefix}input_ids"));
    if prefix.is_empty() {
        let real = ids.iter().map(|row| (0, row.len())).collect();
        let tokens = TokenBatch::new(&ids, PaddingSide::Right, &device())?;
        return Ok(Batch { tokens, real });
    }
    let mask = golden.mask(&format!("{prefix}attention_mask"));
    let bounds = |row: &Vec<u8>| {
        let first = row.iter().position(|&real| real == 1)?;
        Some((first, row.iter().rposition(|&real| real == 1)? + 1))
    };
    let real: Option<Vec<_>> = mask.iter().map(bounds).collect();
    Ok(Batch {
        tokens: TokenBatch::from_masked(&ids, &mask, &device())?,
        real: real.context("a row without a real token")?,
    })
}

/// What is recorded directly under `prefix`, by what follows it.
fn expected<'g>(golden: &'g Golden, prefix: &str) -> BTreeMap<String, &'g Values> {
    let other = ["hf.", "tl_raw.", "tl_processed.", "leftpad.", "rightpad."];
    let under = golden.floats_under(prefix);
    let direct = under.filter(|(name, _)| !other.iter().any(|other| name.starts_with(other)));
    // Padding counted as positions is another convention, that of a mask without position ids.
    let ours = direct.filter(|(name, _)| *name != "logits_mask_only");
    ours.map(|(name, values)| (name.to_owned(), values))
        .collect()
}

/// The site of a recorded name; none where no site holds the value.
fn site(name: &str, model: &Decoder<Flex>) -> Result<Option<Site>> {
    let config = model.config();
    let name = name.trim_end_matches("_with_position_ids");
    let Some(layer) = name.strip_prefix("hidden_states.") else {
        return Ok(Some(name.parse()?));
    };
    let layer: usize = layer.parse().with_context(|| name.to_owned())?;
    // The last hidden state is the output of the final norm after its gain, which an RMS norm's site
    // does not have.
    Ok(match (layer < config.n_layers, config.norm) {
        (true, _) => Some(Site::ResidPre(layer)),
        (false, Norm::Rms | Norm::RmsPre) => None,
        (false, _) => Some(Site::LnFinalNormalized),
    })
}

fn difference(
    model: &Decoder<Flex>,
    batch: &Batch,
    expected: &BTreeMap<String, &Values>,
) -> Result<Row> {
    let mut sites = BTreeMap::new();
    for (name, values) in expected {
        if let Some(site) = site(name, model)? {
            sites.insert(site, (name, *values));
        }
    }
    let mut capture = Capture::new(sites.keys().copied());
    model.forward(&batch.tokens, &mut capture);
    let mut captured = capture.finish()?;
    let mut row = Row {
        model: String::new(),
        against: String::new(),
        tensors: sites.len(),
        worst: 0.0,
        place: String::new(),
        bound: BOUND,
    };
    for (site, (name, expected)) in sites {
        let Some(actual) = captured.remove(&site) else {
            bail!("{site} was not captured")
        };
        let actual = Values::from(actual.into_data());
        ensure!(
            actual.shape == expected.shape,
            "{name}: shape {:?}, expected {:?}",
            actual.shape,
            expected.shape
        );
        for (at, &(first, end)) in batch.real.iter().enumerate() {
            let real = |values: &Values| {
                let row = values.row(at);
                match site {
                    Site::Pattern(_) | Site::AttnScores(_) => {
                        row.slice(1, first, end).slice(2, first, end)
                    }
                    _ => row.slice(0, first, end),
                }
            };
            let (worst, _) = worst_difference(&real(&actual), &real(expected));
            if worst >= row.worst {
                row.worst = worst;
                row.place.clone_from(name);
            }
        }
    }
    Ok(row)
}

/// Logits in f16 and bf16 against those in f32. Nothing for compiled programs, which have no norms and
/// need exact arithmetic.
fn half_precision(folder: &Path, golden: &Golden, name: &str) -> Result<Vec<Row>> {
    let model = load(folder, Processing::Raw.into())?;
    if model.config().norm == Norm::None {
        return Ok(Vec::new());
    }
    let cap = model.config().output_logits_soft_cap.map(|cap| cap as f32);
    let batch = tokens(golden, "")?;
    let logits = |precision| -> Result<Values> {
        let settings = LoadSettings::default()
            .with_processing(Processing::Raw)
            .with_precision(precision);
        Ok(load(folder, settings)?.logits(&batch.tokens).into())
    };
    let exact = logits(Precision::F32)?;
    let largest = exact.data.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let largest = cap.map_or(largest, |cap| cap * (largest / cap).atanh());
    let sharp = if SHARP.contains(&name) { 2.0 } else { 1.0 };
    let rows = HALF.into_iter().map(|(precision, bound)| {
        let (worst, _) = worst_difference(&logits(precision)?, &exact);
        Ok(Row {
            model: name.to_owned(),
            against: format!("{precision} against f32, relative"),
            tensors: 1,
            worst: worst / largest,
            place: "logits".to_owned(),
            bound: bound * sharp,
        })
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> PathBuf {
        PathBuf::from(GOLDEN)
    }

    #[test]
    fn every_committed_model_is_within_its_bounds() {
        let mut folders = Vec::new();
        collect(&golden(), &mut folders).unwrap();
        assert!(folders.len() >= 18, "{folders:?}");
        for folder in folders {
            for row in compare(&folder).unwrap() {
                assert!(row.holds(), "{row:?}");
            }
        }
    }

    #[test]
    fn a_model_that_computes_something_else_fails() {
        let copy = tempfile::tempdir().unwrap();
        for entry in golden().join("gpt2_tiny").read_dir().unwrap() {
            let entry = entry.unwrap();
            fs_err::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        let config = copy.path().join("config.json");
        let text = fs_err::read_to_string(&config).unwrap();
        assert!(text.contains("gelu_new"));
        let text = text.replace("gelu_new", "gelu");
        circuitscope_files::write_atomic(&config, |out| out.write_all(text.as_bytes())).unwrap();
        let rows = compare(copy.path()).unwrap();
        assert!(rows.iter().any(|row| !row.holds()), "{rows:?}");
        assert!(run(&[copy.path().to_owned()]).is_err());
        let empty = tempfile::tempdir().unwrap();
        assert!(run(&[empty.path().to_owned()]).is_err());
    }
}
