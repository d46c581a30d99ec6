//! Which tensors of a file are parts of one weight, as a configuration says.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Nested, Place, Quantised, matrix};
use crate::source::{Encoding, Source, Stored};
use crate::{Error, Result};

/// The key of the configuration.
pub(crate) const KEY: &str = "quantization_config";

/// How a configuration says that weights were quantised.
enum Scheme {
    BitsAndBytes,
    Gptq { bits: u8, group: Option<usize> },
    Awq { group: Option<usize> },
    Fp8 { block: [usize; 2] },
}

impl Scheme {
    fn of(path: &Path, config: &Map<String, Value>) -> Result<Option<Self>> {
        let Some(value) = config.get(KEY).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let bad = |key: &str, found: &Value, expected: &str| Error::Unsupported {
            path: path.to_owned(),
            key: format!("{KEY}{key}"),
            found: found.to_string(),
            expected: expected.to_owned(),
        };
        let map = value.as_object();
        let map = map.ok_or_else(|| bad("", value, "an object"))?;
        let get = |keys: &[&str]| keys.iter().find_map(|key| map.get(*key));
        let null = Value::Null;
        // Files of bitsandbytes from before the key was written have one of these.
        let is_old = get(&["load_in_8bit", "load_in_4bit"]).is_some();
        let method = map.get("quant_method").unwrap_or(&null);
        let method = match method.as_str() {
            None if is_old && method.is_null() => "bitsandbytes",
            Some(method) => method,
            None => return Err(bad(".quant_method", method, METHODS)),
        };
        let group = || match get(&["group_size", "q_group_size"]).and_then(Value::as_i64) {
            Some(-1) => Ok(None),
            Some(size @ 1..) => Ok(Some(size as usize)),
            _ => {
                let found = get(&["group_size", "q_group_size"]).unwrap_or(&null);
                Err(bad(
                    ".group_size",
                    found,
                    "a positive number, or -1 for one group",
                ))
            }
        };
        let one_of = |keys: &[&str], choices: &[Value], default: &Value| {
            let found = get(keys)
                .filter(|value| !value.is_null())
                .unwrap_or(default);
            if choices.contains(found) {
                return Ok(found.clone());
            }
            let names: Vec<String> = choices.iter().map(Value::to_string).collect();
            Err(bad(&format!(".{}", keys[0]), found, &names.join(" or ")))
        };
        Ok(Some(match method {
            "bitsandbytes" => Self::BitsAndBytes,
            "gptq" => {
                let bits = one_of(&["bits", "w_bit"], &[4.into(), 8.into()], &null)?;
                one_of(&["checkpoint_format"], &["gptq".into()], &"gptq".into())?;
                one_of(&["is_marlin_format"], &[false.into()], &false.into())?;
                Self::Gptq {
                    bits: if bits == 4 { 4 } else { 8 },
                    group: group()?,
                }
            }
            "awq" => {
                one_of(&["bits", "w_bit"], &[4.into()], &4.into())?;
                one_of(&["zero_point"], &[true.into()], &true.into())?;
                let versions = ["gemm".into(), "GEMM".into()];
                one_of(&["version"], &versions, &"gemm".into())?;
                Self::Awq { group: group()? }
            }
            "fp8" | "fbgemm_fp8" => {
                let sizes = map
                    .get("weight_block_size")
                    .filter(|sizes| !sizes.is_null());
                let block = match sizes {
                    None => [128, 128],
                    Some(sizes) => <[usize; 2]>::deserialize(sizes)
                        .ok()
                        .filter(|sizes| !sizes.contains(&0))
                        .ok_or_else(|| bad(".weight_block_size", sizes, "two positive numbers"))?,
                };
                Self::Fp8 { block }
            }
            _ => return Err(bad(".quant_method", &method.into(), METHODS)),
        }))
    }
}

/// The methods that are read.
const METHODS: &str = "\"bitsandbytes\", \"gptq\", \"awq\", \"fp8\" or \"fbgemm_fp8\"";

/// What `quant_state` of bitsandbytes holds, as JSON.
#[derive(Deserialize)]
struct State {
    blocksize: usize,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f32>,
}

/// Puts weights together that a configuration says are quantised. Says what was done.
pub(crate) fn assemble(
    path: &Path,
    config: &Map<String, Value>,
    source: &mut Source<'_>,
) -> Result<Option<String>> {
    let Some(scheme) = Scheme::of(path, config)? else {
        return Ok(None);
    };
    let mut done: BTreeMap<&str, usize> = BTreeMap::new();
    for name in source.names() {
        let made = match &scheme {
            Scheme::BitsAndBytes => bits_and_bytes(source, &name),
            Scheme::Gptq { bits, group } => gptq(source, &name, *bits, *group),
            Scheme::Awq { group } => awq(source, &name, *group),
            Scheme::Fp8 { block } => eight_bit_floats(source, &name, *block),
        };
        match made {
            None => {}
            Some(Ok((what, name, stored))) => {
                source.insert(name, stored);
                *done.entry(what).or_default() += 1;
            }
            Some(Err(problem)) => source.problem(format!("{name}: {problem}")),
        }
    }
    if done.is_empty() {
        source.problem(format!(
            "no tensor is quantised as {KEY} of {} says",
            crate::source::file_name(path)
        ));
    }
    let done: Vec<String> = done
        .iter()
        .map(|(what, count)| format!("{count} of {what}"))
        .collect();
    Ok(Some(format!("tensors dequantised: {}", done.join(", "))))
}

/// What a weight was, its name, and where its parts lie; or why it cannot be read; or nothing, if the tensor
/// is no quantised weight.
type Made = Option<Result<Weight, String>>;

type Weight = (&'static str, String, Stored);

/// Takes the part of this name out of the source.
fn part(source: &mut Source<'_>, name: &str) -> Result<Place, String> {
    let stored = source
        .remove(name)
        .ok_or_else(|| format!("{name} is missing"))?;
    place(stored).ok_or_else(|| format!("{name} is stored in another way"))
}

fn place(stored: Stored) -> Option<Place> {
    let (file, shape, encoding) = stored.into_parts();
    match encoding {
        Encoding::Plain { dtype, bytes } => Some(Place {
            file,
            dtype,
            shape,
            bytes,
        }),
        _ => None,
    }
}

fn put(shape: Vec<usize>, quantised: Quantised) -> Stored {
    Stored::new(0, shape, Encoding::Quantised(Box::new(quantised)))
}

fn bits_and_bytes(source: &mut Source<'_>, name: &str) -> Made {
    let stem = name.strip_suffix(".weight")?;
    let states = ["nf4", "fp4"].map(|kind| format!("{name}.quant_state.bitsandbytes__{kind}"));
    let state = states.iter().find(|state| source.has(state));
    if let Some(state) = state {
        return Some(four_bit(source, name, state));
    }
    let scales = format!("{stem}.SCB");
    source.has(&scales).then(|| -> Result<Weight, String> {
        source.remove(&format!("{stem}.weight_format"));
        let largest = part(source, &scales)?;
        let weight = part(source, name)?;
        if weight.dtype != Dtype::I8 {
            return Err(format!("type {:?}, expected I8", weight.dtype));
        }
        let stored = put(weight.shape.clone(), Quantised::Int8 { weight, largest });
        Ok(("bitsandbytes int8", name.to_owned(), stored))
    })
}

fn four_bit(source: &mut Source<'_>, name: &str, state: &str) -> Result<Weight, String> {
    let what = if state.ends_with("nf4") {
        "bitsandbytes NF4"
    } else {
        "bitsandbytes FP4"
    };
    let state = part(source, state)?;
    let parsed = serde_json::from_slice(source.bytes(&state));
    let state: State = parsed.map_err(|error| format!("quant_state: {error}"))?;
    let count = state
        .shape
        .iter()
        .try_fold(1usize, |n, &size| n.checked_mul(size));
    let count = count.filter(|count| *count < 1 << 48);
    let count = count.ok_or_else(|| format!("quant_state: shape {:?}", state.shape))?;
    let sound =
        |block: usize| (block.is_power_of_two() && (2..1 << 20).contains(&block)).then_some(block);
    let block = sound(state.blocksize);
    let block = block.ok_or_else(|| format!("quant_state: blocksize {}", state.blocksize))?;
    let nested = format!("{name}.nested_absmax");
    let nested = if source.has(&nested) {
        let size = state.nested_blocksize.and_then(sound);
        Some(Nested {
            largest: part(source, &nested)?,
            table: part(source, &format!("{name}.nested_quant_map"))?,
            offset: state.nested_offset.unwrap_or(0.0),
            block: size.ok_or("quant_state: no nested_blocksize that can be used")?,
        })
    } else {
        None
    };
    let quantised = Quantised::FourBit {
        largest: part(source, &format!("{name}.absmax"))?,
        table: part(source, &format!("{name}.quant_map"))?,
        weight: part(source, name)?,
        nested,
        block,
        count,
    };
    Ok((what, name.to_owned(), put(state.shape, quantised)))
}

/// The parts that GPTQ and AWQ have: weights, zeros, scales.
fn packed(source: &mut Source<'_>, stem: &str) -> Result<[Place; 3], String> {
    // Quantisers give layers without bias one of zeros.
    source.pass_over_if_zero(&format!("{stem}.bias"));
    let mut take = |name: &str| part(source, &format!("{stem}.{name}"));
    let parts = [take("qweight")?, take("qzeros")?, take("scales")?];
    for place in &parts[..2] {
        if place.dtype != Dtype::I32 {
            return Err(format!("type {:?}, expected I32", place.dtype));
        }
    }
    Ok(parts)
}

fn gptq(source: &mut Source<'_>, name: &str, bits: u8, group: Option<usize>) -> Made {
    let stem = name.strip_suffix(".qweight")?;
    let mut made = || -> Result<Weight, String> {
        let groups = format!("{stem}.g_idx");
        let groups = if source.has(&groups) {
            Some(part(source, &groups)?)
        } else {
            None
        };
        let [qweight, qzeros, scales] = packed(source, stem)?;
        let [rows, outputs] = matrix(&qweight)?;
        let inputs = rows.checked_mul(32).ok_or("too many rows")? / usize::from(bits);
        let quantised = Quantised::Gptq {
            qweight,
            qzeros,
            scales,
            groups,
            group,
            bits,
        };
        let what = if bits == 4 {
            "GPTQ in 4 bits"
        } else {
            "GPTQ in 8 bits"
        };
        Ok((
            what,
            format!("{stem}.weight"),
            put(vec![outputs, inputs], quantised),
        ))
    };
    Some(made())
}

fn awq(source: &mut Source<'_>, name: &str, group: Option<usize>) -> Made {
    let stem = name.strip_suffix(".qweight")?;
    let mut made = || -> Result<Weight, String> {
        let [qweight, qzeros, scales] = packed(source, stem)?;
        let [inputs, cols] = matrix(&qweight)?;
        let outputs = cols.checked_mul(8).ok_or("too many columns")?;
        let quantised = Quantised::Awq {
            qweight,
            qzeros,
            scales,
            group,
        };
        Ok((
            "AWQ",
            format!("{stem}.weight"),
            put(vec![outputs, inputs], quantised),
        ))
    };
    Some(made())
}

fn eight_bit_floats(source: &mut Source<'_>, name: &str, block: [usize; 2]) -> Made {
    let stem = name.strip_suffix(".weight")?;
    let dtype = source.dtype(name)?;
    if !matches!(dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2) {
        return None;
    }
    let scales = ["weight_scale_inv", "weight_scale"].map(|scale| format!("{stem}.{scale}"));
    let mut made = || -> Result<Weight, String> {
        let scale = scales.iter().find(|scale| source.has(scale));
        let scale = scale.ok_or_else(|| format!("{} is missing", scales[0]))?;
        let scale = part(source, scale)?;
        // Scales of activations, which are not quantised here.
        for extra in ["input_scale", "activation_scale", "input_scale_ub"] {
            source.remove(&format!("{stem}.{extra}"));
        }
        let weight = part(source, name)?;
        let shape = weight.shape.clone();
        let quantised = Quantised::Fp8 {
            weight,
            scale,
            block,
        };
        Ok(("FP8", name.to_owned(), put(shape, quantised)))
    };
    Some(made())
}
