//! The HTTP side of the proxy: CONNECT tunnels, and `http://` requests in absolute form (RFC 9112 §3.2.2).

use crate::error::Refusal;
use bastide_types::egress::{Host, host_and_port};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most bytes of a request head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 100;
/// Fields that are for the proxy, or for one connection only; each request gets a connection of its own.
const OURS: &[&str] =
    &["proxy-authorization", "proxy-connection", "connection", "keep-alive", "upgrade", "te"];

/// What a client asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// What the destination gets first: nothing for a tunnel, the rewritten head for a request.
    pub(crate) first: Vec<u8>,
    pub(crate) tunnel: bool,
}

/// Reads a request head. `begun` holds what was read already.
pub(crate) async fn request<S: AsyncRead + Unpin>(client: &mut S, begun: Vec<u8>) -> Result<Asked, Refusal> {
    let mut bytes = begun;
    loop {
        if let Some(asked) = parse(&bytes)? {
            return Ok(asked);
        }
        if bytes.len() >= HEAD_BYTES_MAX {
            return Err(invalid("the head is too long"));
        }
        let mut piece = [0; 2048];
        let read = client.read(&mut piece).await.map_err(|error| invalid(&error.to_string()))?;
        if read == 0 {
            return Err(invalid("it ends in the middle of its head"));
        }
        bytes.extend_from_slice(&piece[..read]);
    }
}

/// A whole head, or `None` while it is not there.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Asked>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let end = match request.parse(bytes).map_err(|error| invalid(&error.to_string()))? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(end) => end,
    };
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(invalid("it has no target"));
    };
    let rest = &bytes[end..];
    if method == "CONNECT" {
        let (host, port) = host_and_port(target).map_err(|error| invalid(&error.to_string()))?;
        return Ok(Some(Asked { host, port, first: rest.to_vec(), tunnel: true }));
    }
    let (host, port, origin_form) = absolute(target)?;
    let first = rewritten(method, &host, port, &origin_form, request.headers, rest);
    Ok(Some(Asked { host, port, first, tunnel: false }))
}

/// Host, port and origin form of an absolute `http://` target.
fn absolute(target: &str) -> Result<(Host, u16, String), Refusal> {
    let prefix = "http://";
    let rest = match target.get(..prefix.len()) {
        Some(scheme) if scheme.eq_ignore_ascii_case(prefix) => &target[prefix.len()..],
        _ => return Err(invalid("this is a proxy: send CONNECT, or a whole http:// address")),
    };
    let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    if authority.contains('@') {
        return Err(invalid("a user name in an address is not accepted"));
    }
    let path = path.split('#').next().unwrap_or_default();
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let (host, port) = host_and_port(&authority).map_err(|error| invalid(&error.to_string()))?;
    Ok((host, port, path))
}

/// The request as the destination gets it: origin form, its own Host, one request per connection.
fn rewritten(
    method: &str,
    host: &Host,
    port: u16,
    path: &str,
    fields: &[httparse::Header<'_>],
    rest: &[u8],
) -> Vec<u8> {
    let authority = if port == 80 { host.to_string() } else { format!("{host}:{port}") };
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {authority}\r\n").into_bytes();
    let nominated: Vec<String> = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("connection"))
        .flat_map(|field| {
            String::from_utf8_lossy(field.value)
                .split(',')
                .map(|n| n.trim().to_ascii_lowercase())
                .collect::<Vec<_>>()
        })
        .collect();
    for field in fields {
        let name = field.name.to_ascii_lowercase();
        if name == "host" || OURS.contains(&name.as_str()) || nominated.contains(&name) {
            continue;
        }
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(field.value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"connection: close\r\n\r\n");
    head.extend_from_slice(rest);
    head
}

/// Says that the tunnel stands.
pub(crate) async fn accept<S: AsyncWrite + Unpin>(client: &mut S) -> std::io::Result<()> {
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await
}

/// Says why not.
pub(crate) async fn refuse<S: AsyncWrite + Unpin>(client: &mut S, refusal: &Refusal) -> std::io::Result<()> {
    let status = match refusal {
        Refusal::Request(_) => "400 Bad Request",
        Refusal::Policy { .. } => "403 Forbidden",
        Refusal::Name(_) | Refusal::Connect(_) => "502 Bad Gateway",
        Refusal::TimedOut => "504 Gateway Timeout",
    };
    let body = format!("{refusal}\n");
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(head.as_bytes()).await?;
    client.shutdown().await
}

fn invalid(why: &str) -> Refusal {
    Refusal::Request(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(head: &str) -> Result<Option<Asked>, String> {
        parse(head.as_bytes()).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_tunnel_is_asked_for_by_connect() {
        let got = asked("CONNECT API.example.com:443 HTTP/1.1\r\nHost: x\r\n\r\nearly").unwrap().unwrap();
        assert_eq!((got.host.to_string().as_str(), got.port, got.tunnel), ("api.example.com", 443, true));
        assert_eq!(got.first, b"early");
        assert_eq!(asked("CONNECT api.example.com:443 HTTP/1.1\r\nHost").unwrap(), None);
    }

    #[test]
    fn a_request_gets_its_own_host_and_loses_what_is_for_the_proxy() {
        let head = "GET http://Example.com:8080?a=b#frag HTTP/1.1\r\nHost: other.example\r\nProxy-Authorization: secret\r\n\
                    Connection: keep-alive, x-hop\r\nX-Hop: 1\r\nAccept: */*\r\n\r\n";
        let got = asked(head).unwrap().unwrap();
        assert_eq!(got.port, 8080);
        assert_eq!(
            String::from_utf8(got.first).unwrap(),
            "GET /?a=b HTTP/1.1\r\nhost: example.com:8080\r\naccept: */*\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(asked("GET http://[2001:db8::1]/ HTTP/1.1\r\n\r\n").unwrap().unwrap().port, 80);
    }

    #[test]
    fn what_is_not_for_a_proxy_is_refused_with_the_reason() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET https://a.example/ HTTP/1.1\r\n\r\n",
            "GET http://user@a.example/ HTTP/1.1\r\n\r\n",
            "GET http:///x HTTP/1.1\r\n\r\n",
            "CONNECT a.example HTTP/1.1\r\n\r\n",
            "CONNECT 127.1:80 HTTP/1.1\r\n\r\n",
            "CONNECT [example.com]:80 HTTP/1.1\r\n\r\n",
            "\u{0}\r\n\r\n",
        ] {
            assert!(asked(head).is_err(), "{head:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_target_makes_it_panic(target in "\\PC{0,60}") {
            let _ = parse(format!("GET http://{target} HTTP/1.1\r\n\r\n").as_bytes());
        }
    }
}
