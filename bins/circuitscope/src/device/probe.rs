//! Looking for adapters without tripping over drivers: burn and the crates below it panic where a
//! driver, a library or an adapter is missing.

use std::panic::{self, AssertUnwindSafe};

use anyhow::{Result, anyhow, bail};
use burn::tensor::Tensor;

use super::{B, Device};

/// Runs `work` and turns a panic, of this thread, into an error. Panic messages, of any thread, are
/// not printed meanwhile.
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> Result<T> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(hook);
    outcome.map_err(|payload| {
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied());
        anyhow!(
            "{}",
            text.unwrap_or("the driver failed without a message").trim()
        )
    })
}

/// Position of the device to take where none was asked for.
pub(super) fn best(devices: &[Device]) -> usize {
    let ranks = devices.iter().map(|device| device.rank).enumerate();
    // The first of equals: `max_by_key` takes the last.
    ranks
        .rev()
        .max_by_key(|(_, rank)| *rank)
        .map_or(0, |(at, _)| at)
}

/// Multiplies two small matrices on the device and checks the product.
pub(super) fn computes(device: &Device) -> Result<()> {
    let product = quietly(|| {
        let x = Tensor::<B, 2>::from_floats([[1.0, 2.0], [3.0, 4.0]], device.plain());
        x.clone().matmul(x).into_data().to_vec::<f32>()
    })?;
    match product {
        Ok(values) if values == [7.0, 10.0, 15.0, 22.0] => Ok(()),
        Ok(values) => {
            bail!(
                "{device} multiplied two matrices wrongly: found {values:?}, expected [7, 10, 15, 22]"
            )
        }
        Err(error) => bail!("{device}: {error:?}"),
    }
}

/// The adapters of the graphics API that burn uses on this system.
#[cfg(feature = "wgpu")]
pub(super) fn wgpu() -> Result<Vec<Device>> {
    use burn::backend::wgpu::WgpuDevice;
    use wgpu::{Backends, DeviceType, Instance, InstanceDescriptor};

    // As cubecl chooses: Metal on macOS, Vulkan elsewhere.
    let (backends, api) = if cfg!(target_os = "macos") {
        (Backends::METAL, "Metal")
    } else {
        (Backends::VULKAN, "Vulkan")
    };
    let infos = quietly(|| {
        let instance = Instance::new(InstanceDescriptor {
            backends,
            ..InstanceDescriptor::new_without_display_handle()
        });
        let adapters = wait(instance.enumerate_adapters(backends));
        adapters
            .iter()
            .map(wgpu::Adapter::get_info)
            .collect::<Vec<_>>()
    })?;
    // burn counts the adapters of each kind by themselves.
    let mut seen = [0usize; 3];
    let mut next = |kind: usize| {
        seen[kind] += 1;
        seen[kind] - 1
    };
    let devices: Vec<Device> = infos
        .iter()
        .enumerate()
        .map(|(at, info)| {
            let (device, kind, rank) = match info.device_type {
                DeviceType::DiscreteGpu => (WgpuDevice::DiscreteGpu(next(0)), "discrete GPU", 4),
                DeviceType::IntegratedGpu => {
                    (WgpuDevice::IntegratedGpu(next(1)), "integrated GPU", 3)
                }
                DeviceType::VirtualGpu => (WgpuDevice::VirtualGpu(next(2)), "virtual GPU", 2),
                DeviceType::Cpu => (WgpuDevice::Cpu, "software on the CPU", 0),
                DeviceType::Other => (WgpuDevice::DefaultDevice, "adapter of unknown kind", 1),
            };
            Device {
                name: format!("wgpu:{at}"),
                hardware: format!("{}, {kind}, {api}", info.name),
                rank,
                // The graphics API does not tell.
                memory: None,
                exec: circuitscope::Exec::serial(),
                inner: device.into(),
            }
        })
        .collect();
    if devices.is_empty() {
        bail!(
            "this machine has no {api} adapter; on Linux, a software one comes with the package mesa-vulkan-drivers"
        );
    }
    Ok(devices)
}

/// Drives a future that native wgpu resolves at once.
#[cfg(feature = "wgpu")]
fn wait<T>(future: impl Future<Output = T>) -> T {
    use std::task::{Context, Poll, Waker};

    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::yield_now();
    }
}

/// The GPUs that the CUDA driver knows.
#[cfg(feature = "cuda")]
pub(super) fn cuda() -> Result<Vec<Device>> {
    use burn::backend::cuda::CudaDevice;
    use cudarc::driver::result;

    let names = quietly(|| {
        result::init()?;
        (0..result::device::get_count()?)
            .map(|at| {
                let device = result::device::get(at)?;
                let name = result::device::get_name(device)?;
                // SAFETY: the driver was initialised and the device comes from it.
                #[expect(unsafe_code, reason = "a call of the driver: see the safety comment")]
                let memory = unsafe { result::device::total_mem(device) }?;
                Ok((name, memory as u64))
            })
            .collect::<Result<Vec<_>, result::DriverError>>()
    })
    .map_err(|error| anyhow!("the CUDA driver cannot be loaded: {error}"))?
    .map_err(|error| anyhow!("the CUDA driver failed: {error:?}"))?;
    if names.is_empty() {
        bail!("the CUDA driver knows no GPU");
    }
    Ok(names
        .into_iter()
        .enumerate()
        .map(|(index, (name, memory))| Device {
            name: format!("cuda:{index}"),
            hardware: name,
            rank: 0,
            memory: Some(memory),
            exec: circuitscope::Exec::serial(),
            inner: CudaDevice { index }.into(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(quietly(|| 3).unwrap(), 3);
        let error = quietly(|| panic!("no driver {}", 7)).unwrap_err();
        assert_eq!(error.to_string(), "no driver 7");
    }
}
