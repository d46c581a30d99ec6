//! `splice`: a dictionary in the place of an activation.

use anyhow::{Result, anyhow, bail};
use circuitscope::Seed;
use circuitscope::features::{Directions, FidelityTable, fidelity};
use circuitscope::hooks::Site;
use circuitscope::model::{Loaded, Processing};
use circuitscope::sae::{Activations, Encoder, Objective, SavedSae};
use serde::Serialize;

use super::rows::one_site;
use super::texts::longest;
use super::{dictionary, inputs, texts};
use crate::args::SpliceArgs;
use crate::device::B;
use crate::output::{Printer, count, note, table};
use crate::progress::Terminal;
use crate::provenance::{self, Provenance};

/// The dictionaries of a table; a control of a transcoder there is not.
const NAMES: [&str; 2] = ["this dictionary", "a dictionary before training"];

/// Features of a row that are active in the dictionary before training, where the one it stands beside does not say.
const ACTIVE: usize = 32;

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    site: String,
    site_out: String,
    skip_first: bool,
    contexts: usize,
    /// What stands for what in `dictionaries`.
    names: Vec<&'static str>,
    #[serde(flatten)]
    table: FidelityTable,
    provenance: Provenance,
}

pub(crate) fn run(args: &SpliceArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    let mut provenance = provenance::start();
    let device = args.device.device.open()?;
    provenance.on(&device);
    let saved = dictionary::load(&args.sae, &device, &mut provenance)?;
    let model = inputs::load_model(&args.model, &device, progress)?;
    let (contexts, prepend_bos) = texts::read(&args.text, &args.model, &model, &mut provenance)?;
    let sites = sites(
        &saved,
        &model,
        args.site.as_deref(),
        args.site_out.as_deref(),
    )?;
    let skip_first = skips_first(&saved, args.skip_first.answer());
    suits(&saved, &model, sites, Some(prepend_bos), skip_first)?;
    let encoder = saved.encoder.as_ref();
    let k = match saved
        .metadata
        .stream
        .as_ref()
        .map(|stream| stream.objective)
    {
        Some(Objective::TopK { k } | Objective::BatchTopK { k }) => k,
        _ => ACTIVE,
    };
    let untrained = Directions::<B>::untrained(
        encoder.d_in(),
        encoder.n_codes(),
        k,
        Seed::new(args.seed.seed),
        device.plain(),
    );
    // A dictionary before training cannot know another site.
    let controls: Vec<&dyn Encoder<B>> = if sites[0] == sites[1] {
        vec![&untrained]
    } else {
        Vec::new()
    };
    let dictionaries: Vec<&dyn Encoder<B>> = [encoder].into_iter().chain(controls).collect();
    let settings = inputs::capture_settings(&args.model, &device);
    let batch = settings.batch_tokens(model.model.config(), longest(&contexts), &[Site::Logits]);
    let table = fidelity(
        &model.model,
        &contexts,
        &dictionaries,
        sites,
        skip_first,
        batch,
        device.plain(),
        progress,
    )?;
    let report = Report {
        site: sites[0].to_string(),
        site_out: sites[1].to_string(),
        skip_first,
        contexts: contexts.len(),
        names: NAMES[..table.dictionaries.len()].to_vec(),
        table,
        provenance: provenance.now(),
    };
    printer.print(&report, || report.text())
}

/// What a dictionary reads and what it stands for: as its folder says, or else as the user does.
pub(super) fn sites(
    saved: &SavedSae<B>,
    model: &Loaded<B>,
    site: Option<&str>,
    site_out: Option<&str>,
) -> Result<[Site; 2]> {
    let folder = saved.folder.display();
    let on = &saved.trained_on;
    let Some(name) = site.or(on.hook_name.as_deref()) else {
        bail!(
            "{folder}: does not say which site it was trained on: --site says it, such as blocks.3.attn.hook_z"
        );
    };
    let read =
        one_site(&model.model, "--site", name).map_err(|error| anyhow!("{folder}: {error}"))?;
    let written = match site_out.or(on.hook_name_out.as_deref()) {
        Some(name) => one_site(&model.model, "--site-out", name)
            .map_err(|error| anyhow!("{folder}: {error}"))?,
        None => read,
    };
    Ok([read, written])
}

/// Whether first positions are left as they are.
pub(super) fn skips_first(saved: &SavedSae<B>, asked: Option<bool>) -> bool {
    asked.unwrap_or_else(|| {
        saved
            .trained_on
            .first_position
            .is_some_and(|first| first > 0)
    })
}

/// Fails where a folder says that a dictionary was trained on something else than this.
pub(super) fn suits(
    saved: &SavedSae<B>,
    model: &Loaded<B>,
    [read, written]: [Site; 2],
    prepend_bos: Option<bool>,
    skip_first: bool,
) -> Result<()> {
    let config = model.model.config();
    let width = |site: Site| match site {
        Site::Z(_) => config.n_heads * config.d_head,
        Site::MlpPost(_) | Site::MlpPre(_) | Site::MlpPreLinear(_) => {
            config.mlp.map_or(0, |mlp| mlp.d_mlp)
        }
        _ => config.d_model,
    };
    let mut here = Activations::new(width(read))
        .with_hook_name(read.to_string())
        .with_width_out(width(written))
        .with_hook_name_out(written.to_string())
        .with_n_layers(config.n_layers)
        .with_folded(model.provenance.processing != Processing::Raw)
        .with_first_position(u64::from(skip_first));
    if let Some(bos) = prepend_bos {
        here = here.with_prepend_bos(bos);
    }
    saved.suits(&here)?;
    // Names differ for one model, too: nobody is refused for them.
    if let Some(name) = &saved.trained_on.model
        && *name != model.provenance.name
    {
        note(&format!(
            "note: {} was trained on {name}; this model is {}",
            saved.folder.display(),
            model.provenance.name
        ));
    }
    Ok(())
}

impl Report {
    fn text(&self) -> String {
        let FidelityTable {
            predicted,
            clean,
            zero,
            mean,
            dictionaries,
            ..
        } = &self.table;
        let share = |value: Option<f64>| {
            value.map_or_else(|| "–".to_owned(), |value| format!("{:.1} %", 100.0 * value))
        };
        let empty = || vec![String::new(); 4];
        let row = |name: &str, loss: f64, rest: Vec<String>| {
            [vec![name.to_owned(), format!("{loss:.4}")], rest].concat()
        };
        let mut rows = vec![row("the activation itself", *clean, empty())];
        for (name, of) in self.names.iter().copied().zip(dictionaries) {
            let recovered = [share(of.recovered_of_zero), share(of.recovered_of_mean)];
            let rest = [
                recovered.to_vec(),
                vec![format!("{:.3}", of.fvu), format!("{:.1}", of.l0)],
            ]
            .concat();
            rows.push(row(name, of.loss, rest));
        }
        rows.push(row("its mean", *mean, empty()));
        rows.push(row("0", *zero, empty()));
        let header = [
            "in its place",
            "loss",
            "recovered of 0",
            "recovered of the mean",
            "FVU",
            "L0",
        ];
        let place = if self.site == self.site_out {
            self.site.clone()
        } else {
            format!("{} made of {}", self.site_out, self.site)
        };
        let never = dictionaries.first().map_or(0, |of| of.never);
        format!(
            "{place} on {}, {} predicted{}\n\n{}loss: of the next token, in nats; recovered: the share of what 0 or the mean in its \
             place costs that the dictionary does not;\nFVU: the share of variance that is not explained; L0: features active on a \
             vector; {never} of the dictionary's were active on none\ntime: {:.1} s",
            count(self.contexts, "context"),
            count(*predicted, "token"),
            if self.skip_first {
                "; the first position of each stays as it is"
            } else {
                ""
            },
            table(&header, &rows),
            self.provenance.seconds
        )
    }
}
