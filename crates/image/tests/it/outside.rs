//! For all layers: nothing lands outside the root, and nothing in it has special rights.

use crate::made::{Layer, Place};
use proptest::prelude::*;
use tar::EntryType;

/// Few names, so that they meet.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("a"), 4 => Just("b"), 4 => Just("c"), 2 => Just("root"), 2 => Just("outside"), 2 => Just("secret"),
        1 => Just(".."), 1 => Just("."), 1 => Just(".wh.a"), 1 => Just(".wh.outside"), 1 => Just(".wh..wh..opq"), 1 => Just("dev"),
    ]
    .prop_map(str::to_owned)
}

fn path() -> impl Strategy<Value = String> {
    (any::<bool>(), proptest::collection::vec(name(), 1..4))
        .prop_map(|(absolute, parts)| format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")))
}

#[derive(Debug, Clone)]
struct Entry {
    path: String,
    kind: u8,
    /// A link's target: a path, a way up and out, or the real place outside.
    target: Target,
    mode: u32,
}

#[derive(Debug, Clone)]
enum Target {
    Path(String),
    Up(usize, String),
    Outside(bool),
}

fn entry() -> impl Strategy<Value = Entry> {
    let target = prop_oneof![
        3 => path().prop_map(Target::Path),
        2 => (1_usize..6, path()).prop_map(|(up, path)| Target::Up(up, path)),
        2 => any::<bool>().prop_map(Target::Outside),
    ];
    (path(), 0_u8..12, target, any::<u16>()).prop_map(|(path, kind, target, mode)| Entry {
        path,
        kind,
        target,
        mode: u32::from(mode) & 0o7777,
    })
}

fn layer(entries: &[Entry], place: &Place) -> Layer {
    entries.iter().fold(Layer::default(), |layer, entry| {
        let target = match &entry.target {
            Target::Path(path) => path.clone(),
            Target::Up(up, path) => format!("{}{}", "../".repeat(*up), path.trim_start_matches('/')),
            Target::Outside(true) => place.outside().display().to_string(),
            Target::Outside(false) => place.outside().join("secret").display().to_string(),
        };
        let kind = match entry.kind {
            0..=3 => EntryType::Regular,
            4..=5 => EntryType::Directory,
            6..=8 => EntryType::Symlink,
            9..=10 => EntryType::Link,
            _ => EntryType::Char,
        };
        let content: &[u8] = if kind == EntryType::Regular { b"content" } else { b"" };
        layer.entry(&entry.path, kind, entry.mode, &target, content)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_ever_lands_outside_the_root(layers in proptest::collection::vec(proptest::collection::vec(entry(), 1..12), 1..4)) {
        // Entry by entry, so that one that is refused does not hide what the others do.
        let place = Place::new();
        let packed: Vec<_> = layers.iter().map(|entries| layer(entries, &place).tar()).collect();
        let _ = place.unpack(&packed);
        let place = Place::new();
        if let Ok(mut unpacker) = bastide_image::Unpacker::new(&place.root(), bastide_image::Limits::default()) {
            for entry in layers.iter().flatten().take(30) {
                let _ = unpacker.layer(layer(std::slice::from_ref(entry), &place).tar().as_slice());
                place.untouched();
            }
        }
    }

    #[test]
    fn no_damage_makes_it_panic_or_leave_the_root(
        at in 0_usize..4096,
        with in proptest::collection::vec(any::<u8>(), 1..64),
        mend: bool,
    ) {
        let made = Layer::default().file("a/b", b"content").link("l", "a").hard("h", "a/b").pax("path", b"a/c").file("x", b"1");
        let mut bytes = made.tar();
        for (offset, byte) in with.into_iter().enumerate() {
            let place = (at + offset) % bytes.len();
            bytes[place] = byte;
        }
        if mend {
            // With a right checksum the damage gets past the first check.
            for block in (0..bytes.len() - 1024).step_by(512) {
                let mut head = tar::Header::new_gnu();
                head.as_mut_bytes().copy_from_slice(&bytes[block..block + 512]);
                if head.as_gnu().is_some() {
                    head.set_cksum();
                    bytes[block..block + 512].copy_from_slice(head.as_bytes());
                }
            }
        }
        let _ = Place::new().unpack(&[bytes]);
    }
}
