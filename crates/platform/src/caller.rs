//! Who calls: from the gateway's signed assertion and the host, never from a plain field.

use crate::{
    ApiError, App,
    permissions::{BUILT_IN, Held, Permission, of_role},
};
use axum::extract::FromRequestParts;
use bastide_identity::verify_assertion;
use bastide_store::{CustomerRow, CustomerStore, NewEntry, StepUpRule, StoreError, Write, now_s};
use bastide_types::{
    Code, CustomerName, HeldRole, Site, StageName, UserId,
    assertion::{Assertion, PLATFORM_AUDIENCE},
    header,
};
use http::{HeaderMap, StatusCode, request::Parts};

/// Somebody signed in at the customer whose host was asked.
#[derive(Clone)]
pub struct Caller {
    /// The customer.
    pub customer: CustomerRow,
    /// What the gateway says.
    pub who: Assertion,
    /// What the caller's roles hold now.
    pub held: Held,
    /// What the operation under way needs.
    permission: Option<Permission>,
}

impl Caller {
    /// Who sends a request with these fields.
    ///
    /// # Errors
    /// [`Code::NotSignedIn`] for the anonymous, and for whoever is signed in at another customer.
    pub async fn of(headers: &HeaderMap, app: &App) -> Result<Self, ApiError> {
        let refuse = || ApiError::new(Code::NotSignedIn);
        let token =
            headers.get(header::ASSERTION).and_then(|value| value.to_str().ok()).ok_or_else(refuse)?;
        let now = u64::try_from(bastide_store::now_s()).unwrap_or_default();
        let who =
            verify_assertion(token, &app.assertion_keys, PLATFORM_AUDIENCE, now).map_err(|_| refuse())?;
        let customer = customer_asked(headers, app).await?;
        if who.org != customer.id {
            return Err(refuse());
        }
        let built_in = who.roles.iter().all(|role| BUILT_IN.contains(&HeldRole::read(role).role));
        let own = if built_in { Vec::new() } else { app.store.customer(customer.id).roles().await? };
        let held = Held::of(&who.roles, &customer.name, &own);
        Ok(Self { customer, who, held, permission: None })
    }

    /// Whether the caller holds this permission everywhere.
    pub fn may(&self, permission: Permission) -> bool {
        self.held.has(permission)
    }

    /// Begins an operation that needs this permission: everywhere, or when it is about stages, in some stage.
    ///
    /// # Errors
    /// As [`Caller::demand`].
    pub fn begin(&mut self, permission: Permission, is_about_stages: bool) -> Result<(), ApiError> {
        self.permission = Some(permission);
        if is_about_stages && self.held.has_somewhere(permission) {
            return Ok(());
        }
        self.demand(permission)
    }

    /// Whether the caller may do in a stage what the operation under way does: what lists leave out.
    pub fn sees(&self, stage: &StageName) -> bool {
        self.permission.is_some_and(|permission| self.held.has_in(permission, stage))
    }

    /// Refuses to do in a stage what the operation under way does.
    ///
    /// # Errors
    /// [`Code::Forbidden`].
    pub fn demand_in(&self, stage: &StageName) -> Result<(), ApiError> {
        if self.sees(stage) { Ok(()) } else { Err(not_in(stage.as_str())) }
    }

    /// As [`Caller::demand_in`], by a name that may be no stage's: then only who may do it everywhere hears so.
    ///
    /// # Errors
    /// [`Code::Forbidden`].
    pub fn demand_in_named(&self, name: &str) -> Result<(), ApiError> {
        match StageName::new(name) {
            Ok(stage) => self.demand_in(&stage),
            Err(_) => self.demand_everywhere(),
        }
    }

    /// Refuses what the operation under way does to whoever may do it in single stages only.
    ///
    /// # Errors
    /// [`Code::Forbidden`].
    pub fn demand_everywhere(&self) -> Result<(), ApiError> {
        match self.permission {
            Some(permission) => self.demand(permission),
            None => Err(ApiError::new(Code::Forbidden)),
        }
    }

    /// Refuses callers who do not hold another permission in a stage than that of the operation under way.
    ///
    /// # Errors
    /// [`Code::Forbidden`].
    pub fn demand_also(&self, permission: Permission, stage: &StageName) -> Result<(), ApiError> {
        if self.held.has_in(permission, stage) { Ok(()) } else { Err(not_in(stage.as_str())) }
    }

    /// Refuses callers who do not hold this permission everywhere.
    ///
    /// # Errors
    /// [`Code::Forbidden`]; what only the operator organization may do does not exist for others.
    pub fn demand(&self, permission: Permission) -> Result<(), ApiError> {
        if self.may(permission) {
            return Ok(());
        }
        let hidden = permission.is_office() && !self.customer.name.is_operator();
        Err(ApiError::new(if hidden { Code::ApiUnknown } else { Code::Forbidden }))
    }

    /// Refuses members whose sign-in is less than the organization demands for this permission: everywhere, or in
    /// this stage. Clients have no other sign-in; what they may do was decided when they were registered.
    ///
    /// # Errors
    /// [`Code::StepUpNeeded`].
    pub async fn demand_sign_in(
        &self,
        app: &App,
        permission: Permission,
        stage: Option<&StageName>,
    ) -> Result<(), ApiError> {
        if self.who.sub.parse::<UserId>().is_err() {
            return Ok(());
        }
        let now = now_s().unsigned_abs();
        let policy = self.store(app).sign_in_policy().await?;
        let here =
            |rule: &&StepUpRule| rule.permission == permission.as_str() && rule.stage.as_ref() == stage;
        let unmet = |rule: &&StepUpRule| !rule.demand.is_met(self.who.acr, self.who.auth_time, now);
        match policy.step_up.iter().filter(here).find(unmet) {
            Some(rule) => Err(ApiError::step_up(rule.demand)),
            None => Ok(()),
        }
    }

    /// Refuses to touch whoever has roles that hold more than the caller: nobody makes anybody mightier than oneself,
    /// or puts the mightier out. Within the transaction of the change, so that no role changes meanwhile.
    ///
    /// # Errors
    /// [`Code::Forbidden`].
    pub async fn demand_reach(&self, app: &App, write: &mut Write, roles: &[String]) -> Result<(), ApiError> {
        let own = self.store(app).roles_in(write).await?;
        if self.held.covers(&Held::of(roles, &self.customer.name, &own)) {
            return Ok(());
        }
        Err(ApiError::because(Code::Forbidden, "these roles hold more than your own"))
    }

    /// Refuses to give roles that there are not, for stages that there are not, or that hold more than the caller.
    ///
    /// # Errors
    /// [`Code::InputInvalid`] with the roles and stages that there are; [`Code::Forbidden`].
    pub async fn demand_to_give(
        &self,
        app: &App,
        write: &mut Write,
        roles: &[String],
    ) -> Result<(), ApiError> {
        let own = self.store(app).roles_in(write).await?;
        let held: Vec<_> = roles.iter().map(|role| HeldRole::read(role)).collect();
        if held.iter().any(|held| of_role(held.role, &self.customer.name, &own).is_none()) {
            let built_in = ["administrator", "developer"].into_iter();
            let known: Vec<_> = built_in.chain(own.iter().map(|row| row.name.as_str())).collect();
            return Err(ApiError::because(Code::InputInvalid, format!("roles: {}", known.join(", "))));
        }
        if held.iter().any(|held| held.stage.is_some()) {
            let stages = self.store(app).stage_names().await?;
            let is_there = |name: &str| stages.iter().any(|stage| stage.as_str() == name);
            if !held.iter().filter_map(|held| held.stage).all(is_there) {
                let known: Vec<_> = stages.iter().map(|stage| format!("ROLE@{stage}")).collect();
                return Err(ApiError::because(
                    Code::InputInvalid,
                    format!("roles: ROLE, {}", known.join(", ")),
                ));
            }
        }
        self.demand_reach(app, write, roles).await
    }

    /// The caller's part of the store.
    pub fn store<'s>(&self, app: &'s App) -> CustomerStore<'s> {
        app.store.customer(self.customer.id)
    }

    /// Writes into the audit trail what was there before and what is there now, in the transaction of the change.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn note_change<T: serde::Serialize>(
        &self,
        own: &CustomerStore<'_>,
        write: &mut Write,
        (what, detail): (&str, &str),
        old: Option<&T>,
        new: Option<&T>,
    ) -> Result<(), ApiError> {
        let text = |value: Option<&T>| value.map(serde_json::to_string).transpose();
        let (old, new) = (text(old), text(new));
        let (old, new) = (
            old.map_err(|error| ApiError::internal(&error))?,
            new.map_err(|error| ApiError::internal(&error))?,
        );
        let entry = NewEntry {
            who: &self.who.sub,
            what,
            detail,
            refused: None,
            old: old.as_deref(),
            new: new.as_deref(),
        };
        Ok(own.audit_entry(write, &entry).await?)
    }

    /// Ends a change: writes the audit entry in the same transaction, and answers that it is done.
    ///
    /// # Errors
    /// When the store fails; then nothing of the change is there.
    pub async fn done(
        &self,
        app: &App,
        mut write: Write,
        what: &str,
        detail: &str,
    ) -> Result<StatusCode, ApiError> {
        self.store(app).audit(&mut write, &self.who.sub, what, detail).await?;
        write.commit().await.map_err(StoreError::from)?;
        Ok(StatusCode::NO_CONTENT)
    }

    /// Ends a change of something that was there: as [`Caller::note_change`] and [`Caller::done`].
    ///
    /// # Errors
    /// When the store fails; then nothing of the change is there.
    pub async fn changed<T: serde::Serialize>(
        &self,
        app: &App,
        mut write: Write,
        what: (&str, &str),
        old: Option<&T>,
        new: Option<&T>,
    ) -> Result<StatusCode, ApiError> {
        self.note_change(&self.store(app), &mut write, what, old, new).await?;
        write.commit().await.map_err(StoreError::from)?;
        Ok(StatusCode::NO_CONTENT)
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    /// The caller whom the guard let through.
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        parts.extensions.remove().ok_or_else(|| ApiError::new(Code::NotSignedIn))
    }
}

fn not_in(stage: &str) -> ApiError {
    let stage: String = stage.chars().filter(|c| !c.is_control()).take(80).collect();
    ApiError::because(Code::Forbidden, format!("your roles do not allow this in {stage}"))
}

async fn customer_asked(headers: &HeaderMap, app: &App) -> Result<CustomerRow, ApiError> {
    let name = customer_name(headers, app).ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
    app.store.customer_named(&name).await?.ok_or_else(|| ApiError::new(Code::ApiUnknown))
}

fn customer_name(headers: &HeaderMap, app: &App) -> Option<CustomerName> {
    let host = headers.get(http::header::HOST)?.to_str().ok()?;
    let host = host.split(':').next()?.to_ascii_lowercase();
    match app.config.domains.site(&host)? {
        Site::Platform(customer) => Some(customer),
        Site::Runtime(..) => None,
    }
}
