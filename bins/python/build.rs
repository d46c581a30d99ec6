//! Tells linkers that want to know that Python's own symbols are found once the module is loaded.

fn main() {
    pyo3_build_config::add_extension_module_link_args();
}
