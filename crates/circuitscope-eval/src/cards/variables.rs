//! Which head carries which variable of the prompts.

use std::collections::BTreeMap;

use circuitscope_core::{HeadId, Progress, Seed};
use circuitscope_measures::cards::{VariableCell, VariableTable};
use circuitscope_score::carried;

use super::PromptParts;
use super::codes::Codes;
use crate::{Error, Result};

/// Deals of values that make the null.
const DEALS: usize = 200;

/// One table of all variables that have several values, and prompts enough of each, and all heads; nothing where no variable is known.
pub(super) fn variables(
    parts: &PromptParts,
    heads: &[HeadId],
    codes: &[Codes],
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Option<VariableTable>> {
    let count = codes.first().map_or(0, Vec::len);
    let known = &parts.variables[..count.min(parts.variables.len())];
    let mut names: Vec<&String> = known.iter().flatten().flat_map(BTreeMap::keys).collect();
    names.sort_unstable();
    names.dedup();
    let mut table = VariableTable {
        variables: Vec::new(),
        heads: heads.to_vec(),
        cells: Vec::new(),
        prompts: 0,
        left_out: Vec::new(),
    };
    for name in names {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        let prompts = known.iter().enumerate().flat_map(|(pair, both)| {
            let both = both.iter().enumerate();
            both.filter_map(move |(class, of)| Some((pair, class, of.get(name)?)))
        });
        let prompts: Vec<(usize, usize, &String)> = prompts.collect();
        let mut distinct: Vec<&String> = prompts.iter().map(|(_, _, value)| *value).collect();
        distinct.sort_unstable();
        distinct.dedup();
        // With a value for each prompt every cluster would seem to tell it.
        if distinct.len() < 2 || 2 * distinct.len() > prompts.len() {
            table.left_out.push(name.clone());
            continue;
        }
        let value = |of: &String| distinct.partition_point(|other| *other < of) as u32;
        let values: Vec<u32> = prompts.iter().map(|(_, _, of)| value(of)).collect();
        let groups: Vec<usize> = prompts.iter().map(|(pair, _, _)| *pair).collect();
        let cells = codes.iter().map(|codes| {
            let codes = prompts.iter().map(|&(pair, class, _)| codes[pair][class]);
            let codes: Vec<i32> = codes.collect();
            let of_name = seed.stream("cards/variables").stream(name);
            let told = carried(&codes, &values, &groups, DEALS, of_name)?;
            Ok(VariableCell {
                information: told.information,
                null: told.null,
                p: told.p,
                held_out: told.held_out,
            })
        });
        table.cells.push(cells.collect::<Result<_>>()?);
        table.variables.push((name.clone(), distinct.len()));
        table.prompts = table.prompts.max(prompts.len());
    }
    let some = !(table.variables.is_empty() && table.left_out.is_empty());
    Ok(some.then_some(table))
}
