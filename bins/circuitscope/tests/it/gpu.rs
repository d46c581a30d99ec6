//! GPUs, in builds that have their backends. The names hold `gpu`, so that nextest runs one at a
//! time.

/// Any Vulkan or Metal adapter, a software one included (`apt-get install mesa-vulkan-drivers`),
/// computes what the CPU computes.
#[cfg(feature = "wgpu")]
#[test]
#[ignore = "needs a GPU, or Mesa's software Vulkan"]
fn wgpu_conforms_to_the_cpu_record() {
    let report = crate::support::Bench::new().json("doctor --device wgpu");
    let backends = report["backends"].as_array().unwrap();
    let wgpu = backends
        .iter()
        .find(|backend| backend["name"] == "wgpu")
        .unwrap();
    assert_eq!(wgpu["devices"].as_array().unwrap().len(), 1, "{wgpu}");
    assert_eq!(wgpu["devices"][0]["passed"], true, "{wgpu}");
    assert_eq!(report["healthy"], true);
}

/// Without a driver the program says so and goes on with what there is.
#[cfg(feature = "cuda")]
#[test]
fn cuda_conforms_or_is_absent_with_a_reason() {
    let report = crate::support::Bench::new().json("doctor");
    let backends = report["backends"].as_array().unwrap();
    let cuda = backends
        .iter()
        .find(|backend| backend["name"] == "cuda")
        .unwrap();
    assert_eq!(cuda["compiled"], true);
    match cuda["devices"].as_array().unwrap().as_slice() {
        [] => assert!(cuda["absent"].as_str().unwrap().contains("CUDA"), "{cuda}"),
        devices => assert!(
            devices.iter().all(|device| device["passed"] == true),
            "{cuda}"
        ),
    }
}
