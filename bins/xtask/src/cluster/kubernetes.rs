//! The file of the job beside the schemas of Kubernetes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::running::checked;

/// Validates the file, and makes sure that a wrong one would be refused.
pub(super) fn validate(programs: &Path, guide: &Path, work: &Path) -> Result<()> {
    let file = guide.join("job.yaml");
    let command = |file: &Path| {
        let mut command = Command::new(programs.join("kubernetes-validate"));
        command.arg("--strict").arg(file);
        command
    };
    checked(&mut command(&file))?;
    let text = fs_err::read_to_string(&file)?;
    ensure!(
        text.matches("completions: 4").count() == 1
            && text.contains("name: JOB_COMPLETIONS\n              value: \"4\""),
        "{}: `completions` and JOB_COMPLETIONS are not the same",
        file.display()
    );
    let wrong = work.join("wrong.yaml");
    let text = text.replace("completionMode", "completionMod");
    circuitscope_files::write_atomic(&wrong, |out| out.write_all(text.as_bytes()))?;
    let outcome = command(&wrong)
        .output()
        .context("cannot run kubernetes-validate")?;
    ensure!(
        !outcome.status.success(),
        "a job with a key that does not exist passed for valid"
    );
    Ok(())
}
