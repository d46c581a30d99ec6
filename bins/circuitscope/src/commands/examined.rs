//! What is done with a circuit that `discover` has chosen: it is run, tested, and read.

use std::time::Instant;

use anyhow::Result;
use circuitscope::eval::{
    QualitySettings, SignalSettings, TestSettings, circuit_quality, test_circuit,
};
use circuitscope::{Seed, Signals};

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
    if circuit.is_empty() {
        if args.tests {
            note("note: --tests: no circuit is shown, so that nothing is tested");
        }
        return Ok(());
    }
    if wanted {
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
        stages.add("judge", start);
        printer.part(&indented(&found.quality_sentences()))?;
        found.stages.clone_from(&stages.0);
        report.judged(found)?;
    }
    if args.tests {
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
    if let (Ok(causal), Some(tokenizer)) = (&causal, &gathered.tokenizer)
        && args.faithfulness != Judge::None
    {
        let start = Instant::now();
        let how = SignalSettings::default()
            .with_pairs(args.patching.gradient_pairs as usize)
            .with_n_codes(args.sae.codes);
        let training = device.training();
        let on = (seed, &training);
        let signals = Signals::of::<B>(causal, tokenizer, &circuit, how, on, progress)?;
        found.signals = Some(signals);
        stages.add("signals", start);
        printer.part(&found.signals_text())?;
    }
    Ok(())
}
