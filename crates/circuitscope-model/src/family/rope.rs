use serde_json::{Map, Value};

use super::keys::Keys;
use crate::Result;
use crate::config::{Positions, RopeScaling, Rotary, RotaryPairs};

/// How a family writes its rotary positions down.
pub(super) struct Style {
    /// Keys of θ beside `rope_parameters`; those after the first repeat it.
    pub(super) base: &'static [&'static str],
    /// Keys of the share of a head that rotates; none if all of it always does.
    pub(super) partial: &'static [&'static str],
    /// That share if the configuration does not say.
    pub(super) partial_default: f64,
}

impl Style {
    /// θ as `rope_theta`, whole heads.
    pub(super) const WHOLE: Self = Self {
        base: &["rope_theta"],
        partial: &[],
        partial_default: 1.0,
    };
}

/// Reads `rope_theta`, `rope_scaling` (transformers 4) and `rope_parameters` (5). Every type but
/// `default`, `linear` and `llama3` is refused.
pub(super) fn positions(keys: &Keys<'_>, style: &Style, d_head: usize) -> Result<Positions> {
    let empty = Map::new();
    let from = objects(keys)?.unwrap_or(("rope_parameters", &empty));
    Ok(Positions::Rotary(rotary(keys, style, THETA, from, d_head)?))
}

/// The same where layers with a window have angles of their own (Gemma 3): `rope_local_base_freq`
/// beside `rope_theta` and `rope_scaling`, which then concern the other layers (transformers 4), or
/// an object for each kind of layer in `rope_parameters` (5).
pub(super) fn by_window(keys: &Keys<'_>, d_head: usize) -> Result<Positions> {
    let local = Style {
        base: &["rope_local_base_freq"],
        ..Style::WHOLE
    };
    let empty = Map::new();
    let (of_whole, of_windowed) = match objects(keys)? {
        Some(("rope_parameters", map)) => {
            let kinds = keys.section("rope_parameters", map);
            let whole = object(&kinds, "full_attention")?;
            let windowed = object(&kinds, "sliding_attention")?;
            kinds.finish(&[])?;
            (whole, windowed)
        }
        other => (other.map(|(_, map)| map), None),
    };
    let whole = if keys.has("rope_scaling") {
        "rope_scaling"
    } else {
        "rope_parameters.full_attention"
    };
    let whole = (whole, of_whole.unwrap_or(&empty));
    let windowed = (
        "rope_parameters.sliding_attention",
        of_windowed.unwrap_or(&empty),
    );
    Ok(Positions::RotaryByWindow {
        whole: rotary(keys, &Style::WHOLE, 1_000_000.0, whole, d_head)?,
        windowed: rotary(keys, &local, THETA, windowed, d_head)?,
    })
}

/// θ where nothing else is said.
const THETA: f64 = 10_000.0;

fn object<'a>(keys: &Keys<'a>, key: &'static str) -> Result<Option<&'a Map<String, Value>>> {
    match keys.get(key) {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(other) => Err(keys.unsupported(key, other, "an object")),
    }
}

/// `rope_parameters` or `rope_scaling`, whichever is there, with its name.
fn objects<'a>(keys: &Keys<'a>) -> Result<Option<(&'static str, &'a Map<String, Value>)>> {
    let parameters = object(keys, "rope_parameters")?;
    let scaling = object(keys, "rope_scaling")?;
    if let (Some(newer), Some(map)) = (parameters, scaling)
        && newer != map
    {
        let found = Value::Object(map.clone());
        return Err(keys.unsupported("rope_scaling", &found, "null beside rope_parameters"));
    }
    let parameters = parameters.map(|map| ("rope_parameters", map));
    Ok(parameters.or(scaling.map(|map| ("rope_scaling", map))))
}

/// The angles that one object describes, with what stands outside it.
fn rotary(
    keys: &Keys<'_>,
    style: &Style,
    theta: f64,
    (section, map): (&str, &Map<String, Value>),
    d_head: usize,
) -> Result<Rotary> {
    let inner = keys.section(section, map);
    let said = inner.number("rope_theta")?;
    let base = keys.agreed(style.base, said)?.unwrap_or(theta);
    let share = inner.number("partial_rotary_factor")?;
    let share = keys
        .agreed(style.partial, share)?
        .unwrap_or(style.partial_default);
    if share > 1.0 || (style.partial.is_empty() && share != 1.0) {
        let expected = if style.partial.is_empty() {
            "1"
        } else {
            "at most 1"
        };
        let found = Value::from(share);
        return Err(inner.unsupported("partial_rotary_factor", &found, expected));
    }
    let dim = (d_head as f64 * share) as usize;
    if dim == 0 || !dim.is_multiple_of(2) {
        let expected =
            format!("an even number of rotated entries of a head of {d_head}, not {dim}");
        let found = Value::from(share);
        return Err(inner.unsupported("partial_rotary_factor", &found, &expected));
    }

    let kinds = ["default", "linear", "llama3"].map(|kind| (kind, kind));
    let kind = inner.choice("rope_type", &kinds)?;
    let kind = kind.or(inner.choice("type", &kinds)?);
    let scaling = match kind {
        Some("linear") => RopeScaling::Linear {
            factor: inner.required("factor")?,
        },
        Some("llama3") => {
            let (low, high) = (
                inner.required("low_freq_factor")?,
                inner.required("high_freq_factor")?,
            );
            if high <= low {
                let found = Value::from(high);
                let expected = format!("over low_freq_factor = {low}");
                return Err(inner.unsupported("high_freq_factor", &found, &expected));
            }
            RopeScaling::Llama3 {
                factor: inner.required("factor")?,
                low_freq_factor: low,
                high_freq_factor: high,
                original: match inner.number("original_max_position_embeddings")? {
                    Some(original) => original,
                    None => keys.required("max_position_embeddings")?,
                },
            }
        }
        None if section == "rope_scaling" && !map.is_empty() => {
            return Err(inner.missing("rope_type"));
        }
        _ => RopeScaling::None,
    };
    inner.finish(&[])?;
    Ok(Rotary {
        dim,
        base,
        pairs: RotaryPairs::Halves,
        scaling,
    })
}
