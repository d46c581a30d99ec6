use std::path::Path;

use circuitscope_core::{HeadGrid, Polarity};
use circuitscope_files::{Entry, Metadata, Reader, Writer, by_head};

use crate::Result;

/// The tensor of an activations file beside [`by_head::LABELS`]: `[examples, heads, d]`, f32, f16 or bf16.
pub const ACTIVATIONS: &str = "activations";

/// One vector for each head and example, with the label of each example: what the method starts
/// from.
///
/// On disk it is a safetensors file: `activations` `[examples, heads, d]` (f32 is written; f16 and
/// bf16 are read too and widened), `labels` `[examples]` (u8 is written; bool, i32 and i64 are read too), metadata
/// `n_layers` and `n_heads` with `n_layers * n_heads = heads`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadActivations {
    /// Shape of the model.
    pub grid: HeadGrid,
    /// Width of each vector: `d_model` for head outputs.
    pub d: usize,
    /// One label for each example.
    pub labels: Vec<Polarity>,
    /// `[examples, heads, d]`, row-major.
    pub data: Vec<f32>,
}

impl HeadActivations {
    /// Checks the shapes.
    ///
    /// # Panics
    /// Unless `data.len() == labels.len() * grid.len() * d`.
    #[must_use]
    pub fn new(grid: HeadGrid, d: usize, labels: Vec<Polarity>, data: Vec<f32>) -> Self {
        assert_eq!(
            data.len(),
            labels.len() * grid.len() * d,
            "data against [examples, heads, d]"
        );
        Self {
            grid,
            d,
            labels,
            data,
        }
    }

    /// Number of examples.
    pub fn examples(&self) -> usize {
        self.labels.len()
    }

    /// The vectors of example `index`, `[heads, d]`.
    pub fn example(&self, index: usize) -> &[f32] {
        let width = self.grid.len() * self.d;
        &self.data[index * width..(index + 1) * width]
    }

    /// Writes the file atomically. `extra` metadata (what made it) is stored beside the shape.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File).
    pub fn write(&self, path: &Path, extra: Metadata) -> Result<()> {
        let HeadGrid { n_layers, n_heads } = self.grid;
        let shape = [self.examples(), self.grid.len(), self.d];
        let tensors = vec![
            Entry::of::<f32>(ACTIVATIONS, &shape),
            Entry::of::<u8>(by_head::LABELS, &shape[..1]),
        ];
        let metadata = by_head::metadata(n_layers, n_heads, extra);
        let labels: Vec<u8> = self.labels.iter().map(|label| label.label()).collect();
        let mut file = Writer::create(path, tensors, metadata)?;
        file.fill(ACTIVATIONS, &self.data)?;
        file.fill(by_head::LABELS, &labels)?;
        Ok(file.finish()?)
    }

    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File): what is no safetensors file, and a tensor or metadata key that is missing,
    /// has a wrong type, shape or value, or is not finite.
    pub fn read(path: &Path) -> Result<Self> {
        let file = Reader::open(path)?;
        let tensor = file.tensor(ACTIVATIONS)?;
        let [examples, heads, d] = tensor.axes(["examples", "heads", "d"])?;
        let [n_layers, n_heads] = by_head::layers_and_heads(&file)?;
        let grid = HeadGrid::new(n_layers, n_heads);
        if grid.len() != heads || heads == 0 || d == 0 {
            let found = format!("{heads} heads of width {d}");
            let expected = format!("n_layers × n_heads = {n_layers} × {n_heads} heads");
            return Err(tensor.wrong(found, expected).into());
        }
        let labels = by_head::are_positive(&file, examples, ACTIVATIONS)?;
        let data = tensor.f32()?;
        if let Some(at) = data.iter().position(|x| !x.is_finite()) {
            let found = format!(
                "{} at example {}, head {}",
                data[at],
                at / (heads * d),
                grid.head(at / d % heads)
            );
            return Err(tensor.wrong(found, "finite numbers").into());
        }
        Ok(Self {
            grid,
            d,
            labels: labels.into_iter().map(Polarity::of).collect(),
            data,
        })
    }
}
