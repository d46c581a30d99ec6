//! The edge-patched forward and gradients at sites, against slow and independent ways to the same
//! numbers.

use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Exec, Graph, HeadId, Node, Port, Seed, draw};
use circuitscope_hooks::{
    AnyTensor, Capture, EdgePatch, Gradients, Intervene, Intervention, Op, Site, StreamOutputs,
};
use circuitscope_model::{
    Activation, Decoder, DecoderConfig, Direction, Mlp, Norm, PaddingSide, Positions, Processing,
    TokenBatch,
};
use circuitscope_testkit::{AutodiffFlex, device, worst_difference};

use crate::folder::{ModelFolder, Stored};
use crate::{B, golden_folder, load};

const D_VOCAB: usize = 11;

fn batch<B: Backend>(copies: usize, prompts: [[u32; 4]; 2], device: &B::Device) -> TokenBatch<B> {
    let short: Vec<u32> = prompts[1][..3].to_vec();
    let one = [prompts[0].to_vec(), short];
    let all: Vec<Vec<u32>> = (0..copies).flat_map(|_| one.clone()).collect();
    TokenBatch::new(&all, PaddingSide::Right, device).unwrap()
}

const CLEAN: [[u32; 4]; 2] = [[1, 2, 3, 4], [5, 6, 7, 0]];
const OTHER: [[u32; 4]; 2] = [[1, 9, 3, 8], [5, 2, 10, 0]];

/// Sequential and parallel blocks, without MLPs, shared keys and values, no causal mask, norms after.
fn configs() -> Vec<DecoderConfig> {
    let gpt2 = DecoderConfig::gpt2(2, 2, 8, 6, D_VOCAB);
    vec![
        gpt2.clone(),
        gpt2.clone().with_parallel_attn_mlp(true),
        gpt2.clone()
            .with_positions(Positions::Shortformer)
            .with_mlp(None),
        gpt2.clone()
            .with_n_heads(4)
            .with_n_key_value_heads(2)
            .with_mlp(Some(Mlp::new(12, Activation::Silu).with_gated(true)))
            .with_direction(Direction::Bidirectional),
        gpt2.with_norm(Norm::Rms).with_norm_after(true),
    ]
}

fn outputs<B: Backend>(
    model: &Decoder<B>,
    graph: &Graph,
    batch: &TokenBatch<B>,
) -> StreamOutputs<B> {
    let mut capture = Capture::new(StreamOutputs::<B>::sites(graph));
    model.forward(batch, &mut capture);
    StreamOutputs::take(graph, capture).unwrap()
}

/// Random edges, about two thirds of them on, as `[readers, writers]`.
fn random_mask(graph: &Graph, seed: u64) -> Vec<f32> {
    let mut rng = Seed::new(seed).stream("test/mask").rng();
    let count = graph.readers() * graph.writers();
    (0..count)
        .map(|_| {
            if draw::unit(&mut rng) < 0.65 {
                1.0
            } else {
                0.0
            }
        })
        .collect()
}

fn mask_of<B: Backend>(graph: &Graph, groups: &[Vec<f32>], device: &B::Device) -> Tensor<B, 3> {
    let shape = [groups.len(), graph.readers(), graph.writers()];
    Tensor::from_data(TensorData::new(groups.concat(), shape), device)
}

/// Residual stream that the logits are read from.
fn patched<B: Backend>(
    model: &Decoder<B>,
    batch: &TokenBatch<B>,
    tap: EdgePatch<B>,
    last: usize,
) -> Tensor<B, 3> {
    let mut run = (tap, Capture::new([Site::ResidPost(last)]));
    model.forward(batch, &mut run);
    run.1.take(Site::ResidPost(last)).unwrap().get().unwrap()
}

/// The same by running one head or MLP at a time, with its inputs summed writer by writer.
fn slowly(
    model: &Decoder<B>,
    graph: &Graph,
    batch: &TokenBatch<B>,
    other: &StreamOutputs<B>,
    mask: &[f32],
) -> Tensor<B, 3> {
    let input = outputs(model, graph, batch).input;
    let output_of = |run: &StreamOutputs<B>, node: Node| match node {
        Node::Input => run.input.clone(),
        Node::Mlp(layer) => run.mlps[layer].clone(),
        Node::Head(head) => {
            let heads = run.heads[head.layer].clone();
            heads.narrow(2, head.head, 1).squeeze_dim(2)
        }
        Node::Logits => unreachable!(),
    };
    let mut here: Vec<Tensor<B, 3>> = vec![input];
    let read = |here: &[Tensor<B, 3>], reader: usize, stream: &Tensor<B, 3>| {
        let mut sum = stream.clone();
        for writer in 0..graph.visible(reader) {
            if mask[reader * graph.writers() + writer] == 1.0 {
                let other = output_of(other, graph.writer(writer));
                sum = sum + here[writer].clone() - other;
            }
        }
        sum
    };
    for layer in 0..graph.n_layers {
        let mut heads = Vec::new();
        for head in 0..graph.n_heads {
            let id = HeadId::new(layer, head);
            let group = graph.n_heads / graph.n_key_value_heads;
            let inputs = [
                (Port::Q, Site::QInput(layer), head),
                (Port::K, Site::KInput(layer), head / group),
                (Port::V, Site::VInput(layer), head / group),
            ];
            let changes = inputs.map(|(port, site, at)| {
                let reader = graph.port_reader(id, port);
                let value = read(&here, reader, &other.attn_in[layer]);
                let value = value.unsqueeze_dim::<4>(2);
                Intervention::new(site, Op::Replace(value.into())).with_heads([at])
            });
            let mut tap = (Intervene::new(changes), Capture::new([Site::Result(layer)]));
            model.forward(batch, &mut tap);
            let result = tap.1.take(Site::Result(layer)).unwrap().get::<4>().unwrap();
            heads.push(result.narrow(2, head, 1).squeeze_dim::<3>(2));
        }
        if model.config().norm_after {
            // Gains are 1 and biases 0.
            let sum = heads
                .iter()
                .skip(1)
                .fold(heads[0].clone(), |sum, head| sum + head.clone());
            let mean = (sum.clone() * sum).mean_dim(2) + model.config().eps;
            for head in &mut heads {
                *head = head.clone() / mean.clone().sqrt();
            }
        }
        let mlp = |here: &[Tensor<B, 3>]| {
            let value = read(here, graph.mlp_reader(layer), &other.mlp_in[layer]);
            let change = Intervention::new(Site::MlpIn(layer), Op::Replace(value.into()));
            let mut tap = (
                Intervene::new([change]),
                Capture::new([Site::MlpOut(layer)]),
            );
            model.forward(batch, &mut tap);
            tap.1.take(Site::MlpOut(layer)).unwrap().get::<3>().unwrap()
        };
        here.extend(heads);
        if graph.mlps {
            let out = mlp(&here);
            here.push(out);
        }
    }
    read(&here, graph.logits(), &other.last)
}

/// Values at real positions only.
fn real(batch: &TokenBatch<B>, x: Tensor<B, 3>) -> Tensor<B, 3> {
    let copies = x.dims()[0] / batch.positions().mask.dims()[0];
    let mask = batch.positions().mask.clone().repeat_dim(0, copies);
    x * mask.unsqueeze_dim(2)
}

fn difference(a: Tensor<B, 3>, b: Tensor<B, 3>) -> f32 {
    worst_difference(&a.into(), &b.into()).0
}

#[test]
fn any_set_of_edges_equals_the_slow_way() {
    let device = device();
    for (at, config) in configs().iter().enumerate() {
        let model: Decoder<B> = config
            .init(Seed::new(7 + at as u64), &device)
            .with_exec(Exec::all_cores());
        let graph = config.graph();
        let (clean, corrupt) = (batch(1, CLEAN, &device), batch(1, OTHER, &device));
        let other = outputs(&model, &graph, &corrupt);
        let last = graph.n_layers - 1;
        let here = outputs(&model, &graph, &clean);

        let masks: Vec<Vec<f32>> = (0..3).map(|seed| random_mask(&graph, seed)).collect();
        let grouped = patched(
            &model,
            &batch(3, CLEAN, &device),
            EdgePatch::new(graph, other.clone(), mask_of(&graph, &masks, &device)),
            last,
        );
        let mut moved: f32 = 0.0;
        for (group, mask) in masks.iter().enumerate() {
            let expected = real(&clean, slowly(&model, &graph, &clean, &other, mask));
            let patch = || {
                EdgePatch::new(
                    graph,
                    other.clone(),
                    mask_of(&graph, core::slice::from_ref(mask), &device),
                )
            };
            let fast = real(&clean, patched(&model, &clean, patch(), last));
            assert!(
                difference(fast.clone(), expected.clone()) < 2e-5,
                "config {at}"
            );
            let of_group = real(
                &clean,
                grouped.clone().slice_dim(0, 2 * group..2 * group + 2),
            );
            assert!(
                difference(of_group, expected.clone()) < 2e-5,
                "config {at}, grouped"
            );
            moved = moved.max(difference(expected, real(&clean, here.last.clone())));
        }
        assert!(moved > 0.1, "config {at}: the masks matter, {moved}");

        // All edges on is the model; all off is the other run.
        let size = graph.readers() * graph.writers();
        for (value, run) in [(1.0, &here), (0.0, &other)] {
            let mask = mask_of(&graph, &[vec![value; size]], &device);
            let out = patched(
                &model,
                &clean,
                EdgePatch::new(graph, other.clone(), mask),
                last,
            );
            let gap = difference(real(&clean, out), real(&clean, run.last.clone()));
            assert!(gap < 2e-5, "config {at}, all {value}: {gap}");
        }
    }
}

#[test]
fn a_pass_may_start_where_all_before_is_as_in_the_clean_run() {
    let device = device();
    for config in configs() {
        let model: Decoder<B> = config
            .init(Seed::new(3), &device)
            .with_exec(Exec::all_cores());
        let graph = config.graph();
        let (clean, corrupt) = (batch(1, CLEAN, &device), batch(1, OTHER, &device));
        let other = outputs(&model, &graph, &corrupt);
        let here = outputs(&model, &graph, &clean);
        // Edges into the first layer are all on; those of the second are random.
        let mut mask = random_mask(&graph, 5);
        let second = graph.port_readers(1, Port::Q).start;
        mask[..second * graph.writers()].fill(1.0);
        let patch = EdgePatch::new(graph, other, mask_of(&graph, &[mask], &device));
        let whole = patched(&model, &clean, patch.clone(), 1);

        let mut run = (
            patch.from_layer(1, &here),
            Capture::new([Site::ResidPost(1)]),
        );
        model.forward_from(&clean, 1, here.attn_in[1].clone(), &mut run);
        let part: Tensor<B, 3> = run.1.take(Site::ResidPost(1)).unwrap().get().unwrap();
        let gap = difference(real(&clean, part), real(&clean, whole));
        assert!(gap < 1e-5, "{gap}");
    }
}

#[test]
fn unembedding_the_stream_gives_the_logits() {
    let device = device();
    for config in configs() {
        let model: Decoder<B> = config
            .init(Seed::new(3), &device)
            .with_exec(Exec::all_cores());
        let clean = batch(1, CLEAN, &device);
        let graph = config.graph();
        let last = outputs(&model, &graph, &clean).last;
        // The stream was captured with heads apart, whose sum rounds otherwise.
        assert!(difference(model.unembed(last), model.logits(&clean)) < 2e-6);
    }
}

#[test]
fn ablated_runs_are_sums_of_what_is_left() {
    let device = device();
    for config in configs() {
        let model: Decoder<B> = config
            .init(Seed::new(9), &device)
            .with_exec(Exec::all_cores());
        let graph = config.graph();
        let clean = batch(1, CLEAN, &device);
        let here = outputs(&model, &graph, &clean);
        let zeroed = here.zeroed(&graph);
        // What no writer carries: biases, which do not depend on the prompt.
        let biases = batch(1, OTHER, &device);
        let elsewhere = outputs(&model, &graph, &biases).zeroed(&graph);
        for (a, b) in zeroed.attn_in.iter().zip(&elsewhere.attn_in) {
            assert!(difference(a.clone(), b.clone()) < 1e-5);
        }
        let sum = zeroed.last.clone() + {
            let [rows, pos, width] = here.input.dims();
            here.writers().sum_dim(1).reshape([rows, pos, width])
        };
        assert!(difference(sum, here.last.clone()) < 1e-5);

        // Given the outputs of another run, it is that run.
        let other = outputs(&model, &graph, &batch(1, OTHER, &device));
        let mut writers = 0..graph.writers();
        let moved = here.map_writers(&graph, |writer, _| {
            assert_eq!(Some(writer), writers.next());
            let [rows, pos, width] = other.input.dims();
            let all = other.writers().narrow(1, writer, 1);
            all.reshape([rows, pos, width])
        });
        let pairs = moved.mlp_in.iter().zip(&other.mlp_in);
        for (a, b) in pairs.chain([(&moved.last, &other.last)]) {
            assert!(difference(a.clone(), b.clone()) < 1e-5);
        }
    }
}

type A = AutodiffFlex;

/// A number that depends on the last position of each prompt.
fn metric<B: Backend>(
    model: &Decoder<B>,
    batch: &TokenBatch<B>,
    stream: Tensor<B, 3>,
) -> Tensor<B, 1> {
    let logits = model.unembed(stream);
    let last = &batch.positions().last;
    let rows = last.iter().enumerate().map(|(row, &at)| {
        let one = logits.clone().narrow(0, row, 1).narrow(1, at, 1);
        let right = one.clone().narrow(2, row + 1, 1);
        (right - one.narrow(2, row + 4, 1)).reshape([1])
    });
    Tensor::cat(rows.collect(), 0).sum()
}

#[test]
fn mask_gradients_are_slopes() {
    const STEP: f32 = 1e-2;
    let device = device();
    for (at, config) in configs().iter().enumerate() {
        let plain: Decoder<B> = config
            .init(Seed::new(11), &device)
            .with_exec(Exec::all_cores());
        let model = Decoder::<A>::from_inner(plain.clone());
        let graph = config.graph();
        let clean = batch::<A>(1, CLEAN, &device);
        let other = outputs(&model, &graph, &batch(1, OTHER, &device));
        let size = graph.readers() * graph.writers();
        let start = vec![0.7; size];
        let mask = mask_of::<A>(&graph, core::slice::from_ref(&start), &device).require_grad();
        let stream = patched(
            &model,
            &clean,
            EdgePatch::new(graph, other, mask.clone()),
            1,
        );
        let grads = metric(&model, &clean, stream).backward();
        let slopes: Vec<f32> = mask.grad(&grads).unwrap().into_data().to_vec().unwrap();

        let clean = batch::<B>(1, CLEAN, &device);
        let other = outputs(&plain, &graph, &batch(1, OTHER, &device));
        let value = |mask: Vec<f32>| {
            let mask = mask_of::<B>(&graph, &[mask], &device);
            let stream = patched(
                &plain,
                &clean,
                EdgePatch::new(graph, other.clone(), mask),
                1,
            );
            metric(&plain, &clean, stream).into_scalar()
        };
        let largest = slopes
            .iter()
            .fold(0.0f32, |max, slope| max.max(slope.abs()));
        let seen = |entry: usize| entry % graph.writers() < graph.visible(entry / graph.writers());
        for entry in 0..size {
            if !seen(entry) {
                assert_eq!(slopes[entry], 0.0, "config {at}: an edge that is not there");
                continue;
            }
            let nudged = |by: f32| {
                let mut mask = start.clone();
                mask[entry] += by;
                value(mask)
            };
            let quotient = (nudged(STEP) - nudged(-STEP)) / (2.0 * STEP);
            assert!(
                (quotient - slopes[entry]).abs() <= 5e-3 * (largest + slopes[entry].abs()),
                "config {at}, entry {entry}: gradient {}, quotient {quotient}",
                slopes[entry]
            );
        }
    }
}

/// Gradients at sites are the slopes along a direction added at the site.
#[test]
fn gradients_at_sites_are_slopes() {
    const STEP: f32 = 2e-3;
    let device = device();
    for (at, config) in configs().iter().enumerate() {
        let plain: Decoder<B> = config
            .init(Seed::new(13), &device)
            .with_exec(Exec::all_cores());
        let model = Decoder::<A>::from_inner(plain.clone());
        let mut sites = vec![
            Site::ResidPre(0),
            Site::QInput(1),
            Site::Z(0),
            Site::Result(1),
            Site::HeadOut(1),
        ];
        if config.mlp.is_some() {
            sites.extend([Site::MlpIn(0), Site::MlpOut(1)]);
        }
        let clean = batch::<A>(1, CLEAN, &device);
        let mut run = (
            Gradients::<A>::new(sites.clone()),
            Capture::new([Site::ResidPost(1)]),
        );
        model.forward(&clean, &mut run);
        let stream = run.1.take(Site::ResidPost(1)).unwrap().get().unwrap();
        let mut grads = metric(&model, &clean, stream).backward();
        let found = run.0.finish(&mut grads).unwrap();

        let clean = batch::<B>(1, CLEAN, &device);
        for site in sites {
            let dims = found[&site].dims();
            let count: usize = dims.iter().product();
            let direction: Vec<f32> = (0..count).map(|i| (i as f32 * 0.731).sin()).collect();
            let gradient: Vec<f32> = found[&site].clone().into_data().to_vec().unwrap();
            let slope: f32 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
            let value = |by: f32| {
                let moved = direction.iter().map(|d| d * by).collect::<Vec<_>>();
                let add = match dims[..] {
                    [a, b, c] => AnyTensor::from(Tensor::<B, 3>::from_data(
                        TensorData::new(moved, [a, b, c]),
                        &device,
                    )),
                    [a, b, c, d] => AnyTensor::from(Tensor::<B, 4>::from_data(
                        TensorData::new(moved, [a, b, c, d]),
                        &device,
                    )),
                    _ => unreachable!(),
                };
                let change = Intervention::new(site, Op::Add(add));
                let mut run = (Intervene::new([change]), Capture::new([Site::ResidPost(1)]));
                plain.forward(&clean, &mut run);
                let stream = run.1.take(Site::ResidPost(1)).unwrap().get().unwrap();
                metric(&plain, &clean, stream).into_scalar()
            };
            let quotient = (value(STEP) - value(-STEP)) / (2.0 * STEP);
            assert!(
                (quotient - slope).abs() <= 1e-2 * (0.05 + slope.abs()),
                "config {at}, {site}: gradient {slope}, quotient {quotient}"
            );
        }
    }
}

/// What one pass with plain inputs gives equals what a pass with an input for each head gives.
#[test]
fn port_gradients_equal_those_of_split_inputs() {
    let device = device();
    let norms = [
        Norm::Layer,
        Norm::LayerPre,
        Norm::Rms,
        Norm::RmsPre,
        Norm::None,
    ];
    let configs = configs()
        .into_iter()
        .flat_map(|config| norms.map(|norm| config.clone().with_norm(norm)));
    for config in configs {
        let plain: Decoder<B> = config
            .init(Seed::new(17), &device)
            .with_exec(Exec::all_cores());
        let model = Decoder::<A>::from_inner(plain.clone());
        let clean = batch::<A>(1, CLEAN, &device);
        let at = |sites: [Site; 3]| {
            let mut run = (
                Gradients::<A>::new(sites),
                Capture::new([Site::ResidPre(1), Site::ResidPost(1)]),
            );
            model.forward(&clean, &mut run);
            let stream = run.1.take(Site::ResidPost(1)).unwrap().get().unwrap();
            let read: Tensor<A, 3> = run.1.take(Site::ResidPre(1)).unwrap().get().unwrap();
            let mut grads = metric(&model, &clean, stream).backward();
            let found = run.0.finish(&mut grads).unwrap();
            (
                read.inner(),
                sites.map(|site| found[&site].get::<4>().unwrap()),
            )
        };
        let (stream, outputs) = at([Site::Q(1), Site::K(1), Site::V(1)]);
        let (_, inputs) = at([Site::QInput(1), Site::KInput(1), Site::VInput(1)]);
        for ((port, output), input) in Port::ALL.into_iter().zip(outputs).zip(inputs) {
            // In one pass over memory, and as on other devices.
            let carried = plain.port_gradient(1, port, stream.clone(), output.clone());
            let (read, output) = (
                Tensor::from_inner(stream.clone()),
                Tensor::from_inner(output),
            );
            let apart = model.port_gradient(1, port, read, output);
            let largest = input.clone().abs().max().into_scalar();
            for carried in [carried, apart.inner()] {
                let carried = carried.swap_dims(1, 2);
                let (gap, _) = worst_difference(&carried.into(), &input.clone().into());
                assert!(
                    gap <= 1e-5 * (1.0 + largest),
                    "{:?} {port}: {gap}",
                    config.norm
                );
            }
            assert!(largest > 1e-3, "{port}: {largest}");
        }
    }
}

#[test]
fn a_gradient_that_is_not_there_is_an_error() {
    let device = device();
    let config = DecoderConfig::gpt2(2, 2, 8, 6, D_VOCAB);
    let model = Decoder::<A>::from_inner(
        config
            .init::<B>(Seed::new(1), &device)
            .with_exec(Exec::all_cores()),
    );
    let clean = batch::<A>(1, CLEAN, &device);
    let mut run = (
        Gradients::<A>::new([Site::MlpOut(1)]),
        Capture::new([Site::ResidPost(0)]),
    );
    model.forward(&clean, &mut run);
    let early: Tensor<A, 3> = run.1.take(Site::ResidPost(0)).unwrap().get().unwrap();
    let error = run.0.finish(&mut early.sum().backward()).unwrap_err();
    assert!(
        error.to_string().contains("blocks.1.hook_mlp_out"),
        "{error}"
    );
}

/// With a bias too: what heads write adds up to what attention writes, also when one of them is changed.
#[test]
fn heads_write_all_that_attention_writes() {
    let copy = ModelFolder::copy_of(&golden_folder("families").join("gemma2"));
    copy.edit_config(|config| {
        config.insert("attention_bias".into(), true.into());
    });
    copy.edit_tensors(|tensors| {
        for layer in 0..2 {
            for (port, width) in [("q", 32), ("k", 16), ("v", 16), ("o", 16)] {
                let values: Vec<f32> = (0..width).map(|at| (at as f32).sin()).collect();
                let name = format!("model.layers.{layer}.self_attn.{port}_proj.bias");
                tensors.insert(name, Stored::f32s(&[width], &values));
            }
        }
    });
    let device = device();
    let clean: TokenBatch<B> = batch(1, CLEAN, &device);
    for processing in [Processing::Raw, Processing::Folded] {
        let model = load(copy.path(), processing);
        let ln1_post = [Site::Ln1PostScale(1), Site::Ln1PostNormalized(1)];
        let sites = [Site::Result(1), Site::HeadOut(1), Site::AttnOut(1)];
        let plain = crate::capture(&model, &clean, ln1_post.into_iter().chain([sites[2]]));
        let found = crate::capture(&model, &clean, ln1_post.into_iter().chain(sites));
        // Wanting heads apart changes nothing else.
        for (site, values) in &plain {
            assert!(worst_difference(&found[site], values).0 < 2e-6, "{site}");
        }
        let mut run = (
            Intervene::new([Intervention::new(Site::HeadOut(1), Op::Zero).with_heads([2])]),
            Capture::new([Site::AttnOut(1)]),
        );
        model.forward(&clean, &mut run);
        let without: Tensor<B, 3> = run.1.take(Site::AttnOut(1)).unwrap().get().unwrap();
        let heads: Tensor<B, 4> = {
            let mut capture = Capture::new([Site::HeadOut(1)]);
            model.forward(&clean, &mut capture);
            capture.take(Site::HeadOut(1)).unwrap().get().unwrap()
        };
        let sum = heads.clone().sum_dim(2).squeeze_dim::<3>(2);
        let gap = worst_difference(&sum.clone().into(), &plain[&Site::AttnOut(1)]).0;
        assert!(gap < 2e-6, "{processing}: {gap}");
        let removed = heads.narrow(2, 2, 1).squeeze_dim::<3>(2);
        assert!(difference(without, sum - removed) < 2e-6, "{processing}");
    }
}

#[test]
fn a_site_of_heads_that_no_norm_has_mixed_is_their_result() {
    let device = device();
    let model: Decoder<B> = configs()[0]
        .init(Seed::new(1), &device)
        .with_exec(Exec::all_cores());
    let clean = batch(1, CLEAN, &device);
    let found = crate::capture(&model, &clean, [Site::Result(1), Site::HeadOut(1)]);
    assert_eq!(found[&Site::Result(1)], found[&Site::HeadOut(1)]);
    assert!(!model.config().catalog().contains(Site::HeadOut(1)));
    let gemma = load(&golden_folder("families").join("gemma2"), Processing::Raw);
    assert!(gemma.config().catalog().contains(Site::HeadOut(1)));
}
