use std::path::{Path, PathBuf};

/// The folder of large fixtures beside the repository (`../shared/fixtures`), if it is there.
///
/// For programs that can do without. Tests take [`fixture`], and are ignored unless asked for.
#[must_use]
pub fn shared_fixtures() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    folder.is_dir().then_some(folder)
}

/// A file or folder of the large fixtures beside the repository.
///
/// A test that calls this is marked `#[ignore = "needs ../shared/fixtures"]`: where nobody asks for it,
/// it shows as not run.
///
/// # Panics
/// If it is not there.
#[must_use]
#[track_caller]
pub fn fixture(path: &str) -> PathBuf {
    let found = shared_fixtures().map(|folder| folder.join(path));
    let found = found.filter(|path| path.exists());
    found.unwrap_or_else(|| panic!("needs ../shared/fixtures/{path}, which is not here"))
}

/// The file of the real model, SmolLM2-135M-Instruct, that `cargo xtask real-model` fetches.
///
/// A test that calls this is named `real_…` and marked
/// `#[ignore = "needs the real model: cargo xtask real-model"]`.
///
/// # Panics
/// If it is not there.
#[must_use]
#[track_caller]
pub fn real_model() -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../.models/smollm2-135m-instruct/model.gguf");
    assert!(
        file.exists(),
        "needs the real model, which is not here: cargo xtask real-model"
    );
    file
}
