//! Whether a value brings a script into a page: it is read as HTML from each place at which a page may put
//! it, and tags, attributes and addresses that can run scripts are looked for.

use super::html::{Context, Kind, Reader};

/// What an attribute can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attribute {
    Harmless,
    /// Runs scripts, whatever its value.
    Evil,
    /// Takes an address.
    Address,
    /// Its value names an attribute.
    Indirect,
}

const ATTRIBUTES: &[(&str, Attribute)] = &[
    ("ACTION", Attribute::Address),
    ("ATTRIBUTENAME", Attribute::Indirect),
    ("BY", Attribute::Address),
    ("BACKGROUND", Attribute::Address),
    ("DATAFORMATAS", Attribute::Evil),
    ("DATASRC", Attribute::Evil),
    ("DYNSRC", Attribute::Address),
    ("FILTER", Attribute::Evil),
    ("FORMACTION", Attribute::Address),
    ("FOLDER", Attribute::Address),
    ("FROM", Attribute::Address),
    ("HANDLER", Attribute::Address),
    ("HREF", Attribute::Address),
    ("LOWSRC", Attribute::Address),
    ("POSTER", Attribute::Address),
    ("SRC", Attribute::Address),
    ("STYLE", Attribute::Evil),
    ("TO", Attribute::Address),
    ("VALUES", Attribute::Address),
    ("XLINK:HREF", Attribute::Address),
];

const TAGS: &[&str] = &[
    "APPLET", "BASE", "COMMENT", "EMBED", "FRAME", "FRAMESET", "HANDLER", "IFRAME", "IMPORT", "ISINDEX",
    "LINK", "LISTENER", "META", "NOSCRIPT", "OBJECT", "SCRIPT", "STYLE", "VMLFRAME", "XML", "XSS",
];

/// Whether the value is an injection.
pub(crate) fn xss(value: &[u8]) -> bool {
    // Without a tag and without the value of an attribute there is nothing.
    if memchr::memchr2(b'<', b'=', value).is_none() {
        return false;
    }
    let quoted = |quote: u8| memchr::memchr(quote, value).is_some() && is_evil(value, Context::Value(quote));
    memchr::memchr(b'<', value).is_some() && is_evil(value, Context::Data)
        || is_evil(value, Context::Tag)
        || quoted(b'\'')
        || quoted(b'"')
        || quoted(b'`')
}

fn is_evil(value: &[u8], context: Context) -> bool {
    let mut reader = Reader::new(value, context);
    let mut attribute = Attribute::Harmless;
    while let Some(token) = reader.next() {
        let before = std::mem::replace(&mut attribute, Attribute::Harmless);
        let evil = match token.kind {
            Kind::Doctype => true,
            Kind::TagOpen => is_evil_tag(token.text),
            Kind::Name => {
                attribute = attribute_of(token.text);
                false
            }
            Kind::Value => match before {
                Attribute::Harmless => false,
                Attribute::Evil => true,
                Attribute::Address => is_evil_address(token.text),
                Attribute::Indirect => attribute_of(token.text) != Attribute::Harmless,
            },
            Kind::Comment => is_evil_comment(token.text),
            Kind::Text | Kind::TagEnd => false,
        };
        if evil {
            return true;
        }
    }
    false
}

/// Whether a text is this word, letter case and zero bytes aside.
fn is(text: &[u8], word: &str) -> bool {
    let mut left = word.bytes();
    for byte in text.iter().filter(|byte| **byte != 0) {
        if left.next() != Some(byte.to_ascii_uppercase()) {
            return false;
        }
    }
    left.next().is_none()
}

fn is_evil_tag(name: &[u8]) -> bool {
    let begins = |word: &[u8]| name[..3].eq_ignore_ascii_case(word);
    name.len() >= 3 && (TAGS.iter().any(|tag| is(name, tag)) || begins(b"SVG") || begins(b"XSL"))
}

fn attribute_of(name: &[u8]) -> Attribute {
    if name.len() < 2 {
        return Attribute::Harmless;
    }
    if name.len() >= 5 {
        // Handlers of events; attributes that make tags.
        let is_handler = name[..2].eq_ignore_ascii_case(b"on");
        if is_handler || is(&name[..5], "XMLNS") || is(&name[..5], "XLINK") {
            return Attribute::Evil;
        }
    }
    ATTRIBUTES
        .iter()
        .find(|(word, _)| is(name, word))
        .map_or(Attribute::Harmless, |(_, attribute)| *attribute)
}

fn is_evil_comment(text: &[u8]) -> bool {
    let begins = |word: &[u8]| text.len() > 3 && text[..word.len()].eq_ignore_ascii_case(word);
    // Internet Explorer ends comments at a backtick, and reads conditional ones.
    text.contains(&b'`')
        || begins(b"[IF")
        || begins(b"XML")
        || text.len() > 5 && (is(&text[..6], "IMPORT") || is(&text[..6], "ENTITY"))
}

fn is_evil_address(text: &[u8]) -> bool {
    let from = text.iter().position(|byte| (33..127).contains(byte)).unwrap_or(text.len());
    let text = &text[from..];
    ["DATA", "VIEW-SOURCE", "JAVA", "VBSCRIPT"].iter().any(|scheme| begins_decoded(text, scheme))
}

/// Whether a text begins with a word, once character references are resolved; white space before it, and
/// zero bytes and line ends inside, are ignored as browsers do.
fn begins_decoded(text: &[u8], word: &str) -> bool {
    let mut rest = text;
    let mut left = word.bytes().peekable();
    let mut begun = false;
    while !rest.is_empty() {
        let Some(&wanted) = left.peek() else { return true };
        let (code, length) = decoded(rest);
        rest = &rest[length..];
        if !begun && code <= 32 {
            continue;
        }
        begun = true;
        if code == 0 || code == 10 {
            continue;
        }
        // C compares the low byte.
        let upper = if (97..=122).contains(&code) { code - 32 } else { code };
        if (upper as u8) != wanted {
            return false;
        }
        left.next();
    }
    left.peek().is_none()
}

/// Largest code that a reference may have.
const CODE_MAX: u32 = 0x0010_00ff;

/// The code of the character at the beginning, and how many bytes it takes.
fn decoded(text: &[u8]) -> (u32, usize) {
    const AMPERSAND: (u32, usize) = (b'&' as u32, 1);
    let number = |from: usize, radix: u32| {
        let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(radix));
        let Some(mut code) = digit(from) else { return AMPERSAND };
        let mut at = from + 1;
        while let Some(&byte) = text.get(at) {
            if byte == b';' {
                return (code, at + 1);
            }
            let Some(next) = digit(at) else { break };
            code = code * radix + next;
            if code > CODE_MAX {
                return AMPERSAND;
            }
            at += 1;
        }
        (code, at)
    };
    match text {
        [b'&', b'#', b'x' | b'X', ..] => number(3, 16),
        [b'&', b'#', ..] => number(2, 10),
        [first, ..] => (u32::from(*first), 1),
        [] => (0, 0),
    }
}
