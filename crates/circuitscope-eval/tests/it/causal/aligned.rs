//! Pairs whose prompts differ in length.

use circuitscope_eval::causal::Alignment;

use super::*;

/// The pairs, the first and the third with a span that is longer on one side.
fn unequal() -> (Vec<TokenPair>, Vec<Option<Alignment>>) {
    let mut pairs = pairs();
    pairs[0].corrupt = vec![1, 7, 9, 3, 4, 5];
    pairs[2].clean = vec![2, 4, 6, 6, 8, 1];
    let aligned = [0, 1, 2, 3].map(|pair: usize| {
        let TokenPair { clean, corrupt, .. } = &pairs[pair];
        (pair.is_multiple_of(2)).then(|| Alignment::around_one_span(clean, corrupt).unwrap())
    });
    (pairs, aligned.to_vec())
}

fn evidence_of(ablation: Ablation) -> CausalEvidence<Flex> {
    let (pairs, aligned) = unequal();
    let metric = Metric::LogProbability;
    let model = decoder(21);
    CausalEvidence::aligned(
        model,
        pairs,
        aligned,
        metric,
        ablation,
        1 << 30,
        &FlexDevice,
    )
    .unwrap()
}

/// Each pair alone and without padding: a node's output on the negative prompt, at the position that
/// corresponds, in the place of its own.
fn by_hand(causal: &CausalEvidence<Flex>) -> Vec<f64> {
    let (model, graph) = (causal.model(), causal.graph());
    let (_, aligned) = unequal();
    let mut effects = vec![0.0; graph.writers()];
    for (pair, aligned) in aligned.iter().enumerate() {
        let batch = causal.batch::<Flex>(vec![pair], &FlexDevice);
        let here = causal.outputs(model, &batch.clean).unwrap();
        let other = causal.outputs(model, &batch.corrupt).unwrap();
        let pos = here.input.dims()[1];
        let places: Vec<i64> = match aligned {
            Some(aligned) => aligned.places().iter().map(|place| *place as i64).collect(),
            None => (0..pos as i64).collect(),
        };
        let places = Tensor::from_data(TensorData::new(places, [pos]), &FlexDevice);
        let read = |changes: Vec<Intervention<Flex>>| {
            let mut run = (Intervene::new(changes), Capture::new([Site::Logits]));
            model.forward(&batch.clean, &mut run);
            let logits = batch
                .clean
                .last::<3>(run.1.take(Site::Logits).unwrap().get().unwrap());
            f64::from(
                batch
                    .targets
                    .values(causal.metric(), logits, None)
                    .into_scalar(),
            )
        };
        let clean = read(Vec::new());
        let at = |x: &Tensor<Flex, 3>| x.clone().select(1, places.clone());
        for (writer, effect) in effects.iter_mut().enumerate() {
            let change = match graph.writer(writer) {
                Node::Head(HeadId { layer, head }) => {
                    let one =
                        |x: &Tensor<Flex, 4>| x.clone().narrow(2, head, 1).squeeze_dim::<3>(2);
                    let moved = at(&one(&other.heads[layer])) - one(&here.heads[layer]);
                    Intervention::new(Site::AttnOut(layer), Op::Add(moved.into()))
                }
                Node::Mlp(layer) => {
                    let output = at(&other.mlps[layer]);
                    Intervention::new(Site::MlpOut(layer), Op::Replace(output.into()))
                }
                _ => Intervention::new(Site::ResidPre(0), Op::Replace(at(&other.input).into())),
            };
            *effect += (clean - read(vec![change])) / 4.0;
        }
    }
    effects
}

#[test]
fn nodes_are_patched_where_prompts_correspond() {
    let causal = evidence_of(Ablation::Negative);
    let expected = by_hand(&causal);
    let found = graph_of("activation-patching", &evidence(causal), 5);
    close("nodes", &found.nodes.unwrap(), &expected);
}

/// Methods of gradients read what corresponds, too, and no ablation minds the lengths.
#[test]
fn every_ablation_and_estimate_takes_aligned_pairs() {
    for ablation in ON_ANY_PAIRS {
        let causal = evidence_of(ablation);
        let batch = causal.batch::<Flex>(vec![0, 1, 2, 3], &FlexDevice);
        let ablated = causal.ablated(&batch).unwrap();
        let here = causal.outputs(causal.model(), &batch.clean).unwrap();
        assert_eq!(
            ablated.writers().dims(),
            here.writers().dims(),
            "{ablation}"
        );
        for name in ["eap", "eap-ig", "nap"] {
            let scores = scores_of(name, &evidence(causal.clone()), 3);
            assert!(scores.nodes.iter().all(|score| score.is_finite()), "{name}");
        }
    }
}

#[test]
fn an_alignment_of_other_prompts_is_refused() {
    let (pairs, mut aligned) = unequal();
    aligned.swap(0, 2);
    let metric = Metric::LogProbability;
    let ablation = Ablation::Negative;
    let error = CausalEvidence::aligned(
        decoder(21),
        pairs,
        aligned,
        metric,
        ablation,
        1 << 30,
        &FlexDevice,
    );
    let error = error.unwrap_err().to_string();
    let expected = "pair 1: prompts of 5 and 6 tokens that cannot be aligned: expected as many, or an alignment";
    assert!(error.starts_with(expected), "{error}");
}
