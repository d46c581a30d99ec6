//! Features of dictionaries of heads' outputs, beside the same sums by hand.

use circuitscope_eval::methods::ZFeatureSettings;
use circuitscope_hooks::Gradients;
use circuitscope_sae::{Objective, StreamConfig, StreamTrainer};

use super::*;

const HEADS: usize = 3;
const D_HEAD: usize = 4;
const WIDTH: usize = HEADS * D_HEAD;
const K: usize = 5;

fn settings(steps: usize) -> MethodSettings {
    let of_features = ZFeatureSettings::default().with_k(K).with_steps(steps);
    MethodSettings::default().with_z_features(of_features)
}

fn scores(name: &str, evidence: &Evidence<Flex>, settings: &MethodSettings, seed: u64) -> Vec<f64> {
    let method = method::<B>(name, settings, &FlexDevice).unwrap();
    let scores = method.scores(evidence, Seed::new(seed), &NoProgress);
    scores.unwrap().nodes
}

fn on_logits(model: &Decoder<Flex>) -> CausalEvidence<Flex> {
    causal(model, Metric::LogitDifference, Ablation::Negative)
}

/// `z` of all heads side by side on one prompt, and its gradient: `[layers][pos * WIDTH]`, of one backward pass through the whole
/// model.
fn at_tokens(causal: &CausalEvidence<Flex>, pair: usize, positive: bool) -> [Vec<Vec<f32>>; 2] {
    let model = Decoder::<B>::from_inner(causal.model().clone());
    let batch = causal.batch::<B>(vec![pair], &FlexDevice);
    let sites = [Site::Z(0), Site::Z(1)];
    let mut run = (
        Gradients::<B>::new(sites),
        Capture::new(sites.into_iter().chain([Site::ResidPost(1)])),
    );
    let prompt = if positive {
        &batch.clean
    } else {
        &batch.corrupt
    };
    model.forward(prompt, &mut run);
    let (gradients, mut capture) = run;
    let stream = capture.take(Site::ResidPost(1)).unwrap().get().unwrap();
    let logits = last_logits(&model, prompt, stream);
    let value = batch.targets.values(causal.metric(), logits, None);
    let gradients = gradients.finish(&mut value.sum().backward()).unwrap();
    let floats = |x: Tensor<Flex, 4>| x.into_data().to_vec::<f32>().unwrap();
    let z = sites.map(|site| capture.take(site).unwrap().get::<4>().unwrap());
    [
        z.map(|z| floats(z.inner())).to_vec(),
        sites
            .map(|site| floats(gradients[&site].get::<4>().unwrap()))
            .to_vec(),
    ]
}

/// The formula, feature by feature, with dictionaries as they are before training.
#[test]
fn scores_are_gradients_times_what_features_write() {
    let causal = on_logits(&decoder(3));
    let settings = settings(0);
    let found = scores(
        "z-features-untrained",
        &evidence(causal.clone()),
        &settings,
        7,
    );

    let mut expected = vec![0.0; 2 * HEADS];
    for layer in 0..2 {
        let seen = [true, false].map(|positive| {
            (0..4)
                .map(move |pair| (pair, positive))
                .map(|(pair, positive)| at_tokens(&causal, pair, positive))
        });
        let seen: Vec<_> = seen.into_iter().flatten().collect();
        let rows: Vec<f32> = seen
            .iter()
            .flat_map(|[z, _]| z[layer][WIDTH..].to_vec())
            .collect();
        let squares: f64 = rows.iter().map(|x| f64::from(*x).powi(2)).sum();
        let scale = (rows.len() as f64 / squares).sqrt();
        let rows: Vec<f32> = rows
            .iter()
            .map(|x| (f64::from(*x) * scale) as f32)
            .collect();
        let n = 2 * WIDTH;
        let config = StreamConfig::new(WIDTH, n, Objective::TopK { k: K });
        let stream = Seed::new(7).nth("z-features/dictionary", layer as u64);
        let trainer = StreamTrainer::<Flex>::new(&config, &rows, None, stream, &FlexDevice);
        let dictionary = trainer.unwrap().dictionary().unwrap();
        for [z, gradients] in &seen[..4] {
            let tokens = z[layer].chunks(WIDTH).zip(gradients[layer].chunks(WIDTH));
            for (z, gradient) in tokens.skip(1) {
                let before: Vec<f64> = (0..n)
                    .map(|i| {
                        let products = z.iter().zip(&dictionary.b_dec).enumerate();
                        let products = products.map(|(at, (z, b))| {
                            (f64::from(*z) * scale - f64::from(*b))
                                * f64::from(dictionary.w_enc[at * n + i])
                        });
                        products.sum::<f64>() + f64::from(dictionary.b_enc[i])
                    })
                    .collect();
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by(|&a, &b| before[b].total_cmp(&before[a]));
                for &i in order[..K].iter().filter(|&&i| before[i] > 0.0) {
                    let atom = &dictionary.w_dec[i * WIDTH..(i + 1) * WIDTH];
                    let along: f64 = atom
                        .iter()
                        .zip(gradient)
                        .map(|(w, g)| f64::from(w * g))
                        .sum();
                    let size = (before[i] / scale * along).abs();
                    let norms = atom.chunks(D_HEAD);
                    let norms =
                        norms.map(|part| part.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt());
                    let norms: Vec<f64> = norms.collect();
                    let all: f64 = norms.iter().sum();
                    for (head, norm) in norms.into_iter().enumerate() {
                        expected[layer * HEADS + head] += size * norm / all / 4.0;
                    }
                }
            }
        }
    }
    close("heads", &found, &expected);
}

#[test]
fn training_starts_where_the_untrained_one_stands() {
    let evidence = evidence(on_logits(&decoder(4)));
    let untrained = |seed| scores("z-features-untrained", &evidence, &settings(40), seed);
    let trained = |steps, seed| scores("z-features", &evidence, &settings(steps), seed);
    assert_eq!(trained(0, 1), untrained(1));
    assert_eq!(trained(40, 1), trained(40, 1));
    assert_ne!(trained(40, 1), untrained(1));
    assert_ne!(trained(40, 1), trained(40, 2));
    assert_ne!(untrained(1), untrained(2));
}

#[test]
fn a_resample_is_the_mean_of_its_pairs() {
    let evidence = evidence(on_logits(&decoder(5)));
    let settings = settings(10);
    let method = method::<B>("z-features", &settings, &FlexDevice).unwrap();
    let measured = method
        .measure(&evidence, Seed::new(0), &NoProgress)
        .unwrap();
    let of = |rows: Option<&[usize]>| measured.scores(rows).unwrap().nodes;
    let mut sum = vec![0.0; 2 * HEADS];
    for pair in 0..4 {
        for (sum, score) in sum.iter_mut().zip(of(Some(&[pair, pair + 4]))) {
            *sum += score / 4.0;
        }
    }
    close("mean", &of(None), &sum);
}

#[test]
fn what_no_dictionary_can_be_made_of_is_named() {
    let model = decoder(6);
    let short = |token| {
        TokenPair::new((0, 4), vec![token], vec![token + 1])
            .with_right(vec![4])
            .with_wrong(vec![5])
    };
    let metric = Metric::LogitDifference;
    let causal = CausalEvidence::new(
        model.clone(),
        vec![short(1)],
        metric,
        Ablation::Negative,
        1 << 30,
        &FlexDevice,
    );
    let refused = |evidence: &Evidence<Flex>, settings: &MethodSettings| {
        let method = method::<B>("z-features", settings, &FlexDevice).unwrap();
        let scores = method.scores(evidence, Seed::new(0), &NoProgress);
        scores.unwrap_err().to_string()
    };
    assert_eq!(
        refused(&evidence(causal.unwrap()), &settings(1)),
        "tokens after the first of a prompt: found 0, expected 1"
    );
    let evidence = evidence(on_logits(&model));
    for (changed, named) in [
        (ZFeatureSettings::default().with_k(0), "k"),
        (ZFeatureSettings::default().with_expansion(0), "d_sae"),
        (
            ZFeatureSettings::default().with_learning_rate(f64::NAN),
            "learning_rate",
        ),
    ] {
        let said = refused(
            &evidence,
            &MethodSettings::default().with_z_features(changed),
        );
        assert!(said.contains(named), "{said}");
    }
}
