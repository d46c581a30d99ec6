//! `bench-report`: criterion's results as a table and a picture.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use circuitscope_files::write_atomic;
use serde_json::Value;

/// One bench: `stage/shape/backend`, and the middle of its times with an interval, in nanoseconds.
#[derive(Debug, Clone, PartialEq)]
struct Bench {
    name: String,
    median: f64,
    low: f64,
    high: f64,
}

/// Reads all results below `criterion` and writes `NAME.md` and `NAME.svg` into `output`.
///
/// # Errors
/// If there are no results, or a file cannot be read or written.
pub(crate) fn run(criterion: &Path, output: &Path, name: &str, note: &str) -> Result<()> {
    let mut benches = Vec::new();
    collect(criterion, &mut benches)?;
    ensure!(
        !benches.is_empty(),
        "{}: no results of criterion: run `cargo bench` first",
        criterion.display()
    );
    benches.sort_by(|a, b| a.name.cmp(&b.name));
    let (growing, stages): (Vec<_>, Vec<_>) = benches
        .into_iter()
        .partition(|bench| bench.name.starts_with("growth/"));
    let mut page = format!("# {name}\n\n{}", machine(note));
    page.push_str("\n| bench | median | 95 % |\n|---|---|---|\n");
    for bench in &stages {
        let Bench {
            name,
            median,
            low,
            high,
        } = bench;
        writeln!(
            page,
            "| {name} | {} | {} to {} |",
            time(*median),
            time(*low),
            time(*high)
        )?;
    }
    if !growing.is_empty() {
        page.push_str("\nGrowth, each size doubled three times: time ∝ size to the power\n\n");
        page.push_str("| what | 1 | 2 | 4 | 8 | exponent of the last doubling | overall |\n|---|---|---|---|---|---|---|\n");
        page.push_str(&growth(&growing)?);
    }
    write_atomic(&output.join(format!("{name}.md")), |out| {
        out.write_all(page.as_bytes())
    })?;
    let svg = picture(name, &stages)?;
    write_atomic(&output.join(format!("{name}.svg")), |out| {
        out.write_all(svg.as_bytes())
    })?;
    Ok(())
}

/// Every folder with `new/estimates.json` is a bench; its path says its name.
fn collect(folder: &Path, benches: &mut Vec<Bench>) -> Result<()> {
    let estimates = folder.join("new/estimates.json");
    if estimates.is_file() {
        let read = |file: &Path| -> Result<Value> {
            let bytes = fs_err::read(file)?;
            serde_json::from_slice(&bytes).with_context(|| file.display().to_string())
        };
        let id = read(&folder.join("new/benchmark.json"))?;
        let median = &read(&estimates)?["median"];
        let number = |value: &Value| {
            value
                .as_f64()
                .with_context(|| format!("{}: no median", estimates.display()))
        };
        let interval = &median["confidence_interval"];
        benches.push(Bench {
            name: id["full_id"].as_str().context("no name")?.to_owned(),
            median: number(&median["point_estimate"])?,
            low: number(&interval["lower_bound"])?,
            high: number(&interval["upper_bound"])?,
        });
        return Ok(());
    }
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, benches)?;
        }
    }
    Ok(())
}

fn machine(note: &str) -> String {
    let output = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let cpu = fs_err::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let unknown = || "unknown".to_owned();
    format!(
        "- hardware: {}, {cores} cores used\n- commit: {}\n- compiler: {}\n- command: `cargo bench`, then `cargo xtask bench-report`\n{}",
        cpu.unwrap_or_else(unknown),
        output("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(unknown),
        output("rustc", &["--version"]).unwrap_or_else(unknown),
        if note.is_empty() {
            String::new()
        } else {
            format!("- {note}\n")
        }
    )
}

fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.1} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

/// Rows of `what`, its four times and its exponents.
fn growth(benches: &[Bench]) -> Result<String> {
    let mut of: BTreeMap<String, BTreeMap<u32, f64>> = BTreeMap::new();
    for bench in benches {
        let (what, factor) = bench.name.rsplit_once('/').context("no factor")?;
        let what = what.trim_start_matches("growth/").to_owned();
        of.entry(what)
            .or_default()
            .insert(factor.parse()?, bench.median);
    }
    let mut rows = String::new();
    for (what, times) in of {
        let cells: Vec<String> = times.values().map(|ns| time(*ns)).collect();
        let exponents = exponents(&times);
        writeln!(rows, "| {what} | {} | {} |", cells.join(" | "), exponents)?;
    }
    Ok(rows)
}

fn exponents(times: &BTreeMap<u32, f64>) -> String {
    let points: Vec<(f64, f64)> = times
        .iter()
        .map(|(&size, &ns)| (f64::from(size).log2(), ns.log2()))
        .collect();
    let slope = |points: &[(f64, f64)]| {
        let n = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
        let (x, y) = (mean(|p| p.0), mean(|p| p.1));
        let over: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
        over / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>()
    };
    match points.as_slice() {
        [.., a, b] => format!("{:.2} | {:.2}", slope(&[*a, *b]), slope(&points)),
        _ => "– | –".to_owned(),
    }
}

/// Bars on a logarithmic axis, one for each bench.
fn picture(name: &str, benches: &[Bench]) -> Result<String> {
    const LEFT: f64 = 260.0;
    const WIDTH: f64 = 460.0;
    const ROW: f64 = 20.0;
    let low = benches
        .iter()
        .map(|bench| bench.median)
        .fold(f64::INFINITY, f64::min);
    let high = benches.iter().map(|bench| bench.median).fold(0.0, f64::max);
    let (low, high) = (
        low.log10().floor(),
        high.log10().ceil().max(low.log10().floor() + 1.0),
    );
    let x = |ns: f64| LEFT + WIDTH * (ns.log10() - low) / (high - low);
    let height = 60.0 + ROW * benches.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 {height}\" font-family=\"sans-serif\" font-size=\"12\" role=\"img\" aria-label=\"Median times of {name}\">\
         <style>text{{fill:#1f2328}}.b{{fill:#1d4ed8}}.g{{stroke:#d8dee4}}@media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}.b{{fill:#58a6ff}}.g{{stroke:#30363d}}}}</style>\
         <text x=\"8\" y=\"18\" font-size=\"14\">{name}: median times, logarithmic</text>"
    );
    for power in low as i32..=high as i32 {
        let at = x(10f64.powi(power));
        write!(
            svg,
            "<line class=\"g\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"44\" y2=\"{}\"/><text x=\"{at:.1}\" y=\"38\" text-anchor=\"middle\">{}</text>",
            height - 8.0,
            time(10f64.powi(power))
        )?;
    }
    for (row, bench) in benches.iter().enumerate() {
        let y = 50.0 + ROW * row as f64;
        let end = x(bench.median);
        write!(
            svg,
            "<text x=\"{}\" y=\"{:.0}\" text-anchor=\"end\">{}</text><rect class=\"b\" x=\"{LEFT}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"12\"/><text x=\"{:.1}\" y=\"{:.0}\">{}</text>",
            LEFT - 8.0,
            y + 10.0,
            bench.name,
            (end - LEFT).max(1.0),
            end + 5.0,
            y + 10.0,
            time(bench.median)
        )?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// Where criterion leaves its results.
pub(crate) fn default_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")),
        PathBuf::from,
    );
    target.join("criterion")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, id: &str, median: f64) {
        let new = folder.join(id).join("new");
        fs_err::create_dir_all(&new).unwrap();
        let estimates = serde_json::json!({ "median": { "point_estimate": median,
            "confidence_interval": { "lower_bound": 0.9 * median, "upper_bound": 1.1 * median } } });
        fs_err::write(new.join("estimates.json"), estimates.to_string()).unwrap();
        let id = serde_json::json!({ "full_id": id });
        fs_err::write(new.join("benchmark.json"), id.to_string()).unwrap();
    }

    #[test]
    fn results_become_a_table_a_picture_and_exponents() {
        let folder = tempfile::tempdir().unwrap();
        let criterion = folder.path().join("criterion");
        write(&criterion, "capture/tiny/flex", 2.5e6);
        for factor in [1u32, 2, 4, 8] {
            let id = format!("growth/edges-by-heads/host/{factor}");
            write(&criterion, &id, 1e3 * f64::from(factor).powi(2));
        }
        run(&criterion, folder.path(), "cpu", "two shared cores").unwrap();
        let page = fs_err::read_to_string(folder.path().join("cpu.md")).unwrap();
        assert!(
            page.contains("| capture/tiny/flex | 2.5 ms | 2.2 ms to 2.8 ms |"),
            "{page}"
        );
        assert!(
            page.contains(
                "| edges-by-heads/host | 1.0 µs | 4.0 µs | 16.0 µs | 64.0 µs | 2.00 | 2.00 |"
            ),
            "{page}"
        );
        assert!(page.contains("- two shared cores"));
        let svg = fs_err::read_to_string(folder.path().join("cpu.svg")).unwrap();
        assert!(svg.contains("capture/tiny/flex") && svg.contains("2.5 ms"));

        let nothing = run(&folder.path().join("none"), folder.path(), "cpu", "");
        assert!(nothing.is_err());
    }
}
