//! The metric that compares the predictions after the two prompts of a pair, and reads no answers.

use super::*;

fn unanswered() -> Vec<TokenPair> {
    let pairs = pairs().into_iter();
    pairs
        .map(|pair| pair.with_right(Vec::new()).with_wrong(Vec::new()))
        .collect()
}

fn contrast(model: &Decoder<Flex>) -> CausalEvidence<Flex> {
    let ablation = Ablation::Negative;
    let metric = Metric::Contrast;
    CausalEvidence::new(
        model.clone(),
        unanswered(),
        metric,
        ablation,
        1 << 30,
        &FlexDevice,
    )
    .unwrap()
}

/// Log-probabilities after a prompt.
fn prediction(model: &Decoder<Flex>, prompt: &[u32]) -> Vec<f64> {
    use circuitscope_model::{PaddingSide, TokenBatch};
    let batch = TokenBatch::new(&[prompt.to_vec()], PaddingSide::Right, &FlexDevice).unwrap();
    let mut capture = Capture::new([Site::Logits]);
    model.forward(&batch, &mut capture);
    let logits = capture.take(Site::Logits).unwrap().get::<3>().unwrap();
    let logits: Vec<f32> = batch.last(logits).into_data().to_vec().unwrap();
    let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
    logits.iter().map(|x| f64::from(*x) - total.ln()).collect()
}

/// To ablate the input is to go all the way to the negative prompt: the Jeffreys divergence of the two predictions.
#[test]
fn from_prompt_to_prompt_it_is_their_divergence() {
    let model = decoder(6);
    let divergences = unanswered().into_iter().map(|pair| {
        let [p, q] = [&pair.clean, &pair.corrupt].map(|prompt| prediction(&model, prompt));
        let terms = p.iter().zip(&q).map(|(p, q)| (p.exp() - q.exp()) * (p - q));
        terms.sum::<f64>()
    });
    let expected = divergences.sum::<f64>() / 4.0;
    let evidence = evidence(contrast(&model));
    let found = graph_of("activation-patching", &evidence, 5).nodes.unwrap()[0];
    assert!(
        (found - expected).abs() < 1e-4 * expected,
        "{found} {expected}"
    );
    let path = graph_of("nap-ig", &evidence, 400).nodes.unwrap()[0];
    assert!(
        (path - expected).abs() < 0.01 * expected,
        "{path} {expected}"
    );
}

/// Every method that runs the model can take it, without a single answer.
#[test]
fn every_causal_method_reads_it() {
    let evidence = evidence(contrast(&decoder(6)));
    for about in ALL.iter().filter(|about| about.needs.model) {
        let scores = scores_of(&about.name, &evidence, 3);
        assert!(
            scores.nodes.iter().any(|score| *score != 0.0),
            "{}",
            about.name
        );
    }
}
