//! Whether a program is a static ELF program for this machine: the only kind that runs in a container that
//! holds nothing else. A parser of outside bytes; it reads at most the first 64 KiB and never panics.

/// Bytes of the file's beginning that [`inspect`] wants.
pub const HEAD_BYTES: usize = 64 * 1024;
const HEADERS_MAX: usize = 512;
const PT_INTERP: u32 = 3;

/// What a program is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// It needs nothing but the kernel.
    Static,
    /// It needs this loader, and most likely libraries.
    Dynamic {
        /// Path of the loader, as the program names it.
        loader: String,
    },
    /// A script; nothing interprets it.
    Script,
    /// Built for another machine.
    Foreign,
    /// Something else.
    NotAProgram,
}

impl Program {
    /// Why it cannot run, for people; `None` when it can.
    pub fn refusal(&self, name: &str) -> Option<String> {
        let arch = std::env::consts::ARCH;
        match self {
            Self::Static => None,
            Self::Dynamic { loader } => Some(format!(
                "`{name}` is linked dynamically (it asks for `{loader}`, which is not there): \
                 link it statically. Rust: `-C target-feature=+crt-static`; Go: CGO_ENABLED=0; C: -static"
            )),
            Self::Script => Some(format!(
                "`{name}` is a script; nothing here interprets it: app.command names a program built for {arch}"
            )),
            Self::Foreign => Some(format!("`{name}` is a program, but not for 64-bit {arch}")),
            Self::NotAProgram => Some(format!("`{name}` is not an ELF program")),
        }
    }
}

/// Judges a file by its first [`HEAD_BYTES`] (or fewer, when it is shorter).
pub fn inspect(head: &[u8]) -> Program {
    if head.starts_with(b"#!") {
        return Program::Script;
    }
    if !head.starts_with(b"\x7fELF") {
        return Program::NotAProgram;
    }
    // 64 bit, little endian, this machine: the other forms have their fields elsewhere.
    let ours: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    if head.get(4..6) != Some(&[2, 1]) || u16_at(head, 18) != Some(ours) {
        return Program::Foreign;
    }
    // 2 is an executable at fixed addresses, 3 one that may be placed anywhere (or a library).
    if !matches!(u16_at(head, 16), Some(2 | 3)) {
        return Program::NotAProgram;
    }
    interpreter(head).unwrap_or(Program::NotAProgram)
}

/// Reads the program headers; `None` when they are not within the head or make no sense.
fn interpreter(head: &[u8]) -> Option<Program> {
    let at = usize::try_from(u64_at(head, 32)?).ok()?;
    let size = usize::from(u16_at(head, 54)?);
    let count = usize::from(u16_at(head, 56)?);
    if size < 56 || count == 0 || count > HEADERS_MAX {
        return None;
    }
    for index in 0..count {
        let start = at.checked_add(index.checked_mul(size)?)?;
        let header = head.get(start..start.checked_add(size)?)?;
        if u32_at(header, 0)? == PT_INTERP {
            let from = usize::try_from(u64_at(header, 8)?).ok()?;
            let bytes = usize::try_from(u64_at(header, 32)?).ok()?.min(4096);
            let name = head.get(from..from.checked_add(bytes)?).unwrap_or(b"?");
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            let loader = String::from_utf8_lossy(&name[..end]).escape_debug().to_string();
            return Some(Program::Dynamic { loader });
        }
    }
    Some(Program::Static)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minimal program of one header.
    fn elf(kind: u16, header: u32) -> Vec<u8> {
        let mut bytes = vec![0; 256];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16..18].copy_from_slice(&kind.to_le_bytes());
        let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&header.to_le_bytes());
        bytes[72..80].copy_from_slice(&200u64.to_le_bytes());
        bytes[96..104].copy_from_slice(&11u64.to_le_bytes());
        bytes[200..211].copy_from_slice(b"/lib/ld.so\0");
        bytes
    }

    #[test]
    fn programs_are_told_apart() {
        assert_eq!(inspect(&elf(2, 1)), Program::Static);
        assert_eq!(inspect(&elf(3, 1)), Program::Static);
        assert_eq!(inspect(&elf(3, PT_INTERP)), Program::Dynamic { loader: "/lib/ld.so".into() });
        assert_eq!(inspect(&elf(1, 1)), Program::NotAProgram);
        assert_eq!(inspect(b"#!/bin/sh\n"), Program::Script);
        assert_eq!(inspect(b"hello"), Program::NotAProgram);
        let mut foreign = elf(2, 1);
        foreign[18] = 40;
        assert_eq!(inspect(&foreign), Program::Foreign);
    }

    #[test]
    fn the_test_itself_is_a_dynamic_program_and_the_refusal_says_what_to_do() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let program = inspect(&bytes[..HEAD_BYTES]);
        if cfg!(target_feature = "crt-static") {
            assert_eq!(program, Program::Static);
        } else {
            assert!(program.refusal("app").unwrap().contains("link it statically"));
        }
    }

    #[test]
    fn no_cut_or_changed_byte_makes_it_panic() {
        let whole = elf(3, PT_INTERP);
        for length in 0..whole.len() {
            let _ = inspect(&whole[..length]);
            for byte in [0x00, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[length] = byte;
                let _ = inspect(&changed);
            }
        }
    }
}
