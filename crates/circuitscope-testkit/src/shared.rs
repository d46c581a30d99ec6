use std::path::{Path, PathBuf};

/// The folder of large fixtures beside the repository (`../shared/fixtures`), if it is there.
///
/// Where it is not, says on stderr that the calling test is skipped.
#[must_use]
#[track_caller]
pub fn shared_fixtures() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    if folder.is_dir() {
        return Some(folder);
    }
    skip(core::panic::Location::caller());
    None
}

/// The folder of the real model that `cargo xtask real-model` fetches, with `model.gguf`.
///
/// # Panics
/// If it was not fetched: a test that needs it is marked as ignored, so nobody runs it by chance.
#[must_use]
pub fn real_model() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = folder.join("../../.models/smollm2-135m-instruct");
    let model = folder.join("model.gguf");
    assert!(
        model.is_file(),
        "{} is not here: run cargo xtask real-model",
        model.display()
    );
    folder
}

#[expect(
    clippy::print_stderr,
    reason = "a test that checks nothing must say so"
)]
fn skip(test: &core::panic::Location<'_>) {
    eprintln!("skipped: {test} needs ../shared/fixtures, which is not here");
}
