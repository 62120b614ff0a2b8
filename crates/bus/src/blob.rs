//! Content by digest, in pieces of 256 KiB: the reader keeps what it has, goes on there after a cut,
//! and believes only the digest.

use crate::request::{Incoming, Outgoing, decode, encode};
use crate::{Bus, BusError, PlatformHandler};
use aws_lc_rs::digest::{Context, SHA256};
use bastide_types::message::{BLOB_CHUNK_BYTES, BlobQuery, Reply};
use bastide_types::{Code, Digest};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Where pieces are asked for.
const SUBJECT: &str = "platform.blob.get";
/// Header of an answer that carries content: length of the whole blob.
const TOTAL: &str = "Bst-Total";
/// Pieces asked for ahead of the one that is being written.
const WINDOW: usize = 8;
/// Tries for each piece before the fetch gives up (what is there is kept).
const TRIES: u32 = 4;
/// Wait before the second try; it doubles.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Fetches a blob into the file `to`, going on with what an earlier try left in `<to>.part`, checks its
/// digest and puts it in place whole. Returns its length. `limit` is for each try of each piece.
///
/// One fetch per file at a time: the caller sees to that.
///
/// # Errors
/// [`BusError::NoContent`], [`BusError::TooLarge`]; [`BusError::Malformed`] when the content does not
/// have this digest (nothing is kept); a broker or platform that is away: the part is kept for next time.
pub async fn fetch(
    bus: &Bus,
    digest: &Digest,
    bytes_max: u64,
    to: &Path,
    limit: Duration,
) -> Result<u64, BusError> {
    let resumed = fetch_part(bus, digest, bytes_max, to, limit, false).await;
    match resumed {
        // The part on disk was bad, or of another blob: begin anew, once.
        Err(BusError::Malformed(_)) => fetch_part(bus, digest, bytes_max, to, limit, true).await,
        other => other,
    }
}

async fn fetch_part(
    bus: &Bus,
    digest: &Digest,
    bytes_max: u64,
    to: &Path,
    limit: Duration,
    anew: bool,
) -> Result<u64, BusError> {
    let mut part = Part::open(to, anew).await?;
    let done = pull(bus, digest, bytes_max, &mut part, limit).await;
    match done {
        Ok(bytes) => part.finish(to).await.map(|()| bytes),
        Err(error) => {
            if matches!(error, BusError::Malformed(_) | BusError::TooLarge { .. } | BusError::NoContent(_)) {
                part.discard().await;
            }
            Err(error)
        }
    }
}

/// Fetches a blob into memory and checks its digest.
pub async fn fetch_bytes(
    bus: &Bus,
    digest: &Digest,
    bytes_max: u64,
    limit: Duration,
) -> Result<Vec<u8>, BusError> {
    let mut memory = Memory { bytes: Vec::new(), hash: Context::new(&SHA256) };
    pull(bus, digest, bytes_max, &mut memory, limit).await?;
    Ok(memory.bytes)
}

/// Where the pieces go.
trait Target: Send {
    /// Bytes that are there already.
    fn length(&self) -> u64;
    /// Appends a piece.
    fn append(&mut self, piece: Bytes) -> impl Future<Output = Result<(), BusError>> + Send;
    /// Digest of all that is there.
    fn digest(&self) -> Digest;
}

async fn pull(
    bus: &Bus,
    digest: &Digest,
    bytes_max: u64,
    target: &mut impl Target,
    limit: Duration,
) -> Result<u64, BusError> {
    let start = target.length();
    let (first, total) = piece(bus, *digest, start, limit).await.map_err(|error| match error {
        // Nothing begins there: the part is longer than the blob, so it is not a part of it.
        BusError::NoContent(_) if start > 0 => malformed(),
        other => other,
    })?;
    if total > bytes_max {
        return Err(BusError::TooLarge { bytes: total, bytes_max });
    }
    check_length(&first, start, total)?;
    let mut expected = start + first.len() as u64;
    target.append(first).await?;
    let offsets = (expected..total).step_by(BLOB_CHUNK_BYTES);
    let mut pieces = stream::iter(offsets)
        .map(|offset| async move { piece(bus, *digest, offset, limit).await.map(|found| (offset, found)) })
        .buffered(WINDOW);
    while let Some((offset, (bytes, stated))) = pieces.try_next().await? {
        if offset != expected || stated != total {
            return Err(malformed());
        }
        check_length(&bytes, offset, total)?;
        expected += bytes.len() as u64;
        target.append(bytes).await?;
    }
    if expected != total || target.digest() != *digest {
        return Err(malformed());
    }
    Ok(total)
}

fn malformed() -> BusError {
    BusError::Malformed("the content is not what its digest says".into())
}

/// A piece is whole, except the last.
fn check_length(piece: &Bytes, offset: u64, total: u64) -> Result<(), BusError> {
    let left = total.checked_sub(offset).ok_or_else(malformed)?;
    if piece.len() as u64 == left.min(BLOB_CHUNK_BYTES as u64) { Ok(()) } else { Err(malformed()) }
}

/// One piece and the length of the whole, tried again while the broker or the platform is away.
async fn piece(bus: &Bus, digest: Digest, offset: u64, limit: Duration) -> Result<(Bytes, u64), BusError> {
    let mut pause = RETRY_PAUSE;
    for _ in 1..TRIES {
        match piece_once(bus, digest, offset, limit).await {
            Err(
                BusError::TimedOut(_)
                | BusError::NoResponders(_)
                | BusError::Disconnected(_)
                | BusError::Overloaded(_)
                | BusError::Problem(_),
            ) => {}
            other => return other,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    piece_once(bus, digest, offset, limit).await
}

async fn piece_once(
    bus: &Bus,
    digest: Digest,
    offset: u64,
    limit: Duration,
) -> Result<(Bytes, u64), BusError> {
    let query = encode(&BlobQuery { digest, offset })?;
    let message = bus.ask(SUBJECT, query, limit).await?;
    let total = message.headers.as_ref().and_then(|headers| headers.get(TOTAL));
    match total {
        Some(total) => {
            let total = total.as_str().parse().map_err(|_| BusError::Malformed("a length".into()))?;
            Ok((message.payload, total))
        }
        None => match decode::<Reply<()>>(&message.payload)? {
            Reply::Problem(problem) if problem.code == Code::ApiUnknown.as_str() => {
                Err(BusError::NoContent(digest))
            }
            Reply::Problem(problem) => Err(BusError::refusal(SUBJECT, problem)),
            Reply::Ok(()) => Err(BusError::Malformed("no content".into())),
        },
    }
}

/// The platform's side of one piece.
pub(crate) async fn answer<H: PlatformHandler>(handler: &H, asked: Incoming) -> Outgoing {
    let Ok(query) = decode::<BlobQuery>(&asked.payload) else {
        return Outgoing::reply::<()>(Err(Code::InputInvalid.because("the message is malformed")));
    };
    match handler.blob(&asked.account, &query.digest, query.offset, BLOB_CHUNK_BYTES).await {
        Some((bytes, total)) if bytes.len() <= BLOB_CHUNK_BYTES => {
            Outgoing { headers: vec![(TOTAL, total.to_string())], payload: bytes }
        }
        Some(_) => Outgoing::reply::<()>(Err(Code::Internal.problem())),
        // The same answer whether it does not exist or is somebody else's.
        None => Outgoing::reply::<()>(Err(Code::ApiUnknown.problem())),
    }
}

struct Memory {
    bytes: Vec<u8>,
    hash: Context,
}

impl Target for Memory {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }
    async fn append(&mut self, piece: Bytes) -> Result<(), BusError> {
        self.hash.update(&piece);
        self.bytes.extend_from_slice(&piece);
        Ok(())
    }
    fn digest(&self) -> Digest {
        finished(&self.hash)
    }
}

fn finished(hash: &Context) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.clone().finish().as_ref());
    Digest::from_sha256(bytes)
}

/// A file that grows beside its final place.
struct Part {
    path: PathBuf,
    file: tokio::fs::File,
    length: u64,
    hash: Context,
}

impl Part {
    /// Opens the part of `to`, reading (and hashing) what is there.
    async fn open(to: &Path, anew: bool) -> Result<Self, BusError> {
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let path = to.with_file_name(name);
        let fault = |source| BusError::File { path: path.clone(), source };
        let mut file = tokio::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(anew)
            .mode(0o600)
            .open(&path)
            .await
            .map_err(fault)?;
        let mut hash = Context::new(&SHA256);
        let mut length = 0;
        let mut buffer = vec![0; BLOB_CHUNK_BYTES];
        loop {
            let read = file.read(&mut buffer).await.map_err(fault)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            length += read as u64;
        }
        Ok(Self { path, file, length, hash })
    }

    /// Flushes to disk and renames to the final place.
    async fn finish(mut self, to: &Path) -> Result<(), BusError> {
        let fault = |source| BusError::File { path: to.to_owned(), source };
        self.file.flush().await.map_err(fault)?;
        self.file.sync_all().await.map_err(fault)?;
        tokio::fs::rename(&self.path, to).await.map_err(fault)?;
        let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        tokio::fs::File::open(dir).await.map_err(fault)?.sync_all().await.map_err(fault)
    }

    async fn discard(self) {
        // What cannot be removed is found bad again next time.
        let _ = tokio::fs::remove_file(&self.path).await;
    }
}

impl Target for Part {
    fn length(&self) -> u64 {
        self.length
    }
    async fn append(&mut self, piece: Bytes) -> Result<(), BusError> {
        self.hash.update(&piece);
        self.length += piece.len() as u64;
        let fault = |source| BusError::File { path: self.path.clone(), source };
        self.file.write_all(&piece).await.map_err(fault)
    }
    fn digest(&self) -> Digest {
        finished(&self.hash)
    }
}
