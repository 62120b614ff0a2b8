//! What the command's exit code says to scripts. These numbers stay.

use bastide_types::Problem;

/// The command did what it should.
pub const DONE: u8 = 0;
/// It failed in a way that has no number of its own.
pub const FAILED: u8 = 1;
/// It was called wrongly (clap's own number).
pub const USAGE: u8 = 2;
/// The caller is not signed in, or may not do this (401, 403).
pub const NOT_ALLOWED: u8 = 3;
/// There is no such thing (404, 410).
pub const NOT_THERE: u8 = 4;
/// What was asked is not possible as things are, or not valid: blocked, busy, taken (other 4xx).
pub const REFUSED: u8 = 5;
/// Nobody answers, or it was too often: later it may work (429, 5xx).
pub const LATER: u8 = 6;

/// The exit code for an error.
pub fn code(error: &anyhow::Error) -> u8 {
    let Some(problem) = error.chain().find_map(|cause| cause.downcast_ref::<Problem>()) else {
        let unreachable = error.to_string().starts_with("cannot reach ");
        return if unreachable { LATER } else { FAILED };
    };
    match problem.status {
        401 | 403 => NOT_ALLOWED,
        404 | 410 => NOT_THERE,
        429 | 500..=599 => LATER,
        400..=499 => REFUSED,
        _ => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use bastide_types::Code;

    #[test]
    fn every_code_of_a_refusal_has_an_exit_code_of_its_kind() {
        for refusal in Code::ALL {
            let plain = code(&refusal.problem().into());
            let wrapped = Err::<(), _>(refusal.problem()).context("while publishing").unwrap_err();
            assert_eq!(code(&wrapped), plain, "{}", refusal.as_str());
            assert!((NOT_ALLOWED..=LATER).contains(&plain), "{}", refusal.as_str());
        }
        assert_eq!(code(&Code::Forbidden.problem().into()), NOT_ALLOWED);
        assert_eq!(code(&Code::ApiUnknown.problem().into()), NOT_THERE);
        assert_eq!(code(&Code::DeployBusy.problem().into()), REFUSED);
        assert_eq!(code(&Code::Overloaded.problem().into()), LATER);
        assert_eq!(code(&anyhow::anyhow!("cannot reach demo")), LATER);
        assert_eq!(code(&anyhow::anyhow!("no bastide.toml")), FAILED);
    }
}
