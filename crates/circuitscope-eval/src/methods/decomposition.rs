use std::collections::BTreeMap;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::{Graph, Node, Progress, Seed};
use circuitscope_hooks::{AnyTensor, Capture, Site, Tap};
use circuitscope_model::Mlp;

use super::PatchingSettings;
use super::of_pairs::of_pairs;
use crate::causal::{CausalEvidence, PairEffects, PatchedRuns, Prepared, host};
use crate::{About, Discover, Error, Evidence, Measured, Needs, Passes, Result};

/// What is known of it.
pub(super) static ABOUT: About = About::new(
    NAME,
    "part of the answer's logit that comes from a head, through all later layers",
)
.without_seed()
.needs(Needs::answers(), Passes::EachNode);

/// Contextual decomposition for transformers, CD-T (Hsu et al. 2024, arXiv 2407.00886): how much of
/// the answer's logit comes from one head, followed through all later layers.
///
/// Every activation is split into a relevant part `β` and the rest `γ`. The source's output less what
/// takes its place when ablated is relevant; from there on
/// - attention patterns and the scales of norms are those of the whole, so that both are linear;
/// - an activation function passes on `γ' = ½ [f(γ) + f(β + γ) − f(β)]` (Murdoch et al. 2018, arXiv
///   1801.05453; biases belong to `γ`).
///
/// The score is the relevant part of the right answers' mean logit less that of the wrong ones.
/// Sources are heads and MLPs.
///
/// # Complexity
/// One forward pass for each source and prompt, from the source's layer on.
#[derive(Debug, Clone)]
pub struct ContextualDecomposition {
    settings: PatchingSettings,
}

impl ContextualDecomposition {
    /// On the first pairs, as many as `settings` say.
    #[must_use]
    pub const fn new(settings: PatchingSettings) -> Self {
        Self { settings }
    }
}

const NAME: &str = "cd-t";

/// The pass that computes `γ`.
#[derive(Debug)]
struct Rest<'a, B: Backend> {
    /// Patterns, norm scales and MLP inputs of the whole, for one copy of the prompts.
    whole: &'a BTreeMap<Site, AnyTensor<B>>,
    mlp: Option<Mlp>,
    copies: usize,
    /// The sources' outputs without their relevant part.
    source: (Site, AnyTensor<B>),
    /// `γ` before the activation function, and of the gate's other branch.
    pre: Option<Tensor<B, 3>>,
    linear: Option<Tensor<B, 3>>,
}

impl<B: Backend> Rest<'_, B> {
    fn whole<const D: usize>(&self, site: Site) -> Option<Tensor<B, D>> {
        let value = self.whole.get(&site)?.get::<D>()?;
        Some(value.repeat_dim(0, self.copies))
    }

    fn stream(&self, site: Site) -> Tensor<B, 3> {
        let value = self.whole::<3>(site);
        value.unwrap_or_else(|| unreachable!("{site} was captured"))
    }

    /// `½ [f(γ) + f(β + γ) − f(β)]`.
    fn passed_on(&self, layer: usize, mlp: Mlp) -> Tensor<B, 3> {
        let (Some(pre), all_pre) = (&self.pre, self.stream(Site::MlpPre(layer))) else {
            unreachable!("the MLP's input comes before its output")
        };
        let f = |pre: Tensor<B, 3>, linear: Option<Tensor<B, 3>>| {
            let out = mlp.activation.apply(pre);
            match linear {
                Some(linear) => out * linear,
                None => out,
            }
        };
        let all_linear = mlp.gated.then(|| self.stream(Site::MlpPreLinear(layer)));
        let rest = f(pre.clone(), self.linear.clone());
        let whole = f(all_pre.clone(), all_linear.clone());
        let relevant_linear = all_linear
            .zip(self.linear.clone())
            .map(|(all, rest)| all - rest);
        let relevant = f(all_pre - pre.clone(), relevant_linear);
        (rest + whole - relevant).mul_scalar(0.5)
    }
}

/// Norm scales and patterns, which stay those of the whole.
fn is_frozen(site: Site) -> bool {
    matches!(
        site,
        Site::Ln1Scale(_)
            | Site::Ln1PostScale(_)
            | Site::Ln2Scale(_)
            | Site::Ln2PostScale(_)
            | Site::LnFinalScale
            | Site::Pattern(_)
    )
}

impl<B: Backend> Tap<B> for Rest<'_, B> {
    fn wants(&self, site: Site) -> bool {
        self.whole.contains_key(&site)
            || site == self.source.0
            || matches!(site, Site::MlpPost(_) if self.mlp.is_some())
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        if site == self.source.0 {
            return self.source.1.get::<D>().unwrap_or(x);
        }
        match (site, self.mlp) {
            (Site::MlpPre(_), _) => {
                self.pre = Some(x.clone().reshape(dims3(&x)));
                x
            }
            (Site::MlpPreLinear(_), _) => {
                self.linear = Some(x.clone().reshape(dims3(&x)));
                x
            }
            (Site::MlpPost(layer), Some(mlp)) => self.passed_on(layer, mlp).reshape(x.dims()),
            _ => self.whole::<D>(site).unwrap_or(x),
        }
    }
}

fn dims3<B: Backend, const D: usize>(x: &Tensor<B, D>) -> [usize; 3] {
    let dims = x.dims();
    [dims[0], dims[1], dims[2]]
}

/// Patterns, scales and MLP inputs of the unchanged model.
fn whole<B: Backend>(
    causal: &CausalEvidence<B>,
    part: &Prepared<B>,
) -> Result<BTreeMap<Site, AnyTensor<B>>> {
    let catalog = causal.model().config().catalog();
    let wanted = catalog
        .sites()
        .into_iter()
        .filter(|site| is_frozen(*site) || matches!(site, Site::MlpPre(_) | Site::MlpPreLinear(_)));
    let mut capture = Capture::new(wanted);
    causal.model().forward(&part.batch.clean, &mut capture);
    Ok(capture.finish()?)
}

/// Sources that put out at one site, and what they put out without their relevant parts.
fn sources<B: Backend>(
    graph: &Graph,
    part: &Prepared<B>,
    layer: usize,
) -> Vec<(Vec<Node>, Site, AnyTensor<B>)> {
    let heads = part.here.heads[layer].clone();
    let copies = (0..graph.n_heads).map(|head| {
        let ablated = part.other.heads[layer].clone().narrow(2, head, 1);
        let [prompts, pos, _, d_model] = heads.dims();
        heads
            .clone()
            .slice_assign([0..prompts, 0..pos, head..head + 1, 0..d_model], ablated)
    });
    let nodes =
        (0..graph.n_heads).map(|head| Node::Head(circuitscope_core::HeadId::new(layer, head)));
    let mut all = vec![(
        nodes.collect(),
        Site::HeadOut(layer),
        AnyTensor::from(Tensor::cat(copies.collect(), 0)),
    )];
    if graph.mlps {
        let ablated = part.other.mlps[layer].clone();
        all.push((vec![Node::Mlp(layer)], Site::MlpOut(layer), ablated.into()));
    }
    all
}

impl<B: Backend> Discover<B> for ContextualDecomposition {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        _: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let causal = evidence.causal_for(&ABOUT)?;
        let (graph, model) = (causal.graph(), causal.model());
        let pairs = self.settings.pairs(causal.pairs().len(), true);
        let runs = PatchedRuns::new(causal, pairs)?.with_progress(progress);
        let mut effects = Vec::new();
        let stage = progress.stage(NAME, (runs.parts()?.len() * graph.n_layers) as u64);
        for part in runs.parts()? {
            let prompts = part.batch.members.len();
            let whole = whole(causal, part)?;
            let contrast = match &part.contrast {
                Some(contrast) => contrast.clone(),
                None => part.batch.targets.contrast(causal.device()),
            };
            let clean = (part.clean.clone() * contrast.clone()).sum_dim(1);
            let mut of_part = vec![vec![0.0; graph.writers()]; prompts];
            for layer in 0..graph.n_layers {
                for (nodes, site, value) in sources(&graph, part, layer) {
                    if progress.cancelled() {
                        return Err(Error::Cancelled);
                    }
                    let copies = nodes.len();
                    let rest = Rest {
                        whole: &whole,
                        mlp: model.config().mlp,
                        copies,
                        source: (site, value),
                        pre: None,
                        linear: None,
                    };
                    let mut run = (
                        rest,
                        Capture::new([Site::Logits]).with_reduce(circuitscope_hooks::Reduce::Last),
                    );
                    let stream = part.here.attn_in[layer].clone().repeat_dim(0, copies);
                    let batch = part.batch.clean.repeated(copies);
                    model.forward_from(&batch, layer, stream, &mut run);
                    let logits = run.1.take(Site::Logits).and_then(|x| x.get::<2>());
                    let site = Site::Logits;
                    let logits = logits.ok_or(circuitscope_hooks::Error::NeverFired { site })?;
                    let rest = (logits * contrast.clone().repeat_dim(0, copies)).sum_dim(1);
                    let relevant = host(clean.clone().repeat_dim(0, copies) - rest)?;
                    for (node, relevant) in nodes.iter().zip(relevant.chunks(prompts)) {
                        let Some(writer) = graph.writer_index(*node) else {
                            continue;
                        };
                        for (effects, &relevant) in of_part.iter_mut().zip(relevant) {
                            effects[writer] = relevant;
                        }
                    }
                }
                progress.advance(1);
            }
            effects.extend(of_part);
        }
        drop(stage);
        let effects = PairEffects {
            graph,
            rows: runs.rows(),
            nodes: Some(effects),
            edges: None,
        };
        Ok(of_pairs(effects, evidence))
    }
}
