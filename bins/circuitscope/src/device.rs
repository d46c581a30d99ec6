//! `--device`: the only place of the workspace that names a backend.
//!
//! burn's dispatch backend is instantiated once; a [`Device`] says at run time which of the compiled
//! backends does the work (`docs/decisions/0002-dispatch.md`). Asking for a backend that is not
//! compiled in, or that this machine does not have, is an error that says what to do about it.

mod probe;

use core::fmt;
use core::str::FromStr;

use anyhow::{Result, anyhow, bail};
use burn::{Dispatch, DispatchDevice};
#[cfg(any(feature = "flex", feature = "ndarray"))]
use circuitscope::available_memory;
use circuitscope::{Exec, did_you_mean, names, nearest};

pub(crate) use probe::quietly;

use crate::output::count;

/// The backend that everything runs on.
pub(crate) type B = Dispatch;

/// How the hardware of a CPU begins.
const CPU: &str = "CPU";

/// A backend that this program can be built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackendName {
    /// burn's Flex: CPU.
    Flex,
    /// burn's ndarray: CPU.
    NdArray,
    /// wgpu: Vulkan, Metal.
    Wgpu,
    /// NVIDIA's CUDA.
    Cuda,
}

// Also the names of the cargo features that compile them in.
names!(pub(crate) BackendName { Flex => "flex", NdArray => "ndarray", Wgpu => "wgpu", Cuda => "cuda" });

impl BackendName {
    /// Whether this program was built with it.
    pub(crate) const fn compiled(self) -> bool {
        match self {
            Self::Flex => cfg!(feature = "flex"),
            Self::NdArray => cfg!(feature = "ndarray"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Cuda => cfg!(feature = "cuda"),
        }
    }

    const fn is_cpu(self) -> bool {
        matches!(self, Self::Flex | Self::NdArray)
    }

    /// The devices that this machine has for it, or why it has none.
    pub(crate) fn devices(self) -> Result<Vec<Device>> {
        if !self.compiled() {
            bail!(
                "not compiled in: build with `cargo build --release --features {}`",
                self.name()
            );
        }
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => Ok(vec![Device::cpu(
                self,
                burn::backend::flex::FlexDevice.into(),
            )]),
            #[cfg(feature = "ndarray")]
            Self::NdArray => Ok(vec![Device::cpu(
                self,
                burn::backend::ndarray::NdArrayDevice::Cpu.into(),
            )]),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => probe::wgpu(),
            #[cfg(feature = "cuda")]
            Self::Cuda => probe::cuda(),
            #[cfg(not(all(
                feature = "flex",
                feature = "ndarray",
                feature = "wgpu",
                feature = "cuda"
            )))]
            _ => Ok(Vec::new()),
        }
    }
}

/// What `--device` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceName {
    /// The default CPU backend of this build.
    Cpu,
    /// One backend, and for GPUs optionally which adapter.
    Backend(BackendName, Option<usize>),
}

impl Default for DeviceName {
    /// The CPU, unless no CPU backend was compiled in.
    fn default() -> Self {
        let cpu = BackendName::ALL
            .into_iter()
            .any(|name| name.is_cpu() && name.compiled());
        match BackendName::ALL.into_iter().find(|name| name.compiled()) {
            Some(first) if !cpu => Self::Backend(first, None),
            _ => Self::Cpu,
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Backend(name, None) => f.write_str(name.name()),
            Self::Backend(name, Some(index)) => write!(f, "{}:{index}", name.name()),
        }
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (name, index) = match s.split_once(':') {
            Some((name, index)) => (name, Some(index)),
            None => (s, None),
        };
        let backend = BackendName::ALL
            .into_iter()
            .find(|backend| backend.name() == name);
        if name != "cpu" && backend.is_none() {
            let names = BackendName::ALL
                .map(BackendName::name)
                .into_iter()
                .chain(["cpu"]);
            let hint = did_you_mean(nearest(name, names));
            return Err(format!(
                "no such device{hint}: expected `cpu`, `flex`, `ndarray`, `wgpu[:N]` or `cuda[:N]`"
            ));
        }
        let index = match index {
            None => None,
            Some(_) if backend.is_none_or(BackendName::is_cpu) => {
                return Err(format!("`{name}` takes no index: there is one CPU"));
            }
            Some(index) => Some(index.parse().ok().ok_or_else(|| {
                format!("{index:?} is not the number of an adapter: `doctor` lists them")
            })?),
        };
        Ok(backend.map_or(Self::Cpu, |backend| Self::Backend(backend, index)))
    }
}

impl DeviceName {
    /// The device, checked by a small computation where it is not a CPU.
    pub(crate) fn open(self) -> Result<Device> {
        let (backend, index) = match self {
            Self::Backend(backend, index) => (backend, index),
            Self::Cpu => {
                let cpu = BackendName::ALL
                    .into_iter()
                    .find(|name| name.is_cpu() && name.compiled());
                let build = "build with `cargo build --release --features flex`";
                (
                    cpu.ok_or_else(|| {
                        anyhow!("device `cpu`: no CPU backend is compiled in: {build}")
                    })?,
                    None,
                )
            }
        };
        let named = |error: anyhow::Error| anyhow!("device `{self}`: {error:#}");
        let mut devices = backend.devices().map_err(named)?;
        let at = match index {
            Some(at) if at >= devices.len() => {
                let found: Vec<String> = devices.iter().map(ToString::to_string).collect();
                bail!(
                    "device `{self}`: no such adapter; present: {}",
                    found.join(", ")
                );
            }
            Some(at) => at,
            None => probe::best(&devices),
        };
        let device = devices.swap_remove(at);
        if !backend.is_cpu() {
            probe::computes(&device).map_err(named)?;
        }
        Ok(device)
    }
}

/// A device that exists.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    /// Backend and number: `flex`, `wgpu:0`.
    pub(crate) name: String,
    /// What does the work, in words: the adapter's name, or the number of threads.
    pub(crate) hardware: String,
    /// How much it is to be preferred where none was asked for.
    rank: u8,
    /// Its memory in bytes, where the driver tells.
    memory: Option<u64>,
    /// How work on it is laid out.
    exec: Exec,
    inner: DispatchDevice,
}

impl Device {
    #[cfg(any(feature = "flex", feature = "ndarray"))]
    fn cpu(backend: BackendName, inner: DispatchDevice) -> Self {
        let exec = Exec::all_cores();
        Self {
            name: backend.name().to_owned(),
            hardware: format!("{CPU}, {}", count(exec.host_threads, "thread")),
            rank: 0,
            memory: available_memory(),
            exec,
            inner,
        }
    }

    /// What results depend on: how many threads a CPU has moves them by rounding alone.
    pub(crate) fn kind(&self) -> String {
        if self.hardware.starts_with(CPU) {
            format!("{} ({CPU})", self.name)
        } else {
            self.to_string()
        }
    }

    /// Where models and dictionaries run.
    pub(crate) const fn plain(&self) -> &DispatchDevice {
        &self.inner
    }

    /// How work on it is laid out.
    pub(crate) const fn exec(&self) -> Exec {
        self.exec
    }

    /// Bytes that work may count on. Where the driver does not tell, as much as any GPU has.
    pub(crate) fn free_memory(&self) -> u64 {
        self.memory.unwrap_or(2 << 30)
    }

    /// The same device with gradients, for training.
    pub(crate) fn training(&self) -> DispatchDevice {
        DispatchDevice::autodiff(self.inner.clone())
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.hardware)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_print() {
        for name in ["cpu", "flex", "ndarray", "wgpu", "wgpu:1", "cuda:12"] {
            assert_eq!(name.parse::<DeviceName>().unwrap().to_string(), name);
        }
    }

    #[cfg(feature = "flex")]
    #[test]
    fn the_number_of_cores_is_no_part_of_what_results_depend_on() {
        let device = DeviceName::Cpu.open().unwrap();
        let of_threads = |threads| Device {
            hardware: format!("{CPU}, {}", count(threads, "thread")),
            ..device.clone()
        };
        let [one, many] = [of_threads(1), of_threads(64)];
        assert_ne!(one.to_string(), many.to_string());
        assert_eq!(
            (one.kind(), many.kind()),
            ("flex (CPU)".to_owned(), "flex (CPU)".to_owned())
        );
        let of_gpu = |name: &str| Device {
            hardware: name.to_owned(),
            ..device.clone()
        };
        assert_ne!(of_gpu("one").kind(), of_gpu("another").kind());
    }

    #[test]
    fn bad_names_say_what_is_valid() {
        let message = |name: &str| name.parse::<DeviceName>().unwrap_err();
        assert_eq!(
            message("cud"),
            "no such device (did you mean `cuda`?): expected `cpu`, `flex`, `ndarray`, `wgpu[:N]` or `cuda[:N]`"
        );
        assert!(!message("quantum").contains("did you mean"));
        assert_eq!(message("cpu:0"), "`cpu` takes no index: there is one CPU");
        assert_eq!(
            message("wgpu:-1"),
            "\"-1\" is not the number of an adapter: `doctor` lists them"
        );
        assert!(message("cuda:").contains("not the number"));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_backend_that_is_not_compiled_in_names_its_feature() {
        let name: DeviceName = "cuda:0".parse().unwrap();
        assert_eq!(
            name.open().unwrap_err().to_string(),
            "device `cuda:0`: not compiled in: build with `cargo build --release --features cuda`"
        );
    }
}
