//! A decoder is trained like any other module: through taps, with gradients for every weight.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::Seed;
use circuitscope_hooks::{AnyTensor, Capture, Intervene, Intervention, Op, Site};
use circuitscope_model::{
    Activation, Decoder, DecoderConfig, Direction, Mlp, PaddingSide, Positions, TokenBatch,
};
use circuitscope_testkit::{AutodiffFlex, device};

type A = AutodiffFlex;
type Grads = <A as AutodiffBackend>::Gradients;

fn configs() -> [DecoderConfig; 3] {
    let gpt2 = DecoderConfig::gpt2(2, 2, 8, 6, 11);
    let shortformer = gpt2
        .clone()
        .with_positions(Positions::Shortformer)
        .with_mlp(None);
    let exact = Mlp::new(12, Activation::GeluExact);
    let bidirectional = gpt2
        .clone()
        .with_direction(Direction::Bidirectional)
        .with_mlp(Some(exact));
    [gpt2, shortformer, bidirectional]
}

/// Numbers without a pattern that an error could hide behind, of size about 1.
fn direction(seed: usize, count: usize) -> Vec<f32> {
    let number = |at: usize| ((at * 7 + seed * 13 + 1) as f32 * 0.731).sin();
    (0..count).map(number).collect()
}

fn directed<const D: usize>(seed: usize, like: &Tensor<A, D>) -> Tensor<A, D> {
    let dims = like.dims();
    let data = TensorData::new(direction(seed, dims.iter().product()), dims);
    Tensor::from_data(data, &device())
}

/// A loss that reads logits and a pattern, while one head's `z` is swapped between rows.
fn loss(model: &Decoder<A>) -> Tensor<A, 1> {
    let prompts = [vec![1, 2, 3, 4], vec![5, 6], vec![7, 8, 9]];
    let batch = TokenBatch::new(&prompts, PaddingSide::Left, &device()).unwrap();
    let swap = Intervention::new(Site::Z(0), Op::Resample(vec![2, 0, 1])).with_heads([1]);
    let mut tap = (
        Intervene::new([swap]),
        Capture::new([Site::Pattern(1), Site::Logits]),
    );
    model.forward(&batch, &mut tap);
    let sites = tap.1.finish().unwrap();
    let parts = sites.into_values().map(|value| match value {
        AnyTensor::D3(x) => (directed(1, &x) * x).sum(),
        AnyTensor::D4(x) => (directed(2, &x) * x).sum(),
        AnyTensor::D2(x) => panic!("{:?}", x.dims()),
    });
    parts.reduce(|a, b| a + b).unwrap()
}

/// The gradient of every weight along its direction.
struct Slopes<'g> {
    grads: &'g Grads,
    slopes: Vec<f32>,
}

impl ModuleVisitor<A> for Slopes<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
        let weight = param.val();
        let grad = weight.grad(self.grads);
        let grad = grad.unwrap_or_else(|| panic!("weight {} has no gradient", self.slopes.len()));
        let along = directed(self.slopes.len(), &weight).inner();
        self.slopes.push((grad * along).sum().into_scalar());
    }
}

/// Moves one weight along its direction.
struct Nudge {
    weight: usize,
    by: f32,
    seen: usize,
}

impl ModuleMapper<A> for Nudge {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<A, D>>) -> Param<Tensor<A, D>> {
        let at = self.seen;
        self.seen += 1;
        if at == self.weight {
            param.map(|weight| weight.clone() + directed(at, &weight).mul_scalar(self.by))
        } else {
            param
        }
    }
}

/// Every weight has a gradient, and it is the slope of the loss.
#[test]
fn gradients_are_slopes() {
    const STEP: f32 = 4e-3;
    for (at, config) in configs().iter().enumerate() {
        let model = config.init::<A>(Seed::new(at as u64), &device());
        let grads = loss(&model).backward();
        let mut visitor = Slopes {
            grads: &grads,
            slopes: Vec::new(),
        };
        model.visit(&mut visitor);
        let slopes = visitor.slopes;
        assert!(
            slopes.len() > 10,
            "config {at}: {} weights have gradients",
            slopes.len()
        );
        let nudged = |weight, by| {
            let mut nudge = Nudge {
                weight,
                by,
                seen: 0,
            };
            loss(&model.clone().map(&mut nudge)).into_scalar()
        };
        let largest = slopes
            .iter()
            .fold(0.0, |max: f32, slope| max.max(slope.abs()));
        for (weight, slope) in slopes.iter().enumerate() {
            let difference = (nudged(weight, STEP) - nudged(weight, -STEP)) / (2.0 * STEP);
            // Rounding of the two losses over the step, and the third derivative.
            let tolerance = 5e-3 * (slope.abs() + 0.1 * largest);
            assert!(
                (difference - slope).abs() <= tolerance,
                "config {at}, weight {weight}: gradient {slope}, difference quotient {difference}"
            );
        }
    }
}

/// The seed decides the weights, and nothing else does.
#[test]
fn the_seed_decides_the_weights() {
    let config = DecoderConfig::gpt2(2, 2, 8, 6, 11);
    let loss = |seed| loss(&config.init(Seed::new(seed), &device())).into_scalar();
    assert_eq!(loss(3), loss(3));
    assert_ne!(loss(3), loss(4));
}
