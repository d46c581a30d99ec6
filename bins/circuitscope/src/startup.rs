//! What is settled before any work, so that neither files that happen to lie around nor limits of the shell decide how
//! it ends.

use burn_std::config::{BurnConfig, RuntimeConfig as _};

/// Once, before anything is computed.
pub(crate) fn settle() {
    // burn looks for a `burn.toml` in the current folder and those above it, and panics where one is not as it should
    // be. Its variables of the environment count.
    BurnConfig::set(BurnConfig::default().override_from_env());
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    {
        use cubecl_runtime::config::CubeClRuntimeConfig;
        CubeClRuntimeConfig::set(CubeClRuntimeConfig::default().override_from_env());
    }
    fail_where_files_may_not_grow();
}

/// A limit on the size of files (`ulimit -f`) makes a write fail, as a full disk does, instead of ending the program.
fn fail_where_files_may_not_grow() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(
            unsafe_code,
            reason = "a call of the C library: see the safety comment"
        )]
        // SAFETY: no handler is installed, and no other thread runs yet.
        let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        if before == libc::SIG_ERR {
            tracing::debug!("a limit on the size of files will end the program");
        }
    }
}
