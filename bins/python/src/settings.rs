//! Settings of methods by name: the fields of the library's settings, so that a new field needs nothing here.

use anyhow::{Result, anyhow, bail};
use circuitscope::eval::methods::{MethodSettings, PatchedEdges};
use circuitscope::{did_you_mean, nearest};
use pyo3::prelude::*;
use serde_json::{Map, Value, json};

/// Parts of [`MethodSettings`], and what stands before the names of their fields.
const PARTS: [(&str, &str); 3] = [("sae", ""), ("patching", ""), ("z_features", "z_")];

/// Whole numbers that may be 0, and the most that a setting may be where it is not [`MOST`].
const MAY_BE_NONE: [&str; 2] = ["steps", "z_steps"];
const LIMITS: [(&str, u64); 4] = [
    ("n_codes", 65_536),
    ("ig_steps", 10_000),
    ("node_ig_steps", 10_000),
    ("z_expansion", 256),
];
/// The most of anything else.
const MOST: u64 = 1_000_000;

/// The settings as JSON, and the names by which they are asked for: name, part, field.
fn fields(settings: &MethodSettings) -> (Value, Vec<(String, &'static str, String)>) {
    let tree = json!(settings);
    let mut names = Vec::new();
    for (part, prefix) in PARTS {
        let fields = tree[part].as_object().into_iter().flat_map(Map::keys);
        names.extend(fields.map(|field| (format!("{prefix}{field}"), part, field.clone())));
    }
    (tree, names)
}

/// The names of all settings of methods with their defaults, as JSON.
#[pyfunction]
pub fn setting_names() -> PyResult<String> {
    let (tree, names) = fields(&MethodSettings::default());
    let named = names.into_iter();
    let named: Map<String, Value> = named
        .map(|(name, part, field)| (name, tree[part][field.as_str()].clone()))
        .collect();
    crate::work::to_json(&named)
}

/// `usual` with what was asked for; `others` are the names of the other arguments of the call, for hints.
pub(crate) fn methods(
    usual: &MethodSettings,
    asked: &Map<String, Value>,
    others: &[String],
) -> Result<MethodSettings> {
    let (mut tree, names) = fields(usual);
    for (name, value) in asked {
        let known = names.iter().find(|(known, ..)| known == name);
        let Some((_, part, field)) = known else {
            let of_methods = names.iter().map(|(name, ..)| name.as_str());
            let all = of_methods.clone().chain(others.iter().map(String::as_str));
            bail!(
                "unknown setting `{name}`{}: expected {}",
                did_you_mean(nearest(name, all)),
                of_methods.collect::<Vec<_>>().join(", ")
            );
        };
        tree[*part][field.as_str()] = checked(name, value, &tree[*part][field.as_str()])?;
    }
    serde_json::from_value(tree).map_err(|error| anyhow!("settings of methods: {error}"))
}

/// A value for a setting whose default is `usual`.
fn checked(name: &str, value: &Value, usual: &Value) -> Result<Value> {
    let wrong = |expected: &str| anyhow!("{name}: found {value}, expected {expected}");
    if name == "edges" {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let edges: PatchedEdges = text.parse().map_err(|error| anyhow!("{name}: {error}"))?;
        return Ok(json!(edges));
    }
    if usual.is_u64() {
        let least = u64::from(!MAY_BE_NONE.contains(&name));
        let most = LIMITS.iter().find(|(limited, _)| *limited == name);
        let most = most.map_or(MOST, |(_, most)| *most);
        let number = value.as_u64().filter(|n| (least..=most).contains(n));
        return number
            .map(|number| json!(number))
            .ok_or_else(|| wrong(&format!("a whole number, from {least} to {most}")));
    }
    let number = value.as_f64().filter(|n| n.is_finite() && *n >= 0.0);
    number
        .map(|number| json!(number))
        .ok_or_else(|| wrong("a finite number that is not negative"))
}
