//! Packs the relocations of the executable.
//!
//! Each pointer in constant data takes 24 bytes of a table that the loader reads through at every start; packed
//! (`DT_RELR`) it is a bit, and each process keeps megabytes less in memory. The C library must know it: glibc 2.36.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).as_deref() == Ok(value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
