use serde_json::Value;

use super::keys::Keys;
use crate::Result;

/// Which layers attend in a window where the configuration has no `layer_types`.
#[derive(Clone, Copy)]
pub(super) enum Windowed {
    /// All (Mistral, Phi-3).
    All,
    /// The first, third, … (Gemma 2).
    Alternate,
    /// All but every so-manieth (Gemma 3: `sliding_window_pattern`).
    AllBut { every: usize },
    /// Those from `max_window_layers` on, if `use_sliding_window` says so (Qwen).
    Late,
}

/// Reads `sliding_window` and `layer_types`: the window of each layer, or nothing if no layer has one. `default` is
/// the family's window where the configuration does not speak of one.
pub(super) fn windows(
    keys: &Keys<'_>,
    style: Windowed,
    default: Option<usize>,
    n_layers: usize,
) -> Result<Vec<Option<usize>>> {
    let window = match keys.get("sliding_window") {
        None if keys.has("sliding_window") => None,
        None => default,
        Some(_) => Some(keys.size("sliding_window")?),
    };
    let (window, first) = match style {
        Windowed::Late => {
            let used = keys.flag_or("use_sliding_window", false)?;
            let first = match keys.get("max_window_layers").and_then(Value::as_u64) {
                Some(first) => first as usize,
                None => keys.size_or("max_window_layers", Some(28))?,
            };
            (window.filter(|_| used), first)
        }
        Windowed::All | Windowed::Alternate | Windowed::AllBut { .. } => (window, 0),
    };
    let windowed: Vec<bool> = match keys.get("layer_types") {
        Some(types) => listed(keys, types, n_layers)?,
        None => (0..n_layers)
            .map(|layer| match style {
                Windowed::All => true,
                Windowed::Alternate => layer % 2 == 0,
                Windowed::AllBut { every } => (layer + 1) % every != 0,
                Windowed::Late => layer >= first,
            })
            .collect(),
    };
    let named = keys.get("layer_types").is_some()
        || matches!(style, Windowed::Alternate | Windowed::AllBut { .. });
    if window.is_none() && named && windowed.contains(&true) {
        let expected = "a positive number, because there are layers of sliding_attention";
        return Err(keys.unsupported("sliding_window", &Value::Null, expected));
    }
    if window.is_none() || !windowed.contains(&true) {
        return Ok(Vec::new());
    }
    if let (Some(window), false) = (window, keys.has("sliding_window")) {
        keys.note(&format!(
            "no `sliding_window`, so it is {window} as in transformers"
        ));
    }
    let windows = windowed.into_iter();
    Ok(windows.map(|is| window.filter(|_| is)).collect())
}

fn listed(keys: &Keys<'_>, types: &Value, n_layers: usize) -> Result<Vec<bool>> {
    let expected = format!("{n_layers} times \"full_attention\" or \"sliding_attention\"");
    let bad = |found: &Value| keys.unsupported("layer_types", found, &expected);
    let list = types.as_array().ok_or_else(|| bad(types))?;
    if list.len() != n_layers {
        return Err(bad(&Value::from(format!("a list of {}", list.len()))));
    }
    let entries = list.iter().map(|entry| match entry.as_str() {
        Some("full_attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => Err(bad(entry)),
    });
    entries.collect()
}
