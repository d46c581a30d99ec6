//! Outputs that are replaced by those on another positive prompt.

use super::*;

fn pair(at: usize, clean: &[u32], corrupt: &[u32]) -> TokenPair {
    TokenPair::new((at, 4 + at), clean.to_vec(), corrupt.to_vec())
        .with_right(vec![at as u32])
        .with_wrong(vec![at as u32 + 5])
}

/// Two pairs of each of two lengths.
fn twos() -> Vec<TokenPair> {
    vec![
        pair(0, &[1, 2, 3, 4, 5], &[1, 7, 3, 9, 5]),
        pair(1, &[6, 7, 8], &[6, 2, 8]),
        pair(2, &[2, 4, 6, 8, 10], &[2, 4, 5, 8, 1]),
        pair(3, &[9, 3, 1], &[9, 3, 2]),
    ]
}

fn evidence_on(pairs: Vec<TokenPair>, ablation: Ablation) -> CausalEvidence<Flex> {
    let metric = Metric::LogitDifference;
    CausalEvidence::new(decoder(31), pairs, metric, ablation, 1 << 30, &FlexDevice).unwrap()
}

/// With one other prompt of each length, everything is as with that prompt for the negative one.
#[test]
fn the_other_prompt_takes_the_place_of_the_negative_one() {
    let mut exchanged = twos();
    for (at, other) in [(0, 2), (1, 3), (2, 0), (3, 1)] {
        exchanged[at].corrupt = twos()[other].clean.clone();
    }
    let resampled = evidence_on(twos(), Ablation::Resample);
    let expected = evidence_on(exchanged, Ablation::Negative);
    for name in [
        "activation-patching",
        "nap",
        "nap-ig",
        "nap-eg",
        "eap",
        "eap-ig",
        "ceap",
        "acdc",
    ] {
        let found = scores_of(name, &evidence(resampled.clone()), 3);
        let expected = scores_of(name, &evidence(expected.clone()), 3);
        close(name, &found.nodes, &expected.nodes);
    }
}

#[test]
fn which_prompt_it_is_depends_on_the_seed_alone() {
    let prompts: [[u32; 3]; 4] = [[1, 2, 3], [6, 7, 8], [9, 3, 1], [4, 4, 2]];
    let pairs = prompts.iter().enumerate();
    let pairs: Vec<TokenPair> = pairs
        .map(|(at, prompt)| pair(at, prompt, &[prompt[0], 11, prompt[2]]))
        .collect();
    let scores = |seed: u64| {
        let causal = evidence_on(pairs.clone(), Ablation::Resample);
        let causal = causal.with_seed(Seed::new(seed));
        scores_of("activation-patching", &evidence(causal), 1).nodes
    };
    assert_eq!(scores(3), scores(3));
    // A clone with another seed shares no runs with what it was cloned from.
    let first = evidence_on(pairs.clone(), Ablation::Resample).with_seed(Seed::new(3));
    let of = |causal| scores_of("activation-patching", &evidence(causal), 1).nodes;
    assert_eq!(of(first.clone()), scores(3));
    for seed in 0..8 {
        assert_eq!(of(first.clone().with_seed(Seed::new(seed))), scores(seed));
    }
    let drawn: Vec<_> = (0..8).map(scores).collect();
    assert!(drawn.iter().any(|scores| *scores != drawn[0]));
}

#[test]
fn a_length_of_its_own_is_an_error() {
    let mut pairs = twos();
    pairs[1].clean.push(4);
    pairs[1].corrupt.push(4);
    let metric = Metric::LogitDifference;
    let ablation = Ablation::Resample;
    let error = CausalEvidence::new(decoder(31), pairs, metric, ablation, 1 << 30, &FlexDevice);
    assert_eq!(
        error.unwrap_err().to_string(),
        "reference `resample`: pair 2: found no other positive prompt of 4 tokens, expected one for each pair"
    );
}
