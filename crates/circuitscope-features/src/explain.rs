//! What the features of a dictionary on heads' `z` say of a head: which are its own, where they are active, from which tokens, and what
//! dictionaries that learnt nothing say of it.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{HeadId, Progress, Seed};
use circuitscope_hooks::{Reduce, Site};
use circuitscope_model::{Decoder, PaddedRows, PaddingSide, capture_sites};
use circuitscope_sae::Encoder;
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::splice::{check_widths, numbers};
use crate::{Directions, Error, Frozen, Result, Source, weight_shares};

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
            skip_first: true,
            batch_tokens: 1 << 10,
            seed: Seed::new(0),
        }
    }
}

/// A feature, as far as contexts tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FeatureCard {
    /// Its number.
    pub feature: usize,
    /// Share of positions on which it is active.
    pub density: f64,
    /// Share of each head in what it writes, by weight.
    pub weight_shares: Vec<f64>,
    /// Tokens that it raises most, with what an activation of 1 adds to their logits directly where it is strongest.
    pub raises: Vec<(u32, f64)>,
    /// Tokens that it lowers most.
    pub lowers: Vec<(u32, f64)>,
    /// Where it is strongest, the strongest first.
    pub contexts: Vec<FeatureContext>,
}

impl FeatureCard {
    /// The head that has the largest share in what it writes, and that share; the first on ties.
    #[must_use]
    pub fn largest_share(&self) -> (usize, f64) {
        let mut best = (0, 0.0);
        for (head, share) in self.weight_shares.iter().enumerate() {
            if *share > best.1 {
                best = (head, *share);
            }
        }
        best
    }
}

/// A position at which a feature is strong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FeatureContext {
    /// Which context.
    pub context: usize,
    /// The position in it.
    pub position: usize,
    /// Its activation there.
    pub activation: f64,
    /// What each head adds to its pre-activation.
    pub by_head: Vec<f64>,
    /// What is added beside heads.
    pub bias: f64,
    /// What one head adds by source: that which was asked about, or the one that adds most.
    pub head: HeadId,
    /// One value for each position up to this one.
    pub by_source: Vec<f64>,
}

impl FeatureContext {
    /// The source that adds most, the first on ties.
    #[must_use]
    pub fn source(&self) -> usize {
        let mut best = 0;
        for (at, value) in self.by_source.iter().enumerate() {
            if *value > self.by_source[best] {
                best = at;
            }
        }
        best
    }

    /// Share of a head in what heads add: positive parts over their sum, 0 where none is.
    fn share(&self, head: usize) -> f64 {
        let all: f64 = self.by_head.iter().map(|x| x.max(0.0)).sum();
        if all > 0.0 {
            self.by_head[head].max(0.0) / all
        } else {
            0.0
        }
    }
}

/// Shares of contexts by where their strongest source stands.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SourceShares {
    /// After an earlier token that is the same.
    pub induction: f64,
    /// At an earlier token that is the same.
    pub duplicate: f64,
    /// At the token before.
    pub previous: f64,
    /// At the first token.
    pub first: f64,
    /// At the token itself.
    pub current: f64,
    /// Anywhere else.
    pub other: f64,
}

impl SourceShares {
    fn of(sources: &[Source]) -> Self {
        let share = |of: Source| {
            let found = sources.iter().filter(|source| **source == of).count();
            found as f64 / sources.len().max(1) as f64
        };
        Self {
            induction: share(Source::Induction),
            duplicate: share(Source::Duplicate),
            previous: share(Source::Previous),
            first: share(Source::First),
            current: share(Source::Current),
            other: share(Source::Other),
        }
    }
}

/// What a dictionary says of a head, in figures that any dictionary has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HeadControl {
    /// Which dictionary: the one that is explained, or a control.
    pub dictionary: String,
    /// Its features.
    pub features: usize,
    /// Those that are looked at: the head's own by weight.
    pub looked_at: usize,
    /// Mean share of the head in what they write. Chance is one over the number of heads.
    pub weight_share: f64,
    /// Mean share of the head in what makes them, where they are strongest.
    pub attribution_share: f64,
    /// Where the head's strongest source stands there.
    pub sources: SourceShares,
}

/// Features, and what controls say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Explained {
    /// The layer whose `z` the dictionary reads.
    pub layer: usize,
    /// The head that was asked about, if one was.
    pub head: Option<HeadId>,
    /// Positions that were encoded.
    pub positions: usize,
    /// The features.
    pub features: Vec<FeatureCard>,
    /// The head by the dictionary and by controls: a dictionary before training, the coordinates of `z`, these turned at
    /// random inside each head. Empty where no head was asked about.
    pub controls: Vec<HeadControl>,
    /// Mean share of the head in the length of `z`, over all positions; 0 where no head was asked about.
    pub norm_share: f64,
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
    let attributed = attribute(model, layer, contexts, &looked, what, device, progress)?;
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
            let all: Vec<&FeatureContext> = places.iter().flatten().map(|(one, _)| one).collect();
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
        for ((found, weight_shares), places) in found.iter().zip(shares).zip(places) {
            let logits = places.first().map(|(_, logits)| logits.as_slice());
            let (raises, lowers) = extremes(logits.unwrap_or_default(), how.tokens);
            result.features.push(FeatureCard {
                feature: found.feature,
                density: found.density,
                weight_shares,
                raises,
                lowers,
                contexts: places.into_iter().map(|(one, _)| one).collect(),
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

/// `z` of all contexts, and where each row is of.
struct Seen {
    d: usize,
    rows: Vec<f32>,
    /// Context and position.
    places: Vec<(usize, usize)>,
}

impl Seen {
    fn norm_share(&self, head: usize, heads: usize) -> f64 {
        let width = self.d / heads.max(1);
        let norm = |part: &[f32]| {
            part.iter()
                .map(|x| f64::from(*x).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        let share = |row: &[f32]| {
            let norms: Vec<f64> = row.chunks(width).map(norm).collect();
            norms[head] / norms.iter().sum::<f64>().max(f64::MIN_POSITIVE)
        };
        let shares: f64 = self.rows.chunks(self.d).map(share).sum();
        shares / self.places.len().max(1) as f64
    }
}

fn captured<B: Backend>(
    model: &Decoder<B>,
    layer: usize,
    contexts: &[Vec<u32>],
    how: &ExplainSettings,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Seen> {
    let rows = PaddedRows::new(contexts.to_vec(), PaddingSide::Right)?;
    let site = Site::Z(layer);
    let seen = capture_sites(
        model,
        &rows,
        &[site],
        Reduce::None,
        how.batch_tokens,
        device,
        progress,
    );
    let mut seen = match seen {
        Err(circuitscope_model::Error::Cancelled) => return Err(Error::Cancelled),
        seen => seen?,
    };
    let values = seen.remove(&site).unwrap_or_default();
    let d: usize = values.shape[2..].iter().product();
    let pos = values.shape[1];
    let (mut kept, mut places) = (Vec::new(), Vec::new());
    for (context, tokens) in contexts.iter().enumerate() {
        for position in usize::from(how.skip_first)..tokens.len() {
            kept.extend_from_slice(&values.data[(context * pos + position) * d..][..d]);
            places.push((context, position));
        }
    }
    Ok(Seen {
        d,
        rows: kept,
        places,
    })
}

/// Rows that are encoded at a time.
const TILE: usize = 2048;

/// Which features are active where.
struct Encoded<'z> {
    z: &'z Seen,
    /// For each feature the rows at which it is active, and how much.
    active: Vec<Vec<(usize, f32)>>,
    /// `[features, d]`
    atoms: Vec<f64>,
}

/// A feature, and the rows where it is strongest.
struct Found {
    feature: usize,
    density: f64,
    /// Context, position, activation.
    strongest: Vec<(usize, usize, f32)>,
}

impl<'z> Encoded<'z> {
    fn of<B: Backend>(
        dictionary: &dyn Encoder<B>,
        z: &'z Seen,
        device: &B::Device,
    ) -> Result<Self> {
        let n = dictionary.n_codes();
        let mut active: Vec<Vec<(usize, f32)>> = vec![Vec::new(); n];
        for (tile, rows) in z.rows.chunks(TILE * z.d).enumerate() {
            let count = rows.len() / z.d;
            let x = Tensor::<B, 2>::from_data(TensorData::new(rows.to_vec(), [count, z.d]), device);
            let features = dictionary.encode(x).into_data();
            for (at, value) in features.iter::<f32>().enumerate() {
                if value > 0.0 {
                    active[at % n].push((tile * TILE + at / n, value));
                }
            }
        }
        let atoms = dictionary.atoms().map(numbers).transpose()?;
        Ok(Self {
            z,
            active,
            atoms: atoms.unwrap_or_default(),
        })
    }

    fn active(&self) -> f64 {
        self.active.iter().map(Vec::len).sum::<usize>() as f64
    }

    /// Features that are most a head's by what they write, of those that are active often enough; the stronger first on ties.
    fn of_head(&self, head: usize, heads: usize, how: &ExplainSettings) -> Vec<usize> {
        let d = self.z.d;
        let strength = |feature: usize| {
            self.active[feature]
                .iter()
                .map(|(_, value)| *value)
                .fold(0.0, f32::max)
        };
        let often = (0..self.active.len())
            .filter(|feature| self.active[*feature].len() >= how.least_firings);
        let mut ranked: Vec<(f64, f32, usize)> = often
            .map(|feature| {
                let share = weight_shares(&self.atoms[feature * d..][..d], heads)[head];
                (share, strength(feature), feature)
            })
            .collect();
        ranked.sort_by(|a, b| {
            b.0.total_cmp(&a.0)
                .then(b.1.total_cmp(&a.1))
                .then(a.2.cmp(&b.2))
        });
        ranked
            .into_iter()
            .take(how.features)
            .map(|(_, _, feature)| feature)
            .collect()
    }

    fn strongest(&self, features: &[usize], count: usize) -> Vec<Found> {
        let found = features.iter().map(|&feature| {
            let mut rows = self.active[feature].clone();
            rows.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let place = |(row, value): &(usize, f32)| {
                let (context, position) = self.z.places[*row];
                (context, position, *value)
            };
            Found {
                feature,
                density: rows.len() as f64 / self.z.places.len().max(1) as f64,
                strongest: rows.iter().take(count).map(place).collect(),
            }
        });
        found.collect()
    }
}

/// A context with what the feature does to logits there.
type Attributed = (FeatureContext, Vec<f64>);

/// Takes features apart where they are strongest, context by context: for each dictionary and feature, in order.
fn attribute<B: Backend>(
    model: &Decoder<B>,
    layer: usize,
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
    let empty = |found: &Found| vec![None; found.strongest.len()];
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
            // Of the explained dictionary, where the feature is strongest.
            let logits = match encoder.atoms() {
                Some(atoms) if of == 0 && rank == 0 => {
                    let atom = atoms.slice_dim(0, feature..=feature).squeeze_dim::<1>(0);
                    numbers(frozen.z_atom_logits(layer, atom, position)?.sum_dim(0))?
                }
                _ => Vec::new(),
            };
            let one = FeatureContext {
                context,
                position,
                activation: f64::from(activation),
                by_source: taken.by_source[of_head].to_vec(),
                by_head: taken.by_head,
                bias: taken.bias,
                head,
            };
            all[of][at][rank] = Some((one, logits));
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
fn extremes(values: &[f64], count: usize) -> (Vec<(u32, f64)>, Vec<(u32, f64)>) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    let pair = |&at: &usize| (at as u32, values[at]);
    let lowest = order.iter().rev().take(count).map(pair).collect();
    (order.iter().take(count).map(pair).collect(), lowest)
}
