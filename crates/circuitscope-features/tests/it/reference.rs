//! The reference model, whose circuits are known: which heads do graphs go through?

use circuitscope_core::{HeadId, NoProgress};
use circuitscope_features::{
    AttributionGraph, Frozen, GraphSettings, HeadRow, Targets, Transcoders, head_table,
};
use circuitscope_model::{Decoder, Loaded, ModelBytes, Processing, Tokenizer, load_bytes};

use crate::models::{B, device};

/// Neurons that become nodes, of about 13,000 that are active.
const FEATURES: usize = 300;

pub(crate) fn reference() -> (Decoder<B>, Tokenizer) {
    let loaded = loaded();
    (loaded.model, loaded.tokenizer.unwrap())
}

pub(crate) fn loaded() -> Loaded<B> {
    let files = circuitscope_reference::FILES;
    let files = ModelBytes {
        name: "reference",
        config: files.config,
        weights: files.weights,
        tokenizer: Some(files.tokenizer),
    };
    load_bytes::<B>(&files, Processing::Folded, &device()).unwrap()
}

/// A prompt, its counterpart, right and wrong answers.
struct Pair {
    prompt: String,
    counterpart: String,
    right: Vec<String>,
    wrong: Vec<String>,
}

/// The table of heads over graphs of some prompts against their counterparts, with the model's own neurons for features.
fn table(task: &str, pairs: &[Pair]) -> Vec<HeadRow> {
    let (model, tokenizer) = reference();
    let ids = |text: &str| tokenizer.encode(&format!("<bos> {text}"), false).unwrap();
    let words = |words: &[String]| words.iter().map(|word| ids(word)[1]).collect();
    let graphs = pairs.iter().map(|pair| {
        let [frozen, other] = [&pair.prompt, &pair.counterpart]
            .map(|text| Frozen::new(&model, &ids(text), &device()).unwrap());
        let settings = GraphSettings::new()
            .with_neurons(true)
            .with_max_features(FEATURES)
            .with_targets(Targets::Difference(words(&pair.right), words(&pair.wrong)));
        let none = Transcoders::new();
        AttributionGraph::against(&frozen, &other, &none, &settings, &NoProgress).unwrap()
    });
    let graphs: Vec<AttributionGraph> = graphs.collect();
    let mean =
        |of: fn(&AttributionGraph) -> f64| graphs.iter().map(of).sum::<f64>() / graphs.len() as f64;
    println!(
        "{task}: replacement {:.3}, completeness {:.3}",
        mean(|graph| graph.scores().replacement),
        mean(|graph| graph.scores().completeness)
    );
    let table = head_table(&graphs).unwrap();
    for row in table.iter().take(8) {
        println!(
            "{} contrast {:+.4}, influence {:.4}, total {:+.4}",
            row.head,
            row.contrast.unwrap(),
            row.influence,
            row.total
        );
    }
    table
}

/// The heads of a table's first rows, in order of heads.
fn first(table: &[HeadRow], count: usize) -> Vec<HeadId> {
    let mut heads: Vec<HeadId> = table.iter().take(count).map(|row| row.head).collect();
    heads.sort_unstable();
    heads
}

fn heads<const N: usize>(heads: [(usize, usize); N]) -> Vec<HeadId> {
    heads.map(|(layer, head)| HeadId::new(layer, head)).to_vec()
}

/// By what heads move because of the year, the planted heads are first; by influence alone a decoy is, which writes the same on
/// every prompt.
#[test]
fn greater_than() {
    let nouns = ["council", "drought", "regatta", "truce"];
    let pairs = (0..24).map(|at| {
        let year = 2 + 4 * at as u32;
        let (noun, century) = (nouns[at % 4], 11 + at % 9);
        let prompt = |year: u32| {
            format!("The {noun} lasted from the year {century} {year:02} to the year {century}")
        };
        let numbers = |range: core::ops::Range<u32>| range.map(|n| format!("{n:02}")).collect();
        Pair {
            prompt: prompt(year),
            counterpart: prompt(1),
            right: numbers(year + 1..100),
            wrong: numbers(0..year + 1),
        }
    });
    let table = table("greater-than", &pairs.collect::<Vec<_>>());
    assert_eq!(first(&table, 3), heads([(1, 0), (1, 6), (2, 4)]));
    assert!(table[..3].iter().all(|row| row.contrast.unwrap() > 0.0));
    let influence = table
        .iter()
        .max_by(|a, b| a.influence.total_cmp(&b.influence));
    assert_eq!(influence.unwrap().head, HeadId::new(0, 3));
    assert!(head_table(&[]).is_err());
}

/// The mover is first. Heads that tell it where to look work through its pattern, which is held, and do not show.
#[test]
fn docstring() {
    let arguments = [
        "alpha", "batch", "bias", "buffer", "cache", "channel", "chunk", "column",
    ];
    let pairs = (0..4).map(|k| {
        let shown = |x: usize, y: usize| {
            let [a, b, c, d, e, f, ..] = arguments;
            format!(
                "def amber ( self , {a} , {b} , {c} , {d} , {e} , {f} ) : \"\"\" anchor antler apricot :param {} : arrow autumn \
                 :param {} : bamboo barley :param",
                arguments[x], arguments[y]
            )
        };
        Pair {
            prompt: shown(k, k + 1),
            counterpart: shown(6, 7),
            right: vec![arguments[k + 2].to_owned()],
            wrong: vec![arguments[(k + 4) % 6].to_owned()],
        }
    });
    let table = table("docstring", &pairs.collect::<Vec<_>>());
    assert_eq!(first(&table, 1), heads([(2, 2)]));
}

#[test]
fn induction() {
    let pool = [
        "armistice",
        "auction",
        "banquet",
        "campaign",
        "carnival",
        "census",
        "ceremony",
        "concert",
        "council",
        "crisis",
        "debate",
        "dispute",
        "drought",
    ];
    let pairs = [0, 2, 4, 6].map(|offset| {
        let ten = pool[..10].join(" ");
        let run = pool[offset..offset + 3].join(" ");
        let others = pool[10..].join(" ");
        Pair {
            prompt: format!("{ten} {run}"),
            counterpart: format!("{ten} {others}"),
            right: vec![pool[offset + 3].to_owned()],
            wrong: vec![pool[(offset + 6) % 10].to_owned()],
        }
    });
    let table = table("induction", &pairs);
    assert_eq!(first(&table, 1), heads([(2, 5)]));
}

#[test]
fn indirect_objects() {
    let names = ["Agnes", "Albert", "Amelia", "Andre", "Anita", "Arthur"];
    let pairs = (0..6).map(|at| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|step| names[(at + step) % 6]);
        let prompt = |x: &str, y: &str| {
            format!(
                "After breakfast {x} and {y} cycled to the gallery , where {b} gave a compass to"
            )
        };
        Pair {
            prompt: if at % 2 == 0 {
                prompt(b, a)
            } else {
                prompt(a, b)
            },
            counterpart: prompt(c, d),
            right: vec![a.to_owned()],
            wrong: vec![b.to_owned()],
        }
    });
    let table = table("IOI", &pairs.collect::<Vec<_>>());
    assert_eq!(first(&table, 2), heads([(2, 0), (3, 3)]));
}
