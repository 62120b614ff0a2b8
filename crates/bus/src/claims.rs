//! Account JWTs pushed to the broker. The broker answers "updated" even to a JWT that it will not use,
//! so each push is read back and compared.

use crate::{Bus, BusError, jwt};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

/// Makes the broker hold this JWT, unless it holds one of the same meaning. Returns whether it was
/// pushed.
pub(crate) async fn ensure(sys: &Bus, account: &str, jwt: &str) -> Result<bool, BusError> {
    let held = lookup(sys, account).await?;
    if held.is_some_and(|held| jwt::same_meaning(&held, jwt)) {
        return Ok(false);
    }
    push(sys, account, jwt).await.map(|()| true)
}

async fn push(sys: &Bus, account: &str, jwt: &str) -> Result<(), BusError> {
    let refused = |why: String| BusError::Claim { account: account.to_owned(), why };
    let answer = sys.ask_broker("$SYS.REQ.CLAIMS.UPDATE", jwt.to_owned().into(), LIMIT).await?;
    let answer: serde_json::Value = crate::request::decode(&answer.payload)?;
    if answer["data"]["code"].as_u64() != Some(200) {
        return Err(refused(answer["error"]["description"].as_str().unwrap_or("no reason given").to_owned()));
    }
    match lookup(sys, account).await? {
        Some(held) if held == jwt => Ok(()),
        Some(_) => Err(refused("it holds another JWT".into())),
        None => Err(refused("it does not hold it".into())),
    }
}

async fn lookup(sys: &Bus, account: &str) -> Result<Option<String>, BusError> {
    if !jwt::is_public_key(account, 'A') {
        return Err(BusError::Config("an account's key is malformed".into()));
    }
    let subject = format!("$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP");
    let answer = sys.ask_broker(&subject, bytes::Bytes::new(), LIMIT).await?;
    let text = std::str::from_utf8(&answer.payload).unwrap_or_default().trim();
    Ok((text.split('.').count() == 3).then(|| text.to_owned()))
}
