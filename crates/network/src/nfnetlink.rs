//! The kernel's messages about packets and connections (nfnetlink): their frame and their attributes.

use crate::netlink;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{MsgFlags, NetlinkAddr, SockProtocol, bind, recv, setsockopt, sockopt},
};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// Length of a message's head: that of netlink, then that of nfnetlink.
const HEAD: usize = 16 + 4;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// The kernel's parts.
pub(crate) const CONNECTIONS: u16 = 1;
pub(crate) const REPORTS: u16 = 4;
pub(crate) const RULES: u16 = 10;

/// A message; `kind` is its part of the kernel in the high byte and its number there in the low one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) body: &'a [u8],
}

/// The messages of a datagram; it ends with the first that is broken.
pub(crate) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let message = rest.get(..length).filter(|message| message.len() >= 16)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, body: message.get(HEAD..).unwrap_or_default() })
    })
}

/// Kind and value of each attribute; it ends with the first that is broken.
pub(crate) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The two highest bits tell how it is written.
        Some((kind & 0x3fff, value))
    })
}

/// The value of the first attribute of this kind.
pub(crate) fn attribute(all: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(all).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A number as the kernel sends it, of 1, 2, 4 or 8 bytes.
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    matches!(value.len(), 1 | 2 | 4 | 8)
        .then(|| value.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

/// An attribute, padded.
pub(crate) fn write(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend(((value.len() + 4) as u16).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn question(part: u16, number: u8, flags: u16, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + attributes.len());
    bytes.extend(((HEAD + attributes.len()) as u32).to_ne_bytes());
    bytes.extend(((part << 8) | u16::from(number)).to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([0, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
    bytes
}

/// Asks one question and takes the first answer's body.
pub(crate) fn ask(part: u16, number: u8) -> io::Result<Vec<u8>> {
    let socket = netlink::open(SockProtocol::NetlinkNetFilter)?;
    netlink::send(&socket, &question(part, number, 0, 0, &[]))?;
    let mut buffer = vec![0; 4096];
    let count = netlink::receive(&socket, &mut buffer)?;
    let answer = messages(&buffer[..count]).next().filter(|answer| answer.kind >> 8 == part);
    answer.map(|answer| answer.body.to_vec()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Asks for a list; `each` gets the body of every entry.
pub(crate) fn dump(part: u16, number: u8, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let socket = netlink::open(SockProtocol::NetlinkNetFilter)?;
    netlink::send(&socket, &question(part, number, DUMP, 0, &[]))?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = netlink::receive(&socket, &mut buffer)?;
        for message in messages(&buffer[..count]) {
            match message.kind {
                DONE => return Ok(()),
                ERROR => return Err(io::ErrorKind::InvalidData.into()),
                kind if kind >> 8 == part => each(message.body),
                _ => {}
            }
        }
    }
}

/// A socket, non-blocking, on which these groups of messages arrive (bit 0 is group 1).
pub(crate) fn listen(groups: u32, buffer_bytes: usize) -> io::Result<OwnedFd> {
    let socket = netlink::open(SockProtocol::NetlinkNetFilter)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    // Room for a burst; without the right to more than usual, the usual has to do.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &buffer_bytes);
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(socket)
}

/// Has reports of stopped packets (nfnetlink_log) come to this socket: `bytes` of each packet, in batches.
pub(crate) fn receive_reports(socket: &OwnedFd, group: u16, bytes: u32) -> io::Result<()> {
    let mut attributes = Vec::new();
    // NFULA_CFG_CMD: bind.
    write(&mut attributes, 1, &[1]);
    // NFULA_CFG_MODE: copy packets.
    let mut mode = bytes.to_be_bytes().to_vec();
    mode.extend([2, 0]);
    write(&mut attributes, 2, &mode);
    // NFULA_CFG_TIMEOUT: a batch waits this long for more, in hundredths of a second.
    write(&mut attributes, 4, &20_u32.to_be_bytes());
    netlink::send(socket, &question(REPORTS, 1, ACK, group, &attributes))?;
    let mut buffer = vec![0; 64 * 1024];
    // The kernel answers while it takes the question.
    let count = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let code = buffer[..count].get(16..20).map(|code| code.try_into().map(i32::from_ne_bytes));
    match (buffer.get(4..6), code) {
        (Some(kind), Some(Ok(0))) if kind == ERROR.to_ne_bytes() => Ok(()),
        (_, Some(Ok(code))) => Err(Errno::from_raw(-code).into()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_found_and_broken_ones_are_not() {
        let mut bytes = vec![6, 0, 2, 0, 7, 8, 0, 0];
        bytes.extend([8, 0, 1, 0, 0, 0, 0, 9]);
        assert_eq!(attribute(&bytes, 1).and_then(number), Some(9));
        assert_eq!(attribute(&bytes, 2), Some(&[7, 8][..]));
        assert_eq!(attribute(&bytes, 3), None);
        assert_eq!(attribute(&[3, 0, 1, 0], 1), None);
        assert_eq!(attribute(&[200, 0, 1, 0, 1], 1), None);
        assert_eq!(number(&[0; 3]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(values in prop::collection::vec((0_u16..0x3fff, prop::collection::vec(any::<u8>(), 0..40)), 0..8)) {
            let mut bytes = Vec::new();
            for (kind, value) in &values {
                write(&mut bytes, *kind, value);
            }
            let read: Vec<_> = attributes(&bytes).map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn no_bytes_make_it_go_on_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(messages(&bytes).count() <= bytes.len() / 16);
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4);
        }
    }
}
