//! Why a head attends where it does: its score taken apart into writers.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::{HeadId, Node};
use circuitscope_hooks::{Capture, StreamOutputs};
use circuitscope_measures::cards::{QkTerm, Why};
use circuitscope_model::{PaddingSide, TokenBatch};

use super::read::Row;
use crate::Result;
use crate::causal::{CausalEvidence, host};

/// Terms that are kept.
const TERMS: usize = 8;

/// One prompt run once, for every head that is asked about.
pub(super) struct Prompt<B: Backend> {
    batch: TokenBatch<B>,
    outputs: StreamOutputs<B>,
    /// `[writers, pos, d_model]`
    writers: Tensor<B, 3>,
}

impl<B: Backend> Prompt<B> {
    pub(super) fn new(causal: &CausalEvidence<B>, tokens: &[u32]) -> Result<Self> {
        let (graph, model) = (causal.graph(), causal.model());
        let batch = TokenBatch::new(&[tokens], PaddingSide::Right, causal.device())?;
        let mut capture = Capture::new(StreamOutputs::<B>::sites(&graph));
        model.forward(&batch, &mut capture);
        let outputs = StreamOutputs::take(&graph, capture)?;
        let shape = [graph.writers(), tokens.len(), model.config().d_model];
        let writers = outputs.writers().reshape(shape);
        Ok(Self {
            batch,
            outputs,
            writers,
        })
    }

    /// Why `head` attends from `row` to the token that it attends to most, the first position passed over where there is another:
    /// the score there less its mean over all positions that may be attended to.
    pub(super) fn why(
        &self,
        causal: &CausalEvidence<B>,
        head: HeadId,
        prompt: usize,
        row: &Row,
    ) -> Result<Option<Why>> {
        let graph = causal.graph();
        let seen = graph.head_writers(head.layer).start;
        let attended = |at: &usize| row.attention[*at] > 0.0;
        let open: Vec<usize> = (0..row.attention.len()).filter(attended).collect();
        let sources = open.iter().copied().filter(|at| *at > 0);
        let source = sources.max_by(|&a, &b| row.attention[a].total_cmp(&row.attention[b]));
        let Some(source) = source else {
            return Ok(None);
        };
        let parts = causal.model().score_parts(
            &self.batch,
            head,
            &self.outputs.attn_in[head.layer],
            self.writers.clone().slice_dim(0, 0..seen),
        );
        let at = |x: &Tensor<B, 3>, position: usize| {
            let x = x.clone().slice_dim(0, position..=position);
            x.squeeze_dim::<2>(0)
        };
        let query = at(&parts.queries, row.position);
        let mut mean = at(&parts.keys, open[0]);
        for &position in &open[1..] {
            mean = mean + at(&parts.keys, position);
        }
        let key = at(&parts.keys, source) - mean.div_scalar(open.len() as f64);
        // [writers of the query, writers of the key], biases last
        let terms = host(query.matmul(key.transpose()))?;
        let score: f64 = terms.iter().copied().map(f64::from).sum();
        let node = |at: usize| -> Option<Node> { (at < seen).then(|| graph.writer(at)) };
        let mut order: Vec<usize> = (0..terms.len()).collect();
        order.sort_by(|&a, &b| terms[b].abs().total_cmp(&terms[a].abs()).then(a.cmp(&b)));
        let kept = order.into_iter().take(TERMS).map(|at| QkTerm {
            query: node(at / (seen + 1)),
            key: node(at % (seen + 1)),
            value: f64::from(terms[at]),
        });
        let kept: Vec<QkTerm> = kept.collect();
        Ok(Some(Why {
            prompt,
            destination: row.position,
            source,
            attention: f64::from(row.attention[source]),
            score,
            rest: score - kept.iter().map(|term| term.value).sum::<f64>(),
            terms: kept,
        }))
    }
}
