//! What the features of a dictionary on heads' `z` say of a head: which are its own, where they are active, from which tokens, and what
//! dictionaries that learnt nothing say of it.

mod ablate;
mod cards;
mod encoded;

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::backend::Backend;
use circuitscope_core::{HeadId, Progress, Seed};
use circuitscope_model::Decoder;
use circuitscope_sae::Encoder;
use derive_setters::Setters;

pub use ablate::{AblationEffect, FeatureAblation};
pub use cards::{Explained, FeatureCard, FeatureContext, HeadControl, MadeOf, SourceShares};
use encoded::{Encoded, Found, captured};

use crate::splice::{check_widths, numbers};
use crate::{
    Directions, Error, Frozen, PathSettings, Paths, Result, Source, Transcoders, weight_shares,
};

/// How features are explained.
#[derive(Debug, Clone, PartialEq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct ExplainSettings {
    /// Features of a head that are looked at. Default 10.
    pub features: usize,
    /// Contexts in which a feature is strongest. Default 8.
    pub contexts: usize,
    /// A feature that was active fewer times is passed over. Default 5.
    pub least_firings: usize,
    /// Tokens that a feature raises and lowers. Default 8.
    pub tokens: usize,
    /// Places at which a feature is taken away, to see what the model says without it; 0 for none. Default 3.
    pub ablations: usize,
    /// Ends of paths that are listed of what a feature is made of; 0 for none. Default 4.
    pub paths: usize,
    /// Whether the first position of a context is passed over. Default true.
    pub skip_first: bool,
    /// Padded tokens of a batch. Default 1,024.
    pub batch_tokens: usize,
    /// Of the controls.
    pub seed: Seed,
}

impl Default for ExplainSettings {
    fn default() -> Self {
        Self {
            features: 10,
            contexts: 8,
            least_firings: 5,
            tokens: 8,
            ablations: 3,
            paths: 4,
            skip_first: true,
            batch_tokens: 1 << 10,
            seed: Seed::new(0),
        }
    }
}

/// Explains features of a dictionary on the `z` of a layer, heads side by side: those that are most a head's by what they write, or
/// those that are named.
///
/// # Errors
/// A dictionary that is not as wide as `z` or that normalises its input by its own length; a head, layer or feature that is not there;
/// contexts that do not fit the model; [`Error::Cancelled`].
pub fn explain<B: Backend>(
    model: &Decoder<B>,
    (layer, dictionary): (usize, &dyn Encoder<B>),
    contexts: &[Vec<u32>],
    what: &What,
    how: &ExplainSettings,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Explained> {
    let config = model.config();
    let heads = config.n_heads;
    let d_in = heads * config.d_head;
    check_widths(dictionary, [d_in, d_in])?;
    check(layer, config.n_layers, "the layer")?;
    match what {
        What::Head(head) => check(head.head, heads, "the head")?,
        What::Features(features) => features
            .iter()
            .try_for_each(|feature| check(*feature, dictionary.n_codes(), "the feature"))?,
    }
    config.check_tokens(contexts)?;
    let z = captured(model, layer, contexts, how, device, progress)?;
    let own = Encoded::of(dictionary, &z, device)?;
    let mut looked: Vec<(String, &dyn Encoder<B>, Vec<Found>)> = Vec::new();
    let features = match what {
        What::Head(head) => own.of_head(head.head, heads, how),
        What::Features(features) => features.clone(),
    };
    looked.push((
        "this dictionary".to_owned(),
        dictionary,
        own.strongest(&features, how.contexts),
    ));
    let l0 = own.active() / z.places.len().max(1) as f64;
    let controls: [(&str, Directions<B>); 3] = [
        (
            "before training",
            Directions::untrained(
                d_in,
                dictionary.n_codes(),
                l0.round() as usize,
                how.seed,
                device,
            ),
        ),
        ("coordinates of z", Directions::basis(d_in, device)),
        (
            "coordinates, turned in each head",
            Directions::rotated(d_in, heads, how.seed, device),
        ),
    ];
    if let What::Head(head) = what {
        for (name, control) in &controls {
            let encoded = Encoded::of(control, &z, device)?;
            let features = encoded.of_head(head.head, heads, how);
            looked.push((
                (*name).to_owned(),
                control,
                encoded.strongest(&features, how.contexts),
            ));
        }
    }
    let attributed = attribute(
        model,
        (layer, how.paths),
        contexts,
        &looked,
        what,
        device,
        progress,
    )?;
    let mut ablated = ablate::ablations(
        model,
        (layer, dictionary),
        contexts,
        (&own, &looked[0].2),
        how,
        device,
        progress,
    )?
    .into_iter();
    let mut result = Explained {
        layer,
        head: match what {
            What::Head(head) => Some(*head),
            What::Features(_) => None,
        },
        positions: z.places.len(),
        features: Vec::new(),
        controls: Vec::new(),
        norm_share: 0.0,
    };
    for (of, ((name, encoder, found), places)) in looked.iter().zip(attributed).enumerate() {
        let atoms = encoder
            .atoms()
            .map(numbers)
            .transpose()?
            .unwrap_or_default();
        let share = |found: &Found| weight_shares(&atoms[found.feature * d_in..][..d_in], heads);
        let shares: Vec<Vec<f64>> = found.iter().map(share).collect();
        if let What::Head(head) = what {
            let all: Vec<&FeatureContext> = places.iter().flatten().map(|one| &one.place).collect();
            let kind = |one: &&FeatureContext| {
                Source::of(&contexts[one.context], one.position, one.source())
            };
            result.controls.push(HeadControl {
                dictionary: name.clone(),
                features: encoder.n_codes(),
                looked_at: found.len(),
                weight_share: mean(shares.iter().map(|shares| shares[head.head])),
                attribution_share: mean(all.iter().map(|one| one.share(head.head))),
                sources: SourceShares::of(&all.iter().map(kind).collect::<Vec<_>>()),
            });
        }
        if of > 0 {
            continue;
        }
        for ((found, weight_shares), mut places) in found.iter().zip(shares).zip(places) {
            let first = places.first_mut();
            let (logits, made_of) = first.map_or_else(Default::default, |first| {
                let made_of = core::mem::take(&mut first.made_of);
                (core::mem::take(&mut first.logits), made_of)
            });
            let [raises, lowers] = extremes(&logits, how.tokens);
            result.features.push(FeatureCard {
                feature: found.feature,
                density: found.density,
                weight_shares,
                raises,
                lowers,
                contexts: places.into_iter().map(|one| one.place).collect(),
                made_of,
                ablation: ablated.next().flatten(),
            });
        }
    }
    if let What::Head(head) = what {
        result.norm_share = z.norm_share(head.head, heads);
    }
    Ok(result)
}

/// 0 of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for value in values {
        sum += value;
        count += 1;
    }
    sum / count.max(1) as f64
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The features that are most this head's.
    Head(HeadId),
    /// These features.
    Features(Vec<usize>),
}

fn check(found: usize, count: usize, what: &str) -> Result<()> {
    if found < count {
        return Ok(());
    }
    Err(Error::Unfit {
        what: what.to_owned(),
        found: found.to_string(),
        expected: format!("0 to {}", count.saturating_sub(1)),
    })
}

/// A place, and of the strongest one of the explained dictionary what the feature does to logits there and is made of.
struct Attributed {
    place: FeatureContext,
    logits: Vec<f64>,
    made_of: Vec<MadeOf>,
}

/// Nodes of a path that are followed.
const FOLLOWED: usize = 40;

/// Takes features apart where they are strongest, context by context: for each dictionary and feature, in order.
fn attribute<B: Backend>(
    model: &Decoder<B>,
    (layer, ends): (usize, usize),
    contexts: &[Vec<u32>],
    looked: &[(String, &dyn Encoder<B>, Vec<Found>)],
    what: &What,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Vec<Vec<Vec<Attributed>>>> {
    let mut wanted: BTreeMap<usize, Vec<[usize; 3]>> = BTreeMap::new();
    for (of, (_, _, found)) in looked.iter().enumerate() {
        for (at, found) in found.iter().enumerate() {
            for (rank, (context, _, _)) in found.strongest.iter().enumerate() {
                wanted.entry(*context).or_default().push([of, at, rank]);
            }
        }
    }
    let empty = |found: &Found| found.strongest.iter().map(|_| None).collect();
    let mut all: Vec<Vec<Vec<Option<Attributed>>>> = looked
        .iter()
        .map(|(_, _, found)| found.iter().map(empty).collect())
        .collect();
    let stage = progress.stage("attributing", wanted.len() as u64);
    for (context, places) in wanted {
        if progress.cancelled() {
            drop(stage);
            return Err(Error::Cancelled);
        }
        let frozen = Frozen::new(model, &contexts[context], device)?;
        for [of, at, rank] in places {
            let (_, encoder, found) = &looked[of];
            let (_, position, activation) = found[at].strongest[rank];
            let feature = found[at].feature;
            let taken = frozen.attribute_z(layer, *encoder, feature, position)?;
            let pos = contexts[context].len();
            let head = match what {
                What::Head(head) => *head,
                What::Features(_) => taken.largest().0,
            };
            let of_head: Range<usize> = head.head * pos..head.head * pos + position + 1;
            let (mut logits, mut made_of) = (Vec::new(), Vec::new());
            if of == 0 && rank == 0 {
                if let Some(atoms) = encoder.atoms() {
                    let atom = atoms.slice_dim(0, feature..=feature).squeeze_dim::<1>(0);
                    logits = numbers(frozen.z_atom_logits(layer, atom, position)?.sum_dim(0))?;
                }
                if ends > 0 {
                    let paths = Paths::new(&frozen, &Transcoders::new())?;
                    let settings = PathSettings::default().with_expansions(FOLLOWED);
                    let tree = paths.of_z_feature(layer, *encoder, feature, position, &settings)?;
                    made_of = MadeOf::largest(&tree, ends);
                }
            }
            let place = FeatureContext {
                context,
                position,
                activation: f64::from(activation),
                by_source: taken.by_source[of_head].to_vec(),
                by_head: taken.by_head,
                bias: taken.bias,
                head,
            };
            all[of][at][rank] = Some(Attributed {
                place,
                logits,
                made_of,
            });
        }
        progress.advance(1);
    }
    drop(stage);
    let whole = |of: Vec<Vec<Option<Attributed>>>| {
        of.into_iter()
            .map(|ranks| ranks.into_iter().flatten().collect())
            .collect()
    };
    Ok(all.into_iter().map(whole).collect())
}

/// The largest and the smallest values, with their places.
fn extremes(values: &[f64], count: usize) -> [Vec<(u32, f64)>; 2] {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    let pair = |&at: &usize| (at as u32, values[at]);
    let lowest = order.iter().rev().take(count).map(pair).collect();
    [order.iter().take(count).map(pair).collect(), lowest]
}
