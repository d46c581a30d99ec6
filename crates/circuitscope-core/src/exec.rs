use crate::workers;

/// How work is laid out where a device computes: whoever opens the device says so, once. Models, evidence and
/// training settings carry it on.
///
/// It decides how fast results come and how their sums are rounded, never what is computed. [`serial`](Self::serial)
/// is right on any device, and what everything starts from where nobody says otherwise.
///
/// ```
/// use circuitscope_core::{Exec, workers};
///
/// // A backend whose tensors lie in the host's memory, on all cores.
/// let cpu = Exec::host(workers::cores());
/// assert!(cpu.fused && cpu.in_host_memory);
/// // Any other device.
/// let gpu = Exec::serial();
/// assert_eq!(gpu, Exec::default());
/// assert_eq!(gpu.host_threads, 1);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Exec {
    /// Threads of the host that compute; pieces of work that do not need each other share them. At least 1, and
    /// 1 where the device computes elsewhere.
    pub host_threads: usize,
    /// Whether tensors lie in the memory of the host, so that reading a few numbers costs nothing, and large batches
    /// gain nothing.
    pub in_host_memory: bool,
    /// Whether what lies between matrix products is done in place on the host, in one pass over memory. Every
    /// backend computes the same that way; only where tensors are in host memory it is faster.
    pub fused: bool,
}

impl Exec {
    /// One piece of work after the other, by operations of the device alone.
    #[must_use]
    pub const fn serial() -> Self {
        Self {
            host_threads: 1,
            in_host_memory: false,
            fused: false,
        }
    }

    /// For a backend that computes in the host's memory, on so many of its cores (0 counts as 1;
    /// [`workers::cores`] says how many there are).
    #[must_use]
    pub const fn host(threads: usize) -> Self {
        Self {
            host_threads: if threads == 0 { 1 } else { threads },
            in_host_memory: true,
            fused: true,
        }
    }

    /// [`host`](Self::host) on all cores that this process may use.
    #[must_use]
    pub fn all_cores() -> Self {
        Self::host(workers::cores())
    }

    /// The same with or without steps in place.
    #[must_use]
    pub const fn with_fused(mut self, fused: bool) -> Self {
        self.fused = fused;
        self
    }

    /// How many pieces of work to run side by side: as many as there are threads, and no more than `most`.
    #[must_use]
    pub const fn lanes(self, most: usize) -> usize {
        if self.host_threads < most {
            self.host_threads
        } else {
            most
        }
    }
}

impl Default for Exec {
    fn default() -> Self {
        Self::serial()
    }
}
