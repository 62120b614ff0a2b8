//! The start of a connection to PostgreSQL, from both sides: whatever an app sends, what reaches the server is for
//! its own role and database; whatever the server sends, nothing panics and little is held.
#![no_main]

use bastide_runtime::relay::{
    greeting::Greeting,
    startup::{First, PREFIX_BYTES, length, read},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (mut greeting, mut out) = (Greeting::default(), Vec::new());
    let _ = greeting.feed(bytes, &mut out);
    assert!(out.len() <= bytes.len());
    let Ok(First::Start(start)) = read(bytes) else { return };
    let Ok(packet) = start.pinned("own_role", "own_database") else { return };
    let (prefix, rest) = packet.split_first_chunk::<PREFIX_BYTES>().expect("a packet has a length");
    // What is taken together from `options` may be longer than it came, but never by much.
    assert_eq!(u32::from_be_bytes(*prefix) as usize, packet.len());
    let Ok(First::Start(again)) = read(rest) else { panic!("what is sent on cannot be read") };
    assert_eq!(again.pinned("own_role", "own_database").as_ref(), Ok(&packet));
    assert!(rest[4..].starts_with(b"user\0own_role\0database\0own_database\0"));
    let _ = length(*prefix);
});
