//! What the PostgreSQL server says until a session is ready. Plain: it reads and writes no socket.
//!
//! Two things in it matter here. The offer of authentication bound to TLS (`SCRAM-SHA-256-PLUS`) is taken out:
//! the server makes it when the way from here to it has TLS, but the app's way to here has none, and libpq takes
//! that for an attack. And the key by which the session's statements can be cancelled is noted.

use super::startup::CancelKey;

/// Longest message before a session is ready.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const HEAD_BYTES: usize = 5;
/// Offer of mechanisms (`AuthenticationSASL`).
const SASL: u32 = 10;
const BOUND: &[u8] = b"SCRAM-SHA-256-PLUS";

/// Why what the server says cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GreetingError {
    /// Not what the protocol says.
    #[error("the server does not keep to the protocol")]
    Malformed,
    /// Nothing is left when what is bound to TLS is taken out.
    #[error("the server offers only authentication that is bound to TLS")]
    OnlyBound,
}

/// Follows the server's messages until the first `ReadyForQuery`.
#[derive(Debug, Default)]
pub struct Greeting {
    /// Of a message that is not whole yet.
    held: Vec<u8>,
    key: Option<CancelKey>,
    refused: bool,
    ready: bool,
}

impl Greeting {
    /// Takes what the server sent; what may go to the client is appended to `out`. After the session is
    /// ready that is everything.
    ///
    /// # Errors
    /// [`GreetingError`]; the connection must end then.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), GreetingError> {
        self.held.extend_from_slice(bytes);
        while !self.ready {
            let Some((head, _)) = self.held.split_first_chunk::<HEAD_BYTES>() else { return Ok(()) };
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            if !(4..=MESSAGE_BYTES_MAX).contains(&length) || !b"RSKNEZv".contains(&head[0]) {
                return Err(GreetingError::Malformed);
            }
            if self.held.len() <= length {
                return Ok(());
            }
            let rest = self.held.split_off(length + 1);
            let message = std::mem::replace(&mut self.held, rest);
            self.message(&message, out)?;
        }
        out.append(&mut self.held);
        Ok(())
    }

    /// Whether the session is ready.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether the server refused; it closes the connection after that.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// By what its statements can be cancelled.
    pub fn key(&self) -> Option<&CancelKey> {
        self.key.as_ref()
    }

    fn message(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), GreetingError> {
        let (head, body) = message.split_at(HEAD_BYTES);
        match (head[0], body.split_first_chunk()) {
            (b'R', Some((code, mechanisms))) if u32::from_be_bytes(*code) == SASL => {
                let left = unbound(mechanisms)?;
                out.push(b'R');
                out.extend_from_slice(&(left.len() as u32 + 8).to_be_bytes());
                out.extend_from_slice(code);
                out.extend_from_slice(&left);
                return Ok(());
            }
            (b'R', None) => return Err(GreetingError::Malformed),
            (b'K', _) => self.key = Some(CancelKey::new(body).ok_or(GreetingError::Malformed)?),
            (b'E', _) => self.refused = true,
            (b'Z', _) => self.ready = true,
            _ => {}
        }
        out.extend_from_slice(message);
        Ok(())
    }
}

/// A list of mechanisms without those that are bound to TLS. Each ends with a zero byte, the list with another.
fn unbound(list: &[u8]) -> Result<Vec<u8>, GreetingError> {
    let names = list.strip_suffix(&[0, 0]).ok_or(GreetingError::Malformed)?;
    let mut left = Vec::new();
    for name in names.split(|byte| *byte == 0) {
        if name.is_empty() {
            return Err(GreetingError::Malformed);
        }
        if name != BOUND {
            left.extend_from_slice(name);
            left.push(0);
        }
    }
    if left.is_empty() {
        return Err(GreetingError::OnlyBound);
    }
    left.push(0);
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![kind];
        message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        message.extend_from_slice(body);
        message
    }

    fn sasl(mechanisms: &str) -> Vec<u8> {
        let mut body = SASL.to_be_bytes().to_vec();
        body.extend_from_slice(mechanisms.as_bytes());
        message(b'R', &body)
    }

    /// A usual start, and rows after it.
    fn session() -> (Vec<u8>, Vec<u8>) {
        let key = message(b'K', &[1, 2, 3, 4, 5, 6, 7, 8]);
        let rest =
            [message(b'R', &[0; 4]), message(b'S', b"a\0b\0"), key, message(b'Z', b"I"), b"D rows".to_vec()];
        let given = [sasl("SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"), rest.concat()].concat();
        let passed = [sasl("SCRAM-SHA-256\0\0"), rest.concat()].concat();
        (given, passed)
    }

    fn feed(pieces: &[&[u8]]) -> Result<(Vec<u8>, Greeting), GreetingError> {
        let (mut greeting, mut out) = (Greeting::default(), Vec::new());
        for piece in pieces {
            greeting.feed(piece, &mut out)?;
        }
        Ok((out, greeting))
    }

    #[test]
    fn what_is_bound_to_tls_is_taken_out_and_the_key_is_noted() {
        let (given, passed) = session();
        let (out, greeting) = feed(&[&given]).unwrap();
        assert_eq!(out, passed);
        assert!(greeting.is_ready() && !greeting.is_refused());
        assert_eq!(greeting.key(), CancelKey::new(&[1, 2, 3, 4, 5, 6, 7, 8]).as_ref());
        // An error ends a start: it is passed on, and nothing is ready.
        let refused = message(b'E', b"SFATAL\0\0");
        let (out, greeting) = feed(&[&refused]).unwrap();
        assert_eq!((out, greeting.is_ready(), greeting.key()), (refused, false, None));
        assert!(greeting.is_refused());
    }

    #[test]
    fn a_server_that_does_not_keep_to_the_protocol_is_not_passed_on() {
        use GreetingError::{Malformed, OnlyBound};
        for (wrong, why) in [
            (sasl("SCRAM-SHA-256-PLUS\0\0"), OnlyBound),
            (sasl("SCRAM-SHA-256"), Malformed),
            (sasl("SCRAM-SHA-256\0"), Malformed),
            (sasl("A\0\0B\0\0"), Malformed),
            (sasl("\0\0"), Malformed),
            (message(b'R', &[0; 3]), Malformed),
            (message(b'K', &[0; 7]), Malformed),
            (message(b'D', b"x"), Malformed),
            (b"HTTP/1.1 400".to_vec(), Malformed),
            (vec![b'S', 0, 0, 0, 3], Malformed),
            (vec![b'N', 0, 1, 0, 1], Malformed),
        ] {
            assert_eq!(feed(&[&wrong]).unwrap_err(), why, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(cuts in proptest::collection::vec(0usize..120, 0..8)) {
            let (given, passed) = session();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(given.len())).collect();
            cuts.extend([0, given.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &given[pair[0]..pair[1]]).collect();
            let (out, greeting) = feed(&pieces).unwrap();
            prop_assert_eq!(out, passed);
            prop_assert!(greeting.is_ready());
        }

        #[test]
        fn no_bytes_make_it_panic_or_hold_much(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (mut greeting, mut out) = (Greeting::default(), Vec::new());
            let _ = greeting.feed(&bytes, &mut out);
            prop_assert!(out.len() + greeting.held.len() <= bytes.len());
        }
    }
}
