use bytemuck::Pod;
use safetensors::Dtype;

mod sealed {
    pub trait Sealed {}
}

/// A number as it lies in a file.
pub trait Number: Pod + sealed::Sealed {
    /// What the file calls it.
    const DTYPE: Dtype;
}

macro_rules! numbers {
    ($($number:ty: $dtype:ident),*) => {$(
        impl sealed::Sealed for $number {}
        impl Number for $number {
            const DTYPE: Dtype = Dtype::$dtype;
        }
    )*};
}

numbers!(f32: F32, half::f16: F16, i32: I32, i64: I64, u8: U8);

/// Half precision, as it lies in a file, widened.
///
/// ```
/// assert_eq!(circuitscope_files::f16_to_f32([0x00, 0x3c]), 1.0);
/// ```
#[must_use]
pub fn f16_to_f32(bytes: [u8; 2]) -> f32 {
    half::f16::from_le_bytes(bytes).to_f32()
}

/// Brain floating point, as it lies in a file, widened.
///
/// ```
/// assert_eq!(circuitscope_files::bf16_to_f32([0x80, 0x3f]), 1.0);
/// ```
#[must_use]
pub fn bf16_to_f32(bytes: [u8; 2]) -> f32 {
    half::bf16::from_le_bytes(bytes).to_f32()
}
