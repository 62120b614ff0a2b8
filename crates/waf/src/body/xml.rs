//! XML: text nodes and attribute values. Entities are not resolved, nothing outside is read.

use super::{ARGUMENTS_MAX, Parsed};
use quick_xml::{Reader, events::Event};

const DEPTH_MAX: usize = 256;

pub(crate) fn parse(bytes: &[u8], complete: bool) -> Parsed {
    let mut parsed = Parsed::default();
    let mut reader = Reader::from_reader(bytes);
    let mut depth = 0_usize;
    let mut texts: Vec<u8> = Vec::new();
    loop {
        let event = match reader.read_event() {
            Ok(event) => event,
            Err(error) => {
                if complete {
                    parsed.fail(format!("XML: {error}"));
                }
                break;
            }
        };
        let text: Option<Vec<u8>> = match &event {
            Event::Eof => {
                if depth > 0 && complete {
                    parsed.fail("XML: it ends in the middle");
                }
                break;
            }
            Event::Start(tag) | Event::Empty(tag) => {
                if matches!(event, Event::Start(_)) {
                    depth += 1;
                }
                for attribute in tag.attributes().with_checks(false).flatten() {
                    parsed.xml_attributes.push((Vec::new(), resolve(attribute.value.as_ref().as_bytes())));
                }
                None
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                None
            }
            Event::Text(text) => Some(resolve(text.as_bytes())),
            // Entities are not resolved: what their declarations hide is looked at instead.
            Event::DocType(text) if memchr::memmem::find(text.as_bytes(), b"<!ENTITY").is_some() => {
                Some(resolve(text.as_bytes()))
            }
            Event::CData(text) => Some(text.as_bytes().to_vec()),
            Event::GeneralRef(name) => Some(resolve(&[b"&", name.as_bytes(), b";"].concat())),
            _ => None,
        };
        if let Some(text) = text {
            texts.extend_from_slice(&text);
        }
        if depth > DEPTH_MAX || parsed.xml_attributes.len() > ARGUMENTS_MAX {
            parsed.fail("XML is nested too deeply or holds too much");
            break;
        }
    }
    // `XML:/*` is the text of the whole document.
    if !texts.is_empty() {
        parsed.xml_text.push((Vec::new(), texts));
    }
    parsed
}

/// The five predefined entities and character references.
fn resolve(text: &[u8]) -> Vec<u8> {
    crate::transform::Transform::HtmlEntityDecode.apply(text).into_owned()
}
