//! `rows`: text in, a site at every token out.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use circuitscope::features::{ROWS_FILE, RowSettings, RowsMetadata, write_rows};
use circuitscope::hooks::Site;
use circuitscope::model::Decoder;
use serde::Serialize;
use serde_json::json;

use super::texts::longest;
use super::{inputs, texts};
use crate::args::RowsArgs;
use crate::device::B;
use crate::output::{Printer, count};
use crate::progress::Terminal;
use crate::provenance::{self, Provenance, human_bytes};

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    output: String,
    contexts: usize,
    rows: RowsMetadata,
    provenance: Provenance,
}

pub(crate) fn run(args: &RowsArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    let mut provenance = provenance::start();
    let device = args.device.device.open()?;
    provenance.on(&device);
    inputs::writable_folder(&args.output)?;
    let others = ["report.html", "discovery.json", "cfg.json", "history.json"];
    inputs::own_folder(&args.output, ROWS_FILE, &others)?;
    if args.output.join(ROWS_FILE).exists() {
        bail!(
            "--output {}: found rows, expected a new folder: nothing is overwritten",
            args.output.display()
        );
    }
    let model = inputs::load_model(&args.model, &device, progress)?;
    let site = one_site(&model.model, "--site", &args.site)?;
    let site_out = args.site_out.as_ref();
    let site_out = site_out
        .map(|name| one_site(&model.model, "--site-out", name))
        .transpose()?;
    let (contexts, prepend_bos) = texts::read(&args.text, &args.model, &model, &mut provenance)?;
    let sites: Vec<Site> = [Some(site), site_out].into_iter().flatten().collect();
    let config = model.model.config();
    let settings = inputs::capture_settings(&args.model, &device);
    let batch = settings.batch_tokens(config, longest(&contexts), &sites);
    let made_from = BTreeMap::from([
        ("program".to_owned(), json!(provenance.program)),
        ("command".to_owned(), json!(provenance.command)),
        ("inputs".to_owned(), json!(provenance.inputs)),
    ]);
    let mut how = RowSettings::new(site)
        .with_skip_first(args.skip_first.answer())
        .with_batch_tokens(batch)
        .with_prepend_bos(prepend_bos)
        .with_made_from(made_from);
    if let Some(site) = site_out {
        how = how.with_site_out(site);
    }
    let rows = write_rows(
        &model,
        &contexts,
        &how,
        &args.output,
        device.plain(),
        progress,
    )?;
    let report = Report {
        output: args.output.display().to_string(),
        contexts: contexts.len(),
        rows,
        provenance: provenance.now(),
    };
    printer.print(&report, || report.text())
}

/// The only site that a name stands for.
pub(super) fn one_site(model: &Decoder<B>, option: &str, name: &str) -> Result<Site> {
    let found = model.config().catalog().resolve(name);
    match found {
        Ok(sites) => match sites.as_slice() {
            [site] => Ok(*site),
            _ => bail!("{option} {name}: found {} sites, expected one", sites.len()),
        },
        Err(error) => bail!("{option} {name}: {error}"),
    }
}

impl Report {
    fn text(&self) -> String {
        let rows = &self.rows;
        let first = format!(
            "the residual stream of the first position is {:.1} times as long as that of the others: {}",
            rows.first_position,
            if rows.skip_first { "left out" } else { "kept" }
        );
        let out = rows.site_out.as_ref();
        let out = out.map_or_else(String::new, |site| {
            format!(" and {site}, {} wide", rows.d_out)
        });
        let memory = self.provenance.peak_memory_bytes;
        let memory = memory.map_or_else(String::new, |bytes| {
            format!(", at most {} of memory", human_bytes(bytes))
        });
        format!(
            "{first}\nwrote {ROWS_FILE} and {} in {}: {} of {}, {} wide{out}, from {}, in {:.1} s{memory}",
            count(rows.shards.len(), "shard"),
            self.output,
            count(rows.rows, "row"),
            rows.site,
            rows.d_in,
            count(self.contexts, "context"),
            self.provenance.seconds,
        )
    }
}
