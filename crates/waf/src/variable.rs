//! What a rule looks at: variables, selectors, counts, exclusions.

use crate::{
    data::Scalar,
    error::{LoadError, Place},
    pattern::Pattern,
};

/// A variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variable {
    Args,
    ArgsNames,
    ArgsGet,
    ArgsGetNames,
    ArgsPost,
    ArgsPostNames,
    ArgsCombinedSize,
    Cookies,
    CookiesNames,
    RequestHeaders,
    RequestHeadersNames,
    ResponseHeaders,
    ResponseHeadersNames,
    Files,
    FilesNames,
    FilesSizes,
    FilesCombinedSize,
    PartHeaders,
    Xml,
    XmlAttributes,
    Tx,
    /// A persistent collection: lives for this transaction only.
    Persistent(&'static str),
    MatchedVar,
    MatchedVarName,
    MatchedVars,
    MatchedVarsNames,
    BodyError,
    BodyErrorMessage,
    MultipartStrictError,
    MultipartUnmatchedBoundary,
    Duration,
    /// Known, and always empty here.
    Nothing,
    Scalar(Scalar),
}

/// Which values of a collection.
#[derive(Debug)]
pub(crate) enum Selector {
    All,
    /// Lower case.
    Name(Vec<u8>),
    Pattern(Pattern),
}

impl Selector {
    pub(crate) fn accepts(&self, key: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => key.eq_ignore_ascii_case(name),
            Self::Pattern(pattern) => pattern.is_match(key),
        }
    }
}

/// A variable as a rule names it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) variable: Variable,
    pub(crate) selector: Selector,
    pub(crate) count: bool,
    pub(crate) exclude: bool,
}

impl Target {
    pub(crate) fn is_pattern(&self) -> bool {
        matches!(self.selector, Selector::Pattern(_))
    }
}

/// Reads a list such as `ARGS|!ARGS:x|&TX:/^a/`.
pub(crate) fn parse(place: &Place, text: &[u8]) -> Result<Vec<Target>, LoadError> {
    let mut targets = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = end_of_target(rest);
        let one = rest[..end].trim_ascii();
        if !one.is_empty() {
            targets.push(target(place, one)?);
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    if targets.is_empty() {
        return Err(place.syntax("a rule names no variable"));
    }
    Ok(targets)
}

/// Where the next `|` stands that is not part of a regex selector.
fn end_of_target(text: &[u8]) -> usize {
    let colon = memchr::memchr2(b':', b'|', text);
    if let Some(at) = colon.filter(|at| text[*at] == b':') {
        let is_xml = text[..at].trim_ascii().trim_ascii_start().eq_ignore_ascii_case(b"XML")
            || text[..at].eq_ignore_ascii_case(b"!XML");
        let quoted = text.get(at + 1) == Some(&b'\'');
        let open = at + 1 + usize::from(quoted);
        if text.get(open) == Some(&b'/') && !is_xml {
            let mut escaped = false;
            for (offset, byte) in text[open + 1..].iter().enumerate() {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'/' => {
                        let after = open + 1 + offset + 1;
                        return memchr::memchr(b'|', &text[after..]).map_or(text.len(), |at| after + at);
                    }
                    _ => {}
                }
            }
        }
    }
    memchr::memchr(b'|', text).unwrap_or(text.len())
}

fn target(place: &Place, text: &[u8]) -> Result<Target, LoadError> {
    let (exclude, text) = text.strip_prefix(b"!").map_or((false, text), |rest| (true, rest));
    let (count, text) = text.strip_prefix(b"&").map_or((false, text), |rest| (true, rest));
    let (name, selector) = match memchr::memchr(b':', text) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let name = String::from_utf8_lossy(name).to_ascii_uppercase();
    let mut variable = named(&name).ok_or_else(|| place.unsupported(format!("variable {name}")))?;
    let selector = match selector {
        None => Selector::All,
        Some(path) if variable == Variable::Xml => {
            variable = match path {
                b"/*" | b"//*" => Variable::Xml,
                b"//@*" => Variable::XmlAttributes,
                other => return Err(place.unsupported(format!("XPath {}", String::from_utf8_lossy(other)))),
            };
            Selector::All
        }
        Some(quoted) => {
            let inner = quoted.strip_prefix(b"'").and_then(|rest| rest.strip_suffix(b"'")).unwrap_or(quoted);
            match inner.strip_prefix(b"/").and_then(|rest| rest.strip_suffix(b"/")) {
                Some(pattern) => {
                    // Names are compared without regard to case, also by patterns.
                    let pattern = [b"(?i)", pattern].concat();
                    Selector::Pattern(Pattern::compile(&pattern).map_err(|why| place.syntax(why))?)
                }
                None => Selector::Name(inner.to_ascii_lowercase()),
            }
        }
    };
    Ok(Target { variable, selector, count, exclude })
}

/// The variable of this name, upper case.
pub(crate) fn named(name: &str) -> Option<Variable> {
    use Variable as V;
    Some(match name {
        "ARGS" => V::Args,
        "ARGS_NAMES" => V::ArgsNames,
        "ARGS_GET" => V::ArgsGet,
        "ARGS_GET_NAMES" => V::ArgsGetNames,
        "ARGS_POST" => V::ArgsPost,
        "ARGS_POST_NAMES" => V::ArgsPostNames,
        "ARGS_COMBINED_SIZE" => V::ArgsCombinedSize,
        "REQUEST_COOKIES" => V::Cookies,
        "REQUEST_COOKIES_NAMES" => V::CookiesNames,
        "REQUEST_HEADERS" => V::RequestHeaders,
        "REQUEST_HEADERS_NAMES" => V::RequestHeadersNames,
        "RESPONSE_HEADERS" => V::ResponseHeaders,
        "RESPONSE_HEADERS_NAMES" => V::ResponseHeadersNames,
        "FILES" => V::Files,
        "FILES_NAMES" => V::FilesNames,
        "FILES_SIZES" => V::FilesSizes,
        "FILES_COMBINED_SIZE" => V::FilesCombinedSize,
        "MULTIPART_PART_HEADERS" => V::PartHeaders,
        "XML" => V::Xml,
        "TX" => V::Tx,
        "IP" => V::Persistent("IP"),
        "SESSION" => V::Persistent("SESSION"),
        "USER" => V::Persistent("USER"),
        "GLOBAL" => V::Persistent("GLOBAL"),
        "RESOURCE" => V::Persistent("RESOURCE"),
        "MATCHED_VAR" => V::MatchedVar,
        "MATCHED_VAR_NAME" => V::MatchedVarName,
        "MATCHED_VARS" => V::MatchedVars,
        "MATCHED_VARS_NAMES" => V::MatchedVarsNames,
        "REQBODY_ERROR" | "REQBODY_PROCESSOR_ERROR" => V::BodyError,
        "REQBODY_ERROR_MSG" | "REQBODY_PROCESSOR_ERROR_MSG" => V::BodyErrorMessage,
        "MULTIPART_STRICT_ERROR" => V::MultipartStrictError,
        "MULTIPART_UNMATCHED_BOUNDARY" => V::MultipartUnmatchedBoundary,
        "DURATION" => V::Duration,
        "GEO"
        | "ENV"
        | "REMOTE_HOST"
        | "REMOTE_USER"
        | "USERID"
        | "SESSIONID"
        | "WEBAPPID"
        | "FILES_TMPNAMES"
        | "FILES_TMP_CONTENT"
        | "MODSEC_BUILD"
        | "MULTIPART_CRLF_LF_LINES"
        | "INBOUND_DATA_ERROR"
        | "OUTBOUND_DATA_ERROR"
        | "RULE" => V::Nothing,
        "REQUEST_METHOD" => V::Scalar(Scalar::Method),
        "REQUEST_URI" => V::Scalar(Scalar::Uri),
        "REQUEST_URI_RAW" => V::Scalar(Scalar::UriRaw),
        "REQUEST_LINE" => V::Scalar(Scalar::Line),
        "REQUEST_PROTOCOL" => V::Scalar(Scalar::Protocol),
        "REQUEST_FILENAME" => V::Scalar(Scalar::Filename),
        "REQUEST_BASENAME" => V::Scalar(Scalar::Basename),
        "QUERY_STRING" => V::Scalar(Scalar::Query),
        "REMOTE_ADDR" => V::Scalar(Scalar::RemoteAddr),
        "REMOTE_PORT" => V::Scalar(Scalar::RemotePort),
        "SERVER_ADDR" => V::Scalar(Scalar::ServerAddr),
        "SERVER_PORT" => V::Scalar(Scalar::ServerPort),
        "SERVER_NAME" => V::Scalar(Scalar::ServerName),
        "REQUEST_BODY" => V::Scalar(Scalar::RequestBody),
        "REQUEST_BODY_LENGTH" => V::Scalar(Scalar::RequestBodyLength),
        "REQBODY_PROCESSOR" => V::Scalar(Scalar::BodyProcessor),
        "RESPONSE_BODY" => V::Scalar(Scalar::ResponseBody),
        "RESPONSE_STATUS" => V::Scalar(Scalar::ResponseStatus),
        "RESPONSE_PROTOCOL" => V::Scalar(Scalar::ResponseProtocol),
        "RESPONSE_CONTENT_TYPE" => V::Scalar(Scalar::ResponseContentType),
        "RESPONSE_CONTENT_LENGTH" => V::Scalar(Scalar::ResponseContentLength),
        "UNIQUE_ID" => V::Scalar(Scalar::UniqueId),
        "PATH_INFO" => V::Scalar(Scalar::PathInfo),
        "AUTH_TYPE" => V::Scalar(Scalar::AuthType),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_outside_of_patterns() {
        let place = Place { file: "f".into(), line: 1 };
        let targets =
            parse(&place, b"REQUEST_COOKIES|!REQUEST_COOKIES:/a|b/|&TX:x|XML:/*|ARGS:'/c|d/'").unwrap();
        assert_eq!(targets.len(), 5);
        assert!(targets[1].exclude && targets[1].selector.accepts(b"xbx"));
        assert!(targets[2].count && targets[2].selector.accepts(b"X"));
        assert!(matches!(targets[4].selector, Selector::Pattern(_)));
        assert!(parse(&place, b"NOPE").unwrap_err().to_string().contains("NOPE"));
    }
}
