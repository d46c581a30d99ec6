//! `graph`: which features, through which heads, make the answer of a prompt.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use circuitscope::features::{
    AttributionGraph, Frozen, GraphSettings, NodeKind, PruneSettings, Targets, Transcoders,
    ViewerPrompt, head_table,
};
use circuitscope::hooks::Site;
use circuitscope::model::{Loaded, Norm};
use circuitscope::report::{PAGE_FILE, render_graph};
use circuitscope::sae::{Error as SaeError, SavedSae, load_dir, load_set};
use circuitscope::{Progress, files, report};

use super::explain::token;
use super::graph_report::{Ablated, Control, Made, Prompt, Report, Settings, Through};
use super::rows::one_site;
use super::splice::{skips_first, suits};
use super::{bos, dictionary, inputs};
use crate::args::GraphArgs;
use crate::device::{B, Device};
use crate::output::{Printer, note};
use crate::progress::Terminal;
use crate::provenance;

const GRAPH_FILE: &str = "graph.json";
const VIEWER_FILE: &str = "neuronpedia.json";

/// What stands for an MLP.
const EXPECTED: &str = "expected a transcoder from blocks.L.mlp.hook_in to blocks.L.hook_mlp_out";

/// Most edges that are kept: some 200 MB of files.
const EDGES: usize = 1_000_000;

/// Numbers that the control's edges may take: 1 GiB.
const CONTROL: usize = 1 << 28;

pub(crate) fn run(args: &GraphArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    let mut provenance = provenance::start();
    let device = args.device.device.open()?;
    provenance.on(&device);
    if let Some(folder) = &args.output {
        inputs::writable_folder(folder)?;
        inputs::own_folder(folder, GRAPH_FILE, &[VIEWER_FILE, PAGE_FILE])?;
    }
    if args.against.as_ref() == Some(&args.prompt) {
        bail!("--against: found the prompt itself, expected another text of as many tokens");
    }
    let mut texts: Vec<String> = [Some(&args.prompt), args.against.as_ref()]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    if let Some(at) = texts.iter().position(|text| text.trim().is_empty()) {
        bail!("{}: found no text, expected at least a word", place(at));
    }
    let mut saved = Vec::new();
    for folder in &args.through.transcoders {
        saved.extend(transcoders(folder, &device)?);
    }
    provenance.input_all(saved.iter().flat_map(|one| &one.files))?;
    let model = inputs::load_model(&args.model, &device, progress)?;
    let config = model.model.config();
    let Some(mlp) = config.mlp else {
        let option = if saved.is_empty() {
            "--neurons"
        } else {
            "--transcoders"
        };
        bail!("{option}: found a model of attention alone, expected one with MLPs");
    };
    let start = bos::settle(&model, &args.model, false, &mut texts, place)?;
    let ids = inputs::encode(&model, &texts, start.done, place)?;
    let first_position = saved.iter().filter_map(|one| one.trained_on.first_position);
    let first_position = first_position.max().unwrap_or(0) as usize;
    let by_layer = placed(saved, &model, start.done)?;
    missing(args, &by_layer, config.n_layers);
    let settings = GraphSettings::new()
        .with_targets(targets(args, &model)?)
        .with_max_features(args.max_features)
        .with_neurons(args.through.neurons)
        .with_first_position(first_position);
    let mut frozen = Vec::new();
    for (at, ids) in ids.iter().enumerate() {
        let one = Frozen::new(&model.model, ids, device.plain());
        frozen.push(one.with_context(|| place(at))?);
    }
    let coders: Transcoders<'_, B> = by_layer
        .iter()
        .map(|(layer, saved)| (*layer, saved.encoder.as_ref()))
        .collect();
    let graph = made(&frozen, &coders, &settings, progress)?;
    let prune = PruneSettings::default()
        .with_nodes(args.nodes)
        .with_edges(args.edges);
    let pruned = graph.prune(&prune)?;
    if pruned.edges.len() > EDGES {
        bail!(
            "--edges {}: found {} edges to keep, expected at most {EDGES}: a lower share, of --nodes ({}) or of edges, keeps the strongest",
            args.edges,
            pruned.edges.len(),
            args.nodes
        );
    }
    let influence = graph.influence();
    let strongest = strongest(&graph, &influence, args.ablate);
    let batch = inputs::capture_settings(&args.model, &device).batch_tokens(
        config,
        frozen[0].pos(),
        &[Site::Logits],
    );
    let exact = graph.ablate(&frozen[0], &coders, &strongest, batch, progress)?;
    let adds = graph.attributions();
    let ablated = Ablated::of(&adds, strongest, exact);
    let control = if coders.is_empty() {
        None
    } else {
        let active = config.n_layers * mlp.d_mlp * frozen[0].pos();
        let most = args.max_features.min(CONTROL / active.max(1)).max(1);
        let settings = settings
            .clone()
            .with_neurons(true)
            .with_first_position(0)
            .with_max_features(most);
        let neurons = made(&frozen, &Transcoders::new(), &settings, progress)?;
        Some(Control::of(&neurons, most)?)
    };
    let text = |at: usize| Prompt {
        text: texts[at].clone(),
        tokens: ids[at].clone(),
        words: ids[at].iter().map(|id| token(&model, *id)).collect(),
    };
    let report = Report::of(Made {
        model: &model,
        graph: &graph,
        pruned: &pruned,
        influence,
        adds,
        heads: head_table(std::slice::from_ref(&graph))?,
        prompt: text(0),
        against: (texts.len() > 1).then(|| text(1)),
        through: by_layer
            .iter()
            .map(|(layer, saved)| Through {
                layer: *layer,
                transcoder: dictionary::Origin::of(saved),
            })
            .collect(),
        control,
        ablated,
        settings: Settings {
            neurons: args.through.neurons,
            max_features: args.max_features,
            first_position,
            nodes: args.nodes,
            edges: args.edges,
            rows: args.rows,
        },
        provenance: provenance.now(),
    });
    if let Some(folder) = &args.output {
        let mut json = serde_json::to_vec_pretty(&report)?;
        json.push(b'\n');
        files::write_atomic(&folder.join(GRAPH_FILE), |out| out.write_all(&json))?;
        pruned.write_viewer(&graph, &viewer(&report), &folder.join(VIEWER_FILE))?;
        let page: report::Report = render_graph(&report.page());
        page.write(folder)?;
    }
    printer.print(&report, || {
        let page = args.output.as_ref();
        let page = page.map_or_else(String::new, |folder| {
            format!("report: {}\n", folder.join(PAGE_FILE).display())
        });
        format!("{}{page}", report.said())
    })
}

/// The most influential features, by their place among the nodes; the first on ties.
fn strongest(graph: &AttributionGraph, influence: &[f64], count: usize) -> Vec<usize> {
    let nodes = graph.nodes().iter().enumerate();
    let features = nodes.filter(|(_, node)| matches!(node.kind, NodeKind::Feature { .. }));
    let mut features: Vec<usize> = features.map(|(at, _)| at).collect();
    features.sort_by(|a, b| influence[*b].total_cmp(&influence[*a]));
    features.truncate(count);
    features
}

/// Which option a text is of.
fn place(at: usize) -> String {
    ["--prompt", "--against"][at.min(1)].to_owned()
}

/// The graph of the first prompt, against the second where there is one.
fn made(
    frozen: &[Frozen<'_, B>],
    coders: &Transcoders<'_, B>,
    settings: &GraphSettings,
    progress: &dyn Progress,
) -> Result<AttributionGraph> {
    Ok(match frozen {
        [prompt, other, ..] => AttributionGraph::against(prompt, other, coders, settings, progress)
            .with_context(|| place(1))?,
        [prompt] => AttributionGraph::new(prompt, coders, settings, progress)?,
        [] => bail!("{}: found no text, expected one", place(0)),
    })
}

/// The transcoders of a folder: a set, or one.
fn transcoders(folder: &Path, device: &Device) -> Result<Vec<SavedSae<B>>> {
    match load_set::<B>(folder, device.plain()) {
        Ok(set) => Ok(set.layers.into_values().collect()),
        // No set: maybe a transcoder itself.
        Err(
            no_set @ SaeError::Unsuited {
                what: "set of transcoders",
                ..
            },
        ) => match load_dir::<B>(folder, device.plain()) {
            Ok(saved) => Ok(vec![saved]),
            Err(error) if folder.join("cfg.json").is_file() => Err(error.into()),
            Err(_) => Err(no_set.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Transcoders by the layer whose MLP they stand for. Fails where one does not, or was trained on something else than this.
fn placed(
    all: Vec<SavedSae<B>>,
    model: &Loaded<B>,
    prepend_bos: bool,
) -> Result<BTreeMap<usize, SavedSae<B>>> {
    let mut by_layer: BTreeMap<usize, SavedSae<B>> = BTreeMap::new();
    for saved in all {
        let [read, written] = sites(&saved, model)?;
        let skip_first = skips_first(&saved, None);
        suits(
            &saved,
            model,
            [read, written],
            Some(prepend_bos),
            skip_first,
        )?;
        let Some(layer) = written.layer() else {
            bail!("{}: {written} is of no layer", saved.folder.display());
        };
        if let Some(other) = by_layer.get(&layer) {
            bail!(
                "--transcoders {}: found layer {layer}, which {} has, expected one transcoder for each layer",
                saved.folder.display(),
                other.folder.display()
            );
        }
        by_layer.insert(layer, saved);
    }
    Ok(by_layer)
}

/// What a transcoder reads and writes: what an MLP does.
fn sites(saved: &SavedSae<B>, model: &Loaded<B>) -> Result<[Site; 2]> {
    let folder = saved.folder.display();
    let on = &saved.trained_on;
    let Some(name) = on.hook_name.as_deref() else {
        bail!("{folder}: found a dictionary that does not say its site, {EXPECTED}");
    };
    if !saved.transcodes {
        bail!("{folder}: found an autoencoder of {name}, {EXPECTED}");
    }
    let site = |name: &str| {
        one_site(&model.model, "site", name).map_err(|error| anyhow!("{folder}: {error}"))
    };
    let read = site(name)?;
    let layer = match read {
        Site::MlpHookIn(layer) => layer,
        Site::Ln2Normalized(layer) if whole_norm(model) => {
            note(&format!(
                "note: {folder} was trained on {name}, which in this model is blocks.{layer}.mlp.hook_in"
            ));
            layer
        }
        Site::Ln2Normalized(_) => bail!(
            "{folder}: found a transcoder of {name}, which has no gain as this model is loaded, {EXPECTED}, or --processing folded"
        ),
        _ => bail!("{folder}: found a transcoder that reads {name}, {EXPECTED}"),
    };
    let written = match on.hook_name_out.as_deref() {
        Some(name) => site(name)?,
        None => Site::MlpOut(layer),
    };
    if written != Site::MlpOut(layer) {
        bail!("{folder}: found a transcoder from {name} to {written}, {EXPECTED}");
    }
    Ok([read, written])
}

/// Whether what a norm gives is what the MLP's weights multiply: where it has a gain, that is in it or in the weights.
fn whole_norm(model: &Loaded<B>) -> bool {
    model.model.config().norm != Norm::Rms
}

/// Says which layers have no transcoder.
fn missing(args: &GraphArgs, by_layer: &BTreeMap<usize, SavedSae<B>>, layers: usize) {
    let without: Vec<String> = (0..layers)
        .filter(|layer| !by_layer.contains_key(layer))
        .map(|layer| layer.to_string())
        .collect();
    if !without.is_empty() && !by_layer.is_empty() {
        note(&format!(
            "note: no transcoder of layers {}: {}",
            without.join(", "),
            if args.through.neurons {
                "their neurons are features"
            } else {
                "what their MLPs write is error"
            }
        ));
    }
}

/// The logits that are explained.
fn targets(args: &GraphArgs, model: &Loaded<B>) -> Result<Targets> {
    let config = model.model.config();
    if args.right.is_empty() {
        if args.top > config.d_vocab_out {
            bail!(
                "--top {}: expected at most {}, the logits of this model",
                args.top,
                config.d_vocab_out
            );
        }
        return Ok(Targets::Top(args.top));
    }
    if config.d_vocab_out != config.d_vocab {
        bail!(
            "--right: found a model of {} tokens and {} logits, expected as many: without --right and --wrong its most likely logits are \
             explained",
            config.d_vocab,
            config.d_vocab_out
        );
    }
    let tokenizer = model.tokenizer()?;
    let tokens = |option: &'static str, words: &[String]| -> Result<Vec<u32>> {
        let tokens = words.iter().map(|word| tokenizer.single_token(word));
        tokens
            .collect::<Result<_, _>>()
            .with_context(|| option.to_owned())
    };
    let (right, wrong) = (
        tokens("--right", &args.right)?,
        tokens("--wrong", &args.wrong)?,
    );
    let both = args.right.iter().zip(&right);
    if let Some((word, _)) = both.into_iter().find(|(_, token)| wrong.contains(token)) {
        bail!(
            "--wrong: found {word:?} of --right, expected other words: a difference of the same explains nothing"
        );
    }
    Ok(Targets::Difference(right, wrong))
}

fn viewer(report: &Report) -> ViewerPrompt {
    let slug: String = report
        .prompt
        .text
        .chars()
        .map(|letter| match letter {
            letter if letter.is_ascii_alphanumeric() => letter.to_ascii_lowercase(),
            _ => '-',
        })
        .take(60)
        .collect();
    ViewerPrompt {
        slug,
        scan: report.model.clone(),
        source_set: None,
        description: report.lead(),
        prompt: report.prompt.text.clone(),
        prompt_tokens: report.prompt.words.clone(),
        targets: report
            .targets
            .iter()
            .map(|target| target.name.clone())
            .collect(),
    }
}
