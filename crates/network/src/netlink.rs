//! Talks to the kernel over netlink: one question, its answers. A socket belongs for ever to the namespace
//! that its thread was in when it was opened.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt,
            socket, sockopt,
        },
        time::TimeVal,
    },
};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// The largest message that the kernel sends.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The kernel answers at once; this is for a kernel that does not.
const PATIENCE_S: i64 = 30;
/// A list that changed while it was sent is asked for again, this often.
const TRIES: u32 = 20;
/// Part of a list that changed meanwhile.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// A socket to the kernel's routing part.
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens one in the namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = open(SockProtocol::NetlinkRoute)?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; MESSAGE_BYTES_MAX] })
    }

    /// Everything that matches the question.
    pub(crate) fn dump(&mut self, question: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..TRIES {
            self.send(question.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let mut found = Vec::new();
            let (mut whole, mut done) = (true, false);
            while !done {
                self.receive(|message| {
                    whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                    match message.payload {
                        NetlinkPayload::InnerMessage(one) => found.push(one),
                        NetlinkPayload::Done(_) => done = true,
                        NetlinkPayload::Error(error) => return Err(error.to_io()),
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            if whole {
                return Ok(found);
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Asks about one thing; what is answered is dropped.
    pub(crate) fn ask(&mut self, question: RouteNetlinkMessage) -> io::Result<()> {
        self.change(question, 0)
    }

    /// Asks for a change, with more flags such as `NLM_F_CREATE`, and waits until it was made.
    pub(crate) fn change(&mut self, change: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(change, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        let mut done = false;
        while !done {
            self.receive(|message| match message.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
                NetlinkPayload::Error(_) => {
                    done = true;
                    Ok(())
                }
                _ => Ok(()),
            })?;
        }
        Ok(())
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        (header.flags, header.sequence_number) = (flags, self.sequence);
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        send(&self.socket, &bytes)
    }

    /// One datagram; `each` gets the messages in it that answer the last question.
    fn receive(
        &mut self,
        mut each: impl FnMut(NetlinkMessage<RouteNetlinkMessage>) -> io::Result<()>,
    ) -> io::Result<()> {
        let count = receive(&self.socket, &mut self.buffer)?;
        let mut rest = &self.buffer[..count];
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            if length < 16 || length > rest.len() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let message = NetlinkMessage::deserialize(&rest[..length])
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if message.header.sequence_number == self.sequence {
                each(message)?;
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
        Ok(())
    }
}

/// A netlink socket of this part of the kernel, in the namespace of the calling thread.
pub(crate) fn open(part: SockProtocol) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, part)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE_S, 0))?;
    Ok(socket)
}

pub(crate) fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let kernel = NetlinkAddr::new(0, 0);
    match sendto(socket.as_raw_fd(), bytes, &kernel, MsgFlags::empty())? {
        count if count == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}
