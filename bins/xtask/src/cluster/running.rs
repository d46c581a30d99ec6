//! Programs that are started, watched and ended.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// How often a program that runs is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What a program that must succeed prints.
pub(crate) fn checked(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {shown}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{shown}: {}: {said}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// A program that runs beside this one, and is killed once this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    shown: String,
    log: PathBuf,
}

impl Running {
    /// Starts a program; what it says goes to a file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let shown = format!("{command:?}");
        let file = fs_err::File::create(log)?.into_parts().0;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {shown}"))?;
        Ok(Self {
            child,
            shown,
            log: log.to_owned(),
        })
    }

    /// What it said so far.
    pub(crate) fn said(&self) -> String {
        fs_err::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it has ended well.
    pub(crate) fn end(mut self, most: Duration) -> Result<String> {
        let until = Instant::now() + most;
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(
                    status.success(),
                    "{}: {status}: {}",
                    self.shown,
                    self.said()
                );
                return Ok(self.said());
            }
            if Instant::now() > until {
                self.kill()?;
                bail!("{}: still ran after {most:?}: {}", self.shown, self.said());
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Tries until something is so.
pub(crate) fn until(
    what: &str,
    most: Duration,
    mut so: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + most;
    while !so()? {
        ensure!(Instant::now() < end, "waited {most:?} for {what}");
        thread::sleep(LOOK * 4);
    }
    Ok(())
}

/// A port that is free now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}
