//! Weights in safetensors that were quantised: bitsandbytes, GPTQ, AWQ and FP8, as `quantization_config` of
//! a `config.json` says. A weight is then several tensors, which are put together when it is read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use anamnesis::{
    Dtype as Width, F32Out, dequantize_awq, dequantize_bnb_int8, dequantize_bnb4,
    dequantize_bnb4_double_quant, dequantize_gptq, dequantize_per_tensor_fp8,
};
use safetensors::Dtype;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::source::{Encoding, Source, Stored};
use crate::{Error, Result};

/// The key of the configuration.
pub(crate) const KEY: &str = "quantization_config";

/// Where a part of a weight lies.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    pub(crate) bytes: Range<usize>,
}

/// A weight in parts.
#[derive(Debug)]
pub(crate) enum Quantised {
    /// `LLM.int8()`: bytes, and the largest magnitude of each row.
    Int8 { weight: Place, largest: Place },
    /// NF4 or FP4: two numbers a byte, which are places in a table, and the largest magnitude of each block.
    FourBit {
        weight: Place,
        largest: Place,
        table: Place,
        nested: Option<Nested>,
        block: usize,
        count: usize,
    },
    Gptq {
        qweight: Place,
        qzeros: Place,
        scales: Place,
        groups: Option<Place>,
        group: Option<usize>,
        bits: u8,
    },
    Awq {
        qweight: Place,
        qzeros: Place,
        scales: Place,
        group: Option<usize>,
    },
    /// 8-bit floats, and a scale for all, for each row or for each block.
    Fp8 {
        weight: Place,
        scale: Place,
        block: [usize; 2],
    },
}

/// The largest magnitudes of blocks, themselves quantised.
#[derive(Debug)]
pub(crate) struct Nested {
    largest: Place,
    table: Place,
    offset: f32,
    block: usize,
}

impl Quantised {
    pub(crate) fn places(&self) -> Vec<&Place> {
        match self {
            Self::Int8 { weight, largest } => vec![weight, largest],
            Self::FourBit {
                weight,
                largest,
                table,
                nested,
                ..
            } => {
                let nested = nested
                    .iter()
                    .flat_map(|nested| [&nested.largest, &nested.table]);
                [weight, largest, table].into_iter().chain(nested).collect()
            }
            Self::Gptq {
                qweight,
                qzeros,
                scales,
                groups,
                ..
            } => [qweight, qzeros, scales]
                .into_iter()
                .chain(groups)
                .collect(),
            Self::Awq {
                qweight,
                qzeros,
                scales,
                ..
            } => vec![qweight, qzeros, scales],
            Self::Fp8 { weight, scale, .. } => vec![weight, scale],
        }
    }

    /// Whether [`Quantised::values`] gives `[in, out]`, where the layout has `[out, in]`.
    pub(crate) const fn is_transposed(&self) -> bool {
        matches!(self, Self::Gptq { .. } | Self::Awq { .. })
    }

    /// The numbers in f32; `read` gives the bytes of a part.
    pub(crate) fn values<'b>(&self, read: impl Fn(&Place) -> &'b [u8]) -> Result<Vec<f32>, String> {
        let bytes = match self {
            Self::Int8 { weight, largest } => {
                let [rows, cols] = matrix(weight)?;
                dequantize_bnb_int8::<F32Out>(read(weight), &floats(largest, &read)?, rows, cols)
            }
            Self::FourBit {
                weight,
                largest,
                table,
                nested,
                block,
                count,
            } => {
                // The last block may be shorter than the others.
                let whole = count.next_multiple_of(*block);
                let mut packed = read(weight).to_vec();
                if packed.len() != count.div_ceil(2) {
                    return Err(format!("{} bytes for {count} numbers", packed.len()));
                }
                packed.resize(whole / 2, 0);
                let table = floats(table, &read)?;
                let values = match nested {
                    None => {
                        let largest = floats(largest, &read)?;
                        dequantize_bnb4::<F32Out>(&packed, &largest, &table, whole, *block)
                    }
                    Some(nested) => dequantize_bnb4_double_quant::<F32Out>(
                        &packed,
                        read(largest),
                        &table,
                        &floats(&nested.largest, &read)?,
                        &floats(&nested.table, &read)?,
                        nested.offset,
                        whole,
                        *block,
                        nested.block,
                    ),
                };
                values.map(|mut values| {
                    values.truncate(count * 4);
                    values
                })
            }
            Self::Gptq {
                qweight,
                qzeros,
                scales,
                groups,
                group,
                bits,
            } => {
                let [packed, outputs] = matrix(qweight)?;
                let inputs = packed * 32 / usize::from(*bits);
                dequantize_gptq::<F32Out>(
                    read(qweight),
                    read(scales),
                    read(qzeros),
                    groups.as_ref().map(&read),
                    inputs,
                    outputs,
                    group.unwrap_or(inputs),
                    *bits,
                    width(scales)?,
                )
            }
            Self::Awq {
                qweight,
                qzeros,
                scales,
                group,
            } => {
                let [inputs, packed] = matrix(qweight)?;
                dequantize_awq::<F32Out>(
                    read(qweight),
                    read(scales),
                    read(qzeros),
                    inputs,
                    packed * 8,
                    group.unwrap_or(inputs),
                    4,
                    width(scales)?,
                )
            }
            Self::Fp8 {
                weight,
                scale,
                block,
            } => return fp8(weight, scale, *block, &read),
        };
        let bytes = bytes.map_err(|error| error.to_string())?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }
}

fn fp8<'b>(
    weight: &Place,
    scale: &Place,
    block: [usize; 2],
    read: impl Fn(&Place) -> &'b [u8],
) -> Result<Vec<f32>, String> {
    let [rows, cols] = matrix(weight)?;
    let mut values: Vec<f32> = if weight.dtype == Dtype::F8_E5M2 {
        // The upper half of an f16.
        let widen = |byte: &u8| half::f16::from_bits(u16::from(*byte) << 8).to_f32();
        read(weight).iter().map(widen).collect()
    } else {
        let bytes = dequantize_per_tensor_fp8::<F32Out>(read(weight), 1.0);
        bytemuck::pod_collect_to_vec(&bytes.map_err(|error| error.to_string())?)
    };
    let scales: Vec<f32> = bytemuck::pod_collect_to_vec(&floats(scale, &read)?);
    let [high, wide] = if scales.len() == 1 {
        [rows, cols]
    } else if scales.len() == rows && scale.shape.get(1).is_none_or(|&cols| cols == 1) {
        [1, cols]
    } else {
        block
    };
    let (high, wide) = (high.max(1), wide.max(1));
    let grid = cols.div_ceil(wide);
    if scales.len() != rows.div_ceil(high) * grid {
        return Err(format!(
            "{} scales for {rows} × {cols} numbers, expected one, one a row, or one for each {high} × {wide}",
            scales.len()
        ));
    }
    for (row, values) in values.chunks_mut(cols.max(1)).enumerate() {
        for (at, values) in values.chunks_mut(wide).enumerate() {
            let scale = scales[row / high * grid + at];
            for value in values {
                *value *= scale;
            }
        }
    }
    Ok(values)
}

fn matrix(place: &Place) -> Result<[usize; 2], String> {
    match *place.shape.as_slice() {
        [rows, cols] => Ok([rows, cols]),
        _ => Err(format!(
            "stored with shape {:?}, expected two dimensions",
            place.shape
        )),
    }
}

fn width(place: &Place) -> Result<Width, String> {
    match place.dtype {
        Dtype::F32 => Ok(Width::F32),
        Dtype::F16 => Ok(Width::F16),
        Dtype::BF16 => Ok(Width::BF16),
        other => Err(format!(
            "scales of type {other:?}, expected F32, F16 or BF16"
        )),
    }
}

/// Numbers in f32, as bytes.
fn floats<'b>(place: &Place, read: impl Fn(&Place) -> &'b [u8]) -> Result<Vec<u8>, String> {
    let bytes = read(place);
    let widened = |widen: fn([u8; 2]) -> f32| {
        let (numbers, _) = bytes.as_chunks();
        numbers
            .iter()
            .flat_map(|&n| widen(n).to_le_bytes())
            .collect()
    };
    Ok(match width(place)? {
        Width::F16 => widened(|n| half::f16::from_le_bytes(n).to_f32()),
        Width::BF16 => widened(|n| half::bf16::from_le_bytes(n).to_f32()),
        _ => bytes.to_vec(),
    })
}

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
