//! SOCKS version 5 (RFC 1928): CONNECT without authentication, since the listener says who calls.

use crate::error::Refusal;
use bastide_types::egress::Host;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// First byte of a SOCKS 5 client.
pub(crate) const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NONE_ACCEPTABLE: u8 = 0xff;
const CONNECT: u8 = 1;

/// Replies (RFC 1928 §6).
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Reply {
    Done = 0,
    NotAllowed = 2,
    HostUnreachable = 4,
    CommandUnknown = 7,
}

/// Reads what the client wants, from behind the version byte.
pub(crate) async fn request<S>(client: &mut S) -> Result<(Host, u16), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let methods = client.read_u8().await.map_err(broken)?;
    let mut offered = vec![0; methods.into()];
    client.read_exact(&mut offered).await.map_err(broken)?;
    if !offered.contains(&NO_AUTHENTICATION) {
        client.write_all(&[VERSION, NONE_ACCEPTABLE]).await.map_err(broken)?;
        return Err(Refusal::Request("SOCKS without authentication is what is offered here".into()));
    }
    client.write_all(&[VERSION, NO_AUTHENTICATION]).await.map_err(broken)?;
    let mut head = [0; 4];
    client.read_exact(&mut head).await.map_err(broken)?;
    let [version, command, _reserved, kind] = head;
    if version != VERSION || command != CONNECT {
        reply(client, Reply::CommandUnknown).await?;
        return Err(Refusal::Request("only CONNECT is offered here".into()));
    }
    let host = host(client, kind).await?;
    let port = client.read_u16().await.map_err(broken)?;
    if port == 0 {
        return Err(Refusal::Request("there is no port 0".into()));
    }
    Ok((host, port))
}

async fn host<S: AsyncRead + Unpin>(client: &mut S, kind: u8) -> Result<Host, Refusal> {
    Ok(match kind {
        1 => Host::Address(IpAddr::V4(Ipv4Addr::from(client.read_u32().await.map_err(broken)?))),
        4 => Host::Address(IpAddr::V6(Ipv6Addr::from(client.read_u128().await.map_err(broken)?))),
        3 => {
            let mut name = vec![0; client.read_u8().await.map_err(broken)?.into()];
            client.read_exact(&mut name).await.map_err(broken)?;
            let name =
                String::from_utf8(name).map_err(|_| Refusal::Request("the host is not text".into()))?;
            name.parse().map_err(|error| Refusal::Request(format!("the host: {error}")))?
        }
        _ => return Err(Refusal::Request("the kind of address is not known".into())),
    })
}

/// Says that the connection stands.
pub(crate) async fn accept<S: AsyncWrite + Unpin>(client: &mut S) -> Result<(), Refusal> {
    reply(client, Reply::Done).await
}

/// Says that it does not.
pub(crate) async fn refuse<S: AsyncWrite + Unpin>(client: &mut S, refusal: &Refusal) -> Result<(), Refusal> {
    match refusal {
        Refusal::Request(_) => Ok(()),
        Refusal::Policy { .. } => reply(client, Reply::NotAllowed).await,
        _ => reply(client, Reply::HostUnreachable).await,
    }
}

async fn reply<S: AsyncWrite + Unpin>(client: &mut S, reply: Reply) -> Result<(), Refusal> {
    // The address that was bound is nobody's business: zeros.
    client.write_all(&[VERSION, reply as u8, 0, 1, 0, 0, 0, 0, 0, 0]).await.map_err(broken)
}

fn broken(error: std::io::Error) -> Refusal {
    Refusal::Request(error.to_string())
}
