//! SLURM on this one machine: its own daemons, an array of two jobs with the file of the guide.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::running::{Running, checked, free_port, until};
use super::{Bench, GUIDE};

/// Debian's packages.
const PACKAGES: [&str; 2] = ["slurm-wlm", "munge"];

/// The daemons, in the order in which they are started; those that are started last end first.
struct Cluster {
    _slurmd: Running,
    _slurmctld: Running,
    _munged: Running,
    settings: PathBuf,
}

pub(super) fn run(bench: &Bench) -> Result<Vec<String>> {
    install()?;
    let work = bench.work.path().join("slurm");
    let cluster = Cluster::start(&work)?;
    let plan = bench.place("array", "results", 60)?;
    bench.json(&[plan.as_ref()], &[])?;
    // Jobs find the program by its name; each is kept to the core that its number says.
    let programs = work.join("bin");
    fs_err::create_dir_all(&programs)?;
    let wrapper = programs.join("circuitscope");
    let script = format!(
        "#!/bin/sh\nexec taskset --cpu-list $((SLURM_ARRAY_TASK_ID % $(nproc --all))) '{}' \"$@\"\n",
        bench.program.display()
    );
    circuitscope_files::write_atomic(&wrapper, |out| out.write_all(script.as_bytes()))?;
    checked(Command::new("chmod").arg("+x").arg(&wrapper))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(programs).chain(std::env::split_paths(&path));
    let began = Instant::now();
    let mut submit = cluster.command("sbatch");
    submit
        .arg("--parsable")
        .arg(Path::new(GUIDE).join("array.sbatch"))
        .arg(&plan)
        .current_dir(&work)
        .env("PATH", std::env::join_paths(paths)?);
    let job = checked(&mut submit)?;
    let job = job.trim();
    until("the array of jobs", Duration::from_mins(4), || {
        let left = checked(cluster.command("squeue").args([
            "--noheader",
            "--states=all",
            "--format=%T",
            "--jobs",
            job,
        ]))?;
        for state in left.split_whitespace() {
            ensure!(
                [
                    "PENDING",
                    "CONFIGURING",
                    "RUNNING",
                    "COMPLETING",
                    "COMPLETED"
                ]
                .contains(&state),
                "job {job}: {state}: {}",
                logs(&work, job)
            );
        }
        Ok(left.split_whitespace().all(|state| state == "COMPLETED"))
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let said = logs(&work, job);
    for part in ["0/2", "1/2"] {
        let expected = format!("part {part} of the work, by an array of SLURM");
        ensure!(
            said.contains(&expected),
            "found no {expected:?} in what the jobs said: {said}"
        );
    }
    let cells = bench.cells(&plan)?;
    bench.compare(&plan, &[])?;
    // The same array again has nothing to do.
    let again = bench.json(&["run".as_ref(), plan.as_ref()], &[])?;
    ensure!(again["ran"] == 0, "found {} cells left", again["ran"]);
    let version = checked(cluster.command("sbatch").arg("--version"))?;
    Ok(vec![
        format!(
            "{}: {cells} cells by an array of 2 jobs in {seconds:.1} s",
            version.trim()
        ),
        "merged tables: the bytes of one worker alone".to_owned(),
    ])
}

/// What the jobs of an array said.
fn logs(work: &Path, job: &str) -> String {
    let file = |at: usize| work.join(format!("sweep-{job}-{at}.log"));
    let logs = (0..2).map(|at| fs_err::read_to_string(file(at)).unwrap_or_default());
    logs.collect::<Vec<_>>().join("\n")
}

/// Installs what is missing, by apt-get.
fn install() -> Result<()> {
    let there = |program: &str| {
        let mut which = Command::new("sh");
        which.args(["-c", &format!("command -v {program}")]);
        which.output().is_ok_and(|output| output.status.success())
    };
    if ["slurmctld", "slurmd", "munged"].into_iter().all(there) {
        return Ok(());
    }
    checked(Command::new("apt-get").args(["update", "-qq"]))?;
    let mut install = Command::new("apt-get");
    install
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(PACKAGES);
    checked(install.env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
}

impl Cluster {
    /// Starts the daemons with everything that they write in one folder.
    fn start(work: &Path) -> Result<Self> {
        for folder in ["state", "spool"] {
            fs_err::create_dir_all(work.join(folder))?;
        }
        let place = work.display();
        let key = work.join("munge.key");
        // Nothing but this machine is to trust it.
        let [a, b] = [
            std::process::id().to_string(),
            format!("{:?}", std::time::SystemTime::now()),
        ];
        let secret = circuitscope_files::sha256_of(format!("{a} {b}").as_bytes());
        circuitscope_files::write_atomic(&key, |out| out.write_all(secret.as_bytes()))?;
        checked(Command::new("chmod").arg("400").arg(&key))?;
        let host = fs_err::read_to_string("/proc/sys/kernel/hostname")?;
        let host = host.trim();
        let (controller, node) = (free_port()?, free_port()?);
        let settings = work.join("slurm.conf");
        let text = format!(
            "ClusterName=one\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\n\
             AuthType=auth/munge\nAuthInfo=socket={place}/munge.socket\n\
             StateSaveLocation={place}/state\nSlurmdSpoolDir={place}/spool\n\
             SlurmctldPidFile={place}/slurmctld.pid\nSlurmdPidFile={place}/slurmd.pid\n\
             SlurmctldPort={controller}\nSlurmdPort={node}\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nMpiDefault=none\nReturnToService=2\n\
             JobAcctGatherType=jobacct_gather/none\nAccountingStorageType=accounting_storage/none\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN\n\
             PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
        );
        circuitscope_files::write_atomic(&settings, |out| out.write_all(text.as_bytes()))?;
        let socket = work.join("munge.socket");
        let mut munged = Command::new("munged");
        munged.args(["--foreground", "--force", "--num-threads=2"]);
        for (option, file) in [
            ("key-file", "munge.key"),
            ("socket", "munge.socket"),
            ("pid-file", "munge.pid"),
            ("log-file", "munge.log"),
            ("seed-file", "munge.seed"),
        ] {
            munged.arg(format!("--{option}={place}/{file}"));
        }
        let munged = Running::start(&mut munged, &work.join("munged.log"))?;
        until("munged", Duration::from_secs(20), || Ok(socket.exists()))?;
        let daemon = |name: &str, more: &[&str]| {
            let mut daemon = Command::new(name);
            daemon.arg("-D").args(more).env("SLURM_CONF", &settings);
            Running::start(&mut daemon, &work.join(format!("{name}.log")))
        };
        let slurmctld = daemon("slurmctld", &[])?;
        until("slurmctld", Duration::from_secs(30), || {
            Ok(TcpStream::connect(("127.0.0.1", controller)).is_ok())
        })?;
        let slurmd = daemon("slurmd", &["-N", host])?;
        let cluster = Self {
            _slurmd: slurmd,
            _slurmctld: slurmctld,
            _munged: munged,
            settings,
        };
        until("a node that is idle", Duration::from_secs(30), || {
            let states = cluster
                .command("sinfo")
                .args(["--noheader", "--format=%T"])
                .output()?;
            Ok(String::from_utf8_lossy(&states.stdout).contains("idle"))
        })?;
        Ok(cluster)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env("SLURM_CONF", &self.settings);
        command
    }
}
