//! Features of heads.

use burn::tensor::Tensor;
use circuitscope_core::{HeadId, NoProgress, Seed, draw};
use circuitscope_features::{
    Course, Directions, ExplainSettings, FeatureCard, Replacement, RowSettings, Rows, Source,
    Splice, What, explain, repeated, train_rows, weight_shares, write_rows,
};
use circuitscope_hooks::{Positions, Site, Tap};
use circuitscope_model::Processing;
use circuitscope_sae::{Encoder, Objective, StreamConfig};

use crate::models::{B, Small, device, model, spliced};

/// What heads add and the bias are the activation, and sources sum to the head.
#[test]
fn parts_sum_to_activations() {
    for name in ["gpt2", "llama", "gemma2", "gpt_neox"] {
        let model = model(name, Processing::Folded);
        let width = model.config().n_heads * model.config().d_head;
        let small = Small::random(width, 12, width, 7);
        let contexts = repeated(model.config().d_vocab, None, 8, 6, Seed::new(0));
        let how = ExplainSettings::default()
            .with_least_firings(1)
            .with_features(4)
            .with_skip_first(false);
        let head = HeadId::new(1, 1);
        let what = What::Head(head);
        let found = explain(
            &model,
            (1, &small),
            &contexts,
            &what,
            &how,
            &device(),
            &NoProgress,
        )
        .unwrap();
        assert!(!found.features.is_empty());
        for card in &found.features {
            assert!((card.weight_shares.iter().sum::<f64>() - 1.0).abs() < 1e-6);
            let mut last = f64::INFINITY;
            for one in &card.contexts {
                let sum = one.by_head.iter().sum::<f64>() + one.bias;
                let size: f64 = one.by_head.iter().map(|x| x.abs()).sum::<f64>() + one.bias.abs();
                assert!(
                    (sum - one.activation).abs() < 1e-5 * size,
                    "{name}: {sum} {}",
                    one.activation
                );
                let of_head: f64 = one.by_source.iter().sum();
                assert!(
                    (of_head - one.by_head[1]).abs() < 1e-5 * size,
                    "{name}: {of_head}"
                );
                assert!(one.activation <= last);
                last = one.activation;
            }
        }
        let basis = &found.controls[2];
        assert_eq!(
            (basis.dictionary.as_str(), basis.features),
            ("coordinates of z", 2 * width)
        );
        assert!((basis.weight_share - 1.0).abs() < 1e-6, "{basis:?}");
        assert!((basis.attribution_share - 1.0).abs() < 1e-6, "{basis:?}");
    }
}

/// A splice at one position, the others as they were.
struct Only<'a> {
    splice: Splice<'a, B>,
    position: usize,
}

impl Tap<B> for Only<'_> {
    fn begin(&mut self, positions: &Positions<B>) {
        self.splice.begin(positions);
    }

    fn wants(&self, site: Site) -> bool {
        self.splice.wants(site)
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        let dims = x.dims();
        let new = self.splice.tap(site, x.clone());
        let at = self.position..self.position + 1;
        let place: [_; D] =
            core::array::from_fn(|dim| if dim == 1 { at.clone() } else { 0..dims[dim] });
        x.slice_assign(place, new.slice_dim(1, at.clone()))
    }
}

/// Taking a feature away at a place is what a splice without it does there.
#[test]
fn ablations_are_those_of_a_splice() {
    let model = model("llama", Processing::Folded);
    let width = model.config().n_heads * model.config().d_head;
    let small = Small::random(width, 12, width, 7);
    let contexts: Vec<Vec<u32>> = (0..8u32)
        .map(|at| vec![at, (at * 5 + 2) % 20, (at * 3 + 1) % 20])
        .collect();
    let how = ExplainSettings::default()
        .with_least_firings(1)
        .with_contexts(16)
        .with_ablations(16);
    let what = What::Features((0..12).collect());
    let found = explain(
        &model,
        (1, &small),
        &contexts,
        &what,
        &how,
        &device(),
        &NoProgress,
    )
    .unwrap();
    let log_softmax = |logits: Vec<f32>| -> Vec<f64> {
        let last = &logits[logits.len() - model.config().d_vocab_out..];
        let total: f64 = last.iter().map(|logit| f64::from(*logit).exp()).sum();
        let of = |logit: &f32| f64::from(*logit) - total.ln();
        last.iter().map(of).collect()
    };
    let mut looked = 0;
    for card in &found.features {
        let places = &card.contexts;
        assert_eq!(card.ablation.is_some(), !places.is_empty());
        let Some(ablation) = card.ablation else {
            continue;
        };
        assert_eq!(ablation.places, places.len());
        let second = places.iter().filter(|one| one.position == 1).count();
        assert_eq!(ablation.followed, second);
        let (mut kl, mut loss) = (0.0, 0.0);
        let without = [card.feature];
        for one in places {
            let tokens = &contexts[one.context];
            let run = |keep_error, without| {
                let replacement = Replacement::Dictionary {
                    encoder: &small,
                    keep_error,
                    without,
                };
                let splice = Splice::new(Site::Z(1), Site::Z(1), replacement, true);
                let position = one.position;
                let mut only = Only { splice, position };
                log_softmax(spliced(&model, &tokens[..=position], &mut only))
            };
            let (before, after) = (run(true, &[]), run(true, &without));
            let terms = before.iter().zip(&after);
            kl += terms.map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            if let Some(next) = tokens.get(one.position + 1) {
                loss += before[*next as usize] - after[*next as usize];
            }
        }
        let count = places.len() as f64;
        assert!((ablation.feature.kl - kl / count).abs() < 1e-6, "{card:?}");
        let expected = (second > 0).then(|| loss / second as f64);
        let close = match (ablation.feature.loss, expected) {
            (Some(found), Some(expected)) => (found - expected).abs() < 1e-5,
            (found, expected) => found == expected,
        };
        assert!(close, "{expected:?}, {card:?}");
        for beside in [ablation.random, ablation.error, ablation.mean] {
            assert!(beside.kl > 0.0, "{ablation:?}");
        }
        looked += 1;
        // Ends of paths, the largest first, of what is taken apart above.
        assert_eq!(card.made_of.len(), how.paths);
        for pair in card.made_of.windows(2) {
            assert!(pair[0].value.abs() >= pair[1].value.abs());
        }
        assert!(card.made_of[0].share > 0.0 && card.made_of[0].share <= 1.0);
    }
    assert!(looked > 6, "{looked} features");
    let none = explain(
        &model,
        (1, &small),
        &contexts,
        &what,
        &how.with_ablations(0).with_paths(0),
        &device(),
        &NoProgress,
    )
    .unwrap();
    let bare = |card: &FeatureCard| card.ablation.is_none() && card.made_of.is_empty();
    assert!(none.features.iter().all(bare));
}

#[test]
fn turned_coordinates_stay_within_heads() {
    let turned = Directions::<B>::rotated(12, 3, Seed::new(2), &device());
    let atoms: Vec<f64> = turned.atoms().unwrap().into_data().iter::<f64>().collect();
    for (at, atom) in atoms.chunks(12).enumerate() {
        let shares = weight_shares(atom, 3);
        assert!(shares[at % 12 / 4] > 0.999_999, "{at}: {shares:?}");
        let length: f64 = atom.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5);
    }
}

#[test]
fn what_is_not_there_is_said() {
    let model = model("gpt2", Processing::Folded);
    let width = model.config().n_heads * model.config().d_head;
    let small = Small::random(width, 12, width, 7);
    let contexts = repeated(20, None, 8, 2, Seed::new(0));
    let error = |layer, dictionary: &dyn Encoder<B>, what| {
        let how = ExplainSettings::default();
        let found = explain(
            &model,
            (layer, dictionary),
            &contexts,
            &what,
            &how,
            &device(),
            &NoProgress,
        );
        found.unwrap_err().to_string()
    };
    let head = |head| What::Head(HeadId::new(0, head));
    assert!(error(9, &small, head(0)).starts_with("the layer: found 9, expected 0 to "));
    assert!(error(0, &small, head(70)).starts_with("the head: found 70, expected 0 to "));
    assert_eq!(
        error(0, &small, What::Features(vec![12])),
        "the feature: found 12, expected 0 to 11"
    );
    let narrow = Small::random(5, 4, 5, 1);
    assert!(error(0, &narrow, head(0)).starts_with("the dictionary: found vectors of width 5"));
}

/// Words that the reference model knows.
const WORDS: &str = "anchor antler apricot arrow autumn bamboo barley banquet campaign carnival census ceremony concert council \
                     crisis debate dispute drought ember feather maple mosaic tundra armistice auction";

/// Ten words, and three of them in a row once more: what the induction head was planted on.
fn runs(words: &[u32], count: usize, seed: Seed) -> Vec<Vec<u32>> {
    let mut rng = seed.rng();
    let mut context = || {
        let ten: Vec<u32> = draw::sample(&mut rng, words.len(), 10)
            .into_iter()
            .map(|at| words[at])
            .collect();
        let start = draw::index(&mut rng, 7);
        [&[0], ten.as_slice(), &ten[start..start + 3]].concat()
    };
    (0..count).map(|_| context()).collect()
}

/// The planted induction head by a dictionary of its layer, trained on words of which three are said again: its features are active because of the
/// word after the earlier one, and they are the head's by weight more than twice as much as those of a dictionary before training.
/// That the source is right tells nothing: that of features before training is, too.
#[test]
fn the_planted_induction_head() {
    let loaded = crate::reference::loaded();
    let tokenizer = loaded.tokenizer.clone().unwrap();
    let words = tokenizer.encode(WORDS, false).unwrap();
    let contexts = runs(&words, 300, Seed::new(5));
    let folder = tempfile::tempdir().unwrap();
    let settings = RowSettings::new(Site::Z(2)).with_skip_first(Some(true));
    write_rows(
        &loaded,
        &contexts,
        &settings,
        folder.path(),
        &device(),
        &NoProgress,
    )
    .unwrap();
    let rows = Rows::open(folder.path()).unwrap();
    let config = StreamConfig::new(rows.metadata().d_in, 512, Objective::TopK { k: 16 })
        .with_batch_rows(256)
        .with_learning_rate(2e-3)
        .with_dead_after(20);
    let trained = train_rows::<B>(
        &rows,
        &config,
        Course::new(30),
        Seed::new(0),
        &device(),
        &NoProgress,
    )
    .unwrap();
    let encoder = trained.dictionary.encoder::<B>(&device()).unwrap();
    let unseen = runs(&words, 100, Seed::new(6));
    let what = What::Head(HeadId::new(2, 5));
    let how = ExplainSettings::default();
    let found = explain(
        &loaded.model,
        (2, encoder.as_ref()),
        &unseen,
        &what,
        &how,
        &device(),
        &NoProgress,
    )
    .unwrap();
    println!("FVU in training {:.3}", trained.last_epoch.fvu);
    for control in &found.controls {
        println!(
            "{}: weight {:.2}, attribution {:.2}, induction {:.2}",
            control.dictionary,
            control.weight_share,
            control.attribution_share,
            control.sources.induction
        );
    }
    let [own, untrained, ..] = found.controls.as_slice() else {
        panic!("controls")
    };
    // Where the word was there before, the source is the word after it.
    let places = found.features.iter().flat_map(|card| &card.contexts);
    let again: Vec<bool> = places
        .filter(|one| one.position > 10)
        .map(|one| {
            Source::of(&unseen[one.context], one.position, one.source()) == Source::Induction
        })
        .collect();
    let right = again.iter().filter(|right| **right).count();
    println!(
        "{right} of {} places where the word was there before",
        again.len()
    );
    assert!(
        again.len() >= 40 && right * 10 >= again.len() * 9,
        "{right} of {}",
        again.len()
    );
    assert!(
        own.weight_share >= 2.0 * untrained.weight_share,
        "{own:?} {untrained:?}"
    );
    assert!(
        untrained.sources.induction > 0.5,
        "what the control shows as well: {untrained:?}"
    );
}
