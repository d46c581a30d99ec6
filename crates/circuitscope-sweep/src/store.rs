//! Objects in a folder or in the cloud, behind functions that wait.

use std::future::Future;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt as _, PutMode, parse_url_opts,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};
use url::Url;

use crate::{Error, Result};

/// Beginnings of the variables of the environment that stores are configured by: credentials, endpoint, region.
pub const STORE_VARIABLES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// Connections that were silent for longer are not used again: between two cells minutes may pass.
const IDLE: (&str, &str) = ("pool_idle_timeout", "5 seconds");

/// Where results are kept: a folder, or a bucket of S3, Google Cloud Storage or Azure Blob Storage.
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    runtime: Runtime,
    location: String,
    options: Vec<(String, String)>,
}

impl core::fmt::Debug for Store {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Options hold credentials.
        f.debug_struct("Store")
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

/// An object that was read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Object {
    /// What it holds.
    pub bytes: Vec<u8>,
    /// When it was written, by the store's own clock.
    pub written: DateTime<Utc>,
}

/// The name of an object that is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Listed {
    /// Its name, from the top of the store on.
    pub name: String,
    /// When it was written, by the store's own clock.
    pub written: DateTime<Utc>,
}

impl Store {
    /// Opens a store: `location` is the path of a folder, `file://…`, `s3://bucket/prefix`, `gs://bucket/prefix` or
    /// `az://container/prefix`; `options` are names and values as the environment variables of these stores have them
    /// ([`STORE_VARIABLES`]). A folder is made if `make` says so.
    ///
    /// # Errors
    /// [`Error::Store`] for an address that no store of this build reads, for options that are missing, and for a folder that
    /// is not there.
    pub fn open(location: &str, options: &[(String, String)], make: bool) -> Result<Self> {
        let wrong = |what, reason: String| Error::Store {
            object: location.to_owned(),
            what,
            reason,
        };
        let url = location.contains("://").then(|| Url::parse(location));
        let url = url.transpose();
        let url = url.map_err(|error| wrong("not an address", error.to_string()))?;
        let folder = match &url {
            None => Some(FilePath::new(location).to_owned()),
            Some(url) if url.scheme() == "file" => url.to_file_path().ok(),
            Some(_) => None,
        };
        let objects: Arc<dyn ObjectStore> = match (folder, url) {
            (Some(folder), _) => {
                if make {
                    std::fs::create_dir_all(&folder)
                        .map_err(|error| wrong("cannot make this folder", error.to_string()))?;
                } else if !folder.is_dir() {
                    return Err(wrong(
                        "cannot open this folder",
                        "it is not there, expected the store of a sweep that was planned"
                            .to_owned(),
                    ));
                }
                let local = LocalFileSystem::new_with_prefix(&folder);
                Arc::new(
                    local.map_err(|error| wrong("cannot open this folder", error.to_string()))?,
                )
            }
            (None, Some(url))
                if ["s3", "s3a", "gs", "az", "abfs", "abfss"].contains(&url.scheme()) =>
            {
                let all = options.iter().cloned();
                let idle = (IDLE.0.to_owned(), IDLE.1.to_owned());
                let (objects, prefix) = parse_url_opts(&url, all.chain([idle]))
                    .map_err(|error| wrong("cannot open this store", error.to_string()))?;
                Arc::new(PrefixStore::new(objects, prefix))
            }
            _ => {
                let expected = "expected a folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix";
                return Err(wrong("cannot open this store", expected.to_owned()));
            }
        };
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self {
            objects,
            runtime: runtime.map_err(|error| wrong("cannot wait for it", error.to_string()))?,
            location: location.trim_end_matches('/').to_owned(),
            options: options.to_vec(),
        })
    }

    /// The same store once more, for another thread: connections belong to the thread that opened them.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn again(&self) -> Result<Self> {
        Self::open(&self.location, &self.options, false)
    }

    /// Its address.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The address of an object in it.
    #[must_use]
    pub fn address(&self, name: &str) -> String {
        format!("{}/{name}", self.location)
    }

    /// The objects, for DataFusion.
    pub(crate) fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects)
    }

    /// Waits for something.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    fn failed<'a>(
        &'a self,
        name: &'a str,
        what: &'static str,
    ) -> impl Fn(StoreError) -> Error + 'a {
        move |error| Error::Store {
            object: self.address(name),
            what,
            reason: error.to_string(),
        }
    }

    /// Makes an object that must not be there yet: of several that make it at once, one does. Says whether this one did.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn create(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let path = Path::from(name);
        let put = self
            .objects
            .put_opts(&path, bytes.to_vec().into(), PutMode::Create.into());
        match self.wait(put) {
            Ok(_) => Ok(true),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                // An answer may have been lost, and the request have been made twice.
                Ok(self.get(name)?.is_some_and(|object| object.bytes == bytes))
            }
            Err(error) => Err(self.failed(name, "cannot write")(error)),
        }
    }

    /// Writes an object, whatever was there.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn overwrite(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = Path::from(name);
        let put = self.objects.put(&path, bytes.to_vec().into());
        self.wait(put)
            .map(drop)
            .map_err(self.failed(name, "cannot write"))
    }

    /// The same, given up after a time.
    pub(crate) fn overwrite_within(&self, name: &str, bytes: &[u8], most: Duration) -> Result<()> {
        let path = Path::from(name);
        let put = self.objects.put(&path, bytes.to_vec().into());
        let put = self.wait(async { tokio::time::timeout(most, put).await });
        match put {
            Ok(put) => put.map(drop).map_err(self.failed(name, "cannot write")),
            Err(late) => Err(Error::Store {
                object: self.address(name),
                what: "cannot write",
                reason: late.to_string(),
            }),
        }
    }

    /// Reads an object; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn get(&self, name: &str) -> Result<Option<Object>> {
        let path = Path::from(name);
        let got = self.wait(async {
            let got = self.objects.get(&path).await?;
            let written = got.meta.last_modified;
            Ok((got.bytes().await?, written))
        });
        match got {
            Ok((bytes, written)) => Ok(Some(Object {
                bytes: bytes.to_vec(),
                written,
            })),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(name, "cannot read")(error)),
        }
    }

    /// When an object was written, by the store's own clock; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn written(&self, name: &str) -> Result<Option<DateTime<Utc>>> {
        let path = Path::from(name);
        match self.wait(self.objects.head(&path)) {
            Ok(meta) => Ok(Some(meta.last_modified)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(name, "cannot read")(error)),
        }
    }

    /// All objects of a folder, and of those in it, by name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        let path = Path::from(folder);
        let all = self.wait(self.objects.list(Some(&path)).try_collect::<Vec<_>>());
        let all = all.map_err(self.failed(folder, "cannot list"))?;
        let mut all: Vec<Listed> = all
            .into_iter()
            .map(|meta| Listed {
                name: meta.location.to_string(),
                written: meta.last_modified,
            })
            .collect();
        all.sort();
        Ok(all)
    }

    /// Reads an object of JSON.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Object`], which names the field.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<(T, DateTime<Utc>)>> {
        let Some(object) = self.get(name)? else {
            return Ok(None);
        };
        let mut json = serde_json::Deserializer::from_slice(&object.bytes);
        let value = serde_path_to_error::deserialize(&mut json);
        match value {
            Ok(value) => Ok(Some((value, object.written))),
            Err(error) => Err(Error::Object {
                object: self.address(name),
                reason: match error.path().to_string().as_str() {
                    // "?" of a file that ends too early.
                    "." | "?" => error.inner().to_string(),
                    field => format!("{field}: {}", error.inner()),
                },
            }),
        }
    }

    /// A value as an object of JSON holds it.
    pub(crate) fn to_json(&self, name: &str, value: &impl Serialize) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| Error::Object {
            object: self.address(name),
            reason: error.to_string(),
        })?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_that_make_an_object_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().join("deep/store").display().to_string();
        assert!(
            Store::open(&location, &[], false).is_err(),
            "not made unasked"
        );
        let store = Store::open(&location, &[], true).unwrap();
        let won = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8u8)
                .map(|at| {
                    let store = store.again().unwrap();
                    scope.spawn(move || store.create("claims/x", &[at]).unwrap())
                })
                .collect();
            let won: Vec<bool> = writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect();
            won
        });
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
        let winner = won.iter().position(|won| *won).unwrap() as u8;
        assert_eq!(store.get("claims/x").unwrap().unwrap().bytes, [winner]);
        assert!(store.get("claims/y").unwrap().is_none());
        assert!(store.written("claims/y").unwrap().is_none());
        let names: Vec<String> = store
            .list("claims")
            .unwrap()
            .into_iter()
            .map(|one| one.name)
            .collect();
        assert_eq!(names, ["claims/x"]);
    }

    #[test]
    fn what_is_no_store_is_refused_by_name() {
        for location in ["ftp://host/x", "s3:/x://", "http://host/x"] {
            let error = Store::open(location, &[], true).unwrap_err().to_string();
            assert!(error.contains(location), "{error}");
        }
    }
}
