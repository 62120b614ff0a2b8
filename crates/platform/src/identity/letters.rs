//! What letters say. Plain text: a link that nobody can dress up, and who asked for it.

use bastide_store::Mail;
use bastide_types::{CustomerName, StageName};

/// Seconds for which a link of a reset or a registration counts.
pub const LINK_LIFE_S: i64 = 15 * 60;

/// Where somebody has, or will have, an account.
fn place(customer: &CustomerName, stage: Option<&StageName>) -> String {
    match stage {
        Some(stage) => format!("the apps of {customer} ({stage})"),
        None => format!("the organization {customer}"),
    }
}

/// Invites somebody.
pub fn invitation(to: &str, customer: &CustomerName, stage: Option<&StageName>, link: &str) -> Mail {
    let place = place(customer, stage);
    Mail {
        to: to.to_owned(),
        subject: format!("You are invited to {customer}"),
        text: format!(
            "You are invited to {place}.\n\nChoose a password here; the link works once, within 7 days:\n\n{link}\n\n\
             If you do not know what this is about, do nothing.\n"
        ),
    }
}

/// Brings the link by which somebody chooses another password.
pub fn reset(to: &str, customer: &CustomerName, stage: Option<&StageName>, link: &str) -> Mail {
    let place = place(customer, stage);
    Mail {
        to: to.to_owned(),
        subject: format!("Your password at {customer}"),
        text: format!(
            "Somebody, probably you, wants to choose a new password for your account at {place}.\n\nDo so here; the link \
             works once, within 15 minutes:\n\n{link}\n\nIf it was not you, do nothing: your password stays as it is.\n"
        ),
    }
}

/// Brings the link by which somebody who registers proves the address.
pub fn registration(to: &str, customer: &CustomerName, stage: &StageName, link: &str) -> Mail {
    let place = place(customer, Some(stage));
    Mail {
        to: to.to_owned(),
        subject: format!("Your account at {customer}"),
        text: format!(
            "Somebody, probably you, wants to make an account for {place} with this address.\n\nGo on here; the link works \
             once, within 15 minutes:\n\n{link}\n\nIf it was not you, do nothing: no account is made.\n"
        ),
    }
}

/// Tells somebody with an account that it exists already.
pub fn known(to: &str, customer: &CustomerName, stage: &StageName) -> Mail {
    let place = place(customer, Some(stage));
    Mail {
        to: to.to_owned(),
        subject: format!("Your account at {customer}"),
        text: format!(
            "Somebody, probably you, wanted to make an account for {place} with this address. There is one already: sign in \
             with its password, or choose a new one from the sign-in page.\n\nIf it was not you, do nothing.\n"
        ),
    }
}

/// Tells an administrator that a client's secret ends soon.
pub fn secret_ends(to: &str, customer: &CustomerName, client: &str, days: i64) -> Mail {
    Mail {
        to: to.to_owned(),
        subject: format!("A secret of the client {client} at {customer} ends in {days} days"),
        text: format!(
            "A secret of the client {client} of the organization {customer} ends in {days} days. Until then the client needs \
             another one:\n\n    bastide client secret add {client}\n\nTwo may overlap while it changes over.\n"
        ),
    }
}
