//! `encode`: a dictionary and activations in, codes out.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use burn::tensor::{Tensor, TensorData};
use circuitscope::hooks::HeadActivations;
use circuitscope::sae::EncodeConfig;
use circuitscope::score::{CodeTable, INACTIVE};
use serde::Serialize;

use super::{dictionary, inputs};
use crate::args::EncodeArgs;
use crate::device::B;
use crate::output::{Printer, count};
use crate::provenance::{self, Provenance};

/// Two features closer than this share of the larger could swap on another machine.
const NEAR_TIE: f64 = 1e-5;

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    output: String,
    examples: usize,
    heads: usize,
    codes_used: usize,
    inactive: usize,
    near_ties: usize,
    near_tie_tolerance: f64,
    paper_compatible: bool,
    dictionary: dictionary::Origin,
    provenance: Provenance,
}

pub(crate) fn run(args: &EncodeArgs, printer: Printer) -> Result<()> {
    let mut provenance = provenance::start();
    let device = args.device.device.open()?;
    provenance.on(&device);
    let saved = dictionary::load(&args.sae, &device, &mut provenance)?;
    provenance.input(&args.activations)?;
    inputs::writable_file("--output", &args.output)?;
    let HeadActivations {
        grid,
        d,
        labels,
        data,
    } = HeadActivations::read(&args.activations)?;
    let of_file = || args.activations.display().to_string();
    dictionary::check(&saved, args.other_site, d).with_context(of_file)?;
    let shape = [labels.len() * grid.len(), d];
    let x = Tensor::<B, 2>::from_data(TensorData::new(data, shape), device.plain());
    let config = EncodeConfig::new()
        .with_near_ties(NEAR_TIE)
        .with_amplitudes();
    let encoded = saved.encoder.encode_codes(x, &config);
    let encoded = encoded.with_context(of_file)?;
    let used: BTreeSet<i32> = encoded.codes.iter().copied().collect();
    let table = CodeTable::new(grid, labels, encoded.codes)?;
    let table = table.with_amplitudes(encoded.amplitudes.unwrap_or_default())?;
    let table = if args.paper_compatible {
        table.paper_compatible()
    } else {
        table
    };
    table.write(&args.output, provenance.metadata())?;
    let report = Report {
        output: args.output.display().to_string(),
        examples: table.examples(),
        heads: grid.len(),
        codes_used: used.iter().filter(|code| **code != INACTIVE).count(),
        inactive: encoded.inactive,
        near_ties: encoded.near_ties.unwrap_or(0),
        near_tie_tolerance: NEAR_TIE,
        paper_compatible: args.paper_compatible,
        dictionary: dictionary::Origin::of(&saved),
        provenance: provenance.now(),
    };
    printer.print(&report, || report.text())
}

impl Report {
    fn text(&self) -> String {
        let vectors = self.examples * self.heads;
        format!(
            "encoded {} × {} with {}; no feature active on {} of {vectors} vectors, near-ties on {}\nwrote {} in {:.2} s",
            count(self.examples, "example"),
            count(self.heads, "head"),
            count(self.codes_used, "different code"),
            self.inactive,
            self.near_ties,
            self.output,
            self.provenance.seconds
        )
    }
}
