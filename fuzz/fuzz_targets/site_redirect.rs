//! Redirects: no request makes one lead to another host than its target names.

#![no_main]

use bastide_types::{
    Domains,
    canonical::canonical,
    site::{Asked, FromPath, Redirect, RedirectTable, Target},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|texts: (&str, &str, &str)| {
    let (from, to, request) = texts;
    let (Ok(from), Ok(to)) = (from.parse::<FromPath>(), to.parse::<Target>()) else { return };
    assert_eq!(from.to_string().parse(), Ok(from.clone()));
    assert_eq!(to.to_string().parse(), Ok(to.clone()));
    let named = to.to_string();
    let redirect = Redirect { host: None, from, to, status: Default::default(), query: Default::default() };
    let table = RedirectTable::new(&[redirect]);
    let (path, query) = request.split_once('?').unwrap_or((request, ""));
    let (Ok(path), domains) = (canonical(path), Domains::default()) else { return };
    if let Some((_, location)) = table.find(&Asked { domains: &domains, host: "h", path: &path, query: Some(query) }) {
        let base = http::Uri::from_static("https://h/");
        let host = |text: &str| match text.strip_prefix("https://") {
            Some(rest) => rest.split('/').next().map(str::to_owned),
            None => base.host().map(str::to_owned),
        };
        assert_eq!(host(&location), host(&named));
        assert!(!location.starts_with("//") && !location.starts_with("/\\"));
    }
});
