mod path;
mod stages;

use core::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use circuitscope_core::{Progress, Seed, draw};
use circuitscope_hooks::{NodeOutputs, Site, wide};

pub(super) use path::between_each;
use path::{Replaced, Step, input, points};
use stages::stages;

use super::PatchingSettings;
use super::of_pairs::{each_of_pairs, of_pairs};
use crate::causal::{
    CausalEvidence, Differentiable, Effects, Held, PairBatch, PairEffects, ReaderGradients, Rules,
    WholeWriters, host,
};
use crate::{About, Discover, Evidence, Gradient, Measured, Needs, Passes, Result};

pub(super) const AT_PROMPTS: Needs = Needs::gradient(Gradient::AtPrompts);
const ELSEWHERE: Needs = Needs::gradient(Gradient::Elsewhere);

/// What is known of `eap`.
pub(super) static EAP: About = About::new("eap", "edge attribution patching")
    .without_seed()
    .needs(AT_PROMPTS, Passes::EachPair(6));
/// Of `eap-ig`.
pub(super) static EAP_IG: About = About::new(
    "eap-ig",
    "edge attribution patching, integrated gradients over inputs",
)
.without_seed()
.needs(ELSEWHERE, Passes::EachStep(4));
/// Of `eap-ig-activations`.
pub(super) static EAP_IG_ACTIVATIONS: About = About::new(
    "eap-ig-activations",
    "edge attribution patching, integrated gradients over activations",
)
.without_seed()
.needs(ELSEWHERE, Passes::EachStage(4));
/// Of `nap`.
pub(super) static NAP: About = About::new("nap", "node attribution patching")
    .without_seed()
    .needs(AT_PROMPTS, Passes::EachPair(6));
/// Of `nap-ig`.
pub(super) static NAP_IG: About = About::new(
    "nap-ig",
    "node attribution patching, integrated gradients over inputs",
)
.without_seed()
.needs(ELSEWHERE, Passes::EachStep(4));
/// Of `eap-eg`.
pub(super) static EAP_EG: About = About::new(
    "eap-eg",
    "edge attribution patching, Expected Gradients: one gradient at a random point between the prompts",
)
.needs(ELSEWHERE, Passes::EachPair(6));
/// Of `nap-eg`.
pub(super) static NAP_EG: About = About::new(
    "nap-eg",
    "node attribution patching, Expected Gradients: one gradient at a random point between the prompts",
)
.needs(ELSEWHERE, Passes::EachPair(6));
/// Of `ceap`.
pub(super) static CEAP: About = About::new(
    "ceap",
    "edge attribution patching along the path: what each writer moves by from step to step, times the gradient there",
)
.without_seed()
.needs(ELSEWHERE, Passes::EachStep(4));
/// Of `hisp`.
pub(super) static HISP: About = About::new(
    "hisp",
    "head importance score for pruning: size of activation times gradient",
)
.without_seed()
.needs(AT_PROMPTS, Passes::EachPair(4));

/// Where gradients are taken, and of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Eap,
    EapEg,
    EapIgInputs,
    EapIgActivations,
    Ceap,
    Nap,
    NapEg,
    NapIg,
    Hisp,
}

/// Attribution patching: the effect of replacing a writer's output by its ablated one, to first order.
///
/// With `Δ_w` the output of writer `w` on the positive prompt less what takes its place when ablated,
/// the effect of edge `w → r` is `Σ_pos Δ_w · ∂m/∂input_r`, of node `w` it is
/// `Σ_pos Δ_w · ∂m/∂output_w`. Positive: the part raises the metric.
///
/// The output of a head is its `z` for nodes; for edges it is what the head adds to the residual stream,
/// in models with a norm after attention with the scale that the norm has in each of the two runs.
///
/// | method | scores | gradient taken at | paper |
/// |---|---|---|---|
/// | `eap` | edges | the positive prompt | Syed et al. 2023, arXiv 2310.10348, eq. 3 |
/// | `eap-ig` | edges | mean over inputs between negative and positive prompt | Hanna et al. 2024, arXiv 2403.17806, eq. 3 |
/// | `eap-ig-activations` | edges | mean over outputs of the writers of one stage between ablated and clean, all before them clean | Marks et al. 2024, arXiv 2403.19647, eq. 5; MIB, arXiv 2504.13151 |
/// | `nap` | nodes | the positive prompt | Nanda 2023, attribution patching; `AtP` in arXiv 2403.00745 |
/// | `nap-ig` | nodes | as `eap-ig` | |
/// | `eap-eg`, `nap-eg` | edges, nodes | one input between negative and positive prompt, drawn for each pair | Erion et al. 2021, arXiv 1906.10670, with one draw |
/// | `ceap` | edges | each step between negative and positive input, times what the writer's output moves by to the next: `Σ_k (z_w(k+1) − z_w(k)) · ∂m/∂input_r(k)` | conductance (Dhamdhere et al. 2018, arXiv 1805.12233) of edges |
/// | `hisp` | nodes | the positive prompt; `\|z · ∂m/∂z\|` instead of a difference, size taken prompt by prompt | Michel et al. 2019, arXiv 1905.10650, eq. 2 |
///
/// Interpolation points are `ablated + (k / steps) · (clean − ablated)`, k from 1 to `steps`.
///
/// # Complexity
/// Two forward passes and a backward one for each prompt and interpolation point (`eap-ig-activations`: times 2 ·
/// layers + 1), and at most two forward passes for each prompt; for edges one product of
/// `[writers, pos · d_model] × [pos · d_model, readers]` for each prompt and point.
#[derive(Debug, Clone)]
pub struct Attribution<B: AutodiffBackend> {
    about: &'static About,
    kind: Kind,
    rules: Rules,
    settings: PatchingSettings,
    device: B::Device,
    /// Where Expected Gradients are taken, if that is not drawn.
    share: Option<f64>,
}

impl Kind {
    const fn of_nodes(self) -> bool {
        matches!(self, Self::Nap | Self::NapEg | Self::NapIg | Self::Hisp)
    }
}

impl<B: AutodiffBackend> Attribution<B> {
    const fn new(
        about: &'static About,
        kind: Kind,
        settings: PatchingSettings,
        device: B::Device,
    ) -> Self {
        Self {
            about,
            kind,
            rules: Rules::NONE,
            settings,
            device,
            share: None,
        }
    }

    /// `nap`, or with `edges` `eap`, with another backward pass, and under its name.
    pub(super) const fn by_rules(
        about: &'static About,
        edges: bool,
        rules: Rules,
        settings: PatchingSettings,
        device: B::Device,
    ) -> Self {
        let kind = if edges { Kind::Eap } else { Kind::Nap };
        let mut method = Self::new(about, kind, settings, device);
        method.rules = rules;
        method
    }

    /// Edge attribution patching.
    pub const fn eap(settings: PatchingSettings, device: B::Device) -> Self {
        Self::new(&EAP, Kind::Eap, settings, device)
    }

    /// Edge attribution patching with integrated gradients over the input.
    pub const fn eap_ig(settings: PatchingSettings, device: B::Device) -> Self {
        Self::new(&EAP_IG, Kind::EapIgInputs, settings, device)
    }

    /// Edge attribution patching with integrated gradients over each writer's output.
    pub const fn eap_ig_activations(settings: PatchingSettings, device: B::Device) -> Self {
        Self::new(
            &EAP_IG_ACTIVATIONS,
            Kind::EapIgActivations,
            settings,
            device,
        )
    }

    /// Node attribution patching.
    pub const fn nap(settings: PatchingSettings, device: B::Device) -> Self {
        Self::new(&NAP, Kind::Nap, settings, device)
    }

    /// Node attribution patching with integrated gradients over the input.
    pub const fn nap_ig(settings: PatchingSettings, device: B::Device) -> Self {
        Self::new(&NAP_IG, Kind::NapIg, settings, device)
    }

    /// Edge attribution patching with Expected Gradients.
    pub const fn eap_eg(settings: PatchingSettings, device: B::Device) -> Self {
        Self::new(&EAP_EG, Kind::EapEg, settings, device)
    }

    /// Node attribution patching with Expected Gradients.
    pub const fn nap_eg(settings: PatchingSettings, device: B::Device) -> Self {
        Self::new(&NAP_EG, Kind::NapEg, settings, device)
    }

    /// Expected Gradients at this share of the way from the ablated input to the clean one, for all pairs, instead of one that
    /// is drawn for each: at 1 they are those of `eap` and `nap`. Other methods do not read it.
    #[must_use]
    pub fn at(mut self, share: f64) -> Self {
        self.share = Some(share);
        self
    }

    /// Edge attribution patching along the path between the inputs.
    pub const fn ceap(settings: PatchingSettings, device: B::Device) -> Self {
        Self::new(&CEAP, Kind::Ceap, settings, device)
    }

    /// Head importance score for pruning.
    pub const fn hisp(settings: PatchingSettings, device: B::Device) -> Self {
        Self::new(&HISP, Kind::Hisp, settings, device)
    }

    /// What the first `count` pairs give, some batches of them side by side, and their rows among the
    /// examples.
    fn each_pair(
        &self,
        causal: &CausalEvidence<B::InnerBackend>,
        method: &str,
        count: usize,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<Effects> {
        let mut rng = seed.stream("expected-gradients").rng();
        let shares = (0..count).map(|_| self.share.unwrap_or_else(|| draw::unit(&mut rng)));
        let shares: Vec<f64> = shares.collect();
        let light = self.kind.of_nodes() || self.takes_nodes(causal);
        causal.average(!light, progress)?;
        let held = match (self.kind.of_nodes(), light) {
            (true, _) => Held::Nodes,
            (false, true) => Held::Readers,
            (false, false) => Held::Streams,
        };
        each_of_pairs::<B>(
            causal,
            (method, count, held),
            || Differentiable::new(causal, &self.device).with_rules(self.rules),
            |model, members| {
                let causal = model.evidence();
                let batch = causal.batch(members.to_vec(), causal.device());
                self.batch(model, &batch, &shares)
            },
            progress,
        )
    }

    /// Whether what edges carry is told from heads before `W_O`: what takes their place is a `z`, and no
    /// norm follows.
    fn takes_nodes(&self, causal: &CausalEvidence<B::InnerBackend>) -> bool {
        !matches!(self.kind, Kind::EapIgActivations | Kind::Ceap)
            && WholeWriters::applies(causal.model())
    }

    /// What one batch gives: for each prompt, node effects or edge effects. `shares`: of every pair, where Expected Gradients
    /// are taken.
    fn batch(
        &self,
        model: &Differentiable<B>,
        batch: &PairBatch<B::InnerBackend>,
        shares: &[f64],
    ) -> Result<Vec<Vec<f32>>> {
        let steps = self.steps(&batch.members, shares);
        if self.kind.of_nodes() {
            return self.of_nodes(model, batch, &steps);
        }
        let causal = model.evidence();
        let reference = causal.reference(causal.metric(), batch)?;
        let clean = reference.as_ref();
        if self.takes_nodes(causal) {
            let all = 0..causal.graph().writers();
            let other = causal.ablated_nodes(batch)?;
            if !steps.is_empty() {
                let here = causal.node_outputs(&batch.clean)?;
                let difference = here.minus(&other);
                let [from, to] = [&other, &here].map(input);
                drop((here, other));
                let inputs = steps.iter().map(|step| step.input(&from, &to));
                let written = |prompts| [in_stream(causal, &difference.prompts(prompts))];
                let effects = readers(model, batch, inputs, clean, written)?;
                return Ok(scaled(effects, 1.0 / steps.len() as f32));
            }
            let (here, run) = model.outputs_and_readers(batch, clean)?;
            let difference = here.minus(&other);
            drop((here, other));
            let written = |prompts| [in_stream(causal, &difference.prompts(prompts))];
            let [effects] = run.dots(causal.model(), all, written)?;
            return Ok(effects);
        }
        let here = causal.outputs(causal.model(), &batch.clean)?;
        let other = causal.ablated(batch)?;
        let difference = here.writers() - other.writers();
        let written = |prompts| [difference.clone().slice_dim(0, prompts)];
        Ok(match self.kind {
            Kind::EapIgInputs | Kind::EapEg => {
                let inputs = steps
                    .iter()
                    .map(|step| step.input(&other.input, &here.input));
                let effects = readers(model, batch, inputs, clean, written)?;
                scaled(effects, 1.0 / steps.len() as f32)
            }
            Kind::Ceap => {
                let steps = self.settings.ig_steps;
                let at = |k: usize| {
                    let step = Step::Alike(k as f64 / steps as f64);
                    step.input(&other.input, &here.input)
                };
                let mut effects = Vec::new();
                // The gradients of a step wait for what writers put out at the next one; the last is the clean run.
                let mut gradients: Option<AtStep<B::InnerBackend>> = None;
                for k in 0..=steps {
                    let (next, at_next) = if k < steps {
                        let (next, readers) = model.streams_and_readers(batch, &at(k), clean)?;
                        (next.writers(), Some(readers))
                    } else {
                        (here.writers(), None)
                    };
                    if let Some((last, readers)) = gradients.take() {
                        let moved = next.clone() - last;
                        let written = |prompts| [moved.clone().slice_dim(0, prompts)];
                        let all = 0..causal.graph().writers();
                        let [part] = readers.dots(causal.model(), all, written)?;
                        add(&mut effects, part);
                    }
                    gradients = at_next.map(|readers| (next, readers));
                }
                effects
            }
            Kind::EapIgActivations => {
                let steps = self.settings.ig_steps;
                let graph = causal.graph();
                let mut effects = Vec::new();
                for stage in stages(&graph) {
                    // Only the writers of this stage are on the way from ablated to clean.
                    let members = stage.members(&graph);
                    let first = stage.first_reader(&graph);
                    for share in points(steps) {
                        let replaced = [stage.replaced(&here, &other, share)];
                        let run = model.readers(batch, &replaced, first, clean)?;
                        let [part] = run.dots(causal.model(), members.clone(), written)?;
                        add(&mut effects, part);
                    }
                }
                scaled(effects, 1.0 / steps as f32)
            }
            _ => readers(model, batch, [[]], clean, written)?,
        })
    }

    /// Where gradients are taken on the way between the inputs; nowhere for methods that take them at the prompts.
    fn steps(&self, members: &[usize], shares: &[f64]) -> Vec<Step> {
        match self.kind {
            Kind::EapIgInputs | Kind::NapIg => {
                let steps = match self.kind {
                    Kind::NapIg => self.settings.node_ig_steps,
                    _ => self.settings.ig_steps,
                };
                points(steps).map(Step::Alike).collect()
            }
            Kind::EapEg | Kind::NapEg => {
                vec![Step::Each(
                    members.iter().map(|&pair| shares[pair]).collect(),
                )]
            }
            Kind::Eap | Kind::EapIgActivations | Kind::Ceap | Kind::Nap | Kind::Hisp => Vec::new(),
        }
    }

    /// The same of methods that score nodes.
    fn of_nodes(
        &self,
        model: &Differentiable<B>,
        batch: &PairBatch<B::InnerBackend>,
        steps: &[Step],
    ) -> Result<Vec<Vec<f32>>> {
        let causal = model.evidence();
        let clean = causal.reference(causal.metric(), batch)?;
        let effects = match self.kind {
            Kind::NapIg | Kind::NapEg => {
                let here = causal.node_outputs(&batch.clean)?;
                let other = causal.ablated_nodes(batch)?;
                let mut sum: Option<NodeOutputs<B::InnerBackend>> = None;
                let [from, to] = [&other, &here].map(input);
                for step in steps {
                    let replaced = step.input(&from, &to);
                    let [_, gradients] = model.nodes(batch, &replaced, clean.as_ref())?;
                    sum = Some(match sum {
                        None => gradients,
                        Some(sum) => sum.plus(&gradients),
                    });
                }
                let Some(sum) = sum else {
                    unreachable!("at least one interpolation point")
                };
                sum.dot(&here.minus(&other)).div_scalar(steps.len() as f64)
            }
            Kind::Hisp => {
                let [here, gradients] = model.nodes(batch, &[], clean.as_ref())?;
                gradients.dot(&here).abs()
            }
            _ => {
                let [here, gradients] = model.nodes(batch, &[], clean.as_ref())?;
                gradients.dot(&here.minus(&causal.ablated_nodes(batch)?))
            }
        };
        let [_, nodes] = effects.dims();
        Ok(host(effects)?.chunks(nodes).map(<[_]>::to_vec).collect())
    }
}

/// What nodes put out, in the stream: `[prompts, writers, pos * d_model]`.
pub(super) fn in_stream<B: Backend>(
    causal: &CausalEvidence<B>,
    nodes: &NodeOutputs<B>,
) -> Tensor<B, 3> {
    let rows = nodes.places.iter().map(|(site, x)| {
        let [prompts, pos, count, width] = x.dims();
        let Site::Z(layer) = site else {
            return wide(x.clone()).reshape([prompts, count, pos * width]);
        };
        // [prompts, heads, pos, d_head] x [1, heads, d_head, d_model]
        let w_o = wide(causal.model().w_o(*layer)).unsqueeze::<4>();
        let [_, _, _, d_model] = w_o.dims();
        let result = wide(x.clone()).swap_dims(1, 2).matmul(w_o);
        result.reshape([prompts, count, pos * d_model])
    });
    Tensor::cat(rows.collect(), 1)
}

/// Effects of all edges with gradients taken under each of some replacements, added up.
fn readers<B: AutodiffBackend, const N: usize>(
    model: &Differentiable<B>,
    batch: &PairBatch<B::InnerBackend>,
    replacements: impl IntoIterator<Item = [Replaced<B>; N]>,
    clean: Option<&Tensor<B::InnerBackend, 2>>,
    written: impl Fn(Range<usize>) -> [Tensor<B::InnerBackend, 3>; 1],
) -> Result<Vec<Vec<f32>>> {
    let causal = model.evidence();
    let mut effects = Vec::new();
    for replaced in replacements {
        let run = model.readers(batch, &replaced, 0, clean)?;
        let all = 0..causal.graph().writers();
        let [part] = run.dots(causal.model(), all, &written)?;
        add(&mut effects, part);
    }
    Ok(effects)
}

/// What writers put out at a step, and the gradients there.
type AtStep<B> = (Tensor<B, 3>, ReaderGradients<B>);

fn add(sum: &mut Vec<Vec<f32>>, effects: Vec<Vec<f32>>) {
    if sum.is_empty() {
        *sum = effects;
        return;
    }
    for (sum, effect) in sum.iter_mut().flatten().zip(effects.into_iter().flatten()) {
        *sum += effect;
    }
}

fn scaled(mut effects: Vec<Vec<f32>>, factor: f32) -> Vec<Vec<f32>> {
    for effect in effects.iter_mut().flatten() {
        *effect *= factor;
    }
    effects
}

impl<B: AutodiffBackend> Discover<B::InnerBackend> for Attribution<B> {
    fn about(&self) -> &About {
        self.about
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B::InnerBackend>,
        seed: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let about = self.about;
        let causal = evidence.causal_for(about)?;
        let count = self
            .settings
            .pairs(causal.pairs().len(), self.kind == Kind::EapIgActivations);
        let (rows, effects) = self.each_pair(causal, &about.name, count, seed, progress)?;
        let (nodes, edges) = if self.kind.of_nodes() {
            (Some(effects), None)
        } else {
            (None, Some(effects))
        };
        let effects = PairEffects {
            graph: causal.graph(),
            rows,
            nodes,
            edges,
        };
        Ok(of_pairs(effects, evidence))
    }
}
