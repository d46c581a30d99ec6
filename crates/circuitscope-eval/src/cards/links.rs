//! What nodes send into heads of a circuit, and what those send on.

use burn::tensor::backend::AutodiffBackend;
use circuitscope_core::{HeadId, Node, Port, Progress};
use circuitscope_measures::cards::Link;

use crate::Result;
use crate::causal::{CausalEvidence, Differentiable, Held};
use crate::methods::{Contrast, PatchedEdges, PatchingSettings, Work};

/// Links that are kept beside those between heads of the circuit, the embedding and the logits.
const OTHERS: usize = 150;

/// Of one pair: `[writers * readers]` by the gradient on the way, and by that at the positive prompt.
type OfPair = (f32, [Vec<f32>; 2]);

/// Effects of edges into the ports of heads, into the logits and from these heads into MLPs, on the first `count` pairs:
/// what the writer does differently on the two prompts times the gradient at what the reader reads, a share of what the
/// predictions are apart (edge attribution patching of the contrast).
pub(super) fn links<B: AutodiffBackend>(
    causal: &CausalEvidence<B::InnerBackend>,
    heads: &[HeadId],
    count: usize,
    shares: &[f64],
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Vec<Link>> {
    let graph = causal.graph();
    let ports = |head: HeadId| Port::ALL.map(|port| graph.port_reader(head, port));
    let mut readers: Vec<usize> = heads.iter().flat_map(|&head| ports(head)).collect();
    readers.push(graph.logits());
    if graph.mlps {
        readers.extend((0..graph.n_layers).map(|layer| graph.mlp_reader(layer)));
    }
    let settings = PatchingSettings::default().with_edges(PatchedEdges::None);
    let contrast = Contrast::<B>::new(settings, device.clone());
    let at_positive = vec![1.0; causal.pairs().len()];
    let work: &Work<'_, B, OfPair> = &|model: &Differentiable<B>, members, runs, _| {
        let mut both: [Vec<Vec<f32>>; 2] = [Vec::new(), Vec::new()];
        let difference = runs.positive.minus(&runs.negative);
        for (found, shares) in both.iter_mut().zip([shares, &at_positive]) {
            let (_, gradients) = Contrast::<B>::gradients(model, members, runs, shares, true)?;
            let Some(gradients) = gradients else { continue };
            let causal = model.evidence();
            let of_prompts = |prompts| [difference.prompts(prompts).in_stream(causal)];
            let writers = 0..graph.writers();
            let only = gradients.only(&readers);
            let [edges] = only.dots(causal.model(), writers, of_prompts)?;
            *found = edges;
        }
        let [drawn, positive] = both;
        let pairs = runs.total.iter().zip(drawn.into_iter().zip(positive));
        Ok(pairs
            .map(|(&total, (drawn, positive))| (total, [drawn, positive]))
            .collect())
    };
    let pairs = contrast.each_pair(causal, (count, Held::Streams), progress, work)?;
    let total: f64 = pairs.iter().map(|(total, _)| f64::from(*total)).sum();
    let mean = |at: usize, kind: usize| {
        let values = pairs
            .iter()
            .map(|(_, kinds)| f64::from(kinds[kind].get(at).copied().unwrap_or(0.0)));
        values.sum::<f64>() / total
    };
    let of_circuit = |node: Node| match node {
        Node::Head(head) => heads.contains(&head),
        Node::Input | Node::Logits => true,
        Node::Mlp(_) => false,
    };
    let (mut inner, mut others) = (Vec::new(), Vec::new());
    let mut add = |writer: usize, reader: usize, to: Node, port: Option<Port>| {
        let at = writer * graph.readers() + reader;
        let from = graph.writer(writer);
        let (weight, other) = (mean(at, 0), mean(at, 1));
        let link = Link {
            writer: from,
            reader: to,
            port,
            weight,
            agrees: (weight < 0.0) == (other < 0.0),
        };
        if of_circuit(from) && of_circuit(to) {
            inner.push(link);
        } else {
            others.push(link);
        }
    };
    for &head in heads {
        for (port, reader) in Port::ALL.into_iter().zip(ports(head)) {
            for writer in 0..graph.visible(reader) {
                add(writer, reader, head.into(), Some(port));
            }
        }
    }
    let logits = graph.logits();
    for writer in 0..graph.visible(logits) {
        add(writer, logits, Node::Logits, None);
    }
    for layer in (0..graph.n_layers).filter(|_| graph.mlps) {
        let reader = graph.mlp_reader(layer);
        let seen = graph.visible(reader);
        let writers = heads.iter().map(|&head| graph.head_writer(head));
        for writer in writers.filter(|writer| *writer < seen) {
            add(writer, reader, Node::Mlp(layer), None);
        }
    }
    let strongest = |a: &Link, b: &Link| {
        let sizes = b.weight.abs().total_cmp(&a.weight.abs());
        sizes.then((a.writer, a.reader, a.port).cmp(&(b.writer, b.reader, b.port)))
    };
    others.sort_by(strongest);
    others.truncate(OTHERS);
    inner.extend(others);
    inner.sort_by(strongest);
    Ok(inner)
}
