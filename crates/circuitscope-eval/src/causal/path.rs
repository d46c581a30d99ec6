use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::{Graph, HeadId, Node, Port};
use circuitscope_hooks::{AnyTensor, Capture, Intervene, Intervention, Op, Site, wide};

use super::{CausalEvidence, PatchedRuns, Prepared};
use crate::{Error, Result};

/// Where a patched path arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Receiver {
    /// The query, key or value input of a head. Heads that share keys and values share those inputs.
    Port(HeadId, Port),
    /// The input of a layer's MLP.
    Mlp(usize),
    /// The stream that the logits are read from.
    Logits,
}

/// What a patched path may pass on its way from sender to receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Between {
    /// Nothing: one edge of the computation graph.
    Nothing,
    /// MLPs, which are computed anew; heads stay as they are (Wang et al. 2022, arXiv 2211.00593,
    /// appendix B).
    Mlps,
}

/// Path patching: what the metric loses on each of the first `pairs` pairs when the receivers read the
/// senders' ablated outputs, by paths that pass no other head; everything behind the receivers follows
/// (Goldowsky-Dill et al. 2023, arXiv 2304.05969; Wang et al. 2022, arXiv 2211.00593, §3.1).
///
/// Two passes: the first holds every head at its output on the positive prompt, the senders at their
/// ablated one, and keeps what the receivers would read; the second runs the model with the receivers
/// reading that.
///
/// With one sender, one receiver and [`Between::Nothing`] this is the effect of one edge, as in
/// [`ActivationPatching`](crate::methods::ActivationPatching).
///
/// # Errors
/// [`Error::NoSuchNode`] for a sender that does not write, and a receiver that does not read, in this
/// model.
///
/// # Examples
/// ```
/// use burn_flex::{Flex, FlexDevice};
/// use circuitscope_core::{HeadId, Node, Port, Seed};
/// use circuitscope_eval::causal::{
///     Ablation, Between, CausalEvidence, Metric, Receiver, TokenPair, path_patching,
/// };
/// use circuitscope_model::DecoderConfig;
///
/// # fn main() -> Result<(), circuitscope_eval::Error> {
/// let device = FlexDevice;
/// let model = DecoderConfig::gpt2(2, 2, 8, 8, 11).init::<Flex>(Seed::new(0), &device);
/// let pair = TokenPair::new((0, 1), vec![1, 2, 3], vec![4, 2, 3]).with_right(vec![5]).with_wrong(vec![6]);
/// let metric = Metric::LogitDifference;
/// let causal =
///     CausalEvidence::new(model, vec![pair], metric, Ablation::Negative, 1 << 30, &device)?;
/// // Head 0 of layer 0, as the keys of head 1 of layer 1 read it.
/// let sender = [Node::Head(HeadId::new(0, 0))];
/// let receiver = [Receiver::Port(HeadId::new(1, 1), Port::K)];
/// let effects = path_patching(&causal, &sender, &receiver, Between::Mlps, 1)?;
/// assert_eq!(effects.len(), 1);
/// # Ok(())
/// # }
/// ```
pub fn path_patching<B: Backend>(
    causal: &CausalEvidence<B>,
    senders: &[Node],
    receivers: &[Receiver],
    between: Between,
    pairs: usize,
) -> Result<Vec<f64>> {
    let graph = causal.graph();
    let known = |node: Node| graph.writer_index(node).is_some();
    for &sender in senders {
        if !known(sender) {
            return Err(Error::NoSuchNode { node: sender });
        }
    }
    let reads = |receiver: Receiver| match receiver {
        Receiver::Port(head, _) => Node::Head(head),
        Receiver::Mlp(layer) => Node::Mlp(layer),
        Receiver::Logits => Node::Logits,
    };
    for node in receivers.iter().map(|&receiver| reads(receiver)) {
        if node != Node::Logits && !known(node) {
            return Err(Error::NoSuchNode { node });
        }
    }
    let runs = PatchedRuns::new(causal, pairs)?;
    let metric = causal.metric();
    let mut effects = Vec::new();
    for part in runs.parts()? {
        let read = read_by(causal, part, senders, receivers, between)?;
        let logits = part.logits(causal.model(), 1, 0, Intervene::new(read));
        let without = part.values(metric, logits)?;
        let full = part.values(metric, part.clean.clone())?;
        effects.extend(
            full.into_iter()
                .zip(without)
                .map(|(full, less)| full - less),
        );
    }
    Ok(effects)
}

/// The first pass, as the changes that the second one makes: what each receiver reads.
fn read_by<B: Backend>(
    causal: &CausalEvidence<B>,
    part: &Prepared<B>,
    senders: &[Node],
    receivers: &[Receiver],
    between: Between,
) -> Result<Vec<Intervention<B>>> {
    let graph = causal.graph();
    let last = Site::ResidPost(graph.n_layers - 1);
    let sites = receivers.iter().map(|receiver| match *receiver {
        Receiver::Port(head, Port::Q) => Site::QInput(head.layer),
        Receiver::Port(head, Port::K) => Site::KInput(head.layer),
        Receiver::Port(head, Port::V) => Site::VInput(head.layer),
        Receiver::Mlp(layer) => Site::MlpIn(layer),
        Receiver::Logits => last,
    });
    let sites: Vec<Site> = sites.collect();
    let mut run = (
        Intervene::new(held(&graph, part, senders, between)),
        Capture::new(sites.iter().copied()),
    );
    causal.model().forward(&part.batch.clean, &mut run);
    let read = run.1.finish()?;
    let changes = receivers.iter().zip(sites).map(|(receiver, site)| {
        let value = read[&site].clone();
        match *receiver {
            Receiver::Port(head, port) => {
                let first = graph.port_readers(head.layer, port).start;
                let slot = graph.port_reader(head, port) - first;
                Intervention::new(site, Op::Replace(value)).with_heads([slot])
            }
            Receiver::Mlp(_) => Intervention::new(site, Op::Replace(value)),
            // What other receivers did to the stream stays.
            Receiver::Logits => {
                let stream = value.get::<3>().unwrap_or_else(|| part.here.last.clone());
                Intervention::new(
                    site,
                    Op::Add((wide(stream) - part.here.last.clone()).into()),
                )
            }
        }
    });
    Ok(changes.collect())
}

/// Every head, and with [`Between::Nothing`] every MLP, as on the positive prompt; senders as ablated.
fn held<B: Backend>(
    graph: &Graph,
    part: &Prepared<B>,
    senders: &[Node],
    between: Between,
) -> Vec<Intervention<B>> {
    let mut held = Vec::new();
    let mut hold = |site: Site, value: AnyTensor<B>| {
        held.push(Intervention::new(site, Op::Replace(value)));
    };
    if senders.contains(&Node::Input) {
        hold(Site::ResidPre(0), part.other.input.clone().into());
    }
    for layer in 0..graph.n_layers {
        let mut heads = part.here.heads[layer].clone();
        let [prompts, pos, _, d_model] = heads.dims();
        for head in (0..graph.n_heads).filter(|head| {
            let node = Node::Head(HeadId::new(layer, *head));
            senders.contains(&node)
        }) {
            let ablated: Tensor<B, 4> = part.other.heads[layer].clone().narrow(2, head, 1);
            let ranges = [0..prompts, 0..pos, head..head + 1, 0..d_model];
            heads = heads.slice_assign(ranges, ablated);
        }
        hold(Site::HeadOut(layer), heads.into());
        if !graph.mlps {
            continue;
        }
        if senders.contains(&Node::Mlp(layer)) {
            hold(Site::MlpOut(layer), part.other.mlps[layer].clone().into());
        } else if between == Between::Nothing {
            hold(Site::MlpOut(layer), part.here.mlps[layer].clone().into());
        }
    }
    held
}
