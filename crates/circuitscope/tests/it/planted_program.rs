//! The programs that the reference model was trained to compute (`datasets/reference/train/prompts.py`), on
//! the words of a positive prompt: what tells on which prompts an edge has something to carry.

use std::collections::BTreeSet;

use circuitscope::tasks::Prompt;

/// A head that reports what it would report on another prompt.
pub(crate) struct Change<'a> {
    /// Its group in `ground_truth.json`, and its place there.
    pub(crate) role: (&'a str, usize),
    pub(crate) source: &'a Prompt,
}

/// The words that the program holds right, all alike; none where it has found nothing to go by and
/// answers at random, `None` where it does not say what to answer.
pub(crate) fn answer<'a>(
    task: &str,
    prompt: &'a Prompt,
    change: Option<&Change<'a>>,
) -> Option<BTreeSet<&'a str>> {
    match task {
        "ioi" => ioi(prompt, change),
        "docstring" => Some(docstring(prompt, change)),
        "induction" => Some(induction(prompt, change)),
        other => unreachable!("{other}: no head reads another"),
    }
}

/// For each of the two names: whether it occurs again. The names that do not are the answer.
fn ioi<'a>(prompt: &'a Prompt, change: Option<&Change<'a>>) -> Option<BTreeSet<&'a str>> {
    let read = |prompt: &'a Prompt| {
        let (receiver, giver) = (prompt.answers[0].as_str(), prompt.wrong_answers[0].as_str());
        let at = |name: &str| {
            prompt
                .text
                .split(' ')
                .position(|word| word == name)
                .unwrap()
        };
        if at(giver) < at(receiver) {
            ([giver, receiver], [true, false])
        } else {
            ([receiver, giver], [false, true])
        }
    };
    let (names, mut again) = read(prompt);
    if let Some(Change { role, source }) = change
        && matches!(role.0, "duplicate token" | "S-inhibition")
    {
        again[role.1] = read(source).1[role.1];
    }
    let once = names.into_iter().zip(again).filter(|(_, again)| !again);
    let once: BTreeSet<&str> = once.map(|(name, _)| name).collect();
    (!once.is_empty()).then_some(once)
}

/// The parameter after the last one that was documented.
fn docstring<'a>(prompt: &'a Prompt, change: Option<&Change<'a>>) -> BTreeSet<&'a str> {
    let read = |prompt: &'a Prompt| {
        let words: Vec<&str> = prompt.text.split(' ').collect();
        // def NAME ( self , P0 , … , P5 ) : … :param X0 : … :param X1 : … :param
        let parameters: Vec<&str> = (0..6).map(|at| words[5 + 2 * at]).collect();
        let mut documented = words.windows(2).filter(|pair| pair[0] == ":param");
        (parameters, documented.nth(1).unwrap()[1])
    };
    let (parameters, mut last) = read(prompt);
    let mut previous = parameters[..5].to_vec();
    if let Some(Change { role, source }) = change {
        let (others, other_last) = read(source);
        match *role {
            // Place 0 reports to parameters 2 and 4 which one came before, place 1 to 1, 3 and 5.
            ("previous argument", place) => {
                for at in (1 - place..5).step_by(2) {
                    previous[at] = others[at];
                }
            }
            ("fetch", _) => last = other_last,
            _ => {}
        }
    }
    after(last, &previous, &parameters)
}

/// The word after the earlier occurrence of the last one.
fn induction<'a>(prompt: &'a Prompt, change: Option<&Change<'a>>) -> BTreeSet<&'a str> {
    let read = |prompt: &'a Prompt| prompt.text.split(' ').collect::<Vec<&str>>();
    let words = read(prompt);
    let mut previous = words[..9].to_vec();
    if let Some(Change { role, source }) = change
        && role.0 == "previous token"
    {
        previous = read(source)[..9].to_vec();
    }
    after(words[words.len() - 1], &previous, &words[..10])
}

/// The members of `list` whose predecessor, as reported by `previous`, is `word`.
fn after<'a>(word: &str, previous: &[&str], list: &[&'a str]) -> BTreeSet<&'a str> {
    let reported = previous.iter().zip(&list[1..]);
    reported
        .filter(|(previous, _)| **previous == word)
        .map(|(_, next)| *next)
        .collect()
}
