//! Workers on an S3 server of loopback, killed in the middle.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Bench;
use super::running::{Running, checked, free_port, until};

/// Makes the bucket, and sees whether of eight that make one object at once, one does.
const PROMISE: &str = r#"
import sys, boto3, botocore
from concurrent.futures import ThreadPoolExecutor
from botocore.config import Config
s3 = boto3.client("s3", endpoint_url=sys.argv[1], config=Config(max_pool_connections=8))
s3.create_bucket(Bucket="sweeps")
def put(key):
    try:
        s3.put_object(Bucket="sweeps", Key=key, Body=b"x", IfNoneMatch="*")
        return 1
    except botocore.exceptions.ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412), error
        return 0
with ThreadPoolExecutor(8) as pool:
    for round in range(25):
        made = sum(pool.map(put, [f"promise/{round}"] * 8))
        assert made == 1, f"{made} of 8 writers made the same new object"
"#;

/// Seconds after which a killed worker's cells are taken over.
const LEASE: u64 = 4;

pub(super) fn run(bench: &Bench, programs: &Path, kills: usize) -> Result<Vec<String>> {
    let port = free_port()?;
    let work = bench.work.path();
    let mut server = Command::new(programs.join("moto_server"));
    server.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    let mut server = Running::start(&mut server, &work.join("s3.log"))?;
    until("the S3 server", Duration::from_mins(1), || {
        ensure!(server.runs()?, "the S3 server ended: {}", server.said());
        Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
    })?;
    let endpoint = format!("http://127.0.0.1:{port}");
    let variables: Vec<(&str, String)> = [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_ALLOW_HTTP", "true"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec();
    let mut python = Command::new(programs.join("python"));
    python
        .args(["-c", PROMISE, &endpoint])
        .envs(variables.clone());
    checked(&mut python).context("the S3 server does not honour conditional puts")?;

    let plan = bench.place("s3", "s3://sweeps/one", LEASE)?;
    let listed = bench.json(&[plan.as_ref()], &variables)?;
    let all = listed["cells"].as_array().map_or(0, Vec::len);
    let start = |slot: usize, number: usize| -> Result<(Running, PathBuf)> {
        let args = ["sweep", "run", "--quiet", "--format", "json"];
        let args: Vec<&OsStr> = args
            .iter()
            .map(OsStr::new)
            .chain([plan.as_os_str()])
            .collect();
        let mut command = bench.command(slot, &args);
        command.envs(variables.clone());
        let log = work.join(format!("s3-worker-{number}.log"));
        Ok((Running::start(&mut command, &log)?, log))
    };
    let began = Instant::now();
    let mut workers = vec![start(0, 0)?.0, start(1, 1)?.0];
    let mut killed = 0;
    let mut started = 2;
    // Each kill comes while some cells are done and some are not: spread over the whole.
    while killed < kills {
        let wanted = all * (killed + 1) / (kills + 1);
        let status = bench.json(&["status".as_ref(), plan.as_ref()], &variables)?;
        let done = status["done"].as_u64().unwrap_or(0) as usize;
        ensure!(
            done < all,
            "all cells were done before {kills} workers could be killed: give it more work"
        );
        ensure!(
            began.elapsed() < Duration::from_mins(4),
            "found {done} of {all} cells done after 4 minutes"
        );
        if done < wanted {
            continue;
        }
        let slot = killed % 2;
        ensure!(
            workers[slot].runs()?,
            "a worker ended early: {}",
            workers[slot].said()
        );
        workers[slot].kill()?;
        killed += 1;
        workers[slot] = start(slot, started)?.0;
        started += 1;
    }
    let mut ran = 0;
    for worker in workers {
        let said = worker.end(Duration::from_mins(4))?;
        let value: serde_json::Value =
            serde_json::from_str(said.trim()).with_context(|| format!("a worker said {said:?}"))?;
        ran += value["ran"].as_u64().unwrap_or(0);
    }
    let seconds = began.elapsed().as_secs_f64();
    let status = bench.json(&["status".as_ref(), plan.as_ref()], &variables)?;
    ensure!(
        status["done"].as_u64() == Some(all as u64),
        "found {} of {all} cells done",
        status["done"]
    );
    let args = ["merge".as_ref(), plan.as_ref(), "--sql".as_ref()];
    let question = |sql: &str| -> Result<serde_json::Value> {
        let args: Vec<&OsStr> = args.iter().copied().chain([OsStr::new(sql)]).collect();
        bench.json(&args, &variables)
    };
    let once = question("SELECT count(*) AS rows, count(DISTINCT key) AS keys FROM provenance")?;
    ensure!(
        once == serde_json::json!([{ "rows": all, "keys": all }]),
        "expected every cell once, found {once}"
    );
    // A cell that was begun twice is one that a killed worker had.
    let workers = question(
        "SELECT worker, count(*) AS cells, max(attempt) AS attempts FROM provenance GROUP BY worker ORDER BY worker",
    )?;
    let by: BTreeMap<String, u64> = workers
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| {
            (
                row["worker"].to_string(),
                row["cells"].as_u64().unwrap_or(0),
            )
        })
        .collect();
    ensure!(by.values().sum::<u64>() == all as u64);
    let again = question("SELECT count(*) AS again FROM provenance WHERE attempt > 1")?;
    let again = again[0]["again"].as_u64().unwrap_or(0);
    // A worker holds one cell at a time, or the three seeds of one method.
    ensure!(
        again <= 3 * killed as u64,
        "found {again} cells begun again after {killed} kills"
    );
    bench.compare(&plan, &variables)?;
    Ok(vec![
        "25 rounds of 8 writers: one of them made the new object each time".to_owned(),
        format!(
            "{all} cells by {started} workers, {killed} of them killed by SIGKILL, in {seconds:.1} s with a lease of {LEASE} s: every \
             cell once, {again} begun again, {ran} by the last two, {} workers have results",
            by.len()
        ),
        "merged tables: the bytes of one worker alone".to_owned(),
    ])
}
