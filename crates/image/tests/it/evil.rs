//! What must never work, case by case. After each: nothing outside the root has changed.

use crate::made::{LIMITS, Layer, Place, gz, head, mode};
use bastide_image::{Error, Unpacker};
use std::fs;
use tar::EntryType;

/// Refused, with these words.
fn refused(layers: &[Layer], says: &str) {
    let place = Place::new();
    let layers: Vec<_> = layers.iter().map(Layer::gz).collect();
    let error = place.unpack(&layers).unwrap_err();
    assert!(error.to_string().contains(says), "{error} does not say {says}");
}

/// Taken, and what is there then.
fn becomes(layers: &[Layer], tree: &[&str]) {
    let place = Place::new();
    let layers: Vec<_> = layers.iter().map(Layer::tar).collect();
    place.unpack(&layers).unwrap();
    assert_eq!(place.tree(), tree);
}

fn l() -> Layer {
    Layer::default()
}

#[test]
fn no_name_leads_out() {
    for name in ["../evil", "a/../../evil", "a/..", "..", "./../x"] {
        refused(&[l().file(name, b"x")], "leads out");
        refused(&[l().dir(name)], "leads out");
        refused(&[l().link(name, "x")], "leads out");
        refused(&[l().file("x", b"x").hard(name, "x")], "leads out");
    }
    // An absolute name means the root of the image, as it does in the container.
    becomes(&[l().file("/etc/evil", b"x")], &["etc/", "etc/evil = x"]);
    refused(&[l().pax("path", b"../../evil").file("short", b"x")], "leads out");
    let long = format!("{}evil\0", "../".repeat(60));
    let gnu = l().entry("././@LongLink", EntryType::GNULongName, 0, "", long.as_bytes());
    refused(&[gnu.file("short", b"x")], "leads out");
}

#[test]
fn nothing_is_written_through_a_link() {
    let place = Place::new();
    let outside = place.outside().display().to_string();
    // A link that leads out by its whole path, or upwards, is a link within the root when something is written there.
    for target in [outside.as_str(), "../outside", "../../../../../../outside"] {
        let inner = target.trim_start_matches("../").trim_start_matches('/').to_owned();
        for layers in [
            vec![l().dir(&inner).link("l", target).file("l/new", b"x")],
            vec![l().dir(&inner).link("l", target), l().file("l/new", b"x")],
        ] {
            let place = Place::new();
            let layers: Vec<_> = layers.iter().map(Layer::gz).collect();
            place.unpack(&layers).unwrap();
            assert_eq!(fs::read(place.root().join(&inner).join("new")).unwrap(), b"x");
        }
    }
    // Where it leads to nothing in the root, nothing is made behind it.
    refused(&[l().link("l", &outside).file("l/secret", b"x")], "leads nowhere");
    refused(&[l().link("l", "l").file("l/x", b"x")], "in a circle");
    // The last part of a name is never followed: the link itself is replaced.
    becomes(&[l().link("l", "/etc/passwd").file("l", b"x")], &["l = x"]);
    becomes(
        &[l().file("etc/passwd", b"p").link("l", "etc/passwd"), l().file("l", b"x")],
        &["etc/", "etc/passwd = p", "l = x"],
    );
    becomes(&[l().link("l", "/"), l().dir("l")], &["l/"]);
}

#[test]
fn a_second_name_is_given_to_files_of_the_image_only() {
    let place = Place::new();
    let secret = place.outside().join("secret").display().to_string();
    refused(&[l().hard("x", "../outside/secret")], "leads out");
    refused(&[l().hard("x", &secret)], "which is not there");
    refused(&[l().hard("x", "/etc/passwd")], "which is not there");
    refused(
        &[l().link("out", &place.outside().display().to_string()).hard("x", "out/secret")],
        "which is not there",
    );
    refused(&[l().link("up", "..").hard("x", "up/outside/secret")], "which is not there");
    refused(&[l().dir("d").hard("x", "d")], "not a file");
    refused(&[l().hard("x", "/")], "which is not there");
    refused(&[l().hard("x", "x")], "which is not there");
    // A link is not followed, also not this way: its second name is the same link.
    becomes(
        &[l().link("a", &secret).hard("b", "a")],
        &[&format!("a -> {secret}"), &format!("b -> {secret}")],
    );
    // Writing to a second name leaves the first alone.
    becomes(&[l().file("a", b"1").hard("b", "a"), l().file("b", b"2")], &["a = 1", "b = 2"]);
    becomes(&[l().file("a", b"1").hard("b", "a").hard("b", "a").hard("a", "b")], &["a = 1", "b = 1"]);
}

#[test]
fn devices_pipes_and_odd_kinds_are_refused() {
    for (kind, says) in [
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a pipe"),
        (EntryType::GNUSparse, "a sparse file"),
        (EntryType::new(b'V'), "neither a file"),
        (EntryType::new(b'D'), "neither a file"),
    ] {
        refused(&[l().entry("x", kind, 0o666, "", b"")], says);
        refused(&[l().entry("a/dev/x", kind, 0o666, "", b"")], says);
    }
    // What lies in /dev is never seen, so old base images may have it.
    becomes(&[l().dir("dev").entry("dev/null", EntryType::Char, 0o666, "", b"")], &["dev/"]);
    refused(&[l().pax("GNU.sparse.major", b"1").file("x", b"x")], "a sparse file");
}

#[test]
fn no_special_right_survives() {
    let place = Place::new();
    let layer = l()
        .entry("su", EntryType::Regular, 0o6755, "", b"x")
        .entry("sticky", EntryType::Directory, 0o1777, "", b"")
        .entry("private", EntryType::Regular, 0o000, "", b"x")
        .entry("closed", EntryType::Directory, 0o000, "", b"")
        .file("closed/file", b"x")
        .pax("SCHILY.xattr.security.capability", b"\x01\0\0\x02\n\0=")
        .file("capable", b"x");
    place.unpack(&[layer.gz()]).unwrap();
    let modes = ["su", "sticky", "private", "closed", "closed/file", "capable"]
        .map(|name| mode(&place.root().join(name)));
    assert_eq!(modes, [0o100_555, 0o040_755, 0o100_444, 0o040_755, 0o100_444, 0o100_444]);
}

#[test]
fn whiteouts_take_away_only_what_lies_below_the_root() {
    let base = l().file("a/x", b"1").file("b", b"2");
    refused(&[base.clone(), l().file("a/.wh...", b"")], "takes away no name");
    refused(&[base.clone(), l().file(".wh...", b"")], "takes away no name");
    refused(&[base.clone(), l().file("a/.wh..", b"")], "takes away no name");
    refused(&[base.clone(), l().file("a/.wh.", b"")], "takes away no name");
    refused(&[base.clone(), l().file("../.wh.outside", b"")], "leads out");
    let place = Place::new();
    let out = place.outside().display().to_string();
    let layers = [
        base.link("l", &out).link("up", "../.."),
        l().file("l/.wh.secret", b"").file("l/.wh..wh..opq", b"").file("up/.wh.outside", b""),
    ];
    place.unpack(&layers.map(|layer| layer.gz())).unwrap();
    // A link is taken away itself, not what it leads to.
    becomes(&[l().file("a/x", b"1").link("l", "a"), l().file(".wh.l", b"")], &["a/", "a/x = 1"]);
}

#[test]
fn the_same_name_twice_is_the_last_of_them() {
    becomes(&[l().file("a", b"1").file("a", b"2")], &["a = 2"]);
    becomes(&[l().file("a", b"1").dir("a").file("a/b", b"2")], &["a/", "a/b = 2"]);
    becomes(&[l().file("a/b/c", b"1").file("a", b"2")], &["a = 2"]);
    // Also when the directory that was just written to is gone with it.
    becomes(&[l().file("a/b", b"1").link("a", "c").dir("c").file("a/b", b"2")], &["a -> c", "c/", "c/b = 2"]);
    refused(&[l().file("a", b"1").file("a/b", b"2")], "not a directory");
    refused(&[l().file("", b"1")], "the root of an image is a directory");
    refused(&[l().link("./", "x")], "the root of an image is a directory");
}

#[test]
fn names_and_paths_have_a_length() {
    let name = |length: usize| "n".repeat(length);
    refused(&[l().pax("path", name(256).as_bytes()).file("short", b"")], "255 bytes");
    let path = format!("{}/", name(100)).repeat(11);
    refused(&[l().pax("path", path.as_bytes()).file("short", b"")], "1024 bytes");
    refused(&[l().pax("path", "d/".repeat(65).as_bytes()).dir("short")], "within each other");
    // Also when a link hides how deep it is.
    let deep = l().pax("path", "d/".repeat(60).as_bytes()).dir("short");
    let deep = deep.pax("linkpath", "d/".repeat(60).as_bytes()).link("l", "");
    refused(&[deep.dir("l/a/b/c/d/e/f")], "within each other");
    refused(&[l().pax("path", b"a\0b").file("short", b"")], "NUL");
    refused(&[l().pax("linkpath", name(1025).as_bytes()).link("l", "")], "link to nothing");
    refused(&[l().link("l", "")], "link to nothing");
    becomes(&[l().pax("path", b"new\nline").file("short", b"x")], &["new\nline = x"]);
}

#[test]
fn what_is_too_large_is_refused_before_it_is_written() {
    let too_large = |layers: &[Vec<u8>], says: &str| {
        let error = Place::new().unpack(layers).unwrap_err();
        assert!(matches!(&error, Error::TooLarge(why) if why.contains(says)), "{error}");
    };
    // The header alone says 8 GiB.
    let bomb = Layer(head("bomb", EntryType::Regular, 0o644, "", 8 << 30).to_vec());
    too_large(&[bomb.tar()], "1 MiB");
    // Small in each layer, too much in all; also what a later layer hides counts.
    let half = l().file("x", &[0; 600 * 1024]).gz();
    too_large(&[half.clone(), half], "1 MiB");
    // A name of half a GiB is not held in memory, whatever announces it.
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader]
    {
        too_large(&[Layer(head("x", kind, 0, "", 512 << 20).to_vec()).tar()], "longer than 1 MiB");
    }
    let many = (0..300).fold(l(), |layer, number| layer.file(&format!("f{number}"), b""));
    too_large(&[many.gz()], "200 entries");
    let same = (0..300).fold(l(), |layer, _| layer.dir("./"));
    too_large(&[same.gz()], "200 entries");
    let heads = (0..900).fold(l(), |layer, _| layer.pax("comment", b"x"));
    too_large(&[heads.gz()], "entries");
    // Few entries, each in directories that nobody named.
    let deep = (0..10).fold(l(), |layer, number| layer.file(&format!("{number}/{}x", "d/".repeat(40)), b""));
    too_large(&[deep.gz()], "too many directories");
    let layers: Vec<_> = (0..9).map(|_| l().dir("a").gz()).collect();
    too_large(&layers, "8 layers");
}

#[test]
fn a_bomb_in_the_packing_ends_at_the_limit() {
    // 700 MiB of nothing in a few KiB, behind the last entry, where no entry's length counts it.
    let zeros = vec![0; 1 << 20];
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, &l().file("a", b"1").tar()).unwrap();
    for _ in 0..700 {
        std::io::Write::write_all(&mut packer, &zeros).unwrap();
    }
    let bomb = packer.finish().unwrap();
    assert!(bomb.len() < 8 << 20);
    let error = Place::new().unpack(&[bomb]).unwrap_err();
    assert!(matches!(&error, Error::TooLarge(_)), "{error}");
}

#[test]
fn damaged_and_cut_layers_are_refused() {
    let whole = l().file("a", &[b'x'; 4000]).dir("b").gz();
    for length in (0..whole.len() - 8).step_by(5) {
        let error = Place::new().unpack(&[whole[..length].to_vec()]);
        assert!(length < 20 || error.is_err(), "cut at {length}");
    }
    for bytes in [b"no layer at all, but longer than a header".repeat(20), gz(b"x"), vec![0xff; 2048]] {
        assert!(matches!(Place::new().unpack(&[bytes]), Err(Error::Refused(_))));
    }
    let two = l().pax("size", b"999").file("short", b"x");
    refused(&[two], "two lengths");
    let all = l().entry("g", EntryType::XGlobalHeader, 0, "", b"10 path=a\n");
    refused(&[all.file("short", b"x")], "for all entries");
}

#[test]
fn only_a_new_and_empty_directory_is_unpacked_into() {
    let place = Place::new();
    fs::write(place.root().join("there"), "x").unwrap();
    assert!(matches!(Unpacker::new(&place.root(), LIMITS), Err(Error::File { .. })));
    assert!(matches!(Unpacker::new(&place.root().join("none"), LIMITS), Err(Error::File { .. })));
}
