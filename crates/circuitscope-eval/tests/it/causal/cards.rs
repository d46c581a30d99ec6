//! Cards of heads, against the method whose gradients say where they matter and slower ways to the same numbers.

use circuitscope_eval::{CardSettings, PromptParts, cards};
use circuitscope_measures::cards::{Cards, HeadCard, Pattern, Reference};

use super::*;

fn heads() -> Vec<(HeadId, usize)> {
    vec![
        (HeadId::new(1, 2), 1),
        (HeadId::new(0, 0), 2),
        (HeadId::new(1, 0), 3),
    ]
}

fn words(token: u32) -> String {
    format!("t{token}")
}

fn how() -> CardSettings {
    CardSettings::default().with_n_codes(16)
}

fn found_of(
    causal: &CausalEvidence<Flex>,
    parts: &PromptParts,
    heads: &[(HeadId, usize)],
    seed: u64,
) -> Cards {
    let found = cards::<B>(
        causal,
        (parts, None),
        heads,
        &words,
        &how(),
        Seed::new(seed),
        &FlexDevice,
        &NoProgress,
    );
    found.unwrap()
}

fn found(causal: &CausalEvidence<Flex>, seed: u64) -> Cards {
    found_of(causal, &PromptParts::default(), &heads(), seed)
}

/// Codes share out what a head does, and a head does what `recommended` says.
#[test]
fn effects_of_codes_add_up_to_the_heads() {
    for ablation in [Ablation::Negative, Ablation::Zero] {
        let causal = causal(&decoder(12), Metric::LogitDifference, ablation);
        let found = found(&causal, 3);
        let evidence = evidence(causal);
        let recommended = method::<B>("recommended", &settings(1), &FlexDevice).unwrap();
        let scores = recommended
            .scores(&evidence, Seed::new(3), &NoProgress)
            .unwrap();
        let contrast = scores.contrast.unwrap();
        assert!((found.divergence - contrast.total).abs() < 1e-6 * contrast.total);
        let grid = HeadGrid::new(2, 3);
        let signed = scores.graph.unwrap().signed_heads();
        for (card, (head, rank)) in found.heads.iter().zip(heads()) {
            assert_eq!((card.head, card.rank), (head, rank));
            let at = grid.index(head).unwrap();
            let (differs, used) = (contrast.differs[at], contrast.used[at]);
            let larger = if used > differs {
                Reference::Used
            } else {
                Reference::Differs
            };
            let effect = card.effect;
            assert_eq!(effect.reference, larger);
            assert_eq!(found.effects[at], card.patched.mean);
            assert!(card.patched.pairs == 4 && card.patched.reference == Reference::Differs);
            // The mean of effects is no larger than that of their sizes, and has the sign of the score.
            assert!(effect.mean.abs() <= differs.max(used) / contrast.total + 1e-6);
            assert!(effect.low <= effect.mean + 1e-9 && effect.mean <= effect.high + 1e-9);
            assert!((0.25..=1.0).contains(&effect.same_sign));
            if larger == Reference::Differs {
                assert_eq!(effect.mean < 0.0, signed[at] < 0.0, "{head}");
            }
            let sum: f64 = card.codes.iter().map(|code| code.effect).sum();
            assert!((sum - effect.mean).abs() < 1e-6, "{sum} {}", effect.mean);
            let positives = card.codes.iter().map(|code| code.positives);
            assert_eq!(positives.sum::<usize>(), 4);
            for code in &card.codes {
                assert!(code.positives > 0 && code.negatives <= 4);
                assert!(code.at_token > 0 && code.at_token <= code.positives + code.negatives);
                assert_eq!(code.promotes.len(), 5);
                assert!(!code.prompts.is_empty());
            }
            let sizes = card.codes.iter().map(|code| code.effect.abs());
            assert!(sizes.is_sorted_by(|a, b| a >= b));
            let places: f64 = card.matters_at.iter().map(|(_, share)| share).sum();
            assert!((places - 1.0).abs() < 1e-5, "{places}");
        }
    }
}

/// The same seed, the same cards; a card does not depend on which other heads have one.
#[test]
fn cards_are_those_of_the_head() {
    let causal = causal(&decoder(12), Metric::LogitDifference, Ablation::Negative);
    assert_eq!(found(&causal, 1), found(&causal, 1));
    assert_ne!(found(&causal, 1).heads, found(&causal, 2).heads);
    let alone = found_of(&causal, &PromptParts::default(), &heads()[1..2], 1);
    assert_eq!(alone.heads[0], found(&causal, 1).heads[1]);
    assert!(
        found_of(&causal, &PromptParts::default(), &[], 1)
            .heads
            .is_empty()
    );
    // As they are kept.
    let cards = found(&causal, 1);
    let text = serde_json::to_string(&cards).unwrap();
    assert_eq!(serde_json::from_str::<Cards>(&text).unwrap().heads.len(), 3);
}

/// Attention of one head on one positive prompt, by a pass of its own.
fn attention(causal: &CausalEvidence<Flex>, head: HeadId, pair: usize) -> Vec<Vec<f32>> {
    let batch = causal.batch::<Flex>(vec![pair], &FlexDevice);
    let mut capture = Capture::new([Site::Pattern(head.layer)]);
    causal.model().forward(&batch.clean, &mut capture);
    let pattern = capture.take(Site::Pattern(head.layer)).unwrap();
    let pattern = pattern.get::<4>().unwrap();
    let pos = pattern.dims()[2];
    let rows = pattern.slice_dim(1, head.head..=head.head).into_data();
    let rows: Vec<f32> = rows.to_vec().unwrap();
    rows.chunks(pos).map(<[f32]>::to_vec).collect()
}

#[test]
fn attention_is_that_of_the_model() {
    let causal = causal(&decoder(12), Metric::LogitDifference, Ablation::Negative);
    for card in found(&causal, 1).heads {
        assert_eq!(card.attention.len(), 2 * 3);
        for of in card.attention.iter().filter(|of| of.positive) {
            let expected = attention(&causal, card.head, of.prompt);
            for row in &of.rows {
                assert!((row.to.iter().sum::<f64>() - 1.0).abs() < 1e-5);
                for (found, expected) in row.to.iter().zip(&expected[row.position]) {
                    assert!((found - f64::from(*expected)).abs() < 1e-6);
                }
            }
        }
        for of in card.attention.iter().filter(|of| !of.positive) {
            let tokens = pairs()[of.prompt].corrupt.len();
            assert!(of.rows.iter().all(|row| row.to.len() == tokens));
        }
    }
}

/// Attention to the token before, over all positions that have one.
#[test]
fn patterns_alone_are_means_of_attention() {
    let causal = causal(&decoder(12), Metric::LogitDifference, Ablation::Negative);
    let cards = found(&causal, 1);
    let pattern = |card: &HeadCard, pattern: Pattern| {
        let mut patterns = card.patterns.iter();
        patterns.find(|score| score.pattern == pattern).cloned()
    };
    for card in &cards.heads {
        let (mut sum, mut count) = (0.0, 0.0);
        for pair in 0..4 {
            let rows = attention(&causal, card.head, pair);
            for (at, row) in rows.iter().enumerate().skip(1) {
                sum += f64::from(row[at - 1]);
                count += 1.0;
            }
        }
        let previous = pattern(card, Pattern::PreviousToken).unwrap();
        assert!((previous.attention - sum / count).abs() < 1e-6);
        assert!(previous.weighted <= 1.0 + 1e-6 && previous.joined >= 0.0);
        assert!(!previous.role || previous.joined > previous.idle);
        // No token is said twice.
        assert!(pattern(card, Pattern::DuplicateToken).is_none());
        assert!(pattern(card, Pattern::DifferingTokens).is_some());
    }
    let all = cards.patterns.iter();
    let mut all = all.filter(|of| of.pattern == Pattern::PreviousToken);
    assert_eq!(all.next().unwrap().attention.len(), 6);
}

/// A part that is named is read there; one that no prompt has is not.
#[test]
fn named_parts_are_patterns_and_places() {
    let causal = causal(&decoder(12), Metric::LogitDifference, Ablation::Negative);
    let slots = (0..4).map(|pair| vec![("X".to_owned(), vec![1 + pair % 2])]);
    let of = |class: &str, pair: usize| {
        let value = ("kind".to_owned(), format!("{class}{}", pair % 2));
        [value].into()
    };
    let own = |pair: usize, class: &str| {
        let value = ("each".to_owned(), format!("{class}{pair}"));
        [value, ("same".to_owned(), "1".to_owned())]
    };
    let variables = (0..4).map(|pair| {
        ["p", "n"].map(|class| {
            let mut all: std::collections::BTreeMap<String, String> = of(class, pair);
            all.extend(own(pair, class));
            all
        })
    });
    let parts = PromptParts {
        slots: slots.collect(),
        variables: variables.collect(),
    };
    let cards = found_of(&causal, &parts, &heads(), 1);
    assert_eq!(cards.prompts[1].slots, [("X".to_owned(), vec![2])]);
    for card in &cards.heads {
        let slot = Pattern::Slot("X".to_owned());
        assert!(card.patterns.iter().any(|score| score.pattern == slot));
        assert!(card.matters_at.iter().any(|(name, _)| name == "X"));
    }
    let table = cards.variables.unwrap();
    assert_eq!(table.variables, [("kind".to_owned(), 4)]);
    assert_eq!(table.left_out, ["each", "same"]);
    assert_eq!((table.prompts, table.cells[0].len()), (8, 3));
}

/// What the terms of a score leave is its rest, and the token attended to is the one with the most attention.
#[test]
fn terms_add_up_to_the_score() {
    let causal = causal(&decoder(12), Metric::LogitDifference, Ablation::Negative);
    let mut seen = 0;
    for card in found(&causal, 1).heads {
        for why in &card.why {
            let expected = attention(&causal, card.head, why.prompt);
            let row = &expected[why.destination];
            assert!((why.attention - f64::from(row[why.source])).abs() < 1e-6);
            // Softmax: the logarithm of attention less its mean over what may be attended to.
            let open = &row[..=why.destination];
            let mean = open.iter().map(|p| f64::from(p.ln())).sum::<f64>() / open.len() as f64;
            let score = why.attention.ln() - mean;
            assert!((why.score - score).abs() < 1e-4, "{} {score}", why.score);
            let sum: f64 = why.terms.iter().map(|term| term.value).sum();
            assert!((sum + why.rest - why.score).abs() < 1e-9);
            let sizes = why.terms.iter().map(|term| term.value.abs());
            assert!(sizes.is_sorted_by(|a, b| a >= b));
            seen += 1;
        }
    }
    assert!(seen > 3, "{seen}");
}

/// Links are what `recommended` scores edges by: into the logits, those of heads add up to their direct effects.
#[test]
fn links_are_effects_of_edges() {
    let causal = causal(&decoder(12), Metric::LogitDifference, Ablation::Negative);
    let cards = found(&causal, 1);
    let graph = causal.graph();
    assert_eq!(cards.link_pairs, 4);
    assert!(!cards.links.is_empty());
    let sizes = cards.links.iter().map(|link| link.weight.abs());
    assert!(sizes.is_sorted_by(|a, b| a >= b));
    for link in &cards.links {
        assert!(link.writer.precedes(link.reader), "{}", link.words());
        assert_eq!(link.port.is_some(), matches!(link.reader, Node::Head(_)));
    }
    // Every head of the second layer reads every head with a card of the first, by three ports.
    let first = Node::Head(HeadId::new(0, 0));
    let into = |reader: Node| {
        let links = cards.links.iter();
        links.filter(move |link| link.writer == first && link.reader == reader)
    };
    assert_eq!(into(Node::Head(HeadId::new(1, 2))).count(), 3);
    assert_eq!(into(Node::Logits).count(), 1);
    assert!(into(Node::Mlp(1)).count() == usize::from(graph.mlps));
}

#[test]
fn random_tokens_said_twice_show_where_heads_look() {
    let causal = causal(&decoder(12), Metric::LogitDifference, Ablation::Negative);
    let cards = found(&causal, 1);
    // Eight positions: nothing before, three tokens said twice.
    assert_eq!(cards.repeated.len(), 6);
    for of in &cards.repeated {
        for share in [
            of.previous_token,
            of.duplicate_token,
            of.induction,
            of.first_token,
        ] {
            assert!((0.0..=1.0).contains(&share), "{of:?}");
        }
        assert!(of.first_token > 0.0);
    }
}
