//! Invented circuits, with everything that a page can show.

use circuitscope_core::{HeadGrid, HeadId, Node, Polarity, Port, Seed};
use circuitscope_measures::cards::{
    Attention, AttentionRow, CARDS_SCHEMA, Cards, CodeCard, CodePrompt, Copying, Effect, HeadCard,
    HeadPatterns, Link, Patched, Pattern, PatternScore, QkTerm, Reference, ShownPair, TokenRule,
    VariableCell, VariableTable, Why, Writes,
};
use circuitscope_report::{
    CircuitPage, Figure, FileBeside, Lost, MethodReport, Passage, SizeCurve, Stability, TaskReport,
    Verdict,
};

/// Random numbers.
pub(crate) struct Draw(Box<dyn rand::Rng>);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Box::new(Seed::new(seed).rng()))
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        f64::from(self.0.next_u32() >> 8) / f64::from(1 << 24)
    }

    /// From −1 to 1, most of them small.
    fn signed(&mut self) -> f64 {
        (2.0 * self.share() - 1.0).powi(3)
    }

    fn below(&mut self, end: usize) -> usize {
        ((self.share() * end as f64) as usize).min(end - 1)
    }

    /// Shares that add up to 1, some much larger than others.
    fn shares(&mut self, number: usize) -> Vec<f64> {
        let draws: Vec<f64> = (0..number).map(|_| self.share().powi(6)).collect();
        let sum: f64 = draws.iter().sum();
        draws.iter().map(|draw| draw / sum).collect()
    }
}

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|word| (*word).to_owned()).collect()
}

const POSITIVE: [&str; 16] = [
    "<|endoftext|>",
    "When",
    " Mary",
    " and",
    " John",
    " went",
    " to",
    " the",
    " st",
    "ore",
    ",",
    " John",
    " gave",
    " a",
    " drink",
    " to",
];

fn pairs() -> Vec<ShownPair> {
    let pair = |pair: usize, first: &str, second: &str, third: &str| {
        let mut positive = words(&POSITIVE);
        for (at, name) in [(2, first), (4, second), (11, second)] {
            name.clone_into(&mut positive[at]);
        }
        let mut negative = positive.clone();
        third.clone_into(&mut negative[11]);
        ShownPair {
            pair,
            positive,
            negative,
            right: words(&[first]),
            wrong: words(&[second]),
            slots: vec![
                ("IO".to_owned(), vec![2]),
                ("S1".to_owned(), vec![4]),
                ("S2".to_owned(), vec![11]),
                ("END".to_owned(), vec![15]),
            ],
        }
    };
    vec![
        pair(1, " Mary", " John", " Kate"),
        pair(4, " <script>", " Paul", "\n"),
        pair(9, " Anna", " Tom", " \"Lee\""),
    ]
}

fn patterns(draw: &mut Draw, at: usize) -> Vec<PatternScore> {
    let all = [
        Pattern::Slot("IO".to_owned()),
        Pattern::Induction(1),
        Pattern::PreviousToken,
        Pattern::DuplicateToken,
        Pattern::Slot("S2".to_owned()),
        Pattern::FirstToken,
        Pattern::DifferingTokens,
    ];
    let role = |index: usize| index == at % 5 || (at == 2 && index == 3);
    let scores = all.into_iter().enumerate().map(|(index, pattern)| {
        let weighted = draw.share();
        PatternScore {
            pattern,
            attention: draw.share(),
            weighted,
            from: "last token".to_owned(),
            shuffled: 0.3 * draw.share(),
            joined: weighted * 0.1,
            idle: 0.01 * draw.share(),
            role: at != 5 && role(index),
        }
    });
    scores.collect()
}

fn codes(draw: &mut Draw) -> Vec<CodeCard> {
    (0..3)
        .map(|at| CodeCard {
            code: if at == 2 { -1 } else { draw.below(2048) as i32 },
            positives: draw.below(100),
            negatives: draw.below(100),
            effect: 0.1 * draw.signed(),
            token: " John".to_owned(),
            at_token: 17,
            prompts: vec![CodePrompt {
                pair: 3,
                class: if at == 0 {
                    Polarity::Positive
                } else {
                    Polarity::Negative
                },
                token: " to".to_owned(),
                position: 15,
                from: " Mary".to_owned(),
                from_position: 2,
            }],
            promotes: words(&[" Mary", " Kate", " Anna", " Mary's", " her"]),
            atom_up: if at == 2 {
                Vec::new()
            } else {
                words(&[" Mary", " Maria", "mary"])
            },
            atom_down: if at == 2 {
                Vec::new()
            } else {
                words(&[" of", " the", "\n"])
            },
            rule: (at == 0).then(|| TokenRule {
                tokens: words(&[" Mary", " Kate"]),
                learnt: draw.share(),
                tried: 0.81,
                random: 0.502,
                random_high: 0.617,
            }),
        })
        .collect()
}

fn card(draw: &mut Draw, head: HeadId, at: usize, prompts: &[ShownPair]) -> HeadCard {
    let mean = 0.3 / (at as f64 + 1.0) * if at == 3 { -1.0 } else { 1.0 };
    let mut attention = Vec::new();
    for (prompt, pair) in prompts.iter().enumerate() {
        for positive in [true, false] {
            let tokens = if positive {
                &pair.positive
            } else {
                &pair.negative
            };
            let rows = [tokens.len() - 1, 11].map(|position| {
                let mut to = draw.shares(position + 1);
                to.resize(tokens.len(), 0.0);
                AttentionRow {
                    position,
                    weight: draw.share(),
                    to,
                }
            });
            attention.push(Attention {
                prompt,
                positive,
                rows: rows.to_vec(),
            });
        }
    }
    let why = (0..prompts.len()).map(|prompt| Why {
        prompt,
        destination: 15,
        source: 2,
        attention: draw.share(),
        score: 4.0 * draw.share(),
        terms: [
            (Some(Node::Head(HeadId::new(3, 0))), Some(Node::Input)),
            (Some(Node::Mlp(0)), Some(Node::Mlp(2))),
            (None, Some(Node::Input)),
        ]
        .map(|(query, key)| QkTerm {
            query,
            key,
            value: 2.0 * draw.signed(),
        })
        .to_vec(),
        rest: draw.signed(),
    });
    let why = why.collect();
    HeadCard {
        head,
        rank: at + 1,
        effect: Effect {
            reference: if at % 3 == 2 {
                Reference::Used
            } else {
                Reference::Differs
            },
            mean,
            low: mean - 0.021,
            high: mean + 0.0347,
            same_sign: 0.5 + 0.5 * draw.share(),
        },
        patched: Patched {
            reference: Reference::Differs,
            mean: 1.3 * mean,
            pairs: 8,
        },
        matters_at: vec![("last token".to_owned(), 0.731), ("S2".to_owned(), 0.269)],
        patterns: patterns(draw, at),
        attention,
        writes: Writes {
            direct: Some(draw.signed()),
            direct_logits: at.is_multiple_of(2).then(|| draw.signed()),
            promotes: words(&[" Mary", " Kate", " Anna", " Maria"]),
            suppresses: words(&[" John", " he", "</code>", "\n\n"]),
            copying: Copying {
                copied: draw.share(),
                others: 0.1 * draw.share(),
                lowered: 0.05 * draw.share(),
                top: 10,
            },
        },
        codes: codes(draw),
        why,
    }
}

fn links(draw: &mut Draw, grid: HeadGrid, chosen: &[HeadId]) -> Vec<Link> {
    let mut links = Vec::new();
    let mut link = |writer: Node, reader: Node, port: Option<Port>, size: f64| {
        links.push(Link {
            writer,
            reader,
            port,
            weight: size * draw.signed(),
            agrees: draw.share() > 0.2,
        });
    };
    for reader in chosen {
        for port in Port::ALL {
            link(Node::Input, (*reader).into(), Some(port), 0.06);
            for writer in chosen.iter().filter(|writer| writer.layer < reader.layer) {
                link((*writer).into(), (*reader).into(), Some(port), 0.12);
            }
            for layer in 0..reader.layer.min(4) {
                link(Node::Mlp(layer), (*reader).into(), Some(port), 0.05);
            }
            if reader.layer > 1 {
                let other = HeadId::new(reader.layer / 2, grid.n_heads - 1);
                link(other.into(), (*reader).into(), Some(port), 0.03);
            }
        }
        link((*reader).into(), Node::Logits, None, 0.2);
    }
    links.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()));
    links
}

/// What is known of the heads of a circuit.
pub(crate) fn cards(grid: HeadGrid, chosen: &[HeadId]) -> Cards {
    let mut draw = Draw::new(3);
    let prompts = pairs();
    let mut heads = Vec::new();
    for (at, head) in chosen.iter().enumerate() {
        heads.push(card(&mut draw, *head, at, &prompts));
    }
    let mut effects: Vec<f64> = grid.heads().map(|_| 0.02 * draw.signed()).collect();
    for card in &heads {
        effects[grid.index(card.head).unwrap()] = card.effect.mean;
    }
    let repeated = grid.heads().map(|_| HeadPatterns {
        previous_token: draw.share().powi(4),
        duplicate_token: draw.share().powi(4),
        induction: draw.share().powi(4),
        first_token: draw.share(),
    });
    let repeated = repeated.collect();
    let variables = [("IO", 32), ("S", 32), ("position of IO", 2)];
    let cells = variables.iter().map(|_| {
        let cell = |_: &HeadId| VariableCell {
            information: draw.share(),
            null: 0.3 * draw.share(),
            p: draw.share(),
            held_out: draw.share() - 0.2,
        };
        chosen.iter().map(cell).collect()
    });
    Cards {
        schema: CARDS_SCHEMA,
        pairs: 64,
        divergence: 6.873,
        patterns: Vec::new(),
        links: Vec::new(),
        link_pairs: 10,
        prompts,
        effects,
        repeated,
        variables: Some(VariableTable {
            cells: cells.collect(),
            variables: variables
                .map(|(name, values)| (name.to_owned(), values))
                .to_vec(),
            heads: chosen.to_vec(),
            left_out: vec!["template".to_owned()],
            prompts: 128,
        }),
        heads,
    }
    .with_links(&mut draw, grid, chosen)
}

trait WithLinks {
    fn with_links(self, draw: &mut Draw, grid: HeadGrid, chosen: &[HeadId]) -> Self;
}

impl WithLinks for Cards {
    fn with_links(mut self, draw: &mut Draw, grid: HeadGrid, chosen: &[HeadId]) -> Self {
        self.links = links(draw, grid, chosen);
        self
    }
}

/// Heads spread over the upper half of a model, strongest first.
pub(crate) fn chosen(grid: HeadGrid, number: usize) -> Vec<HeadId> {
    let mut draw = Draw::new(11);
    let mut heads: Vec<HeadId> = Vec::new();
    while heads.len() < number {
        let layer = (grid.n_layers as f64 * (0.2 + 0.75 * draw.share())) as usize;
        let head = HeadId::new(layer, draw.below(grid.n_heads));
        if !heads.contains(&head) {
            heads.push(head);
        }
    }
    heads
}

/// A page of a circuit of some heads, with all there is.
pub(crate) fn page<'a>(grid: HeadGrid, heads: &[HeadId], cards: &'a Cards) -> CircuitPage<'a> {
    let mut draw = Draw::new(5);
    let mut signed: Vec<f64> = grid.heads().map(|_| 0.4 * draw.signed()).collect();
    for (at, head) in heads.iter().enumerate() {
        let sign = if at == 3 { -1.0 } else { 1.0 };
        signed[grid.index(*head).unwrap()] = sign * 3.0 / (at as f64 + 1.3);
    }
    let scores = signed.iter().map(|score| score.abs()).collect();
    let mut shares: Vec<f64> = grid.heads().map(|_| 0.05 * draw.share()).collect();
    for (at, head) in heads.iter().enumerate() {
        shares[grid.index(*head).unwrap()] = 1.0 - 0.07 * at.min(12) as f64;
    }
    shares[1] = 0.61;
    let mut known: Vec<HeadId> = heads.iter().copied().step_by(2).collect();
    known.push(HeadId::new(grid.n_layers - 1, grid.n_heads - 1));
    let most = grid.len();
    let sizes: Vec<usize> = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]
        .into_iter()
        .filter(|size| *size <= most)
        .collect();
    let values = sizes
        .iter()
        .map(|size| match size {
            4 => -9.5,
            32 => 17.25,
            size => 0.31 + 3.2 * (1.0 - (-(*size as f64) / 6.0).exp()),
        })
        .collect();
    CircuitPage {
        title: "Heads that take part in ioi".to_owned(),
        lead: "Which heads of a small model name the indirect object.".to_owned(),
        facts: [
            ("model", "a small model, 30 layers × 9 heads"),
            ("examples", "100 positive, 100 negative"),
            ("method", "attribution patching"),
            ("time", "12.3 s"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        verdict: Verdict {
            figures: [
                ("the model is right on", "99 %", "of 100 pairs"),
                ("the circuit keeps", "87 %", "95 % interval 81 % to 92 %"),
                ("left without it", "11 %", "of the logit difference"),
                (
                    "random circuits keep",
                    "3 %",
                    "best of 100 of the same size: 9 %",
                ),
            ]
            .map(|(label, value, note)| Figure {
                label: label.to_owned(),
                value: value.to_owned(),
                note: note.to_owned(),
            })
            .to_vec(),
            conclusion: "These heads carry most of the behaviour, and no random circuit of that size comes near; that nothing \
                         else takes part may not be concluded."
                .to_owned(),
            sentences: words(&["The circuit was chosen on one half of the pairs and judged on the other."]),
            warnings: words(&["few pairs: the interval is wide"]),
        },
        task: TaskReport {
            task: "ioi".to_owned(),
            grid,
            truth: Some(known),
            truth_name: "Wang et al.".to_owned(),
            marked: "in the known circuit".to_owned(),
            chosen: heads.to_vec(),
            passages: vec![
                Passage {
                    table: Some((
                        words(&["size", "kept"]),
                        vec![words(&["4", "0.5"]), words(&["8", "0.9"])],
                    )),
                    ..Passage::new("The circuit", words(&["8 heads", "warning: few pairs"]))
                },
                Passage::new("Tests of the circuit", words(&["each was passed"])),
            ],
            methods: vec![MethodReport::of_scores(
                "attribution-patching",
                "The gradient times the difference of activations",
                scores,
            )],
        },
        signed: Some(signed),
        norms: None,
        cards: Some(cards),
        lost: Some(Lost {
            metric: "logit difference".to_owned(),
            heads: heads
                .iter()
                .enumerate()
                .map(|(at, head)| (*head, 1.37 / (at as f64 + 1.0)))
                .collect(),
        }),
        stability: Some(Stability {
            shares,
            halves: 40,
            chance: heads.len() as f64 / grid.len() as f64,
        }),
        curve: Some(SizeCurve {
            metric: "logit difference".to_owned(),
            full: 3.514,
            empty: Some(0.3125),
            sizes,
            values,
            chosen: Some(8),
        }),
        files: [("heads.csv", "all heads with their scores"), ("discovery.json", "everything")]
            .map(|(name, what)| FileBeside {
                name: name.to_owned(),
                what: what.to_owned(),
            })
            .to_vec(),
        command: "circuitscope discover --task ioi --model small --out found".to_owned(),
        provenance: serde_json::json!({ "seed": 0, "note": "</pre><script>" }),
    }
}
