//! What a rule looks at: variables, selectors, counts, exclusions.

use crate::{
    error::{LoadError, Place},
    pattern::Pattern,
    value::{ValueId, Values},
};

/// Variables that hold named values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Collection {
    ArgsGet,
    ArgsPost,
    Cookies,
    RequestHeaders,
    ResponseHeaders,
    Files,
    FilesSizes,
    FilesContent,
    PartHeaders,
    XmlText,
    XmlAttributes,
}

impl Collection {
    pub(crate) const COUNT: usize = 11;
}

/// Variables that hold one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scalar {
    Method,
    Uri,
    UriRaw,
    Line,
    Protocol,
    Filename,
    Basename,
    Query,
    RemoteAddr,
    RemotePort,
    RemoteUser,
    ServerAddr,
    ServerPort,
    ServerName,
    RequestBody,
    RequestBodyLength,
    BodyProcessor,
    BodyErrorMessage,
    ResponseBody,
    ResponseStatus,
    ResponseProtocol,
    ResponseContentType,
    ResponseContentLength,
    UniqueId,
    PathInfo,
    AuthType,
}

impl Scalar {
    pub(crate) const COUNT: usize = 26;
}

/// What went wrong, or was odd, with a request: variables that are 0 or 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Flag {
    BodyError,
    InboundData,
    OutboundData,
    UrlEncoded,
    MultipartStrict,
    MultipartUnmatchedBoundary,
    MultipartBoundaryQuoted,
    MultipartBoundarySpace,
    MultipartDataBefore,
    MultipartDataAfter,
    MultipartHeaderFolding,
    MultipartLfLine,
    MultipartMixedLines,
    MultipartMissingSemicolon,
    MultipartInvalidQuoting,
    MultipartInvalidPart,
    MultipartInvalidFolding,
    MultipartTooManyFiles,
}

/// Parts of the time of the request, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Time {
    Clock,
    Epoch,
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Weekday,
}

/// A variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Variable {
    Args,
    ArgsNames,
    ArgsGetNames,
    ArgsPostNames,
    ArgsCombinedSize,
    CookiesNames,
    RequestHeadersNames,
    ResponseHeadersNames,
    FilesNames,
    FilesCombinedSize,
    Tx,
    /// A persistent collection: lives for this transaction only.
    Persistent(&'static str),
    MatchedVar,
    MatchedVarName,
    MatchedVars,
    MatchedVarsNames,
    Duration,
    Time(Time),
    /// Known, and always empty here.
    Nothing,
    Flag(Flag),
    Scalar(Scalar),
    Of(Collection),
}

impl Variable {
    /// Whether it is a number, a name, or something that the log holds anyway: no value that the client chose.
    pub(crate) fn holds_nothing_private(self) -> bool {
        use Scalar as S;
        match self {
            Self::ArgsCombinedSize | Self::FilesCombinedSize | Self::Duration => true,
            Self::Time(_) | Self::Flag(_) | Self::Nothing => true,
            Self::Scalar(scalar) => matches!(
                scalar,
                S::Method
                    | S::Protocol
                    | S::RemoteAddr
                    | S::RemotePort
                    | S::ServerAddr
                    | S::ServerPort
                    | S::ServerName
                    | S::RequestBodyLength
                    | S::BodyProcessor
                    | S::ResponseStatus
                    | S::ResponseProtocol
                    | S::UniqueId
                    | S::AuthType
            ),
            _ => false,
        }
    }

    /// Whether it may be another in the next rule.
    pub(crate) fn is_volatile(self) -> bool {
        matches!(
            self,
            Self::Tx
                | Self::Persistent(_)
                | Self::MatchedVar
                | Self::MatchedVarName
                | Self::MatchedVars
                | Self::MatchedVarsNames
        )
    }
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

    /// The same for the name of a value.
    pub(crate) fn accepts_value(&self, values: &Values, key: ValueId) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.is_match_of(values.summary(key), values.bytes(key)),
            _ => self.accepts(values.bytes(key)),
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
    /// As written, white space and case aside: equal texts mean the same.
    pub(crate) text: Vec<u8>,
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

/// Where the next `|` or `,` stands that is not part of a regex selector.
fn end_of_target(text: &[u8]) -> usize {
    let separator = |b: &u8| matches!(b, b'|' | b',');
    let plain_end = |from: usize| text[from..].iter().position(separator).map_or(text.len(), |at| from + at);
    let first = text.iter().position(|b| *b == b':' || separator(b));
    if let Some(at) = first.filter(|at| text[*at] == b':') {
        let name = text[..at].trim_ascii().trim_ascii_start();
        let name = name.strip_prefix(b"!").unwrap_or(name);
        let is_xml = name.eq_ignore_ascii_case(b"XML");
        let quoted = text.get(at + 1) == Some(&b'\'');
        let open = at + 1 + usize::from(quoted);
        if text.get(open) == Some(&b'/') && !is_xml {
            let mut escaped = false;
            for (offset, byte) in text[open + 1..].iter().enumerate() {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'/' => return plain_end(open + 1 + offset + 1),
                    _ => {}
                }
            }
        } else if quoted && let Some(close) = memchr::memchr(b'\'', &text[open..]) {
            return plain_end(open + close + 1);
        }
    }
    plain_end(0)
}

fn target(place: &Place, text: &[u8]) -> Result<Target, LoadError> {
    let written = text.to_ascii_lowercase();
    let (exclude, text) = text.strip_prefix(b"!").map_or((false, text), |rest| (true, rest));
    let (count, text) = text.strip_prefix(b"&").map_or((false, text), |rest| (true, rest));
    let (name, selector) = match memchr::memchr2(b':', b'.', text) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let name = String::from_utf8_lossy(name).trim().to_ascii_uppercase();
    let mut variable = named(&name).ok_or_else(|| place.unsupported(format!("variable {name}")))?;
    let selector = match selector {
        None => Selector::All,
        Some(path) if variable == Variable::Of(Collection::XmlText) => {
            variable = match path {
                b"/*" | b"//*" => Variable::Of(Collection::XmlText),
                b"//@*" => Variable::Of(Collection::XmlAttributes),
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
    Ok(Target { variable, selector, count, exclude, text: written })
}

/// The variable of this name, upper case.
pub(crate) fn named(name: &str) -> Option<Variable> {
    NAMES.iter().find(|(own, _)| *own == name).map(|(_, variable)| *variable)
}

/// The name of a variable, as `MATCHED_VAR_NAME` shows it.
pub(crate) fn name_of(variable: Variable) -> &'static str {
    match variable {
        Variable::Of(Collection::XmlAttributes) => "XML",
        Variable::Nothing => "NOTHING",
        Variable::Persistent(name) => name,
        _ => NAMES.iter().find(|(_, own)| *own == variable).map_or("", |(name, _)| *name),
    }
}

const NAMES: &[(&str, Variable)] = &{
    use Variable as V;
    [
        ("ARGS", V::Args),
        ("ARGS_NAMES", V::ArgsNames),
        ("ARGS_GET", V::Of(Collection::ArgsGet)),
        ("ARGS_GET_NAMES", V::ArgsGetNames),
        ("ARGS_POST", V::Of(Collection::ArgsPost)),
        ("ARGS_POST_NAMES", V::ArgsPostNames),
        ("ARGS_COMBINED_SIZE", V::ArgsCombinedSize),
        ("REQUEST_COOKIES", V::Of(Collection::Cookies)),
        ("REQUEST_COOKIES_NAMES", V::CookiesNames),
        ("REQUEST_HEADERS", V::Of(Collection::RequestHeaders)),
        ("REQUEST_HEADERS_NAMES", V::RequestHeadersNames),
        ("RESPONSE_HEADERS", V::Of(Collection::ResponseHeaders)),
        ("RESPONSE_HEADERS_NAMES", V::ResponseHeadersNames),
        ("FILES", V::Of(Collection::Files)),
        ("FILES_NAMES", V::FilesNames),
        ("FILES_SIZES", V::Of(Collection::FilesSizes)),
        ("FILES_COMBINED_SIZE", V::FilesCombinedSize),
        ("FILES_TMP_CONTENT", V::Of(Collection::FilesContent)),
        ("MULTIPART_PART_HEADERS", V::Of(Collection::PartHeaders)),
        ("XML", V::Of(Collection::XmlText)),
        ("TX", V::Tx),
        ("IP", V::Persistent("IP")),
        ("SESSION", V::Persistent("SESSION")),
        ("USER", V::Persistent("USER")),
        ("GLOBAL", V::Persistent("GLOBAL")),
        ("RESOURCE", V::Persistent("RESOURCE")),
        ("MATCHED_VAR", V::MatchedVar),
        ("MATCHED_VAR_NAME", V::MatchedVarName),
        ("MATCHED_VARS", V::MatchedVars),
        ("MATCHED_VARS_NAMES", V::MatchedVarsNames),
        ("DURATION", V::Duration),
        ("TIME", V::Time(Time::Clock)),
        ("TIME_EPOCH", V::Time(Time::Epoch)),
        ("TIME_YEAR", V::Time(Time::Year)),
        ("TIME_MON", V::Time(Time::Month)),
        ("TIME_DAY", V::Time(Time::Day)),
        ("TIME_HOUR", V::Time(Time::Hour)),
        ("TIME_MIN", V::Time(Time::Minute)),
        ("TIME_SEC", V::Time(Time::Second)),
        ("TIME_WDAY", V::Time(Time::Weekday)),
        ("REQBODY_ERROR", V::Flag(Flag::BodyError)),
        ("REQBODY_PROCESSOR_ERROR", V::Flag(Flag::BodyError)),
        ("REQBODY_ERROR_MSG", V::Scalar(Scalar::BodyErrorMessage)),
        ("REQBODY_PROCESSOR_ERROR_MSG", V::Scalar(Scalar::BodyErrorMessage)),
        ("INBOUND_DATA_ERROR", V::Flag(Flag::InboundData)),
        ("OUTBOUND_DATA_ERROR", V::Flag(Flag::OutboundData)),
        ("URLENCODED_ERROR", V::Flag(Flag::UrlEncoded)),
        ("MULTIPART_STRICT_ERROR", V::Flag(Flag::MultipartStrict)),
        ("MULTIPART_UNMATCHED_BOUNDARY", V::Flag(Flag::MultipartUnmatchedBoundary)),
        ("MULTIPART_BOUNDARY_QUOTED", V::Flag(Flag::MultipartBoundaryQuoted)),
        ("MULTIPART_BOUNDARY_WHITESPACE", V::Flag(Flag::MultipartBoundarySpace)),
        ("MULTIPART_DATA_BEFORE", V::Flag(Flag::MultipartDataBefore)),
        ("MULTIPART_DATA_AFTER", V::Flag(Flag::MultipartDataAfter)),
        ("MULTIPART_HEADER_FOLDING", V::Flag(Flag::MultipartHeaderFolding)),
        ("MULTIPART_LF_LINE", V::Flag(Flag::MultipartLfLine)),
        ("MULTIPART_CRLF_LF_LINES", V::Flag(Flag::MultipartMixedLines)),
        ("MULTIPART_MISSING_SEMICOLON", V::Flag(Flag::MultipartMissingSemicolon)),
        ("MULTIPART_SEMICOLON_MISSING", V::Flag(Flag::MultipartMissingSemicolon)),
        ("MULTIPART_INVALID_QUOTING", V::Flag(Flag::MultipartInvalidQuoting)),
        ("MULTIPART_INVALID_PART", V::Flag(Flag::MultipartInvalidPart)),
        ("MULTIPART_INVALID_HEADER_FOLDING", V::Flag(Flag::MultipartInvalidFolding)),
        ("MULTIPART_FILE_LIMIT_EXCEEDED", V::Flag(Flag::MultipartTooManyFiles)),
        ("REQUEST_METHOD", V::Scalar(Scalar::Method)),
        ("REQUEST_URI", V::Scalar(Scalar::Uri)),
        ("REQUEST_URI_RAW", V::Scalar(Scalar::UriRaw)),
        ("REQUEST_LINE", V::Scalar(Scalar::Line)),
        ("REQUEST_PROTOCOL", V::Scalar(Scalar::Protocol)),
        ("REQUEST_FILENAME", V::Scalar(Scalar::Filename)),
        ("REQUEST_BASENAME", V::Scalar(Scalar::Basename)),
        ("QUERY_STRING", V::Scalar(Scalar::Query)),
        ("REMOTE_ADDR", V::Scalar(Scalar::RemoteAddr)),
        ("REMOTE_PORT", V::Scalar(Scalar::RemotePort)),
        ("REMOTE_USER", V::Scalar(Scalar::RemoteUser)),
        ("SERVER_ADDR", V::Scalar(Scalar::ServerAddr)),
        ("SERVER_PORT", V::Scalar(Scalar::ServerPort)),
        ("SERVER_NAME", V::Scalar(Scalar::ServerName)),
        ("REQUEST_BODY", V::Scalar(Scalar::RequestBody)),
        ("REQUEST_BODY_LENGTH", V::Scalar(Scalar::RequestBodyLength)),
        ("REQBODY_PROCESSOR", V::Scalar(Scalar::BodyProcessor)),
        ("RESPONSE_BODY", V::Scalar(Scalar::ResponseBody)),
        ("RESPONSE_STATUS", V::Scalar(Scalar::ResponseStatus)),
        ("STATUS", V::Scalar(Scalar::ResponseStatus)),
        ("RESPONSE_PROTOCOL", V::Scalar(Scalar::ResponseProtocol)),
        ("RESPONSE_CONTENT_TYPE", V::Scalar(Scalar::ResponseContentType)),
        ("RESPONSE_CONTENT_LENGTH", V::Scalar(Scalar::ResponseContentLength)),
        ("UNIQUE_ID", V::Scalar(Scalar::UniqueId)),
        ("PATH_INFO", V::Scalar(Scalar::PathInfo)),
        ("AUTH_TYPE", V::Scalar(Scalar::AuthType)),
        ("GEO", V::Nothing),
        ("ENV", V::Nothing),
        ("REMOTE_HOST", V::Nothing),
        ("USERID", V::Nothing),
        ("SESSIONID", V::Nothing),
        ("WEBAPPID", V::Nothing),
        ("FILES_TMPNAMES", V::Nothing),
        ("MODSEC_BUILD", V::Nothing),
        ("RULE", V::Nothing),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_outside_of_patterns() {
        let place = Place { file: "f".into(), line: 1 };
        let targets = parse(
            &place,
            b"REQUEST_COOKIES|!REQUEST_COOKIES:/a|b/|&TX:x|XML:/*|ARGS:'/c|d/'|ARGS:'a|b'|TX.y",
        )
        .unwrap();
        assert_eq!(targets.len(), 7);
        assert!(targets[1].exclude && targets[1].selector.accepts(b"xbx"));
        assert!(targets[2].count && targets[2].selector.accepts(b"X"));
        assert!(matches!(targets[4].selector, Selector::Pattern(_)));
        assert!(targets[5].selector.accepts(b"a|b") && targets[6].selector.accepts(b"y"));
        assert!(parse(&place, b"NOPE").unwrap_err().to_string().contains("NOPE"));
    }

    #[test]
    fn each_variable_has_its_own_name() {
        for (name, variable) in NAMES {
            let first = named(name).map(name_of);
            assert!(
                first.is_some_and(|first| *variable == Variable::Nothing || named(first) == Some(*variable))
            );
        }
    }
}
