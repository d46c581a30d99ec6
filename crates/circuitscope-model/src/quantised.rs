//! Weights in safetensors that were quantised: bitsandbytes, GPTQ, AWQ and FP8, as `quantization_config` of
//! a `config.json` says. A weight is then several tensors, which are put together when it is read.

mod assemble;

use std::ops::Range;

use anamnesis::{
    Dtype as Width, F32Out, dequantize_awq, dequantize_bnb_int8, dequantize_bnb4,
    dequantize_bnb4_double_quant, dequantize_gptq, dequantize_per_tensor_fp8,
};
use safetensors::Dtype;

pub(crate) use assemble::{KEY, assemble};

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
