//! What `--version` says: enough to build the same program again.

use std::sync::LazyLock;

/// Version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Every feature of this program, and whether it is compiled in.
const FEATURES: [(&str, bool); 7] = [
    ("flex", cfg!(feature = "flex")),
    ("ndarray", cfg!(feature = "ndarray")),
    ("wgpu", cfg!(feature = "wgpu")),
    ("cuda", cfg!(feature = "cuda")),
    ("fusion", cfg!(feature = "fusion")),
    ("hub", cfg!(feature = "hub")),
    ("sweep", cfg!(feature = "sweep")),
];

/// Those that are backends.
const BACKENDS: usize = 4;

/// Version, backends, features, commit, compiler and target, a line each.
pub(crate) fn long() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(made);
    &LONG
}

fn made() -> String {
    let names = |features: &[(&'static str, bool)]| {
        let names = features.iter().filter(|(_, is_in)| *is_in);
        let names: Vec<&str> = names.map(|(name, _)| *name).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    format!(
        "{VERSION}\nbackends: {}\nfeatures: {}\ncommit: {}\ncompiler: {}\ntarget: {}",
        names(&FEATURES[..BACKENDS]),
        names(&FEATURES),
        env!("CIRCUITSCOPE_COMMIT"),
        env!("CIRCUITSCOPE_RUSTC"),
        env!("CIRCUITSCOPE_TARGET"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `portable` stands for others.
    #[test]
    fn every_feature_is_listed() {
        let manifest = include_str!("../Cargo.toml");
        let features = manifest.split("[features]").nth(1).unwrap();
        let features = features.split("\n[").next().unwrap();
        let mut names: Vec<&str> = features
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| Some(line.split_once(" = ")?.0))
            .filter(|name| !["default", "portable"].contains(name))
            .collect();
        let mut listed = FEATURES.map(|(name, _)| name);
        names.sort_unstable();
        listed.sort_unstable();
        assert_eq!(names, listed);
    }
}
