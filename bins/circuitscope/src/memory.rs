//! What the C library does with memory that was freed.
//!
//! glibc keeps freed blocks of up to 32 MiB for later and gives larger ones back, moving that border as it
//! goes. Loading a model frees many large buffers that nobody needs again; training frees and takes
//! the same ones thousands of times. Each is told what it is.

/// Large blocks that are freed go back to the system at once: for loading.
pub(crate) fn return_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    set(libc::M_MMAP_THRESHOLD, 1 << 20);
}

/// They are kept for the next block of their size: for computing.
pub(crate) fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // The largest border that glibc takes.
        set(libc::M_MMAP_THRESHOLD, 32 << 20);
        set(libc::M_TRIM_THRESHOLD, 512 << 20);
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set(parameter: i32, bytes: i32) {
    #[expect(
        unsafe_code,
        reason = "a call of the C library: see the safety comment"
    )]
    // SAFETY: `mallopt` takes two numbers, locks the allocator itself, and changes no block that exists.
    let taken = unsafe { libc::mallopt(parameter, bytes) };
    if taken == 0 {
        tracing::debug!(parameter, bytes, "the allocator does not take this setting");
    }
}
