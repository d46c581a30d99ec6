use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};

/// Half precision widened to f32; other types stay.
///
/// Differences, sums over many parts and products with masks are taken in it. What a tap returns goes
/// on in the precision of its site, so that nobody has to narrow it again ([`Tap::tap`](crate::Tap::tap)).
///
/// ```
/// use burn::tensor::{DType, Tensor};
/// use circuitscope_hooks::wide;
///
/// type B = burn_flex::Flex;
/// let x = Tensor::<B, 1>::from_data([1.5], &Default::default());
/// assert_eq!(wide(x.clone().cast(DType::BF16)).dtype(), DType::F32);
/// assert_eq!(wide(x).dtype(), DType::F32);
/// ```
pub fn wide<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    match x.dtype() {
        DType::F16 | DType::BF16 => x.cast(DType::F32),
        _ => x,
    }
}
