//! Manifests, indexes and programs are read or refused, never with a panic.
#![no_main]

use bastide_image::{Parsed, choose, elf, parse};
use bastide_types::manifest::ImageSource;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = elf::inspect(bytes);
    match parse(bytes) {
        Ok(Parsed::Index(index)) => drop(choose(&index)),
        Ok(Parsed::Manifest(manifest)) => drop(bastide_image::Config::read(bytes, &manifest)),
        Err(_) => {}
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(source) = text.parse::<ImageSource>() {
            assert_eq!(source.to_string().parse::<ImageSource>(), Ok(source));
        }
    }
});
