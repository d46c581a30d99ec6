//! Roles of heads of the reference model, against what training planted: patterns name decoys, too, and patterns times effects do
//! not.

use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};
use circuitscope::eval::CardSettings;
use circuitscope::measures::cards::{Cards, Pattern};
use circuitscope::model::Processing;
use circuitscope::tasks::{DOCSTRING, GREATER_THAN, INDUCTION, IOI, TaskSpec};
use circuitscope::{
    CaptureSettings, PrepareSettings, cards, causal_evidence, known_circuits, load_reference,
    prepare_task,
};
use circuitscope::{HeadId, NoProgress, Seed};

use crate::on_all_cores;

/// Heads that copy what tells prompts apart, and on which nothing depends (`datasets/reference/README.md`).
const DECOYS: [&str; 4] = ["L0H3", "L1H4", "L2H6", "L3H1"];

/// Cards of the planted heads and the decoys on fresh prompts; every other head is measured beside them.
fn read(task: &TaskSpec) -> Cards {
    let loaded = load_reference::<Flex>(on_all_cores(Processing::Folded), &FlexDevice).unwrap();
    let truths = known_circuits(&loaded, task, None).unwrap().truths;
    let planted = truths[0].circuit.heads();
    let decoys = DECOYS.map(|head| head.parse::<HeadId>().unwrap());
    let heads: Vec<(HeadId, usize)> = planted.chain(decoys).zip(1..).collect();
    let how = PrepareSettings::default();
    let prompts = prepare_task(&loaded, task, 50, Seed::new(2026), how).unwrap();
    let causal = causal_evidence(&loaded, &prompts, CaptureSettings::default(), &FlexDevice);
    let tokenizer = loaded.tokenizer().unwrap();
    let parts = prompts.parts(tokenizer).unwrap();
    let found = cards::<Autodiff<Flex>>(
        &causal.unwrap(),
        (&parts, tokenizer),
        None,
        &heads,
        &CardSettings::default().with_patched_others(32),
        (Seed::new(0), &FlexDevice),
        &NoProgress,
    );
    found.unwrap()
}

fn heads(names: &[&str]) -> Vec<HeadId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// Heads of which it is said that they do this. What is said besides of heads that look for the same token is left aside where it is
/// a part of the prompt: they read both names alike (12 % each), and which is more hangs on rounding.
fn roles(cards: &Cards, pattern: &Pattern) -> Vec<HeadId> {
    let with = cards.heads.iter().filter(|card| {
        let roles = card.main_roles();
        let says = |pattern: &Pattern| roles.iter().any(|role| role.pattern == *pattern);
        let aside = matches!(pattern, Pattern::Slot(_)) && says(&Pattern::DuplicateToken);
        says(pattern) && !aside
    });
    let mut with: Vec<HeadId> = with.map(|card| card.head).collect();
    with.sort_unstable();
    with
}

/// The heads whose attention alone follows a pattern most.
fn alone(cards: &Cards, pattern: &Pattern, count: usize) -> Vec<HeadId> {
    let mut of = cards.patterns.iter().filter(|of| of.pattern == *pattern);
    let attention = &of.next().unwrap().attention;
    let mut order: Vec<usize> = (0..attention.len()).collect();
    order.sort_by(|&a, &b| attention[b].total_cmp(&attention[a]));
    let most = order.into_iter().take(count);
    most.map(|at| HeadId::new(at / 8, at % 8)).collect()
}

fn slot(name: &str) -> Pattern {
    Pattern::Slot(name.to_owned())
}

type Planted = (&'static TaskSpec, Vec<(Pattern, &'static [&'static str])>);

/// No decoy has a role in any task; the planted heads have theirs.
#[test]
fn roles_are_those_that_were_planted() {
    let decoys = heads(&DECOYS);
    let planted: [Planted; 4] = [
        (
            &IOI,
            vec![
                (Pattern::DuplicateToken, &["L0H1", "L0H6"]),
                (slot("S2"), &["L1H2", "L1H5"]),
                (slot("IO"), &["L2H0", "L3H3"]),
            ],
        ),
        (
            &GREATER_THAN,
            vec![(slot("YEAR"), &["L1H0", "L1H6", "L2H4"])],
        ),
        (
            &DOCSTRING,
            vec![
                (slot("B_def"), &["L0H4", "L0H7"]),
                (slot("B_doc"), &["L1H7"]),
                (slot("C_def"), &["L2H2"]),
            ],
        ),
        (
            &INDUCTION,
            vec![
                (Pattern::PreviousToken, &["L0H2"]),
                (Pattern::Induction(1), &["L2H5"]),
            ],
        ),
    ];
    for (task, expected) in planted {
        let cards = read(task);
        for (pattern, names) in expected {
            let found = roles(&cards, &pattern);
            assert_eq!(found, heads(names), "{}: {pattern}", task.name);
        }
        for of in &cards.patterns {
            let named = of.roles.iter().filter(|head| decoys.contains(head));
            assert_eq!(named.count(), 0, "{}: {}", task.name, of.pattern);
        }
        for card in &cards.heads {
            let is_decoy = decoys.contains(&card.head);
            assert_eq!(
                card.main_roles().is_empty(),
                is_decoy,
                "{} {}",
                task.name,
                card.head
            );
        }
    }
}

/// A table of patterns alone has decoys among its first.
#[test]
fn patterns_alone_name_decoys_too() {
    let cards = read(&INDUCTION);
    let first = alone(&cards, &Pattern::PreviousToken, 2);
    assert_eq!(first, heads(&["L0H3", "L0H2"]));
    let cards = read(&IOI);
    let mut first = alone(&cards, &slot("S2"), 4);
    first.sort_unstable();
    assert_eq!(first, heads(&["L1H2", "L1H4", "L1H5", "L2H6"]));
}

/// Heads that were planted to carry a third of the year each tell which one it is, and nothing of the noun.
#[test]
fn heads_carry_what_they_were_planted_to_carry() {
    let cards = read(&GREATER_THAN);
    let table = cards.variables.unwrap();
    let row = |name: &str| {
        let place = table.variables.iter().position(|(of, _)| of == name);
        &table.cells[place.unwrap()]
    };
    for (head, planted) in table
        .heads
        .iter()
        .zip([true, true, true, false, false, false, false])
    {
        let at = table.heads.iter().position(|other| other == head).unwrap();
        let (tens, noun) = (row("tens")[at], row("noun")[at]);
        if planted {
            assert!(
                tens.information > tens.null && tens.held_out > 0.2,
                "{head}: {tens:?}"
            );
            assert!(noun.held_out < 0.1, "{head}: {noun:?}");
        }
    }
}

/// Names that movers promote are those that they attend to.
#[test]
fn movers_copy() {
    let cards = read(&IOI);
    for name in ["L2H0", "L3H3"] {
        let card = cards
            .heads
            .iter()
            .find(|card| card.head == name.parse().unwrap());
        let copying = card.unwrap().writes.copying;
        assert!(
            copying.copied > 0.8 && copying.others < 0.4,
            "{name}: {copying:?}"
        );
    }
    let inhibition = cards
        .heads
        .iter()
        .find(|card| card.head == HeadId::new(1, 2));
    assert!(inhibition.unwrap().writes.copying.copied < 0.5);
}
