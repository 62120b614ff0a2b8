//! XML: text nodes and attribute values. Entities are not resolved, nothing outside is read.

use super::{Limits, Sink};
use crate::{transform::Transform, variable::Collection};
use quick_xml::{Reader, events::Event};

const DEPTH_MAX: usize = 256;

pub(crate) fn parse(bytes: &[u8], complete: bool, limits: &Limits, sink: &mut dyn Sink) {
    let mut reader = Reader::from_reader(bytes);
    let (mut depth, mut attributes) = (0_usize, 0_usize);
    let mut texts: Vec<u8> = Vec::new();
    loop {
        let event = match reader.read_event() {
            Ok(event) => event,
            Err(error) => {
                if complete {
                    sink.fail(&format!("XML: {error}"));
                }
                break;
            }
        };
        match &event {
            Event::Eof => {
                if depth > 0 && complete {
                    sink.fail("XML: it ends in the middle");
                }
                break;
            }
            Event::Start(tag) | Event::Empty(tag) => {
                if matches!(event, Event::Start(_)) {
                    depth += 1;
                }
                for attribute in tag.attributes().with_checks(false) {
                    let Ok(attribute) = attribute else {
                        if complete {
                            sink.fail("XML: an attribute cannot be read");
                        }
                        break;
                    };
                    attributes += 1;
                    let value = resolve(attribute.value.as_ref().as_bytes());
                    sink.add(Collection::XmlAttributes, b"", &value);
                }
            }
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Text(text) => texts.extend(resolve(text.as_bytes())),
            // Entities are not resolved: what their declarations hide is looked at instead.
            Event::DocType(text) if memchr::memmem::find(text.as_bytes(), b"<!ENTITY").is_some() => {
                texts.extend(resolve(text.as_bytes()));
            }
            Event::CData(text) => texts.extend_from_slice(text.as_bytes()),
            Event::GeneralRef(name) => texts.extend(resolve(&[b"&", name.as_bytes(), b";"].concat())),
            _ => {}
        }
        if depth > DEPTH_MAX || attributes > limits.arguments_max {
            sink.fail("XML is nested too deeply or holds too much");
            break;
        }
    }
    // `XML:/*` is the text of the whole document.
    if !texts.is_empty() {
        sink.add(Collection::XmlText, b"", &texts);
    }
}

/// The five predefined entities and character references.
fn resolve(text: &[u8]) -> Vec<u8> {
    Transform::HtmlEntityDecode.of(text)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Kept, TEST_LIMITS},
        *,
    };
    use proptest::prelude::*;

    fn read(text: &str, complete: bool) -> Kept {
        let mut kept = Kept::default();
        parse(text.as_bytes(), complete, &TEST_LIMITS, &mut kept);
        kept
    }

    #[test]
    fn texts_and_attributes_are_found() {
        let kept =
            read("<?xml version=\"1.0\"?><a b=\"1&lt;\" c='2'>x<d><![CDATA[<y>]]></d>&#x7a;</a>", true);
        let found: Vec<_> =
            kept.found.iter().map(|(collection, _, value)| (*collection, value.as_str())).collect();
        assert_eq!(
            found,
            [
                (Collection::XmlAttributes, "1<"),
                (Collection::XmlAttributes, "2"),
                (Collection::XmlText, "x<y>z")
            ]
        );
        assert_eq!(kept.fault, None);
    }

    #[test]
    fn what_is_broken_deep_or_large_is_a_fault() {
        for text in ["<a>", "<a", "<a></b>", "<a b=1/>", &"<a>".repeat(300), &"<a b='1'/>".repeat(60)] {
            assert!(read(text, true).fault.is_some(), "{text}");
        }
        let cut = read("<a b='evil'>te", false);
        assert!(cut.fault.is_none() && cut.found.len() == 2, "{cut:?}");
        let hidden = read("<!DOCTYPE a [<!ENTITY x \"evil\">]><a>&x;</a>", true);
        assert!(hidden.found.iter().any(|(_, _, value)| value.contains("evil")));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in "[<>&;a/='\"!\\[\\]?-]{0,40}", complete: bool) {
            read(&text, complete);
        }
    }
}
