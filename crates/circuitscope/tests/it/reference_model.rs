//! What training planted in the reference model, measured from the shipped weights.
//!
//! All measures read the model's output distribution at the last position, on fresh positive prompts
//! (seed 2026, never used in training). *Resampling* a head gives every prompt the head's `z` of
//! another prompt of the same length (rows of one length, shifted by half their number).
//!
//! - accuracy: share of prompts whose most likely word is an answer;
//! - effect: mean total variation distance between the output with something resampled and without;
//! - edge effect (path patching, Wang et al. 2022, arXiv 2211.00593, appendix B): the writer is
//!   resampled while all other heads keep their clean `z` and MLPs are recomputed; what the reader
//!   makes of that is put into an otherwise clean run. A planted edge is measured on the prompts on
//!   which the planted program, told the writer's value of the other prompt, gives another answer
//!   ([`crate::planted_program`]): on the others the edge has nothing to carry.
//!
//! Run with `--nocapture` for the table in `datasets/reference/README.md`.

use std::collections::BTreeSet;

use burn::backend::Autodiff;
use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use circuitscope::eval::Evidence;
use circuitscope::eval::causal::PatchedRuns;
use circuitscope::eval::methods::{MethodSettings, method};
use circuitscope::hooks::{AnyTensor, Capture, Intervene, Intervention, Op, Site};
use circuitscope::model::{Loaded, PaddingSide, Processing, TokenBatch};
use circuitscope::tasks::{
    DOCSTRING, GREATER_THAN, GroundTruth, INDUCTION, IOI, Prompt, TASKS, TaskSpec, generate,
};
use circuitscope::{CaptureSettings, PrepareSettings, known_circuits, load_reference, vocabulary};
use circuitscope::{HeadGrid, HeadId, Metric, NoProgress, Seed};

use crate::planted_program::{Change, answer};
use crate::{judged, on_all_cores};

struct Drawn {
    prompts: Vec<Prompt>,
    batch: TokenBatch<Flex>,
    answers: Vec<BTreeSet<usize>>,
    sources: Vec<usize>,
}

struct Subject {
    loaded: Loaded<Flex>,
    truth: GroundTruth,
    prompts: Vec<Prompt>,
    batch: TokenBatch<Flex>,
    /// For each prompt, the tokens that are right.
    answers: Vec<BTreeSet<usize>>,
    /// For each prompt, where resampled activations come from.
    sources: Vec<usize>,
    /// Clean `z` of each layer.
    clean: Vec<AnyTensor<Flex>>,
    clean_output: Vec<Vec<f32>>,
}

impl Subject {
    fn new(task: &TaskSpec, prompts: usize) -> Self {
        let loaded = load_reference::<Flex>(on_all_cores(Processing::Raw), &FlexDevice).unwrap();
        let truth = known_circuits(&loaded, task, None)
            .unwrap()
            .truths
            .remove(0);
        let Drawn {
            prompts,
            batch,
            answers,
            sources,
        } = draw(&loaded, task, prompts);
        let layers = loaded.model.config().n_layers;
        let mut capture = Capture::new((0..layers).map(Site::Z).chain([Site::Logits]));
        loaded.model.forward(&batch, &mut capture);
        let clean = (0..layers)
            .map(|layer| capture.take(Site::Z(layer)).unwrap())
            .collect();
        let logits = capture.take(Site::Logits).unwrap();
        let clean_output = output(&batch, &logits);
        Self {
            loaded,
            truth,
            prompts,
            batch,
            answers,
            sources,
            clean,
            clean_output,
        }
    }

    fn grid(&self) -> HeadGrid {
        self.loaded.model.config().grid()
    }

    fn run(&self, changes: Vec<Intervention<Flex>>) -> Vec<Vec<f32>> {
        let mut tap = (Intervene::new(changes), Capture::new([Site::Logits]));
        self.loaded.model.forward(&self.batch, &mut tap);
        output(&self.batch, &tap.1.take(Site::Logits).unwrap())
    }

    /// Resamples heads from the clean run (not from the changed one).
    fn resample(&self, heads: impl IntoIterator<Item = HeadId>) -> Vec<Intervention<Flex>> {
        heads
            .into_iter()
            .map(|head| {
                let z = self.clean[head.layer].get::<4>().unwrap();
                let index: Vec<i64> = self.sources.iter().map(|&row| row as i64).collect();
                let index = TensorData::new(index, [self.sources.len()]);
                let other = z.select(0, Tensor::<Flex, 1, Int>::from_data(index, &FlexDevice));
                Intervention::new(Site::Z(head.layer), Op::Replace(other.into()))
                    .with_heads([head.head])
            })
            .collect()
    }

    fn accuracy(&self, output: &[Vec<f32>]) -> f64 {
        let right = output
            .iter()
            .zip(&self.answers)
            .filter(|(p, answers)| answers.contains(&argmax(p)));
        right.count() as f64 / output.len() as f64
    }

    /// Total variation distance of each prompt's output to the clean one.
    fn distances(&self, output: &[Vec<f32>]) -> Vec<f64> {
        let distance = |(p, q): (&Vec<f32>, &Vec<f32>)| {
            let gaps = p.iter().zip(q).map(|(p, q)| f64::from((p - q).abs()));
            gaps.sum::<f64>() / 2.0
        };
        output
            .iter()
            .zip(&self.clean_output)
            .map(distance)
            .collect()
    }

    fn effect(&self, output: &[Vec<f32>]) -> f64 {
        mean(&self.distances(output))
    }

    /// What every later layer makes of a resampled writer, all other heads keeping their clean `z`.
    fn readers(&self, writer: HeadId) -> Vec<(usize, AnyTensor<Flex>)> {
        // See what every later head makes of the changed writer, then put its clean z back.
        let later = writer.layer + 1..self.grid().n_layers;
        let mut seen = Capture::new(later.clone().map(Site::Z));
        let keep = later
            .clone()
            .map(|layer| Intervention::new(Site::Z(layer), Op::Replace(self.clean[layer].clone())));
        let mut tap = (
            Intervene::new(self.resample([writer])),
            &mut seen,
            Intervene::new(keep),
        );
        self.loaded.model.forward(&self.batch, &mut tap);
        later
            .map(|layer| (layer, seen.take(Site::Z(layer)).unwrap()))
            .collect()
    }

    /// What changes at the output, prompt by prompt, when head `reader` puts out its part of `z`.
    fn passed_on(&self, z: &AnyTensor<Flex>, reader: HeadId) -> Vec<f64> {
        let change = Intervention::new(Site::Z(reader.layer), Op::Replace(z.clone()));
        self.distances(&self.run(vec![change.with_heads([reader.head])]))
    }

    /// For each prompt, whether the planted program gives another answer when told what `writer` says
    /// on the prompt that it is resampled from.
    fn carries(&self, writer: HeadId) -> Vec<bool> {
        let groups = self.truth.groups.iter();
        let mut roles = groups.filter_map(|(group, heads)| {
            let place = heads.iter().position(|head| *head == writer)?;
            Some((group.as_str(), place))
        });
        let role = roles.next().unwrap();
        let rows = self.prompts.iter().zip(&self.sources);
        rows.map(|(prompt, &source)| {
            let source = &self.prompts[source];
            let changed = answer(&self.truth.task, prompt, Some(&Change { role, source }));
            changed.is_some_and(|changed| answer(&self.truth.task, prompt, None) != Some(changed))
        })
        .collect()
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn draw(loaded: &Loaded<Flex>, task: &TaskSpec, prompts: usize) -> Drawn {
    let tokenizer = loaded.tokenizer().unwrap();
    let tokens = |text: &str| Ok(tokenizer.encode(text, false)?);
    let vocabulary = vocabulary(loaded);
    let set = generate(task, vocabulary, prompts, Seed::new(2026), Some(&tokens)).unwrap();
    let tokens: Vec<Vec<u32>> = set
        .pairs
        .iter()
        .map(|pair| tokenizer.encode(&pair.positive.text, true).unwrap())
        .collect();
    let token = |word: &String| tokenizer.single_token(word).unwrap() as usize;
    let answers = set.pairs.iter().map(|pair| {
        let words = pair.positive.answers.iter();
        words.map(token).collect()
    });
    let answers = answers.collect();
    let mut sources = vec![0; tokens.len()];
    for length in tokens.iter().map(Vec::len).collect::<BTreeSet<_>>() {
        let rows: Vec<usize> = (0..tokens.len())
            .filter(|&row| tokens[row].len() == length)
            .collect();
        for (at, &row) in rows.iter().enumerate() {
            sources[row] = rows[(at + rows.len() / 2) % rows.len()];
        }
    }
    let batch = TokenBatch::new(&tokens, PaddingSide::Right, &FlexDevice).unwrap();
    Drawn {
        prompts: set.pairs.into_iter().map(|pair| pair.positive).collect(),
        batch,
        answers,
        sources,
    }
}

/// Output distribution at the last real position of each prompt.
fn output(batch: &TokenBatch<Flex>, logits: &AnyTensor<Flex>) -> Vec<Vec<f32>> {
    let probabilities = softmax(logits.get::<3>().unwrap(), 2);
    let [_, pos, vocabulary] = probabilities.dims();
    let values: Vec<f32> = probabilities.into_data().to_vec().unwrap();
    let row = |(row, last): (usize, &usize)| {
        let start = (row * pos + last) * vocabulary;
        values[start..start + vocabulary].to_vec()
    };
    batch.positions().last.iter().enumerate().map(row).collect()
}

fn argmax(p: &[f32]) -> usize {
    p.iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1))
        .unwrap()
        .0
}

/// Everything but the edges, on 250 prompts.
fn check_heads(task: &TaskSpec) {
    let subject = Subject::new(task, 250);
    let grid = subject.grid();
    let members: BTreeSet<HeadId> = subject.truth.circuit.heads().collect();
    let outsiders = || grid.heads().filter(|head| !members.contains(head));

    let accuracy = subject.accuracy(&subject.clean_output);
    let without_outsiders = subject.accuracy(&subject.run(subject.resample(outsiders())));
    let without_circuit = subject.accuracy(&subject.run(subject.resample(members.clone())));
    // Chance: the answers of the prompt whose circuit was borrowed.
    let borrowed: Vec<Vec<f32>> = subject
        .sources
        .iter()
        .map(|&row| subject.clean_output[row].clone())
        .collect();
    let chance = subject.accuracy(&borrowed);
    println!(
        "{task}: accuracy {accuracy:.3}, outsiders resampled {without_outsiders:.3}, \
         circuit resampled {without_circuit:.3}, chance {chance:.3}"
    );
    assert!(accuracy >= 0.97, "{task}: accuracy {accuracy}");
    assert!(
        without_outsiders >= 0.95,
        "{task}: accuracy {without_outsiders} with all outsiders resampled"
    );
    assert!(
        without_circuit <= chance + CHANCE,
        "{task}: accuracy {without_circuit} without the circuit"
    );

    let mut largest = 0.0f64;
    for head in grid.heads() {
        let effect = subject.effect(&subject.run(subject.resample([head])));
        if members.contains(&head) {
            println!("  {head} effect {effect:.3}");
            assert!(effect >= MEMBER, "{task}: {head} has effect {effect}");
        } else {
            largest = largest.max(effect);
            assert!(
                effect <= OUTSIDER,
                "{task}: outsider {head} has effect {effect}"
            );
        }
    }
    println!("  largest effect of an outsider {largest:.3}");
}

/// How far above the accuracy of another prompt's answer "at chance" may lie.
const CHANCE: f64 = 0.1;
/// Smallest effect of a head of the circuit.
const MEMBER: f64 = 0.2;
/// Largest effect of any other head.
const OUTSIDER: f64 = 0.06;

/// The planted edges on those of 250 prompts on which they have something to carry, every other pair
/// on 24 prompts.
fn check_edges(task: &TaskSpec) {
    let subject = Subject::new(task, 250);
    let planted = subject.truth.circuit.head_pairs();
    for &(writer, reader) in &planted {
        let carries = subject.carries(writer);
        let readers = subject.readers(writer);
        let (_, z) = readers
            .iter()
            .find(|(layer, _)| *layer == reader.layer)
            .unwrap();
        let all = subject.passed_on(z, reader);
        let used: Vec<f64> = all
            .iter()
            .zip(&carries)
            .filter(|(_, used)| **used)
            .map(|(x, _)| *x)
            .collect();
        let effect = mean(&used);
        println!(
            "{task}: {writer} -> {reader} {effect:.3} on {} prompts, {:.3} on all",
            used.len(),
            mean(&all)
        );
        assert!(
            used.len() >= 40,
            "{task}: {writer} -> {reader} is used on {}",
            used.len()
        );
        assert!(
            effect >= PLANTED_EDGE,
            "{task}: {writer} -> {reader} has effect {effect} where it is used"
        );
    }

    let subject = Subject::new(task, 24);
    let mut largest = 0.0f64;
    for writer in subject.grid().heads() {
        for (layer, z) in subject.readers(writer) {
            for head in 0..subject.grid().n_heads {
                let reader = HeadId::new(layer, head);
                if planted.contains(&(writer, reader)) {
                    continue;
                }
                let effect = mean(&subject.passed_on(&z, reader));
                largest = largest.max(effect);
                assert!(
                    effect <= OTHER_EDGE,
                    "{task}: {writer} -> {reader} has effect {effect}"
                );
            }
        }
    }
    println!("{task}: largest effect of another pair {largest:.3}");
}

/// Smallest effect of a planted edge where it has something to carry.
const PLANTED_EDGE: f64 = 0.3;
/// Largest effect of any other directed pair of heads.
const OTHER_EDGE: f64 = 0.08;

#[test]
fn ioi() {
    check_heads(&IOI);
    check_edges(&IOI);
}

#[test]
fn greater_than() {
    check_heads(&GREATER_THAN);
    check_edges(&GREATER_THAN);
}

#[test]
fn docstring() {
    check_heads(&DOCSTRING);
    check_edges(&DOCSTRING);
}

#[test]
fn induction() {
    check_heads(&INDUCTION);
    check_edges(&INDUCTION);
}

/// What a decoy claims: that it sees what tells the classes apart, and does not write it into the answer.
///
/// Seen: what it puts out moves where the words do that tell the two prompts of a pair apart. (A probe of the class would
/// ask for more than it claims: in indirect objects no word says which class a prompt is of.) Not written: with its output on the negative prompt in its place, what the
/// model predicts stays, but for a small share of what it loses with everything ablated. Heads of the circuit lose it. (By logits
/// some decoys do write: where the prediction is as sure as here, that changes nothing.)
#[test]
fn decoys_see_the_classes_and_do_not_write_them() {
    for task in TASKS {
        let how = PrepareSettings::default().with_metric(Some(Metric::ProbabilityDifference));
        let judged = judged(task, 60, Seed::new(2026), how, CaptureSettings::default());
        let (evidence, truth) = (&judged.evidence, &judged.truths[0]);
        let scores = |name: &str| {
            let settings = MethodSettings::default();
            let method = method::<Autodiff<Flex>>(name, &settings, &FlexDevice).unwrap();
            method.scores(evidence, Seed::new(0), &NoProgress).unwrap()
        };
        let effects = scores("activation-patching");
        let seen = moved(evidence);
        let causal = evidence.causal("decoys").unwrap();
        let pairs = MethodSettings::default().patching.patch_pairs;
        let runs = PatchedRuns::new(causal, pairs).unwrap();
        let fall = runs.baseline(causal.metric()).unwrap().fall();
        let of = |head: HeadId| {
            let at = truth.circuit.grid.index(head).unwrap();
            (seen[at], effects.nodes[at] / fall.abs())
        };
        let members = truth.circuit.heads().map(|head| of(head).1);
        let largest = members.fold(0.0, f64::max);
        println!("{task}: largest effect of the circuit {largest:.3}");
        assert_eq!(truth.decoys.len(), 4);
        for &decoy in &truth.decoys {
            let (seen, effect) = of(decoy);
            println!("{task}: decoy {decoy}: seen {seen:.3}, effect {effect:.4}");
            assert!(seen >= SEEN, "{task}: {decoy} sees {seen}");
            assert!(
                effect <= WRITTEN * largest,
                "{task}: {decoy} has effect {effect}"
            );
        }
    }
}

/// For each head, how far its mean outputs on the prompts of a pair are apart, in units of their length, mean over
/// pairs.
fn moved(evidence: &Evidence<Flex>) -> Vec<f64> {
    let (positives, negatives): (Vec<usize>, Vec<usize>) = evidence.pairs().iter().copied().unzip();
    let [here, there] = [positives, negatives].map(|rows| evidence.rows(&rows).unwrap());
    let length = |x: Tensor<Flex, 2>| x.powi_scalar(2).sum_dim(1).sqrt();
    let apart = length(here.clone() - there) / length(here);
    let apart: Vec<f32> = apart.into_data().to_vec().unwrap();
    let (heads, pairs) = (evidence.grid().len(), evidence.pairs().len());
    let of_head = |head: usize| apart.iter().skip(head).step_by(heads);
    let mean = |head| of_head(head).map(|apart| f64::from(*apart)).sum::<f64>() / pairs as f64;
    (0..heads).map(mean).collect()
}

/// Least that the output of a decoy moves, in units of its length: one word of twenty.
const SEEN: f64 = 0.02;
/// Largest effect of a decoy, as a share of the largest in the circuit.
const WRITTEN: f64 = 0.125;
