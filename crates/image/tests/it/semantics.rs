//! What honest layers mean.

use crate::made::{Layer, Place, digest};

fn becomes(layers: &[Layer], tree: &[&str]) {
    // However they are packed.
    let forms: [fn(&Layer) -> Vec<u8>; 3] = [Layer::tar, Layer::gz, Layer::zstd];
    for form in forms {
        let place = Place::new();
        let packed: Vec<_> = layers.iter().map(form).collect();
        let contents = place.unpack(&packed).unwrap();
        let expected: Vec<_> = layers.iter().map(|layer| digest(&layer.tar())).collect();
        assert_eq!(contents, expected, "the digest is of the content");
        assert_eq!(place.tree(), tree);
    }
}

fn l() -> Layer {
    Layer::default()
}

#[test]
fn later_layers_lie_over_earlier_ones() {
    becomes(
        &[
            l().dir("./").dir("./etc").file("./etc/a", b"1").file("./b", b"1"),
            l().file("etc/a", b"2").file("c/d", b"3"),
        ],
        &["b = 1", "c/", "c/d = 3", "etc/", "etc/a = 2"],
    );
    // Distributions merge /usr: what later layers put into /lib lands there.
    becomes(
        &[
            l().dir("usr/lib").link("lib", "usr/lib").link("lib64", "/usr/lib"),
            l().file("lib/x", b"1").file("lib64/y", b"2"),
        ],
        &["lib -> usr/lib", "lib64 -> /usr/lib", "usr/", "usr/lib/", "usr/lib/x = 1", "usr/lib/y = 2"],
    );
    becomes(&[l().file("a", b"1"), l().hard("b", "a"), l().file("a", b"2")], &["a = 2", "b = 1"]);
}

#[test]
fn a_whiteout_hides_what_is_below_it_and_nothing_beside_it() {
    let base = l().file("d/a", b"1").file("d/b", b"1").file("d/sub/c", b"1").file("e", b"1");
    becomes(
        &[base.clone(), l().file("d/.wh.a", b"").file(".wh.e", b"").file(".wh.none", b"")],
        &["d/", "d/b = 1", "d/sub/", "d/sub/c = 1"],
    );
    becomes(&[base.clone(), l().file(".wh.d", b"")], &["e = 1"]);
    becomes(
        &[base.clone(), l().file("none/.wh.x", b"")],
        &["d/", "d/a = 1", "d/b = 1", "d/sub/", "d/sub/c = 1", "e = 1"],
    );
    // Before or behind what the same layer puts there.
    for layer in [l().file("d/.wh.a", b"").file("d/a", b"2"), l().file("d/a", b"2").file("d/.wh.a", b"")] {
        becomes(&[base.clone(), layer], &["d/", "d/a = 2", "d/b = 1", "d/sub/", "d/sub/c = 1", "e = 1"]);
    }
    for layer in [l().file(".wh.d", b"").file("d/new", b"2"), l().file("d/new", b"2").file(".wh.d", b"")] {
        becomes(&[base.clone(), layer], &["d/", "d/new = 2", "e = 1"]);
    }
}

#[test]
fn an_opaque_directory_shows_only_its_own_layer() {
    let base = l().file("d/a", b"1").file("d/sub/c", b"1").file("e", b"1");
    for layer in [
        l().dir("d").file("d/.wh..wh..opq", b"").file("d/b", b"2").file("d/sub/x", b"2"),
        l().file("d/b", b"2").file("d/sub/x", b"2").file("d/.wh..wh..opq", b""),
    ] {
        becomes(&[base.clone(), layer], &["d/", "d/b = 2", "d/sub/", "d/sub/x = 2", "e = 1"]);
    }
    becomes(&[base.clone(), l().file(".wh..wh..opq", b"").file("x", b"2")], &["x = 2"]);
    // And the layer after next may hide again.
    becomes(
        &[
            base,
            l().file("d/.wh..wh..opq", b"").file("d/b", b"2"),
            l().file("d/.wh..wh..opq", b"").file("d/c", b"3"),
        ],
        &["d/", "d/c = 3", "e = 1"],
    );
    // Marks of AUFS say nothing.
    becomes(&[l().file("a", b"1").file(".wh..wh.plnk", b"").file(".wh..wh.aufs", b"")], &["a = 1"]);
}

#[test]
fn long_names_come_in_both_forms() {
    let long = format!("{}/x", "d".repeat(150));
    let gnu = l()
        .entry("././@LongLink", tar::EntryType::GNULongName, 0, "", format!("{long}g\0").as_bytes())
        .entry("././@LongLink", tar::EntryType::GNULongLink, 0, "", format!("{long}p\0").as_bytes())
        .link("short", "short");
    let layer = l().pax("path", format!("{long}p").as_bytes()).file("short", b"1");
    let dir = format!("{}/", "d".repeat(150));
    becomes(
        &[Layer([layer.0, gnu.0].concat())],
        &[&dir, &format!("{long}g -> {long}p"), &format!("{long}p = 1")],
    );
    // A directory in the oldest form, an empty mode, a comment for all.
    let old = l()
        .entry("g", tar::EntryType::XGlobalHeader, 0, "", b"13 comment=x\n")
        .file("old/", b"")
        .entry("old/x", tar::EntryType::Continuous, 0o644, "", b"1");
    becomes(&[old], &["old/", "old/x = 1"]);
}
