//! Banned sources: listed, added and lifted. What the operator organization bans is refused everywhere, what a customer
//! bans at the hosts of its own stages. Neither sees the other's.

use crate::{ApiError, App, caller::Caller, error::document, permissions::Permission, snapshot, wire::Query};
use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
};
use bastide_store::{BanRow, CustomerStore, StoreError, Write, now_s};
use bastide_types::{
    BanId, BannedNet, Code,
    ban::{ALL_BANS_MAX, CUSTOMER_BANS_MAX, OPERATOR_BANS_MAX},
};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Most bans in one answer.
const PAGE_MAX: u32 = 100;
/// Longest reason, in characters.
const REASON_CHARS_MAX: usize = 200;
/// How long a ban may last that ends by itself, in seconds: a minute to ten years.
const FOR_S: std::ops::RangeInclusive<u32> = 60..=315_360_000;

/// A banned source.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct BanView {
    id: String,
    /// An address is a network of one.
    network: String,
    reason: String,
    /// Subject of whoever banned it.
    by: String,
    /// Seconds since 1970 at which that was.
    since: i64,
    /// Seconds since 1970 at which it ends; never without.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
}

/// A source to ban.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBan {
    /// An address or a network, at most an IPv4 network of /8 or an IPv6 network of /16.
    network: String,
    /// Why, in at most 200 characters.
    reason: String,
    /// For how long, in seconds: 60 to 315360000. For ever without.
    for_s: Option<u32>,
}

/// Which bans to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Which {
    /// The ban of exactly this network.
    network: Option<String>,
    /// Bans of networks that come after this one.
    after: Option<String>,
    /// How many: 1 to 100, which is the default.
    limit: Option<u32>,
}

/// Lists bans in force, by their networks: at the operator those for everything, at a customer its own.
#[utoipa::path(get, path = "/bans", params(Which), responses((status = 200, body = Vec<BanView>)))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(which): Query<Which>,
) -> Result<Json<Vec<BanView>>, ApiError> {
    let own = caller.store(&app);
    if let Some(network) = which.network {
        let net: BannedNet = network.parse().map_err(invalid)?;
        let row = own.ban_in_force(net, now_s()).await?;
        return Ok(Json(row.map(view).into_iter().collect()));
    }
    let most = which.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
    let rows = own.bans(now_s(), &which.after.unwrap_or_default(), most).await?;
    Ok(Json(rows.into_iter().map(view).collect()))
}

/// Bans a source: at the operator everywhere, at a customer at the hosts of its stages. A ban of the same network is
/// replaced. Networks that are too large, or hold an address of each machine's own or that of whoever asks, are refused.
#[utoipa::path(post, path = "/bans", request_body = NewBan, responses((status = 200, body = BanView), (status = 403, description = "Bans of the operator are the security office's"), (status = 422, description = "Not a network that can be banned"), (status = 429, description = "Too many")))]
pub(crate) async fn add(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Json<NewBan>, JsonRejection>,
) -> Result<Json<BanView>, ApiError> {
    demand_office(&caller)?;
    let new = document(body)?;
    let net: BannedNet = new.network.parse().map_err(invalid)?;
    refuse_own(&app, &caller, &headers, net)?;
    let reason = reason(&new.reason)?;
    let until = new.for_s.map(until).transpose()?;
    let own = caller.store(&app);
    let mut write = app.store.write().await?;
    own.give_up_bans(&mut write, now_s()).await?;
    let before = own.ban_of(&mut write, net).await?;
    let id = before.as_ref().map_or_else(BanId::generate, |before| before.id);
    let row = BanRow { id, net, reason, by: caller.who.sub.clone(), since: now_s(), until };
    own.set_ban(&mut write, &row).await?;
    has_room(&caller, &own, &mut write).await?;
    let (old, new) = (before.map(view), view(row));
    let what = ("ban.set", new.network.as_str());
    caller.note_change(&own, &mut write, what, old.as_ref(), Some(&new)).await?;
    write.commit().await.map_err(StoreError::from)?;
    snapshot::hint(&app).await?;
    Ok(Json(new))
}

/// Lifts a ban.
#[utoipa::path(delete, path = "/bans/{ban}", params(("ban" = String, Path, description = "Id of the ban")), responses((status = 204, description = "Lifted"), (status = 403, description = "Bans of the operator are the security office's"), (status = 404, description = "No such ban")))]
pub(crate) async fn lift(
    State(app): State<App>,
    caller: Caller,
    Path(ban): Path<String>,
) -> Result<StatusCode, ApiError> {
    demand_office(&caller)?;
    let unknown = || ApiError::new(Code::ApiUnknown);
    let id: BanId = ban.parse().map_err(|_| unknown())?;
    let own = caller.store(&app);
    let mut write = app.store.write().await?;
    let old = view(own.lift_ban(&mut write, id).await?.ok_or_else(unknown)?);
    let what = ("ban.lifted", old.network.as_str());
    let done = caller.changed(&app, write, what, Some(&old), None).await?;
    snapshot::hint(&app).await?;
    Ok(done)
}

/// What the operator organization bans, it bans for all.
fn demand_office(caller: &Caller) -> Result<(), ApiError> {
    if caller.customer.name.is_operator() { caller.demand(Permission::OfficePolicies) } else { Ok(()) }
}

/// Refuses to shut out whoever asks, and for all what our own apps call from.
fn refuse_own(app: &App, caller: &Caller, headers: &HeaderMap, net: BannedNet) -> Result<(), ApiError> {
    let said =
        headers.get("x-forwarded-for").and_then(|said| said.to_str().ok()?.trim().parse::<IpAddr>().ok());
    if said.is_some_and(|address| net.holds(address)) {
        return Err(invalid("your own address is in this network: you would shut yourself out"));
    }
    let zones = app.config.egress_addresses.iter();
    let is_ours = zones.filter_map(|zone| zone.address).any(|address| net.holds(address.into()));
    if caller.customer.name.is_operator() && is_ours {
        return Err(invalid(
            "an address of this installation is in this network: apps call each other from it",
        ));
    }
    Ok(())
}

fn invalid(why: impl std::fmt::Display) -> ApiError {
    ApiError::because(Code::InputInvalid, format!("network: {why}"))
}

fn reason(text: &str) -> Result<String, ApiError> {
    let text = text.trim();
    let is_good =
        (1..=REASON_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if is_good {
        return Ok(text.to_owned());
    }
    let why = format!("reason: 1 to {REASON_CHARS_MAX} characters, none of them a control character");
    Err(ApiError::because(Code::InputInvalid, why))
}

fn until(for_s: u32) -> Result<i64, ApiError> {
    if FOR_S.contains(&for_s) {
        return Ok(now_s() + i64::from(for_s));
    }
    let why = format!("for_s: {} to {} seconds; nothing for a ban for ever", FOR_S.start(), FOR_S.end());
    Err(ApiError::because(Code::InputInvalid, why))
}

/// Refuses a ban that would be too many; it is in the transaction already.
async fn has_room(caller: &Caller, own: &CustomerStore<'_>, write: &mut Write) -> Result<(), ApiError> {
    let count = own.ban_count(write).await?;
    let is_operator = caller.customer.name.is_operator();
    let most = if is_operator { OPERATOR_BANS_MAX } else { CUSTOMER_BANS_MAX };
    if count.own > most as u64 {
        return Err(ApiError::because(Code::BanLimit, format!("an organization may ban {most} networks")));
    }
    // What others ban never keeps the office from it.
    if !is_operator && count.all > ALL_BANS_MAX {
        let why = "all customers together have too many bans; ask the operator";
        return Err(ApiError::because(Code::BanLimit, why));
    }
    Ok(())
}

fn view(row: BanRow) -> BanView {
    BanView {
        id: row.id.to_string(),
        network: row.net.to_string(),
        reason: row.reason,
        by: row.by,
        since: row.since,
        until: row.until,
    }
}
