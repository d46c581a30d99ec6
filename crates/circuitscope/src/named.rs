//! Models by name: the one inside this crate, folders, files, those that Ollama keeps, those of the hub.

use std::path::{Path, PathBuf};

use anamnesis::resolve_ollama_model;
use burn::tensor::backend::Backend;
use circuitscope_core::{Progress, did_you_mean, nearest};
#[cfg(feature = "hub")]
use circuitscope_model::hub::HubId;
use circuitscope_model::{LoadSettings, Loaded, is_gguf, load_dir, load_gguf};

use crate::{Error, Result, load_reference};

/// Name of the model inside this crate.
pub const REFERENCE: &str = "reference";

/// What stands before the name of a model that Ollama keeps.
const OLLAMA: &str = "ollama:";

/// What a name of a model stands for.
///
/// ```
/// use circuitscope::ModelSource;
///
/// assert_eq!(ModelSource::named("reference")?, ModelSource::Reference);
/// let unknown = ModelSource::named("referense").unwrap_err().to_string();
/// assert!(unknown.contains("did you mean `reference`?"), "{unknown}");
/// # Ok::<(), circuitscope::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelSource {
    /// The model inside this crate.
    Reference,
    /// A folder in Hugging Face layout, or of TransformerLens.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
    /// A model that Ollama keeps: its name, and the file.
    Ollama(String, PathBuf),
    /// A model of the hub, which has to be fetched.
    #[cfg(feature = "hub")]
    Hub(HubId),
}

impl ModelSource {
    /// What `name` stands for: `reference`, a folder, a GGUF file or the folder of one, `ollama:NAME`, or
    /// `owner/name[@revision]` of the hub where there is no such folder.
    ///
    /// # Errors
    /// [`Error::ModelName`] if there is no such model, as far as it can be told before it is loaded.
    pub fn named(name: &str) -> Result<Self> {
        let wrong = |problem: String| Error::ModelName {
            name: name.to_owned(),
            problem,
        };
        if name == REFERENCE {
            return Ok(Self::Reference);
        }
        if name.starts_with(OLLAMA) {
            let file = resolve_ollama_model(name);
            let file = file.map_err(|error| wrong(format!("no model of Ollama's: {error}")))?;
            return Ok(Self::Ollama(name.to_owned(), file));
        }
        let path = Path::new(name);
        if path.is_dir() {
            return Ok(match only_gguf(path)? {
                Some(file) => Self::Gguf(file),
                None => Self::Folder(path.to_owned()),
            });
        }
        if path.is_file() {
            if is_gguf(path) {
                return Ok(Self::Gguf(path.to_owned()));
            }
            let problem = "found a file that is not GGUF, expected a GGUF file or the folder that a model lies in";
            return Err(wrong(problem.to_owned()));
        }
        #[cfg(feature = "hub")]
        let detail = match name.parse() {
            Ok(id) => return Ok(Self::Hub(id)),
            Err(error) if name.contains(['/', '@']) => {
                format!("; as a name of the hub, {error}")
            }
            Err::<HubId, _>(_) => String::new(),
        };
        #[cfg(not(feature = "hub"))]
        let detail = if name.contains('/') {
            "; this program was built without the feature `hub`"
        } else {
            ""
        };
        let hint = did_you_mean(nearest(name, [REFERENCE]));
        Err(wrong(format!(
            "no such file or folder{hint}, expected `{REFERENCE}`, a folder with config.json and model.safetensors, a GGUF file, \
             ollama:NAME, or owner/name[@revision] of the hub{detail}"
        )))
    }

    /// Loads the model. One of the hub has to be fetched before
    /// ([`circuitscope_model::hub::fetch`](../circuitscope_model/hub/fn.fetch.html)), and is refused here.
    ///
    /// # Errors
    /// As [`load_dir`], [`load_gguf`] and [`load_reference`].
    pub fn load<B: Backend>(
        &self,
        settings: LoadSettings,
        device: &B::Device,
        progress: &dyn Progress,
    ) -> Result<Loaded<B>> {
        match self {
            Self::Reference => load_reference(settings, device),
            Self::Folder(folder) => Ok(load_dir(folder, settings, device, progress)?),
            Self::Gguf(file) => Ok(load_gguf(file, settings, device, progress)?),
            Self::Ollama(name, file) => {
                let mut loaded = load_gguf(file, settings, device, progress)?;
                loaded.provenance.name.clone_from(name);
                Ok(loaded)
            }
            #[cfg(feature = "hub")]
            Self::Hub(id) => Err(Error::ModelName {
                name: id.to_string(),
                problem: "found a name of the hub, expected a model that is fetched".to_owned(),
            }),
        }
    }
}

/// The only GGUF file of a folder that holds no model in another layout.
fn only_gguf(folder: &Path) -> Result<Option<PathBuf>> {
    if folder.join("config.json").exists() {
        return Ok(None);
    }
    let wrong = |problem: String| Error::ModelName {
        name: folder.display().to_string(),
        problem,
    };
    let entries = folder
        .read_dir()
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| wrong(format!("cannot read the folder: {error}")))?;
    let paths = entries.into_iter().map(|entry| entry.path());
    let gguf = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "gguf")
    };
    let mut files: Vec<PathBuf> = paths.filter(gguf).collect();
    files.sort();
    match files.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [first, ..] => Err(wrong(format!(
            "found {} GGUF files, expected one; name it, such as {}",
            files.len(),
            first.display()
        ))),
    }
}
