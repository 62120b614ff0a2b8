//! What a client of PostgreSQL sends first (manual: "Message Flow", "Message Formats"; protocol 3.0 and 3.2),
//! and what of it may reach the server. Plain: it reads and writes no socket.
//!
//! Nothing is passed on as it came: the packet is taken apart here and made anew, so that the server reads in
//! it what was judged, and nothing else.

use std::collections::BTreeMap;

/// Longest packet that the server would read (`MAX_STARTUP_PACKET_LENGTH`).
pub const PACKET_BYTES_MAX: usize = 10_000;
/// The length itself.
pub const PREFIX_BYTES: usize = 4;

const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
const CANCEL: u32 = 80_877_102;
/// Process id and secret of a session: 8 bytes, since protocol 3.2 up to 260.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 8..=260;

/// Settings that a client may bring along. Any of them can also be set later, in SQL; what can only be set
/// here, or may not be set by an app, is not among them. Names with a dot, which extensions and apps invent,
/// pass too.
const SETTINGS: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_connection_check_interval",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "escape_string_warning",
    "extra_float_digits",
    "geqo",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "jit",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "plan_cache_mode",
    "search_path",
    "standard_conforming_strings",
    "statement_timeout",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_user_timeout",
    "timezone",
    "transaction_timeout",
    "work_mem",
    "xmloption",
];

/// Why a connection does not reach the database. The text is for the app's developer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not what the protocol says.
    #[error("this is not the start of a PostgreSQL connection: {0}")]
    Malformed(&'static str),
    /// Another protocol.
    #[error("protocol version {0}.{1} is not spoken here; version 3 is")]
    Version(u16, u16),
    /// Another role.
    #[error("this app may not connect as \"{0}\"; its role is in PGUSER and in its database address")]
    User(String),
    /// Another database.
    #[error(
        "this app may not connect to the database \"{0}\"; its own is in PGDATABASE and in its database address"
    )]
    Database(String),
    /// A replication connection.
    #[error("replication connections are not available here")]
    Replication,
    /// Something that clients may not bring along.
    #[error("\"{0}\" may not be given when a connection starts")]
    Setting(String),
    /// More connections than the app may have.
    #[error("this replica has {0} connections, which is the most that its app may have")]
    TooMany(u32),
    /// There is no server.
    #[error("no PostgreSQL server is configured here at present")]
    NoServer,
    /// The server is away.
    #[error("the PostgreSQL server cannot be reached at present")]
    Unreachable,
    /// The server went away in the middle of the start.
    #[error("the PostgreSQL server ended the connection before it was ready")]
    Broken,
}

impl Refusal {
    /// The SQLSTATE, by which programs tell refusals apart.
    pub const fn sqlstate(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "08P01",
            Self::Version(..) | Self::Replication | Self::Setting(_) => "0A000",
            Self::User(_) => "28000",
            Self::Database(_) => "3D000",
            Self::TooMany(_) => "53300",
            Self::NoServer | Self::Unreachable => "57P03",
            Self::Broken => "08006",
        }
    }

    /// An `ErrorResponse`, after which the connection ends.
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = format!("bastide: {self}");
        let mut fields = Vec::new();
        for (kind, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', self.sqlstate()), (b'M', &text)] {
            fields.push(kind);
            fields.extend_from_slice(value.as_bytes());
            fields.push(0);
        }
        fields.push(0);
        let mut message = vec![b'E'];
        message.extend_from_slice(&(fields.len() as u32 + 4).to_be_bytes());
        message.append(&mut fields);
        message
    }
}

/// Process id and secret of a session, by which its statement can be cancelled.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CancelKey(Vec<u8>);

/// Whoever has it can cancel.
impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CancelKey(…)")
    }
}

impl CancelKey {
    /// As the server gives it (`BackendKeyData`) and a client sends it; `None` when it cannot be one.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        KEY_BYTES.contains(&bytes.len()).then(|| Self(bytes.to_vec()))
    }

    /// A `CancelRequest`.
    pub fn to_bytes(&self) -> Vec<u8> {
        packet(CANCEL, &self.0)
    }
}

/// A first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// Asks for TLS (`SSLRequest`).
    Tls,
    /// Asks for GSSAPI encryption (`GSSENCRequest`).
    Gss,
    /// Cancels a statement of another connection (`CancelRequest`).
    Cancel(CancelKey),
    /// Starts a session (`StartupMessage`).
    Start(Start),
}

/// A `StartupMessage`, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    minor: u16,
    parameters: Vec<(String, String)>,
}

/// Bytes that follow the length.
///
/// # Errors
/// [`Refusal::Malformed`].
pub fn length(prefix: [u8; PREFIX_BYTES]) -> Result<usize, Refusal> {
    let length = u32::from_be_bytes(prefix) as usize;
    if (2 * PREFIX_BYTES..=PACKET_BYTES_MAX).contains(&length) {
        Ok(length - PREFIX_BYTES)
    } else {
        Err(Refusal::Malformed("the length of its first packet is not possible"))
    }
}

/// Reads what follows the length.
///
/// # Errors
/// [`Refusal::Malformed`], [`Refusal::Version`].
pub fn read(rest: &[u8]) -> Result<First, Refusal> {
    let (code, rest) = rest.split_first_chunk().ok_or(Refusal::Malformed("its first packet is cut off"))?;
    match u32::from_be_bytes(*code) {
        TLS if rest.is_empty() => Ok(First::Tls),
        GSS if rest.is_empty() => Ok(First::Gss),
        TLS | GSS => Err(Refusal::Malformed("a request for encryption has nothing after it")),
        CANCEL => {
            let key = CancelKey::new(rest).ok_or(Refusal::Malformed("the key to cancel is none"))?;
            Ok(First::Cancel(key))
        }
        version => {
            let (major, minor) = ((version >> 16) as u16, version as u16);
            if major != 3 {
                return Err(Refusal::Version(major, minor));
            }
            Ok(First::Start(Start { minor, parameters: parameters(rest)? }))
        }
    }
}

/// Names and values, each ended by a zero byte, and another zero byte after the last.
fn parameters(mut rest: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
    let mut all: Vec<(String, String)> = Vec::new();
    loop {
        let name = text(&mut rest)?;
        if name.is_empty() {
            break;
        }
        // The server takes the last of two; whoever looks at the first is deceived.
        if all.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            return Err(Refusal::Malformed("a parameter stands there twice"));
        }
        all.push((name, text(&mut rest)?));
    }
    if rest.is_empty() { Ok(all) } else { Err(Refusal::Malformed("there is something after the parameters")) }
}

fn text(rest: &mut &[u8]) -> Result<String, Refusal> {
    let end = rest.iter().position(|byte| *byte == 0).ok_or(Refusal::Malformed("a parameter is cut off"))?;
    let (text, after) = rest.split_at(end);
    *rest = &after[1..];
    String::from_utf8(text.to_vec()).map_err(|_| Refusal::Malformed("a parameter is not UTF-8"))
}

impl Start {
    /// The packet for the server: for this role and this database, with the settings that may come along.
    ///
    /// # Errors
    /// The [`Refusal`] for whatever else the client asks for.
    pub fn pinned(&self, user: &str, database: &str) -> Result<Vec<u8>, Refusal> {
        let mut settings = BTreeMap::new();
        let (mut asks_user, mut asks_database) = (None, None);
        for (name, value) in &self.parameters {
            match name.as_str() {
                "user" => asks_user = Some(value),
                "database" => asks_database = Some(value),
                "replication" => return Err(Refusal::Replication),
                // What is set by name counts more than what is set in `options`, as in the server.
                "options" => {
                    for (name, value) in options(value)? {
                        settings.entry(name).or_insert(value);
                    }
                }
                name => drop(settings.insert(setting(name)?, value.clone())),
            }
        }
        match asks_user {
            Some(asked) if asked == user => {}
            Some(asked) => return Err(Refusal::User(shown(asked))),
            None => return Err(Refusal::Malformed("it names no user")),
        }
        if let Some(asked) = asks_database.filter(|asked| *asked != database) {
            return Err(Refusal::Database(shown(asked)));
        }
        let mut body = Vec::new();
        let own = [("user", user), ("database", database)];
        let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for text in own.into_iter().chain(settings).flat_map(|(name, value)| [name, value]) {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        Ok(packet((3 << 16) | u32::from(self.minor), &body))
    }
}

/// The one spelling of a setting that may come along.
fn setting(name: &str) -> Result<String, Refusal> {
    let plain = name.to_ascii_lowercase();
    let word =
        plain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.'));
    let known = SETTINGS.contains(&plain.as_str());
    // `_pq_.` are extensions of the protocol: the server says which it knows.
    if word && plain.len() <= 63 && (known || plain.contains('.')) {
        Ok(plain)
    } else {
        Err(Refusal::Setting(shown(name)))
    }
}

/// Settings in a command line for the server, as in PGOPTIONS: `-c name=value` or `--name=value`, separated by
/// spaces; a backslash takes the next character as it is. No other switch passes.
fn options(line: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(characters.next()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let assignment = match (word.as_str(), word.strip_prefix("--"), word.strip_prefix("-c")) {
            ("-c", ..) => words.next(),
            (_, Some(long), _) => Some(long.to_owned()),
            (_, _, Some(short)) => Some(short.to_owned()),
            _ => None,
        };
        let (name, value) = assignment
            .as_deref()
            .and_then(|assignment| assignment.split_once('='))
            .ok_or_else(|| Refusal::Setting(shown(&word)))?;
        settings.push((setting(&name.replace('-', "_"))?, value.to_owned()));
    }
    Ok(settings)
}

/// As much of a foreign text as belongs into a message.
fn shown(text: &str) -> String {
    text.chars().take(63).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let mut packet = ((2 * PREFIX_BYTES + body.len()) as u32).to_be_bytes().to_vec();
    packet.extend_from_slice(&code.to_be_bytes());
    packet.extend_from_slice(body);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start(minor: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, value) in parameters {
            for text in [name, value] {
                body.extend_from_slice(text.as_bytes());
                body.push(0);
            }
        }
        body.push(0);
        packet((3 << 16) | minor, &body)
    }

    /// Reads a whole packet.
    fn whole(packet: &[u8]) -> Result<First, Refusal> {
        let (prefix, rest) = packet.split_first_chunk().unwrap();
        assert_eq!(length(*prefix)?, rest.len());
        read(rest)
    }

    fn pinned(parameters: &[(&str, &str)]) -> Result<Vec<(String, String)>, Refusal> {
        let First::Start(asked) = whole(&start(0, parameters))? else { panic!("a start") };
        let First::Start(given) = whole(&asked.pinned("me", "mine")?).unwrap() else { panic!("a start") };
        Ok(given.parameters)
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn role_and_database_are_those_of_the_app_or_it_is_refused() {
        let own = pairs(&[("user", "me"), ("database", "mine")]);
        assert_eq!(pinned(&[("user", "me"), ("database", "mine")]).unwrap(), own);
        assert_eq!(pinned(&[("database", "mine"), ("user", "me")]).unwrap(), own);
        assert_eq!(pinned(&[("user", "me")]).unwrap(), own, "without a database the own one is meant");
        for (parameters, code) in [
            (&[("user", "postgres"), ("database", "mine")][..], "28000"),
            (&[("user", "ME")], "28000"),
            (&[("user", "")], "28000"),
            (&[("user", "me"), ("database", "postgres")], "3D000"),
            (&[("user", "me"), ("database", "")], "3D000"),
            (&[("user", "me"), ("replication", "database")], "0A000"),
            (&[("user", "me"), ("replication", "false")], "0A000"),
            (&[("database", "mine")], "08P01"),
            (&[], "08P01"),
            (&[("user", "me"), ("user", "postgres")], "08P01"),
            (&[("user", "me"), ("User", "postgres")], "08P01"),
            (&[("user", "me"), ("role", "postgres")], "0A000"),
            (&[("user", "me"), ("session_authorization", "x")], "0A000"),
            (&[("user", "me"), ("local_preload_libraries", "x")], "0A000"),
            (&[("user", "me"), ("post_auth_delay", "600")], "0A000"),
            (&[("user", "me"), ("ignore_system_indexes", "on")], "0A000"),
        ] {
            assert_eq!(pinned(parameters).unwrap_err().sqlstate(), code, "{parameters:?}");
        }
    }

    #[test]
    fn harmless_settings_come_along_in_one_spelling() {
        let given = pinned(&[
            ("user", "me"),
            ("TimeZone", "UTC"),
            ("search_path", "a, b"),
            ("app.tenant", "7"),
            ("_pq_.some_extension", ""),
            ("options", "-c statement_timeout=5s --search-path=z -cgeqo=off -c application_name=a\\ b\\\\c"),
        ]);
        let expected = pairs(&[
            ("user", "me"),
            ("database", "mine"),
            ("_pq_.some_extension", ""),
            ("app.tenant", "7"),
            ("application_name", "a b\\c"),
            ("geqo", "off"),
            ("search_path", "a, b"),
            ("statement_timeout", "5s"),
            ("timezone", "UTC"),
        ]);
        assert_eq!(given.unwrap(), expected);
        for line in ["-c", "-c x", "-W 5", "-P", "-f", "x=y", "--", "-c role=postgres", "-c a;b=1", "-c =1"] {
            let refused = pinned(&[("user", "me"), ("options", line)]).unwrap_err();
            assert_eq!(refused.sqlstate(), "0A000", "{line}");
        }
        assert!(pinned(&[("user", "me"), ("options", " \t ")]).is_ok());
    }

    #[test]
    fn packets_are_read_strictly() {
        assert_eq!(whole(&packet(TLS, &[])), Ok(First::Tls));
        assert_eq!(whole(&packet(GSS, &[])), Ok(First::Gss));
        let key = CancelKey::new(&[7; 8]).unwrap();
        assert_eq!(whole(&key.to_bytes()), Ok(First::Cancel(key.clone())));
        let long = CancelKey::new(&[7; 260]).unwrap();
        assert_eq!(whole(&long.to_bytes()), Ok(First::Cancel(long)));
        assert!(!format!("{key:?}").contains('7'));
        assert!(matches!(whole(&start(2, &[("user", "me")])), Ok(First::Start(Start { minor: 2, .. }))));
        for wrong in [
            packet(TLS, &[0]),
            packet(GSS, b"x"),
            packet(CANCEL, &[0; 7]),
            packet(CANCEL, &[0; 261]),
            packet(3 << 16, b""),
            packet(3 << 16, b"user"),
            packet(3 << 16, b"user\0me"),
            packet(3 << 16, b"user\0me\0"),
            packet(3 << 16, b"user\0me\0\0\0"),
            packet(3 << 16, b"user\0m\xff\0\0"),
        ] {
            assert!(matches!(whole(&wrong), Err(Refusal::Malformed(_))), "{wrong:?}");
        }
        assert_eq!(whole(&packet(2 << 16, b"\0")), Err(Refusal::Version(2, 0)));
        // The first bytes of a TLS and of an HTTP connection.
        for prefix in [*b"\x16\x03\x01\x02", *b"GET ", [0; 4], [0, 0, 0, 7], 10_001u32.to_be_bytes()] {
            assert!(length(prefix).is_err(), "{prefix:?}");
        }
        assert_eq!(length(10_000u32.to_be_bytes()), Ok(9996));
    }

    #[test]
    fn a_refusal_is_an_error_response_that_clients_read() {
        let bytes = Refusal::User("po\0st".into()).to_bytes();
        assert_eq!(bytes[0], b'E');
        assert_eq!(u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize, bytes.len() - 1);
        let given = pinned(&[("user", "a\nb")]).unwrap_err();
        let bytes = given.to_bytes();
        let fields: Vec<_> = bytes[5..].split(|byte| *byte == 0).collect();
        assert_eq!(fields[..3], [b"SFATAL", b"VFATAL", &b"C28000"[..]]);
        assert!(String::from_utf8_lossy(fields[3]).contains("\"a?b\""));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), code in 0usize..5) {
            let code = [TLS, GSS, CANCEL, 3 << 16, (3 << 16) | 2][code];
            let mut rest = code.to_be_bytes().to_vec();
            rest.extend(bytes);
            if let Ok(First::Start(start)) = read(&rest) {
                let _ = start.pinned("me", "mine");
            }
        }

        #[test]
        fn what_reaches_the_server_is_always_of_this_role_and_database(
            parameters in proptest::collection::vec(("(user|database|options|replication|role|search_path|\\PC{0,6})", "(me|mine|\\PC{0,12})"), 0..6),
        ) {
            let parameters: Vec<_> = parameters.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            if let Ok(given) = pinned(&parameters) {
                prop_assert_eq!(&given[..2], &pairs(&[("user", "me"), ("database", "mine")])[..]);
                for (name, _) in &given[2..] {
                    prop_assert!(SETTINGS.contains(&name.as_str()) || name.contains('.'), "{}", name);
                }
            }
        }
    }
}
