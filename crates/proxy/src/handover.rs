//! Sockets handed from one process of this machine to another, over a Unix stream (SCM_RIGHTS, unix(7)).
//!
//! One message is a length, text, and a few descriptors. Both sides take turns: whoever has sent waits
//! for the answer, so two messages never lie in the stream at once.

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};
use std::{
    fs::{self, File},
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
};

/// Most bytes of the text of one message.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Most descriptors of one message.
pub const DESCRIPTORS_MAX: usize = 4;
const PREFIX: usize = 4;
/// Longest path that a socket's name holds (unix(7), less the NUL).
const NAME_BYTES_MAX: usize = 107;

/// Listens at a socket file that only this user may use. What lay there before, of a dead process, is removed.
///
/// # Errors
/// Also when the directory is not there: it is for the caller to make it, for this user only.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (name, _dir) = short(path)?;
    let listener = UnixListener::bind(name)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to a socket file.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (name, _dir) = short(path)?;
    UnixStream::connect(name).await
}

/// The path, or a shorter one by way of its directory, which stays open until it was used.
fn short(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().len() <= NAME_BYTES_MAX {
        return Ok((path.to_owned(), None));
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = File::open(dir)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    Ok((short, Some(dir)))
}

/// Whether the other side runs as the user of this process, or as root.
pub fn same_user(stream: &UnixStream) -> bool {
    let own = fs::metadata("/proc/self").map(|meta| meta.uid());
    match (stream.peer_cred(), own) {
        (Ok(peer), Ok(own)) => peer.uid() == own || peer.uid() == 0,
        _ => false,
    }
}

/// Sends a message.
pub async fn send(stream: &UnixStream, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if text.len() > TEXT_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too large"));
    }
    let mut message = (text.len() as u32).to_be_bytes().to_vec();
    message.extend_from_slice(text);
    // The descriptors travel with the first bytes.
    let mut sent = stream.async_io(Interest::WRITABLE, || first(stream, &message, descriptors)).await?;
    while sent < message.len() {
        sent += stream
            .async_io(Interest::WRITABLE, || {
                Ok(sendmsg(
                    stream,
                    &[IoSlice::new(&message[sent..])],
                    &mut SendAncillaryBuffer::default(),
                    SendFlags::NOSIGNAL,
                )?)
            })
            .await?;
    }
    Ok(())
}

fn first(stream: &UnixStream, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(stream.as_fd(), &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

/// Receives a message: its text, and the descriptors that came with it.
///
/// # Errors
/// `UnexpectedEof` when the other side is gone, `InvalidData` when it sends too much.
pub async fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut text = Vec::new();
    let mut descriptors = Vec::new();
    let mut piece = vec![0; 16 * 1024];
    loop {
        let read = stream.async_io(Interest::READABLE, || next(stream, &mut piece, &mut descriptors)).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.extend_from_slice(&piece[..read]);
        let Some((prefix, rest)) = text.split_first_chunk::<PREFIX>() else { continue };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > TEXT_BYTES_MAX || rest.len() > length {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is not what was agreed"));
        }
        if rest.len() == length {
            return Ok((text.split_off(PREFIX), descriptors));
        }
    }
}

fn next(stream: &UnixStream, piece: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got =
        recvmsg(stream.as_fd(), &mut [IoSliceMut::new(piece)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(Errno::INVAL.into());
    }
    Ok(got.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[tokio::test]
    async fn text_and_sockets_arrive_as_they_were_sent() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut far, near) = std::os::unix::net::UnixStream::pair().unwrap();
        let long = vec![b'x'; TEXT_BYTES_MAX];
        let descriptors = [near.as_fd()];
        let (sent, received) = tokio::join!(send(&here, &long, &descriptors), receive(&there));
        sent.unwrap();
        let (text, mut descriptors) = received.unwrap();
        assert_eq!(text, long);
        let mut moved = std::os::unix::net::UnixStream::from(descriptors.pop().unwrap());
        moved.write_all(b"hi").unwrap();
        let mut read = [0; 2];
        far.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"hi");
        let (sent, received) = tokio::join!(send(&there, b"", &[]), receive(&here));
        sent.unwrap();
        assert_eq!(received.unwrap().0, b"");
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_or_cut_is_an_error() {
        let (here, there) = UnixStream::pair().unwrap();
        assert!(send(&here, &vec![0; TEXT_BYTES_MAX + 1], &[]).await.is_err());
        here.writable().await.unwrap();
        here.try_write(&u32::MAX.to_be_bytes()).unwrap();
        assert_eq!(receive(&there).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        here.try_write(&[0, 0]).unwrap();
        drop(here);
        assert_eq!(receive(&there).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_socket_file_with_a_long_name_is_for_its_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(120));
        fs::create_dir(&deep).unwrap();
        let path = deep.join("broker.sock");
        for _life in 0..2 {
            let listener = listen(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let (connected, accepted) = tokio::join!(connect(&path), listener.accept());
            assert!(connected.is_ok() && same_user(&accepted.unwrap().0));
        }
        assert_eq!(connect(&deep.join("none.sock")).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(listen(&dir.path().join("none/broker.sock")).is_err());
    }
}
