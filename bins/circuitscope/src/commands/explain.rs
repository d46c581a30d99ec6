//! `explain`: what features of a dictionary say of a head.

use anyhow::{Result, bail};
use circuitscope::features::{
    AblationEffect, ExplainSettings, Explained, FeatureAblation, FeatureCard, PathStep, What,
    Writer, explain, repeated,
};
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
        .with_ablations(args.ablations)
        .with_skip_first(skip_first)
        .with_batch_tokens(settings.batch_tokens(
            model.model.config(),
            longest(&contexts),
            &[site, Site::Logits],
        ))
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

/// Where something comes from: the steps from what reads it to where it begins.
fn steps(model: &Loaded<B>, tokens: &[u32], path: &[PathStep]) -> String {
    let at = |position: usize| format!("{} ({position})", quoted(&token(model, tokens[position])));
    let step = |step: &PathStep| match *step {
        PathStep::Wrote(writer) => match writer {
            Writer::Token { position } => at(position),
            Writer::Position { position } => format!("position vector {position}"),
            Writer::Head { head, source, .. } => format!("{head} from {}", at(source)),
            Writer::AttentionBias { layer, position } => format!("b_O {layer} at {}", at(position)),
            Writer::Mlp { layer, position } => format!("MLP {layer} at {}", at(position)),
            Writer::Constant => "biases".to_owned(),
        },
        PathStep::Feature {
            layer,
            feature,
            position,
        } => format!("feature {feature} of layer {layer} at {}", at(position)),
        PathStep::Error { layer, position } => format!("error {layer} at {}", at(position)),
        PathStep::TranscoderBias { layer, .. } => format!("bias of transcoder {layer}"),
        PathStep::PassedOn { layer, position } => format!("past MLP {layer} at {}", at(position)),
    };
    path.iter().map(step).collect::<Vec<_>>().join(" ← ")
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

    /// What the model says without features, and what that stands beside, on average over the features.
    fn ablations(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let all: Vec<&FeatureAblation> = self
            .explained
            .features
            .iter()
            .filter_map(|card| card.ablation.as_ref())
            .collect();
        let row = |name: &str, of: fn(&FeatureAblation) -> AblationEffect| {
            let kl: f64 = all.iter().map(|one| of(one).kl).sum();
            let losses: Vec<f64> = all.iter().filter_map(|one| of(one).loss).collect();
            let loss = losses.iter().sum::<f64>() / losses.len() as f64;
            vec![
                name.to_owned(),
                format!("{:.4}", kl / all.len() as f64),
                if losses.is_empty() {
                    "–".to_owned()
                } else {
                    format!("{loss:+.4}")
                },
            ]
        };
        let rows = if all.is_empty() {
            Vec::new()
        } else {
            vec![
                row("without the feature", |one| one.feature),
                row("without another feature, as active", |one| one.random),
                row("without what the dictionary leaves over", |one| one.error),
                row("the mean of z in its place", |one| one.mean),
            ]
        };
        (vec!["z of the layer", "KL", "loss"], rows)
    }

    fn ablation_note(&self) -> String {
        let places = self.explained.features.iter();
        let places: usize = places
            .filter_map(|card| card.ablation.as_ref())
            .map(|ablation| ablation.places)
            .sum();
        format!(
            "where features are strongest ({}), that position alone: divergence of what is said next from what was said, and by how much the \
             loss of the token that follows rises, in nats",
            count(places, "place")
        )
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
                    card.ablation.as_ref().map_or_else(
                        || "–".to_owned(),
                        |ablation| format!("{:.4}", ablation.feature.kl),
                    ),
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
                    "KL without",
                ],
                &rows,
            ));
        }
        if explained.head.is_none() {
            for card in &explained.features {
                text.push_str(&self.made_of(model, card));
            }
        }
        let (header, rows) = self.ablations();
        if !rows.is_empty() {
            for part in ["\n", &table(&header, &rows), &self.ablation_note(), "\n"] {
                text.push_str(part);
            }
        }
        if !explained.controls.is_empty() {
            let (header, rows) = self.controls();
            for part in ["\n", &table(&header, &rows), &self.notes(), "\n"] {
                text.push_str(part);
            }
        }
        text
    }

    /// A line for each end of the paths into a feature.
    fn made_of(&self, model: &Loaded<B>, card: &FeatureCard) -> String {
        let Some(strongest) = card.contexts.first() else {
            return String::new();
        };
        let tokens = &self.tokens[strongest.context];
        let ends = card.made_of.iter().map(|end| {
            format!(
                "  {:>6.3} ({:.0} %)  {}\n",
                end.value,
                100.0 * end.share,
                steps(model, tokens, &end.path)
            )
        });
        let ends: String = ends.collect();
        format!(
            "\nfeature {} at {} is made of, in the end, with patterns and norms held:\n{ends}",
            card.feature,
            quoted(&token(model, tokens[strongest.position]))
        )
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
                made_of: card.contexts.first().map_or_else(Vec::new, |strongest| {
                    let tokens = &self.tokens[strongest.context];
                    let ends = card.made_of.iter();
                    ends.map(|end| (steps(model, tokens, &end.path), end.value, end.share))
                        .collect()
                }),
                without: card
                    .ablation
                    .as_ref()
                    .map(|ablation| (ablation.feature.kl, ablation.random.kl)),
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
            ablations: {
                let (header, rows) = self.ablations();
                (header.into_iter().map(str::to_owned).collect(), rows)
            },
            ablation_note: self.ablation_note(),
            provenance: json!(self.provenance),
        }
    }
}
