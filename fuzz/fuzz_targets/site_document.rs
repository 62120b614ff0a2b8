//! Settings of a site as a Snapshot carries them: any JSON is settings that read back as they were, or is refused.

#![no_main]

use bastide_types::{
    SiteDocument,
    site::{Asked, RedirectTable},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some(settings) = SiteDocument::from_json(text).and_then(|document| document.read().ok()) else { return };
    assert_eq!(SiteDocument::from(&settings).read(), Ok(settings.clone()));
    for field in settings.fields.in_force() {
        assert!(field.value.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    }
    let domains = bastide_types::Domains::default();
    let table = RedirectTable::new(&settings.redirects);
    for path in ["/", "/a", "/a/b/c", "/.bastide/x"] {
        let asked = Asked { domains: &domains, host: "h", path, query: Some("q=1") };
        if let Some((_, location)) = table.find(&asked) {
            assert!(!location.starts_with("//") && location.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
});
