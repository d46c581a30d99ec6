//! Backward passes with other rules than differentiation, as rewrites of the forward pass that leave its values as they are.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use circuitscope_hooks::{AnyTensor, Site, Tap};
use circuitscope_model::{DecoderConfig, Mlp};

/// Which parts of the backward pass follow another rule than the chain rule.
///
/// With `d(x)` the value of `x` without its gradient:
///
/// | rule | rewrite |
/// |---|---|
/// | [`norm`](Self::norm) | `x̂ = (x − μ) / d(σ)`: norms scale by a constant, the final one included; norms of single queries and keys are differentiated |
/// | [`activation`](Self::activation) | `f(x) = x · d(f(x) / x)`: the slope of the secant through 0 |
/// | [`product`](Self::product) | `z = d(z) + (z − d(z)) / 2` of a gate's product: each factor gets half of what comes down |
/// | [`pattern`](Self::pattern) | `A = d(A)`: attention looks where it looks |
/// | [`attention`](Self::attention) | the same as for products, with a quarter for queries and keys, and a half for values |
/// | [`temperature`](Self::temperature) | `A = d(A) + y − d(y)` with `y = T · softmax(scores / T)`: where the softmax is saturated, gradients pass still |
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "rules that go with or without each other"
)]
pub(crate) struct Rules {
    pub(crate) norm: bool,
    pub(crate) activation: bool,
    pub(crate) product: bool,
    pub(crate) pattern: bool,
    pub(crate) attention: bool,
    pub(crate) temperature: Option<f64>,
}

impl Rules {
    /// The chain rule everywhere.
    pub(crate) const NONE: Self = Self {
        norm: false,
        activation: false,
        product: false,
        pattern: false,
        attention: false,
        temperature: None,
    };

    /// Whether nothing comes down to `site`: attention that is held reads no queries and keys.
    pub(crate) const fn cuts(self, site: Site) -> bool {
        self.pattern && matches!(site, Site::Q(_) | Site::K(_))
    }

    /// A tap that rewrites one pass of a model.
    pub(crate) const fn tap<B: Backend>(self, config: &DecoderConfig) -> Rewrites<B> {
        Rewrites {
            rules: self,
            mlp: config.mlp,
            pre: None,
            linear: None,
            scores: None,
        }
    }
}

/// Rewrites a pass by [`Rules`].
#[derive(Debug, Clone)]
pub(crate) struct Rewrites<B: Backend> {
    rules: Rules,
    mlp: Option<Mlp>,
    /// What the activation function of the MLP under way reads.
    pre: Option<Tensor<B, 3>>,
    /// The other factor, in a gated one.
    linear: Option<Tensor<B, 3>>,
    /// Attention scores of the layer under way.
    scores: Option<Tensor<B, 4>>,
}

/// The same value, of which only a share of the gradient goes on.
fn part<B: Backend, const D: usize>(x: Tensor<B, D>, share: f64) -> Tensor<B, D> {
    let held = x.clone().detach();
    held.clone() + (x - held).mul_scalar(share)
}

/// The value of `like`, with the gradient of `x`.
fn as_if<B: Backend, const D: usize>(like: Tensor<B, D>, x: Tensor<B, D>) -> Tensor<B, D> {
    let held = x.clone().detach();
    like.detach() + (x - held)
}

impl<B: Backend> Rewrites<B> {
    /// What an MLP's activations are as the product of their inputs with constants.
    fn by_secants(&mut self, post: Tensor<B, 3>) -> Tensor<B, 3> {
        let (Some(mlp), Some(pre)) = (self.mlp, self.pre.take()) else {
            return post;
        };
        let held = pre.clone().detach();
        let zero = held.clone().equal_elem(0.0);
        let activated = mlp.activation.apply(held.clone());
        let slopes = (activated / held).mask_fill(zero, 0.0);
        let activated = pre * slopes;
        let value = match self.linear.take() {
            Some(linear) => activated * linear,
            None => activated,
        };
        as_if(post, value)
    }
}

impl<B: Backend> Tap<B> for Rewrites<B> {
    fn wants(&self, site: Site) -> bool {
        let Rules {
            norm,
            activation,
            product,
            pattern,
            attention,
            temperature,
        } = self.rules;
        let gated = self.mlp.is_some_and(|mlp| mlp.gated);
        match site {
            Site::Ln1Scale(_)
            | Site::Ln1PostScale(_)
            | Site::Ln2Scale(_)
            | Site::Ln2PostScale(_)
            | Site::LnFinalScale => norm,
            Site::Q(_) | Site::K(_) | Site::V(_) => attention,
            Site::AttnScores(_) => temperature.is_some(),
            Site::Pattern(_) => pattern || temperature.is_some(),
            Site::MlpPre(_) => activation,
            Site::MlpPreLinear(_) => activation && gated,
            Site::MlpPost(_) => activation || (product && gated),
            _ => false,
        }
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        match site {
            Site::Q(_) | Site::K(_) => part(x, 0.25),
            Site::V(_) => part(x, 0.5),
            Site::AttnScores(_) => {
                self.scores = AnyTensor::new(x.clone()).get();
                x
            }
            Site::Pattern(_) => {
                let scores = self
                    .scores
                    .take()
                    .and_then(|x| AnyTensor::new(x).get::<D>());
                match (scores, self.rules.temperature) {
                    (Some(scores), Some(t)) if !self.rules.pattern => {
                        as_if(x, softmax(scores.div_scalar(t), D - 1).mul_scalar(t))
                    }
                    _ => x.detach(),
                }
            }
            Site::MlpPre(_) => {
                self.pre = AnyTensor::new(x.clone()).get();
                x
            }
            Site::MlpPreLinear(_) => {
                self.linear = AnyTensor::new(x.clone()).get();
                x
            }
            Site::MlpPost(_) => {
                let gated = self.mlp.is_some_and(|mlp| mlp.gated);
                let post = match AnyTensor::new(x.clone()).get::<3>() {
                    Some(post) if self.rules.activation => self.by_secants(post),
                    _ => return part(x, 0.5),
                };
                let post = if gated && self.rules.product {
                    part(post, 0.5)
                } else {
                    post
                };
                AnyTensor::new(post).get().unwrap_or(x)
            }
            // The scale of a norm.
            _ => x.detach(),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Autodiff;
    use burn::module::AutodiffModule as _;
    use burn_flex::{Flex, FlexDevice};
    use circuitscope_core::Seed;
    use circuitscope_hooks::NodeOutputs;
    use circuitscope_model::{Activation, Norm, Positions, Rotary, RotaryPairs};

    use super::*;
    use crate::causal::{Ablation, CausalEvidence, Differentiable, Metric, TokenPair, host};

    type B = Autodiff<Flex>;

    const ATTN_LRP: Rules = crate::methods::ATTN_LRP;
    const GIM: Rules = crate::methods::GIM;
    const REL_P: Rules = crate::methods::REL_P;

    fn gpt2() -> DecoderConfig {
        DecoderConfig::gpt2(2, 3, 12, 8, 13)
    }

    /// Shared keys, rotation, RMS norms and gated MLPs.
    fn llama(activation: Activation) -> DecoderConfig {
        DecoderConfig::gpt2(2, 4, 16, 8, 13)
            .with_norm(Norm::Rms)
            .with_n_key_value_heads(2)
            .with_positions(Positions::Rotary(Rotary::new(
                4,
                100.0,
                RotaryPairs::Halves,
            )))
            .with_mlp(Some(Mlp::new(24, activation).with_gated(true)))
    }

    fn evidence(config: &DecoderConfig) -> CausalEvidence<Flex> {
        let pair = |at: u32| {
            let clean = vec![at, 4, 5, at + 1, 7];
            TokenPair::new((0, 1), clean, vec![at, 4, 9, 2, 7])
                .with_right(vec![at + 1])
                .with_wrong(vec![at + 2])
        };
        let model = config.init::<Flex>(Seed::new(5), &FlexDevice);
        let pairs = (0..3).map(pair).collect();
        let (metric, ablation) = (Metric::LogitDifference, Ablation::Zero);
        CausalEvidence::new(model, pairs, metric, ablation, 1 << 30, &FlexDevice).unwrap()
    }

    /// Gradients at all nodes, their outputs, and gradients at what all readers read.
    fn gradients(
        causal: &CausalEvidence<Flex>,
        rules: Rules,
    ) -> (NodeOutputs<Flex>, NodeOutputs<Flex>, Vec<f32>) {
        let model = Differentiable::<B>::new(causal, &FlexDevice).with_rules(rules);
        let batch = causal.batch::<Flex>(vec![0, 1, 2], &FlexDevice);
        let [outputs, nodes] = model.nodes(&batch, &[], None).unwrap();
        let readers = model.readers(&batch, &[], 0, None).unwrap();
        let ones = |prompts: core::ops::Range<usize>| {
            let (writers, width) = (
                causal.graph().writers(),
                5 * causal.model().config().d_model,
            );
            [Tensor::ones([prompts.len(), writers, width], &FlexDevice)]
        };
        let all = 0..causal.graph().writers();
        let [edges] = readers.dots(causal.model(), all, ones).unwrap();
        (nodes, outputs, edges.concat())
    }

    /// All gradients in a row.
    fn row(causal: &CausalEvidence<Flex>, rules: Rules) -> Vec<f32> {
        let (nodes, _, mut edges) = gradients(causal, rules);
        for (_, x) in &nodes.places {
            edges.extend(host(x.clone()).unwrap());
        }
        edges
    }

    fn distance(a: &[f32], b: &[f32]) -> f32 {
        let largest = b.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        apart.fold(0.0, f32::max) / largest
    }

    /// Rules that change nothing, where they change nothing.
    #[test]
    fn neutral_rules_are_the_chain_rule() {
        let relu = gpt2().with_mlp(Some(Mlp::new(24, Activation::Relu)));
        let warm = Rules {
            temperature: Some(1.0),
            ..Rules::NONE
        };
        let secants = Rules {
            activation: true,
            ..Rules::NONE
        };
        let no_norm = gpt2().with_norm(Norm::None);
        let held = Rules {
            norm: true,
            ..Rules::NONE
        };
        for (config, rules) in [
            (gpt2(), warm),
            (llama(Activation::Silu), warm),
            // The secant of max(x, 0) through 0 is its tangent, with a gate and without.
            (relu, secants),
            (llama(Activation::Relu), secants),
            (no_norm, held),
        ] {
            let causal = evidence(&config);
            let [plain, found] = [Rules::NONE, rules].map(|rules| row(&causal, rules));
            assert!(distance(&found, &plain) < 1e-5, "{rules:?}");
        }
    }

    /// GIM with secants and without its temperature is `AttnLRP`; with either left out, or another rule, it is not.
    #[test]
    fn methods_differ_in_what_is_said_of_them() {
        for config in [gpt2(), llama(Activation::Silu)] {
            let causal = evidence(&config);
            let of = |rules| row(&causal, rules);
            let limit = Rules {
                activation: true,
                temperature: Some(1.0),
                ..GIM
            };
            let attn_lrp = of(ATTN_LRP);
            assert!(distance(&of(limit), &attn_lrp) < 1e-5);
            for other in [GIM, REL_P, Rules::NONE] {
                assert!(distance(&of(other), &attn_lrp) > 1e-3, "{other:?}");
            }
        }
    }

    /// With everything held that is no sum, what comes down is conserved: embeddings times their gradients are the
    /// metric, where there are no biases.
    #[test]
    fn relevance_is_conserved() {
        for activation in [Activation::Silu, Activation::GeluTanh] {
            let causal = evidence(&llama(activation));
            let batch = causal.batch::<Flex>(vec![0, 1, 2], &FlexDevice);
            let logits = causal.logits(&batch.clean).unwrap();
            let expected = host(batch.targets.values(causal.metric(), logits, None)).unwrap();
            let (nodes, outputs, _) = gradients(&causal, REL_P);
            let found = host(nodes.dot(&outputs)).unwrap();
            for (found, expected) in found.chunks(causal.graph().writers()).zip(expected) {
                let (input, apart) = (found[0], (found[0] - expected).abs());
                assert!(apart < 1e-4 * expected.abs().max(0.1), "{input} {expected}");
            }
        }
    }

    /// The rewritten passes give the values of the plain one.
    #[test]
    fn values_stay() {
        for config in [gpt2(), llama(Activation::Silu)] {
            let causal = evidence(&config);
            let batch = causal.batch::<B>(vec![0, 1, 2], &FlexDevice);
            let model = circuitscope_model::Decoder::<B>::from_inner(causal.model().clone());
            let plain = causal.batch::<Flex>(vec![0, 1, 2], &FlexDevice).clean;
            let plain = host(causal.logits(&plain).unwrap()).unwrap();
            for rules in [ATTN_LRP, GIM, REL_P] {
                let site = Site::Logits;
                let mut run = (
                    rules.tap::<B>(&config),
                    circuitscope_hooks::Capture::new([site]),
                );
                model.forward(&batch.clean, &mut run);
                let logits = run.1.take(site).unwrap().get::<3>().unwrap();
                let last = batch.clean.last(logits).inner();
                assert!(distance(&host(last).unwrap(), &plain) < 1e-5);
            }
        }
    }
}
