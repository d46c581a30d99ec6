//! `explain`: what features of a dictionary say of a head.

use anyhow::{Result, bail};
use circuitscope::features::{ExplainSettings, Explained, What, explain, repeated};
use circuitscope::hooks::Site;
use circuitscope::measures::cards::quoted;
use circuitscope::model::Loaded;
use circuitscope::report::{
    ExplainedFeature, ExplainedPage, ExplainedPlace, PAGE_FILE, render_explained,
};
use circuitscope::{Seed, files};
use serde::Serialize;
use serde_json::json;

use super::splice::{sites, skips_first, suits};
use super::texts::longest;
use super::{bos, dictionary, inputs, texts};
use crate::args::{ExplainArgs, TextArgs};
use crate::device::B;
use crate::output::{Printer, count, table};
use crate::progress::Terminal;
use crate::provenance::{self, Provenance};

const EXPLAINED_FILE: &str = "explained.json";

/// Contexts of random tokens, where no text is given.
const RANDOM: usize = 24;
/// Their tokens.
const RANDOM_TOKENS: usize = 64;

/// What is printed, and kept as `explained.json`.
#[derive(Debug, Serialize)]
struct Report {
    text: String,
    contexts: usize,
    /// Tokens of every context.
    tokens: Vec<Vec<u32>>,
    #[serde(flatten)]
    explained: Explained,
    provenance: Provenance,
}

pub(crate) fn run(args: &ExplainArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    let mut provenance = provenance::start();
    let device = args.device.device.open()?;
    provenance.on(&device);
    if let Some(folder) = &args.output {
        inputs::writable_folder(folder)?;
        inputs::own_folder(folder, EXPLAINED_FILE, &[PAGE_FILE])?;
    }
    let saved = dictionary::load(&args.sae, &device, &mut provenance)?;
    let model = inputs::load_model(&args.model, &device, progress)?;
    let [site, written] = sites(&saved, &model, args.site.as_deref(), None)?;
    let Site::Z(layer) = site else {
        bail!(
            "{}: found a dictionary of {site}, expected one of attn.hook_z: only there are heads side by side",
            args.sae.display()
        );
    };
    let skip_first = skips_first(&saved, args.skip_first.answer());
    let what = match args.what.head {
        Some(head) if head.layer != layer => bail!(
            "--head {head}: found a dictionary of layer {layer}, expected a head of it, such as L{layer}H{}",
            head.head.min(model.model.config().n_heads - 1)
        ),
        Some(head) => What::Head(head),
        None => {
            let mut features = args.what.feature.clone();
            features.sort_unstable();
            features.dedup();
            What::Features(features)
        }
    };
    let (contexts, prepend_bos, text) = if args.text.is_empty() {
        let config = model.model.config();
        let start = bos::settle(&model, &args.model, false, &mut [], |_| String::new())?;
        let bos = if start.done { config.bos_token } else { None };
        let seed = Seed::new(args.seed.seed);
        let random = repeated(
            config.d_vocab,
            bos,
            RANDOM_TOKENS.min(config.n_ctx),
            RANDOM,
            seed,
        );
        (random, start.done, "random tokens said twice".to_owned())
    } else {
        let text = TextArgs {
            text: args.text.clone(),
            tokens: args.tokens,
            context: args.context,
        };
        let (contexts, done) = texts::read(&text, &args.model, &model, &mut provenance)?;
        let names: Vec<String> = args
            .text
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        (contexts, done, names.join(", "))
    };
    suits(
        &saved,
        &model,
        [site, written],
        Some(prepend_bos),
        skip_first,
    )?;
    let settings = inputs::capture_settings(&args.model, &device);
    let how = ExplainSettings::default()
        .with_features(args.features)
        .with_contexts(args.places)
        .with_skip_first(skip_first)
        .with_batch_tokens(settings.batch_tokens(model.model.config(), longest(&contexts), &[site]))
        .with_seed(Seed::new(args.seed.seed));
    let explained = explain(
        &model.model,
        (layer, saved.encoder.as_ref()),
        &contexts,
        &what,
        &how,
        device.plain(),
        progress,
    )?;
    let report = Report {
        text,
        contexts: contexts.len(),
        tokens: contexts,
        explained,
        provenance: provenance.now(),
    };
    if let Some(folder) = &args.output {
        let mut json = serde_json::to_vec_pretty(&report)?;
        json.push(b'\n');
        files::write_atomic(&folder.join(EXPLAINED_FILE), |out| out.write_all(&json))?;
        render_explained(&report.page(&model)).write(folder)?;
    }
    printer.print(&report, || {
        let page = args.output.as_ref();
        let page = page.map_or_else(String::new, |folder| {
            format!("report: {}\n", folder.join(PAGE_FILE).display())
        });
        format!("{}{page}", report.said(&model))
    })
}

/// A token as text.
pub(super) fn token(model: &Loaded<B>, id: u32) -> String {
    let tokenizer = model.tokenizer().ok();
    let text = tokenizer.and_then(|tokenizer| tokenizer.decode(&[id]).ok());
    text.unwrap_or_else(|| format!("#{id}"))
}

impl Report {
    fn title(&self) -> String {
        match self.explained.head {
            Some(head) => format!("Features of {head}"),
            None => format!("Features of layer {}", self.explained.layer),
        }
    }

    /// Columns of the table of controls.
    fn controls(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let share = |value: f64| format!("{:.0} %", 100.0 * value);
        let rows = self.explained.controls.iter().map(|of| {
            let sources = &of.sources;
            let share = |value: f64| {
                if of.looked_at == 0 {
                    "–".to_owned()
                } else {
                    share(value)
                }
            };
            vec![
                of.dictionary.clone(),
                of.features.to_string(),
                of.looked_at.to_string(),
                share(of.weight_share),
                share(of.attribution_share),
                share(sources.induction),
                share(sources.duplicate),
                share(sources.previous),
                share(sources.first),
            ]
        });
        let header = vec![
            "dictionary",
            "features",
            "looked at",
            "by weight",
            "by attribution",
            "induction",
            "duplicate",
            "previous",
            "first",
        ];
        (header, rows.collect())
    }

    fn notes(&self) -> String {
        let heads = self
            .explained
            .features
            .first()
            .map_or(1, |card| card.weight_shares.len());
        format!(
            "by weight: the head's share of what its features write (by chance {:.0} %; its share of the length of z is {:.0} %); by \
             attribution: its share of what makes them where they are strongest;\ninduction and so on: where the token stands that the head \
             takes most of that from. What dictionaries that learnt nothing show as well is no finding of this one",
            100.0 / heads as f64,
            100.0 * self.explained.norm_share
        )
    }

    fn said(&self, model: &Loaded<B>) -> String {
        let explained = &self.explained;
        let mut text = format!(
            "{} on {} ({}, {})\n\n",
            self.title(),
            self.text,
            count(self.contexts, "context"),
            count(explained.positions, "position")
        );
        let share = |value: f64| format!("{:.0} %", 100.0 * value);
        let tokens = |list: &[(u32, f64)]| {
            let some = list
                .iter()
                .take(3)
                .map(|(id, _)| quoted(&token(model, *id)));
            some.collect::<Vec<_>>().join(" ")
        };
        let rows: Vec<Vec<String>> = explained
            .features
            .iter()
            .map(|card| {
                let (head, largest) = card.largest_share();
                let of = explained
                    .head
                    .map_or(largest, |head| card.weight_shares[head.head]);
                let place = card.contexts.first().map_or_else(String::new, |one| {
                    let of_context = &self.tokens[one.context];
                    format!(
                        "{} ← {}",
                        quoted(&token(model, of_context[one.position])),
                        quoted(&token(model, of_context[one.source()]))
                    )
                });
                let name = if explained.head.is_some() {
                    share(of)
                } else {
                    format!("H{head} {}", share(of))
                };
                vec![
                    card.feature.to_string(),
                    format!("{:.2} %", 100.0 * card.density),
                    name,
                    place,
                    tokens(&card.raises),
                ]
            })
            .collect();
        if rows.is_empty() {
            text.push_str("no feature was active often enough here\n");
        } else {
            text.push_str(&table(
                &[
                    "feature",
                    "active",
                    "head's share",
                    "strongest at ← from",
                    "raises",
                ],
                &rows,
            ));
        }
        if !explained.controls.is_empty() {
            let (header, rows) = self.controls();
            for part in ["\n", &table(&header, &rows), &self.notes(), "\n"] {
                text.push_str(part);
            }
        }
        text
    }

    fn page(&self, model: &Loaded<B>) -> ExplainedPage {
        let (header, rows) = self.controls();
        let words = |list: &[(u32, f64)]| {
            list.iter()
                .map(|(id, value)| (token(model, *id), *value))
                .collect()
        };
        let features = self.explained.features.iter().map(|card| {
            let places = card.contexts.iter().map(|one| {
                let of = &self.tokens[one.context];
                ExplainedPlace {
                    tokens: of.iter().map(|id| token(model, *id)).collect(),
                    position: one.position,
                    by_source: one.by_source.clone(),
                    activation: one.activation,
                    head: one.head,
                    by_head: one.by_head.clone(),
                    bias: one.bias,
                }
            });
            ExplainedFeature {
                feature: card.feature,
                density: card.density,
                weight_shares: card.weight_shares.clone(),
                raises: words(&card.raises),
                lowers: words(&card.lowers),
                places: places.collect(),
            }
        });
        ExplainedPage {
            title: self.title(),
            lead: format!(
                "On {}: {}",
                self.text,
                count(self.explained.positions, "position")
            ),
            head: self.explained.head,
            features: features.collect(),
            controls: (header.into_iter().map(str::to_owned).collect(), rows),
            note: self.notes().replace('\n', " "),
            provenance: json!(self.provenance),
        }
    }
}
