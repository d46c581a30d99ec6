//! Cards in words.

use super::{Attention, Cards, CodeCard, HeadCard, Link, Pattern, PatternScore, Why};
use circuitscope_core::Node;

/// Effects of less than this share are not worth a word.
const NOTABLE: f64 = 0.05;
/// Roles that are above chance by so much of what the strongest one is are told with it.
const GOOD_PART: f64 = 0.3;
/// Shares above chance that are so much of the largest are as good.
const ALIKE: f64 = 0.9;

/// What a pattern speaks of.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Kind {
    /// What tokens are to each other.
    Tokens,
    /// A named part of the prompt.
    Part,
    Vague,
}

impl Kind {
    const fn of(pattern: &Pattern) -> Self {
        match pattern {
            Pattern::Induction(_) | Pattern::DuplicateToken | Pattern::PreviousToken => {
                Self::Tokens
            }
            Pattern::Slot(_) => Self::Part,
            Pattern::DifferingTokens | Pattern::FirstToken => Self::Vague,
        }
    }
}

/// A share as a percentage without decimals.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share + 0.0)
}

/// An effect as a percentage with a decimal, and no sign where that is nothing.
pub(crate) fn effect(share: f64) -> String {
    let tenths = (1000.0 * share).round() + 0.0;
    format!("{:.1} %", tenths / 10.0)
}

/// A token between ticks, what cannot be seen escaped.
#[must_use]
pub fn quoted(token: &str) -> String {
    let shown = token.escape_debug().to_string();
    format!("`{}`", shown.replace("\\\"", "\"").replace("\\'", "'"))
}

fn all_quoted(tokens: &[String]) -> String {
    let tokens = tokens.iter().map(|token| quoted(token));
    tokens.collect::<Vec<_>>().join(" ")
}

impl PatternScore {
    /// Where most of it is read from: `from the last token`.
    fn read_from(&self) -> String {
        match self.from.as_str() {
            "" | "elsewhere" => "from other tokens".to_owned(),
            "last token" => "from the last token".to_owned(),
            name => format!("from {name}"),
        }
    }

    /// Such as `IO: 82 % of what it does reads there (chance 9 %)`.
    #[must_use]
    pub fn sentence(&self) -> String {
        format!(
            "{}: {} of what it does comes from there (by chance up to {}); attention alone {}",
            self.pattern.phrase(),
            percent(self.weighted),
            percent(self.shuffled),
            percent(self.attention)
        )
    }
}

impl HeadCard {
    /// The roles that say most: of those that are above chance by a good part of what the strongest one is, one of what tokens are to
    /// each other and one of the parts of the prompt; that prompts differ there, or that it is the first token, only where
    /// nothing else says more.
    #[must_use]
    pub fn main_roles(&self) -> Vec<&PatternScore> {
        let excess = |role: &PatternScore| role.weighted - role.shuffled;
        let strongest = self.roles().map(excess).fold(0.0, f64::max);
        let roles = self
            .roles()
            .filter(|role| excess(role) >= GOOD_PART * strongest);
        let roles: Vec<&PatternScore> = roles.collect();
        // Of those that are as much above chance, the one with the lowest number, then the one that is most.
        let best = |kind: Kind| {
            let of_kind = || {
                roles
                    .iter()
                    .copied()
                    .filter(|role| Kind::of(&role.pattern) == kind)
            };
            let most = of_kind().map(excess).fold(0.0, f64::max);
            let alike = of_kind().filter(|role| excess(role) >= ALIKE * most);
            alike.min_by(|a, b| {
                let most_first = || excess(b).total_cmp(&excess(a));
                let (first, second) = (a.pattern.order(), b.pattern.order());
                first.cmp(&second).then_with(most_first)
            })
        };
        let said: Vec<&PatternScore> = best(Kind::Tokens)
            .into_iter()
            .chain(best(Kind::Part))
            .collect();
        if said.is_empty() {
            best(Kind::Vague).into_iter().collect()
        } else {
            said
        }
    }

    /// What it does, in a few words: its main roles, and whether it copies.
    #[must_use]
    pub fn role_words(&self) -> String {
        let roles = self.main_roles();
        if roles.is_empty() {
            return "no role: what it reads is within chance, or idle heads read so, too"
                .to_owned();
        }
        let mut last = None;
        let roles = roles.iter().map(|role| {
            let from = role.read_from();
            let from = if last.replace(from.clone()).as_ref() == Some(&from) {
                String::new()
            } else {
                format!("{from} to ")
            };
            format!(
                "{from}{} ({}, chance {})",
                role.pattern.phrase(),
                percent(role.weighted),
                percent(role.shuffled)
            )
        });
        let mut words = roles.collect::<Vec<_>>().join("; ");
        let copying = &self.writes.copying;
        if copying.copied >= 0.5 && copying.copied > 2.0 * copying.others {
            words.push_str("; writes the token it attends to");
        } else if copying.lowered >= 0.5 {
            words.push_str("; writes against the token it attends to");
        }
        words
    }

    /// Its effect with the interval.
    #[must_use]
    pub fn effect_words(&self) -> String {
        let Self { effect: of, .. } = self;
        format!(
            "{} ({} to {}) {}",
            effect(of.mean),
            effect(of.low),
            effect(of.high),
            of.reference
        )
    }

    /// Its exact effect.
    #[must_use]
    pub fn patched_words(&self) -> String {
        effect(self.patched.mean)
    }

    /// Whether the gradient and the exact effect, which is not small, have different signs: then the exact one counts.
    #[must_use]
    pub fn signs_disagree(&self) -> bool {
        let (by_gradient, exact) = (self.effect.mean, self.patched.mean);
        exact.abs() >= NOTABLE && (by_gradient < 0.0) != (exact < 0.0)
    }

    /// Everything on the card, line by line, without full stops; of lists the first `most`.
    #[must_use]
    pub fn lines(&self, cards: &Cards, most: usize) -> Vec<String> {
        let mut lines = vec![
            format!(
                "{}, rank {}: {}; the same sign in {} of pairs",
                self.head,
                self.rank,
                self.effect_words(),
                percent(self.effect.same_sign)
            ),
            format!(
                "patched alone ({} pairs, {}): the prediction loses {}{}",
                self.patched.pairs,
                self.patched.reference,
                effect(self.patched.mean),
                if self.signs_disagree() {
                    "; the gradient has the other sign: the exact effect counts"
                } else {
                    ""
                }
            ),
            format!("does: {}", self.role_words()),
        ];
        let at = self.matters_at.iter().take(most);
        let at = at.map(|(name, share)| format!("{name} {}", percent(*share)));
        lines.push(format!(
            "its effect arises at: {}",
            at.collect::<Vec<_>>().join(", ")
        ));
        for pattern in self.patterns.iter().take(most) {
            let mark = if pattern.role { "role" } else { "no role" };
            lines.push(format!("attends ({mark}) to {}", pattern.sentence()));
        }
        let rows = self.attention.iter().filter(|of| of.positive);
        lines.extend(rows.filter_map(|of| attention_line(of, cards)));
        let writes = &self.writes;
        lines.push(format!(
            "raises {}; lowers {}",
            all_quoted(&writes.promotes),
            all_quoted(&writes.suppresses)
        ));
        if let Some(direct) = writes.direct {
            let logits = writes.direct_logits.map_or_else(String::new, |logits| {
                format!("; {logits:.2} of the logit difference of the answers")
            });
            lines.push(format!(
                "reaches the logits directly: {}{logits}",
                effect(direct)
            ));
        }
        lines.push(format!(
            "the token attended to is among the {} that it raises most in {} of pairs (other tokens of the prompt: {}), among \
             those lowered most in {}",
            writes.copying.top,
            percent(writes.copying.copied),
            percent(writes.copying.others),
            percent(writes.copying.lowered)
        ));
        let fed = cards
            .links
            .iter()
            .filter(|link| link.reader == Node::Head(self.head));
        let fed: Vec<String> = fed.take(most).map(Link::words).collect();
        if !fed.is_empty() {
            lines.push(format!("reads from: {}", fed.join(", ")));
        }
        let sent = cards
            .links
            .iter()
            .filter(|link| link.writer == Node::Head(self.head));
        let sent: Vec<String> = sent.take(most).map(Link::words).collect();
        if !sent.is_empty() {
            lines.push(format!("sends to: {}", sent.join(", ")));
        }
        lines.extend(self.why.iter().take(1).map(|why| why.line(cards)));
        lines.extend(self.codes.iter().take(most).map(CodeCard::line));
        if let Some(table) = &cards.variables
            && let Some(column) = table.heads.iter().position(|head| *head == self.head)
        {
            for ((name, values), row) in table.variables.iter().zip(&table.cells) {
                let cell = row[column];
                if cell.information > cell.null {
                    lines.push(format!(
                        "what it puts out carries {name} ({values} values): {:.2} of its entropy, {:.2} when dealt out anew (p = {:.3}); \
                         of what a guess gets wrong, a table gets {} right",
                        cell.information,
                        cell.null,
                        cell.p,
                        percent(cell.held_out)
                    ));
                }
            }
        }
        lines
    }
}

fn attention_line(of: &Attention, cards: &Cards) -> Option<String> {
    let tokens = &cards.prompts.get(of.prompt)?.positive;
    let row = of.rows.first()?;
    let mut order: Vec<usize> = (0..row.to.len()).collect();
    order.sort_by(|&a, &b| row.to[b].total_cmp(&row.to[a]));
    let to = order.into_iter().take(3);
    let to = to.map(|at| format!("{} ({at}) {}", quoted(&tokens[at]), percent(row.to[at])));
    Some(format!(
        "pair {}: from {} ({}) to {}",
        cards.prompts[of.prompt].pair,
        quoted(tokens.get(row.position)?),
        row.position,
        to.collect::<Vec<_>>().join(", ")
    ))
}

impl Link {
    /// Such as `a3.h1->a5.h0<q> +3.1 %`, with a mark where two gradients disagree in sign.
    #[must_use]
    pub fn words(&self) -> String {
        let port = self
            .port
            .map_or_else(String::new, |port| format!("<{port}>"));
        let doubt = if self.agrees { "" } else { " (sign unsure)" };
        let tenths = (1000.0 * self.weight).round() + 0.0;
        format!(
            "{}->{}{port} {:+.1} %{doubt}",
            self.writer,
            self.reader,
            tenths / 10.0
        )
    }
}

impl Why {
    fn line(&self, cards: &Cards) -> String {
        let tokens = cards.prompts.get(self.prompt).map(|pair| &pair.positive);
        let token = |at: usize| {
            let token = tokens.and_then(|tokens| tokens.get(at));
            token.map_or_else(String::new, |token| quoted(token))
        };
        let name = |node: Option<Node>| node.map_or("biases".to_owned(), |node| node.to_string());
        let terms = self.terms.iter().take(4);
        let terms = terms.map(|term| {
            format!(
                "{} on {} {:+.2}",
                name(term.query),
                name(term.key),
                term.value
            )
        });
        format!(
            "attends from {} to {} since its score there is {:+.2} above the mean: {}",
            token(self.destination),
            token(self.source),
            self.score,
            terms.collect::<Vec<_>>().join(", ")
        )
    }
}

impl CodeCard {
    /// Its number, or `none` where no feature is active.
    #[must_use]
    pub fn name(&self) -> String {
        if self.code < 0 {
            "none".to_owned()
        } else {
            self.code.to_string()
        }
    }

    /// Its effect as a percentage.
    #[must_use]
    pub fn effect_words(&self) -> String {
        effect(self.effect)
    }

    /// What foretells it, if anything.
    #[must_use]
    pub fn rule_words(&self) -> Option<String> {
        let rule = self.rule.as_ref()?;
        Some(format!(
            "prompts with {}: right {} on the other half (random tokens {}, up to {})",
            rule.tokens
                .iter()
                .map(|token| quoted(token))
                .collect::<Vec<_>>()
                .join(" or "),
            percent(rule.tried),
            percent(rule.random),
            percent(rule.random_high)
        ))
    }

    fn line(&self) -> String {
        let rule = self.rule_words();
        let rule = rule.map_or_else(String::new, |rule| format!("; {rule}"));
        format!(
            "code {}: {} of the effect, on {} positive and {} negative prompts, read at {} (on {}); raises {}{rule}",
            self.name(),
            self.effect_words(),
            self.positives,
            self.negatives,
            quoted(&self.token),
            self.at_token,
            all_quoted(&self.promotes)
        )
    }
}
