//! No head of an answer makes the parser panic, and one that passes has the same meaning when it is written anew.
#![no_main]

use bastide_proxy::h1::{answer::parse, head::end_of_head};
use bytes::Bytes;
use http::Method;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let all = Bytes::copy_from_slice(bytes);
    let Some(end) = end_of_head(&all, 0) else { return };
    for method in [Method::GET, Method::HEAD] {
        let Ok(head) = parse(&all.slice(..end), &method) else { continue };
        let version = if head.keep_alive { "HTTP/1.1" } else { "HTTP/1.0" };
        if head.headers.contains_key("transfer-encoding") && !head.keep_alive {
            continue; // which HTTP/1.0 does not have
        }
        let mut again = format!("{version} {}\r\n", head.status.as_u16()).into_bytes();
        for (name, value) in &head.headers {
            again.extend_from_slice(name.as_str().as_bytes());
            again.extend_from_slice(b": ");
            again.extend_from_slice(value.as_bytes());
            again.extend_from_slice(b"\r\n");
        }
        again.extend_from_slice(b"\r\n");
        let second = parse(&again.into(), &method).expect("what passed once passes again");
        assert_eq!((head.status, head.headers, head.body), (second.status, second.headers, second.body));
        assert_eq!(head.keep_alive, second.keep_alive);
    }
});
