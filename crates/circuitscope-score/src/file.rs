use std::path::Path;

use circuitscope_core::{HeadGrid, INACTIVE, Polarity, nearest};
use circuitscope_files::by_head::{self, LABELS};
use circuitscope_files::{Entry, FileError, Metadata, Reader, Writer};

use crate::{CodeTable, Result};

/// The tensors of a codes file.
pub mod tensor_names {
    /// `[examples, heads]`, i32: a feature index, −1 where no feature is active.
    pub const CODES: &str = "codes";
    /// `[examples, heads]`, f32, may be absent: the activation of each code's feature, 0 where none is active.
    pub const AMPLITUDES: &str = "amplitudes";
    /// `[examples]`, u8: 1 positive, 0 negative.
    pub const LABELS: &str = circuitscope_files::by_head::LABELS;
}
use tensor_names::{AMPLITUDES, CODES};

/// In the order in which errors name them.
const TENSORS: [&str; 3] = [CODES, LABELS, AMPLITUDES];

impl CodeTable {
    /// Writes a codes file: safetensors with `codes` i32 `[examples, heads]`, `labels` u8
    /// `[examples]`, where known `amplitudes` f32 `[examples, heads]`, metadata `n_layers`, `n_heads`
    /// and whatever `extra` says of its making. The file appears whole or not at all.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File).
    ///
    /// # Examples
    /// ```
    /// use circuitscope_core::{HeadGrid, Polarity::{Negative, Positive}};
    /// use circuitscope_score::CodeTable;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let table = CodeTable::new(HeadGrid::new(2, 1), vec![Positive, Negative], vec![3, -1, 0, 8])?;
    /// let table = table.with_amplitudes(vec![0.5, 0.0, 1.5, 2.0])?;
    /// let path = tempfile::tempdir()?.path().join("codes.safetensors");
    /// table.write(&path, [("seed".to_owned(), 0.into())].into())?;
    /// assert_eq!(CodeTable::read(&path)?, table);
    /// # Ok(())
    /// # }
    /// ```
    pub fn write(&self, path: &Path, extra: Metadata) -> Result<()> {
        let grid = self.grid();
        let shape = [self.examples(), grid.len()];
        let mut tensors = vec![
            Entry::of::<i32>(CODES, &shape),
            Entry::of::<u8>(LABELS, &shape[..1]),
        ];
        let amplitudes = self.amplitudes();
        tensors.extend(amplitudes.map(|_| Entry::of::<f32>(AMPLITUDES, &shape)));
        let metadata = by_head::metadata(grid.n_layers, grid.n_heads, extra);
        let labels: Vec<u8> = self.labels().iter().map(|label| label.label()).collect();
        let mut file = Writer::create(path, tensors, metadata)?;
        file.fill(CODES, self.codes())?;
        file.fill(LABELS, &labels)?;
        if let Some(amplitudes) = amplitudes {
            file.fill(AMPLITUDES, amplitudes)?;
        }
        Ok(file.finish()?)
    }

    /// Reads a codes file, as [`write`](Self::write) makes it; codes and labels may also be i64. Files of earlier
    /// versions have no amplitudes.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File): what is no safetensors file, and a tensor or metadata key
    /// that is missing, unknown, or has a wrong type, shape or value.
    pub fn read(path: &Path) -> Result<Self> {
        let file = Reader::open(path)?;
        if let Some(error) = unknown_tensor(&file) {
            return Err(error.into());
        }
        let [n_layers, n_heads] = by_head::layers_and_heads(&file)?;
        let grid = HeadGrid::new(n_layers, n_heads);
        let codes = file.tensor(CODES)?;
        let [examples, heads] = codes.axes(["examples", "heads"])?;
        if heads != grid.len() || heads == 0 {
            let expected = format!("n_layers × n_heads = {n_layers} × {n_heads} heads");
            return Err(codes.wrong(format!("{heads} heads"), expected).into());
        }
        let place = |at: usize| {
            let head = grid.head(at % heads);
            format!("at example {}, head {head}", at / heads)
        };
        let labels = by_head::are_positive(&file, examples, CODES)?;
        let labels = labels.into_iter().map(Polarity::of).collect();
        let amplitudes = match file.get(AMPLITUDES) {
            Some(tensor) => {
                let tensor = tensor.shape(&[examples, heads])?;
                let values = tensor.f32()?;
                let wrong = values.iter().position(|x| !(0.0..=f32::MAX).contains(x));
                if let Some(at) = wrong {
                    let found = format!("{} {}", values[at], place(at));
                    return Err(tensor.wrong(found, "finite numbers of at least 0").into());
                }
                Some(values)
            }
            None => None,
        };
        let values = codes.integers::<i32>()?.into_iter().enumerate();
        let values = values.map(|(at, code)| {
            let known = i32::try_from(code).ok().filter(|code| *code >= INACTIVE);
            known.ok_or_else(|| {
                let found = format!("{code} {}", place(at));
                codes.wrong(found, "a feature index or -1 (inactive)")
            })
        });
        let table = Self::new(grid, labels, values.collect::<Result<_, _>>()?)?;
        match amplitudes {
            Some(amplitudes) => table.with_amplitudes(amplitudes),
            None => Ok(table),
        }
    }
}

/// A tensor that has no place in the file.
fn unknown_tensor(file: &Reader) -> Option<FileError> {
    let names = file.names();
    let is_unknown = |name: &&String| !TENSORS.contains(&name.as_str());
    let unknown = names.iter().find(is_unknown)?;
    let absent = TENSORS
        .into_iter()
        .filter(|known| names.iter().all(|name| name != known));
    let expected = match nearest(unknown, absent) {
        Some(name) => format!("`{name}`"),
        None => format!("only `{CODES}`, `{LABELS}` and `{AMPLITUDES}`"),
    };
    let field = format!("tensor `{unknown}`");
    Some(FileError::field(
        file.path(),
        field,
        "an unknown tensor",
        expected,
    ))
}
