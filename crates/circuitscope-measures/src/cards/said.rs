//! Cards in words.

use super::{Attention, Cards, CodeCard, HeadCard, Link, Pattern, PatternScore, Why};
use circuitscope_core::Node;

/// Roles that hold so much of what the strongest one does are told with it.
const NEARLY: f64 = 0.8;

/// A share as a percentage without decimals.
fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share + 0.0)
}

/// An effect as a percentage with a decimal, and no sign where that is nothing.
fn effect(share: f64) -> String {
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
    /// Where most of its effect arises: `from the last token`.
    #[must_use]
    pub fn from(&self) -> String {
        let most = self.matters_at.first();
        match most {
            Some((name, _)) if name == "elsewhere" => "from other tokens".to_owned(),
            Some((name, _)) if name == "last token" => "from the last token".to_owned(),
            Some((name, _)) => format!("from {name}"),
            None => String::new(),
        }
    }

    /// The roles that say most: of those that hold nearly as much as the strongest one, one of the tokens and one of the parts of the
    /// prompt.
    #[must_use]
    pub fn main_roles(&self) -> Vec<&PatternScore> {
        let strongest = self.roles().map(|role| role.weighted).fold(0.0, f64::max);
        let mut roles: Vec<&PatternScore> = self
            .roles()
            .filter(|role| role.weighted >= NEARLY * strongest)
            .collect();
        roles.sort_by_key(|role| role.pattern.order());
        let is_slot = |role: &&PatternScore| matches!(role.pattern, Pattern::Slot(_));
        let mut parts: Vec<&PatternScore> = roles.iter().copied().filter(is_slot).collect();
        parts.sort_by(|a, b| b.weighted.total_cmp(&a.weighted));
        let tokens = roles.iter().copied().find(|role| !is_slot(role));
        let says = |role: &&PatternScore| {
            let vague = matches!(role.pattern, Pattern::DifferingTokens | Pattern::FirstToken);
            parts.is_empty() || !vague
        };
        let tokens = tokens.filter(says);
        tokens.into_iter().chain(parts.first().copied()).collect()
    }

    /// What it does, in a few words: its main roles, and whether it copies.
    #[must_use]
    pub fn role_words(&self) -> String {
        let roles = self.main_roles();
        if roles.is_empty() {
            return "no role: what it reads is within chance, or idle heads read so, too"
                .to_owned();
        }
        let roles = roles.iter().map(|role| {
            format!(
                "{} ({}, chance {})",
                role.pattern.phrase(),
                percent(role.weighted),
                percent(role.shuffled)
            )
        });
        let roles: Vec<String> = roles.collect();
        let mut words = format!("{} to {}", self.from(), roles.join("; "));
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
                "patched alone ({} pairs, {}): {}",
                self.patched.pairs,
                self.patched.reference,
                effect(self.patched.mean)
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
                        "its codes carry {name} ({values} values): {:.2} of its entropy, {:.2} when dealt out anew (p = {:.3}); \
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
    let to = to.map(|at| format!("{} {}", quoted(&tokens[at]), percent(row.to[at])));
    Some(format!(
        "pair {}: from {} (position {}) to {}",
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
