//! What is done with a circuit that `discover` has chosen: it is run, tested, and read.

use std::time::Instant;

use anyhow::Result;
use circuitscope::eval::methods::{PatchingSettings, own_codes};
use circuitscope::eval::{
    CardSettings, KeptBySize, QualitySettings, TestSettings, circuit_quality, kept_by_size,
    test_circuit,
};
use circuitscope::{HeadId, Seed, cards};

use super::found::{Found, Stages};
use super::gathered::Gathered;
use super::kept::Report;
use crate::args::{DiscoverArgs, Judge};
use crate::device::{B, Device};
use crate::output::{indented, note};
use crate::progress::Terminal;

/// Runs the circuit with all other heads ablated, puts it to the tests that were asked for, and reads what its heads
/// signal; each part is told as soon as it is there. Nothing where there is no circuit.
#[expect(
    clippy::too_many_arguments,
    reason = "one call; what it reads and what it fills are different things"
)]
pub(super) fn examine(
    args: &DiscoverArgs,
    gathered: &Gathered,
    seed: Seed,
    device: &Device,
    found: &mut Found,
    stages: &mut Stages,
    report: Report<'_>,
    progress: &Terminal,
) -> Result<()> {
    let (circuit, printer) = (found.circuit(), report.printer);
    let causal = gathered.evidence.causal(&gathered.method.name);
    let wanted = match args.faithfulness {
        Judge::None => false,
        Judge::Auto => causal.is_ok(),
        Judge::All => true,
    };
    if args.random_circuits.is_some() && (circuit.is_empty() || !(wanted || args.tests)) {
        note("note: --random-circuits is not read: no circuit is run");
    }
    if circuit.is_empty() && args.tests {
        note("note: --tests: no circuit is shown, so that nothing is tested");
    }
    if wanted && !circuit.is_empty() {
        let start = Instant::now();
        let mut how = QualitySettings::default()
            .with_pairs(args.patching.patch_pairs as usize)
            .with_members(match args.faithfulness {
                Judge::All => usize::MAX,
                _ => QualitySettings::default().members,
            });
        if let Some(random) = args.random_circuits {
            how = how.with_random(random as usize);
        }
        let causal = gathered.evidence.causal(&gathered.method.name)?;
        found.quality = Some(circuit_quality(causal, &circuit, how, seed, progress)?);
        let ranking: Vec<HeadId> = found.heads.iter().map(|ranked| ranked.head).collect();
        // A circuit need not be the best heads.
        if ranking.starts_with(&circuit) {
            let sizes = KeptBySize::sizes(circuit.len(), ranking.len());
            let sizes = (sizes.as_slice(), circuit.len());
            let kept = kept_by_size(causal, &ranking, sizes, how.pairs, progress)?;
            found.kept_by_size = Some(kept);
        }
        stages.add("judge", start);
        printer.part(&indented(&found.quality_sentences()))?;
        found.stages.clone_from(&stages.0);
        report.judged(found)?;
    }
    if args.tests && !circuit.is_empty() {
        let start = Instant::now();
        let mut how = TestSettings::default().with_pairs(args.patching.patch_pairs as usize);
        if let Some(random) = args.random_circuits {
            how = how.with_random(random as usize);
        }
        let causal = gathered.evidence.causal(&gathered.method.name)?;
        let tests = test_circuit(causal, &circuit, how, seed, progress)?;
        printer.part(&format!(
            "\ntests of the circuit (level {}):\n{}",
            tests.level,
            indented(&tests.sentences())
        ))?;
        found.tests = Some(tests);
        stages.add("test", start);
    }
    describe(
        args, gathered, seed, device, found, stages, report, progress,
    )
}

/// Reads what heads of the circuit, and those asked about, do.
#[expect(
    clippy::too_many_arguments,
    reason = "one call; what it reads and what it fills are different things"
)]
fn describe(
    args: &DiscoverArgs,
    gathered: &Gathered,
    seed: Seed,
    device: &Device,
    found: &mut Found,
    stages: &mut Stages,
    report: Report<'_>,
    progress: &Terminal,
) -> Result<()> {
    let mut heads: Vec<HeadId> = match args.faithfulness {
        Judge::None => Vec::new(),
        _ => found.circuit(),
    };
    let more = args.explain.iter().filter(|head| !heads.contains(head));
    let more: Vec<HeadId> = more.copied().collect();
    heads.extend(more);
    if heads.is_empty() {
        return Ok(());
    }
    let causal = match gathered.evidence.causal(&gathered.method.name) {
        Ok(causal) => causal,
        Err(_) if args.explain.is_empty() => return Ok(()),
        Err(error) => return Err(anyhow::Error::from(error).context("--explain")),
    };
    let Some(tokenizer) = &gathered.tokenizer else {
        return Ok(());
    };
    let start = Instant::now();
    let rank = |head: HeadId| {
        let place = found.heads.iter().position(|ranked| ranked.head == head);
        (head, place.map_or(0, |place| place + 1))
    };
    let heads: Vec<(HeadId, usize)> = heads.into_iter().map(rank).collect();
    let mut how = CardSettings::default().with_n_codes(args.sae.codes);
    let pairs = args.patching.gradient_pairs as usize;
    if pairs != PatchingSettings::default().gradient_pairs {
        how = how.with_pairs(pairs);
    }
    let training = device.training();
    // A dictionary that was given makes codes of its own, which are not kept.
    let own = if args.sae_dir.is_none() {
        let sae = &found.settings.methods.sae;
        own_codes(&found.method, &gathered.evidence, sae, seed, progress)?
    } else {
        None
    };
    let made = cards::<B>(
        causal,
        (&gathered.parts, tokenizer),
        own.as_deref(),
        &heads,
        &how,
        (seed, &training),
        progress,
    )?;
    found.cards = Some(made);
    stages.add("cards", start);
    report.printer.part(&found.cards_text(&args.explain))
}
