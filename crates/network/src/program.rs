//! Runs a program in the namespace of the calling thread, with bounds on its time and its words.

use std::{
    io::{self, Read, Seek, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::memfd::{MFdFlags, memfd_create},
};

const SAID_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a program said.
pub(crate) struct Said {
    pub(crate) success: bool,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

/// Where a program is: on the usual path, or where the system keeps its administrator's programs.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    const DIRS: [&str; 6] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
    DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

/// Runs it to its end. The input is kept in memory first, so that no two ends wait for each other.
pub(crate) fn run(program: &Path, args: &[&str], input: &[u8], limit: Duration) -> io::Result<Said> {
    let mut file = std::fs::File::from(memfd_create("input", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(input)?;
    file.rewind()?;
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let read = child
        .stdout
        .take()
        .zip(child.stderr.take())
        .map_or(Ok(<[Vec<u8>; 2]>::default()), |(out, err)| read_both(out, err, Instant::now() + limit));
    if read.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    let [out, err] = read?;
    Ok(Said { success: status.success(), out, err: String::from_utf8_lossy(&err).trim().to_owned() })
}

fn read_both(out: impl Read + AsFd, err: impl Read + AsFd, deadline: Instant) -> io::Result<[Vec<u8>; 2]> {
    let (mut out, mut err) = (Some(out), Some(err));
    let mut said = <[Vec<u8>; 2]>::default();
    let mut chunk = vec![0; 64 * 1024];
    while out.is_some() || err.is_some() {
        let left = deadline.checked_duration_since(Instant::now()).ok_or(io::ErrorKind::TimedOut)?;
        let timeout = PollTimeout::try_from(left.as_millis().min(60_000)).unwrap_or(PollTimeout::MAX);
        let (mut out_ready, mut err_ready) = (false, false);
        {
            let mut wanted = Vec::with_capacity(2);
            wanted.extend(out.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            wanted.extend(err.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            poll(&mut wanted, timeout)?;
            let mut ready = wanted.iter().map(|fd| fd.any().unwrap_or(true));
            if out.is_some() {
                out_ready = ready.next().unwrap_or(false);
            }
            if err.is_some() {
                err_ready = ready.next().unwrap_or(false);
            }
        }
        if out_ready {
            step(&mut out, &mut said[0], &mut chunk)?;
        }
        if err_ready {
            step(&mut err, &mut said[1], &mut chunk)?;
        }
    }
    Ok(said)
}

fn step(pipe: &mut Option<impl Read>, said: &mut Vec<u8>, chunk: &mut [u8]) -> io::Result<()> {
    let Some(reader) = pipe else { return Ok(()) };
    match reader.read(chunk)? {
        0 => *pipe = None,
        count if said.len() + count > SAID_BYTES_MAX => return Err(io::ErrorKind::OutOfMemory.into()),
        count => said.extend_from_slice(&chunk[..count]),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_its_input_and_its_words_are_kept_apart() {
        let said = run(
            Path::new("/bin/sh"),
            &["-c", "cat; echo no >&2; exit 3"],
            &vec![b'x'; 200_000],
            Duration::from_mins(1),
        )
        .unwrap();
        assert_eq!((said.success, said.out.len(), said.err.as_str()), (false, 200_000, "no"));
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let ended = run(Path::new("/bin/sleep"), &["1000"], &[], Duration::from_millis(20));
        assert_eq!(ended.err().map(|error| error.kind()), Some(io::ErrorKind::TimedOut));
    }
}
