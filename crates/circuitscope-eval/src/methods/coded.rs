use std::collections::BTreeSet;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use circuitscope_core::{Exec, Polarity, Progress, workers};
use circuitscope_measures::{DictionaryReport, Scores};
use circuitscope_sae::{EncodeConfig, Encoder, History, INACTIVE};
use circuitscope_score::{CodeTable, node_scores, pair_scores};

use crate::encodings::Encoded;
use crate::{Evidence, Measured, Result};

/// What an example on which no feature of a head is active counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inactive {
    /// As feature 0, in the authors' code.
    IsFeatureZero,
    /// As a code of its own.
    IsACode,
}

/// A dictionary that is to encode.
pub(super) struct Made<B: Backend> {
    encoder: Arc<dyn Encoder<B>>,
    history: Option<History>,
}

impl<B: Backend> Made<B> {
    pub(super) fn of(encoder: Arc<dyn Encoder<B>>, history: Option<History>) -> Self {
        Self { encoder, history }
    }
}

/// Encodes all evidence with each of the dictionaries, reading it once.
pub(super) fn encoded<B: Backend>(
    evidence: &Evidence<B>,
    dictionaries: Vec<Made<B>>,
    inactive: Inactive,
    progress: &dyn Progress,
) -> Result<Vec<Encoded<B>>> {
    if dictionaries.is_empty() {
        return Ok(Vec::new());
    }
    let (heads, d) = (evidence.grid().len(), evidence.d());
    let entries = evidence.labels().len() * heads;
    let mut tables = vec![(vec![0; entries], vec![0.0; entries]); dictionaries.len()];
    let config = EncodeConfig::new().with_amplitudes();
    evidence.for_each_block(progress, |rows, x| {
        let x = x.reshape([rows.len() * heads, d]);
        for (made, (codes, amplitudes)) in dictionaries.iter().zip(&mut tables) {
            let found = made.encoder.encode_codes(x.clone(), &config)?;
            place(codes, rows, &found.codes);
            place(amplitudes, rows, &found.amplitudes.unwrap_or_default());
        }
        Ok(())
    })?;
    let made = dictionaries.into_iter().zip(tables);
    made.map(|(Made { encoder, history }, (codes, amplitudes))| {
        let table = CodeTable::new(evidence.grid(), evidence.labels().to_vec(), codes)?;
        let table = table.with_amplitudes(amplitudes)?;
        let table = match inactive {
            Inactive::IsFeatureZero => table.paper_compatible(),
            Inactive::IsACode => table,
        };
        Ok(Encoded {
            encoder,
            history,
            table,
        })
    })
    .collect()
}

impl<B: Backend> Encoded<B> {
    /// What the dictionary looked like.
    pub fn report(&self) -> DictionaryReport {
        let codes = self.table.codes();
        let used: BTreeSet<i32> = codes
            .iter()
            .copied()
            .filter(|code| *code != INACTIVE)
            .collect();
        let heads = self.table.grid().len();
        let constant = (0..heads).filter(|&head| {
            let mut of_head = codes.iter().skip(head).step_by(heads);
            let first = of_head.next();
            of_head.all(|code| Some(code) == first)
        });
        let inactive = codes.iter().filter(|code| **code == INACTIVE).count();
        let last = |values: fn(&History) -> &Vec<f64>| {
            self.history
                .as_ref()
                .and_then(|history| values(history).last().copied())
        };
        DictionaryReport {
            n_codes: self.encoder.n_codes(),
            codes_used: used.len(),
            inactive_share: inactive as f64 / codes.len() as f64,
            constant_heads: constant.count(),
            loss: last(|history| &history.loss),
            l0: last(|history| &history.l0),
            explained_variance: last(|history| &history.explained_variance),
            dead: self
                .history
                .as_ref()
                .and_then(|history| history.dead.last().copied()),
        }
    }
}

/// Scores made of codes alone: resamples and other labels cost no more than counting.
pub(super) struct Coded<F, N> {
    /// The codes of one dictionary or several.
    pub(super) tables: Vec<CodeTable>,
    /// Scores of the tables, which all hold the same examples.
    pub(super) score: F,
    /// What a test of significance compares: see [`Measured::relabelled`].
    pub(super) nodes: N,
}

impl<F, N> Measured for Coded<F, N>
where
    F: Fn(&[CodeTable]) -> Result<Scores>,
    N: Fn(&[CodeTable]) -> Result<Vec<f64>> + Sync,
{
    fn scores(&self, rows: Option<&[usize]>) -> Result<Scores> {
        let Some(rows) = rows else {
            return (self.score)(&self.tables);
        };
        let selected = self.tables.iter().map(|table| table.select(rows));
        (self.score)(&selected.collect::<Result<Vec<_>, _>>()?)
    }

    /// On all cores: what is counted lies on the host, whatever the device.
    fn relabelled(&self, labellings: &[Vec<Polarity>]) -> Option<Result<Vec<Vec<f64>>>> {
        let (tables, nodes) = (&self.tables, &self.nodes);
        let mut all = vec![Vec::new(); labellings.len()];
        let under = |(): &(), at: usize, _: &_| {
            let tables = tables.iter();
            let tables = tables.map(|table| table.with_labels(labellings[at].clone()));
            nodes(&tables.collect::<Result<Vec<_>, _>>()?)
        };
        let count = labellings.len();
        let outcome = workers::run(
            Exec::all_cores(),
            count,
            count,
            || (),
            under,
            |at, scores| {
                all[at] = scores;
                Ok(())
            },
        );
        Some(outcome.map(|()| all))
    }
}

/// The paper's scores of one dictionary's codes.
pub(super) fn of_dictionary<B: Backend>(encoded: &Encoded<B>) -> Box<dyn Measured> {
    let report = encoded.report();
    Box::new(Coded {
        tables: vec![encoded.table.clone()],
        score: move |tables: &[CodeTable]| {
            let mut scores = unique_codes(&tables[0])?;
            scores.dictionary = Some(report.clone());
            Ok(scores)
        },
        nodes: |tables: &[CodeTable]| unique_counts(&tables[0]),
    })
}

/// Copies what was found for some examples, head by head, to their places among all.
pub(super) fn place<T: Copy>(all: &mut [T], examples: &[usize], found: &[T]) {
    let heads = found.len() / examples.len().max(1);
    for (&example, found) in examples.iter().zip(found.chunks_exact(heads.max(1))) {
        all[example * heads..(example + 1) * heads].copy_from_slice(found);
    }
}

/// The paper's scores of heads.
pub(super) fn unique_counts(table: &CodeTable) -> Result<Vec<f64>> {
    let scores = node_scores(table)?;
    Ok(scores.iter().map(|score| f64::from(score.unique)).collect())
}

/// The paper's scores of heads and pairs.
pub(super) fn unique_codes(table: &CodeTable) -> Result<Scores> {
    let nodes = unique_counts(table)?;
    let pairs = pair_scores(table)?;
    let heads = table.grid().len();
    let mut scores = Scores::of_nodes(table.grid(), nodes)
        .with_edges(|source, destination| f64::from(pairs.unique()[source * heads + destination]));
    scores.paper_edge_head_counts = Some(pairs.paper_head_counts(None));
    Ok(scores)
}
