//! The page of a discovery.

use std::path::{Path, PathBuf};

use circuitscope_eval::methods::about;
use circuitscope_report::{
    CircuitPage, FileBeside, Lost, MethodReport, Passage, SizeCurve, Stability, TaskReport,
    render_circuit,
};
use serde_json::json;

use super::Found;
use crate::{Result, model_name, whose};

/// Writes the page of a discovery; `files` are those that lie beside it, and what they hold.
pub(super) fn write(folder: &Path, found: &Found, files: &[(&str, &str)]) -> Result<PathBuf> {
    let grid = found.grid();
    let summary = &about(&found.method)?.summary;
    let chosen = found.circuit();
    let known = found.known.as_ref();
    let task = TaskReport {
        task: found.examples.clone(),
        grid,
        truth: known.map(|known| known.heads.clone()),
        truth_name: known.map_or_else(String::new, |known| known.variant.clone()),
        marked: "in the known circuit".to_owned(),
        chosen: chosen.clone(),
        passages: passages(found),
        methods: vec![MethodReport {
            graph: found.graph.clone(),
            pairs: found.edges.as_ref().map(|pairs| pairs.scores.clone()),
            ..MethodReport::of_scores(&found.method, summary, found.nodes.clone())
        }],
    };
    let lost = found.quality.as_ref().map(|quality| Lost {
        metric: quality.metric.to_string(),
        heads: quality.marginal.clone(),
    });
    let frequencies = found
        .chosen
        .as_ref()
        .and_then(|chosen| chosen.frequencies.as_ref());
    let stability = frequencies.map(|of| Stability {
        shares: of.chosen.clone(),
        halves: of.half_samples,
        chance: chosen.len() as f64 / grid.len() as f64,
    });
    let model = found.model.as_ref();
    let page = CircuitPage {
        title: format!(
            "{} in {}",
            found.examples,
            model.map_or_else(|| "activations".to_owned(), |model| model.name.clone())
        ),
        lead: found.summary.clone().unwrap_or_default(),
        facts: facts(found),
        verdict: found.verdict(),
        task,
        signed: found.by_index(|ranked| ranked.signed),
        norms: found.norms(),
        cards: found.cards.as_ref(),
        lost,
        stability,
        curve: curve(found),
        files: files
            .iter()
            .map(|(name, what)| FileBeside {
                name: (*name).to_owned(),
                what: (*what).to_owned(),
            })
            .collect(),
        command: format!("circuitscope {}", found.provenance.command.join(" ")),
        provenance: json!({
            "provenance": found.provenance,
            "settings": found.settings,
            "model": found.model,
        }),
    };
    Ok(render_circuit(&page)?.write(folder)?)
}

/// What made the results, in short.
fn facts(found: &Found) -> Vec<(String, String)> {
    let mut facts = vec![(
        "examples",
        format!("{} positive, {} negative", found.positives, found.negatives),
    )];
    if let Some(known) = &found.known_circuit {
        facts.push(("known circuit", whose(known)));
    }
    if let Some(model) = &found.model {
        facts.push(("model", model_name(model)));
        facts.push(("weights", model.processing.to_string()));
    }
    facts.push(("method", found.method.clone()));
    if let Some(chosen) = &found.chosen {
        facts.push(("rule", chosen.selection.to_string()));
    }
    if let Some(metric) = &found.metric {
        facts.push(("metric", metric.metric.to_string()));
    }
    if let Some(ablation) = &found.ablation {
        facts.push(("reference", ablation.to_string()));
    }
    if let Some(device) = &found.provenance.device {
        facts.push(("device", device.clone()));
    }
    facts.push(("time", format!("{:.1} s", found.provenance.seconds)));
    let facts = facts.into_iter();
    facts
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// What circuits of each size keep: along the knee where the rule looked for one.
fn curve(found: &Found) -> Option<SizeCurve> {
    if let Some(kept) = &found.kept_by_size {
        return Some(SizeCurve {
            metric: kept.metric.to_string(),
            full: kept.full,
            empty: Some(kept.empty),
            sizes: kept.sizes.clone(),
            values: kept.values.clone(),
            chosen: Some(kept.chosen),
        });
    }
    let chosen = found.chosen.as_ref()?;
    let knee = chosen.knee.as_ref()?;
    Some(SizeCurve {
        metric: knee.metric.to_string(),
        full: knee.full,
        empty: None,
        sizes: knee.sizes.clone(),
        values: knee.values.clone(),
        chosen: Some(found.circuit().len()),
    })
}

/// What is measured beside the cards.
fn passages(found: &Found) -> Vec<Passage> {
    let mut passages = Vec::new();
    if let Some(behaviour) = &found.behaviour {
        passages.push(Passage {
            sentences: found.behaviour_sentences(),
            ..behaviour.passage()
        });
    }
    let circuit = Passage::new("The circuit", found.circuit_sentences());
    if !circuit.sentences.is_empty() {
        passages.push(circuit);
    }
    if let Some(quality) = &found.quality {
        let mut kept = Passage::new("What it keeps", quality.sentences());
        let rows = quality.marginal.iter().map(|(head, lost)| {
            let ranked = found.heads.iter().find(|ranked| ranked.head == *head);
            let signed = ranked.and_then(|ranked| ranked.signed);
            vec![
                head.to_string(),
                format!("{lost:.3}"),
                signed.map_or_else(|| "–".to_owned(), |signed| format!("{signed:.3}")),
            ]
        });
        let columns = [
            "head".to_owned(),
            format!("{} lost without it", quality.metric),
            "score with its sign".to_owned(),
        ];
        if !quality.marginal.is_empty() {
            kept.table = Some((columns.to_vec(), rows.collect()));
        }
        passages.push(kept);
    }
    if let Some(tests) = &found.tests {
        passages.push(Passage::new("Tests of the circuit", tests.sentences()));
    }
    passages
}
