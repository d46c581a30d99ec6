//! Runs the program under limits of time and memory, and tells how it ended.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;

/// After this a command counts as hanging.
pub(crate) const HANG: Duration = Duration::from_mins(1);
/// How long a command has to end after a signal.
pub(crate) const GRACE: Duration = Duration::from_secs(3);
/// More resident memory than this is too much for the small inputs here.
pub(crate) const MEMORY: u64 = 2_000_000_000;
/// How much of an output is looked at.
const SAID: usize = 16 << 20;

/// A signal to send and when, counted from the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Send {
    pub(crate) signal: i32,
    pub(crate) after: Duration,
}

/// A command line to run.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// Where it runs.
    pub(crate) folder: PathBuf,
    pub(crate) send: Option<Send>,
    /// No file may grow over this number of blocks of 512 bytes.
    pub(crate) blocks: Option<u64>,
    /// Where output goes instead of being kept.
    pub(crate) stdout: Option<PathBuf>,
    pub(crate) stderr: Option<PathBuf>,
    /// The command line that runs the program, such as a tracer's, in front of its own.
    pub(crate) under: Vec<String>,
    /// Whether it dies of SIGKILL on purpose, by whoever runs it.
    pub(crate) dies: bool,
    /// Variables of the environment.
    pub(crate) environment: Vec<(&'static str, String)>,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    /// What it died of.
    pub(crate) signal: Option<i32>,
    /// The signal that it was sent on purpose, if it still ran then.
    pub(crate) sent: Option<i32>,
    /// It had to be killed: it ran too long, or went on for too long after a signal.
    pub(crate) hung: bool,
    /// The most resident memory it had, in bytes.
    pub(crate) peak: u64,
    pub(crate) time: Duration,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Invocation {
    pub(crate) fn new(program: &Path, folder: &Path, args: &[String]) -> Self {
        Self {
            program: program.to_owned(),
            args: args.to_owned(),
            folder: folder.to_owned(),
            send: None,
            blocks: None,
            stdout: None,
            stderr: None,
            under: Vec::new(),
            dies: false,
            environment: Vec::new(),
        }
    }

    /// Sends `signal` after `after`.
    pub(crate) fn with_signal(mut self, signal: i32, after: Duration) -> Self {
        self.send = Some(Send { signal, after });
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Result<Finished> {
        self.start()?.wait()
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Result<Running> {
        let said = tempfile::tempdir()?;
        let sink = |given: &Option<PathBuf>, name: &str| match given {
            None => File::create(said.path().join(name)),
            Some(path) => File::options().write(true).open(path),
        };
        let (stdout, stderr) = (sink(&self.stdout, "stdout")?, sink(&self.stderr, "stderr")?);
        let mut command = match (self.blocks, self.under.split_first()) {
            (None, None) => Command::new(&self.program),
            (None, Some((tracer, args))) => {
                let mut tracer = Command::new(tracer);
                tracer.args(args).arg(&self.program);
                tracer
            }
            (Some(blocks), _) => {
                // As on a full disk, writing fails; by default the signal would end the program.
                let mut shell = Command::new("sh");
                let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
                shell.arg("-c").arg(script).arg(&self.program);
                shell
            }
        };
        command
            .args(&self.args)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .env_remove("RUST_LOG")
            .env_remove("RUST_BACKTRACE")
            // No name in a broken file is looked up anywhere.
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_HOME", said.path())
            // Without, graphics drivers write errors of their own to stderr.
            .env("XDG_RUNTIME_DIR", said.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        Ok(Running {
            child,
            started: Instant::now(),
            said,
            send: self.send,
            dies: self.dies,
        })
    }
}

/// A command that runs.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    started: Instant,
    said: tempfile::TempDir,
    send: Option<Send>,
    dies: bool,
}

impl Running {
    /// Waits for its end, and ends it if it takes too long or too much memory.
    pub(crate) fn wait(self) -> Result<Finished> {
        let pid = self.child.id() as i32;
        let mut peak = 0;
        let mut sent = None;
        let mut hung = false;
        let mut deadline = HANG;
        let (status, most) = loop {
            if let Some(ended) = reap(pid)? {
                break ended;
            }
            let time = self.started.elapsed();
            if let Some(send) = self.send
                && sent.is_none()
                && time >= send.after
            {
                signal(pid, send.signal);
                sent = Some(send.signal);
                deadline = time + GRACE;
            }
            peak = peak.max(resident(pid));
            // A little more, so that nothing at the limit is told by when it was looked at.
            let greedy = peak > MEMORY + MEMORY / 10;
            hung |= time > deadline;
            if greedy || hung {
                signal(pid, libc::SIGKILL);
            }
            let next = Duration::from_millis(if time < Duration::from_millis(300) {
                2
            } else {
                10
            });
            let until = self.send.filter(|_| sent.is_none());
            let until = until.map_or(next, |send| send.after.saturating_sub(time));
            thread::sleep(next.min(until));
        };
        let said = |name: &str| -> Result<Vec<u8>> {
            let path = self.said.path().join(name);
            if !path.exists() {
                return Ok(Vec::new());
            }
            let mut bytes = fs::read(path)?;
            bytes.truncate(SAID);
            Ok(bytes)
        };
        if self.dies && !hung && status.signal() == Some(libc::SIGKILL) {
            sent = Some(libc::SIGKILL);
        }
        Ok(Finished {
            code: status.code(),
            signal: status.signal(),
            sent,
            hung,
            peak: peak.max(most),
            time: self.started.elapsed(),
            stdout: said("stdout")?,
            stderr: said("stderr")?,
        })
    }
}

/// The state of a child that ended, and the most memory that it had.
#[expect(
    unsafe_code,
    reason = "the standard library does not say how much memory a child took"
)]
fn reap(pid: i32) -> Result<Option<(ExitStatus, u64)>> {
    let mut status = 0;
    // SAFETY: all zeroes is a valid value of this plain struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to variables that live until after the call.
    let ended = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
    ensure!(
        ended >= 0,
        "cannot wait for process {pid}: {}",
        std::io::Error::last_os_error()
    );
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    let most = usage.ru_maxrss as u64 * unit;
    Ok((ended == pid).then(|| (ExitStatus::from_raw(status), most)))
}

/// Sends a signal to a child that was not waited for yet.
#[expect(unsafe_code, reason = "the standard library can only kill")]
fn signal(pid: i32, signal: i32) {
    // SAFETY: a call without pointers; the child was not waited for, so the number is still its own.
    unsafe { libc::kill(pid, signal) };
}

/// Resident memory, in bytes; 0 where there is no /proc.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}
