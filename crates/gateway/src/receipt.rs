//! The line of the access log: what happened to one request, for the operator.

use crate::site::Target;
use bastide_identity::Decision;
use bastide_types::{ReplicaId, RequestId, ZoneName};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What is known of a request so far. Never its path, query, cookies or tokens: they may hold secrets.
#[derive(Default)]
pub(crate) struct Receipt(Mutex<Line>);

#[derive(Default)]
struct Line {
    customer: Option<String>,
    stage: Option<String>,
    app: Option<String>,
    replica: Option<String>,
    zone: Option<String>,
    subject: Option<String>,
    decision: Option<&'static str>,
}

impl Receipt {
    pub(crate) fn at(&self, target: &Target<'_>) {
        let mut line = self.line();
        match target {
            Target::AddSlash => {}
            Target::Own { customer_name, .. } | Target::Platform { customer_name, .. } => {
                line.customer = Some(customer_name.to_string());
            }
            Target::App(app) => {
                line.customer = Some(app.customer_name.to_string());
                line.stage = Some(app.stage_name.to_string());
                line.app = Some(app.app_name.to_string());
            }
        }
    }

    pub(crate) fn asked_by(&self, subject: Option<&str>) {
        self.line().subject = subject.map(str::to_owned);
    }

    pub(crate) fn token_refused(&self) {
        self.line().decision = Some("token-refused");
    }

    pub(crate) fn decided(&self, decision: Decision) {
        self.line().decision = Some(match decision {
            Decision::Pass => "pass",
            Decision::SignIn => "sign-in",
            Decision::Forbid => "forbid",
        });
    }

    pub(crate) fn answered_by(&self, replica: &ReplicaId, zone: &ZoneName) {
        let mut line = self.line();
        line.replica = Some(replica.to_string());
        line.zone = Some(zone.to_string());
    }

    /// Writes the line.
    pub(crate) fn log(&self, request: RequestId, status: u16, took: Duration) {
        let line = self.line();
        tracing::info!(
            target: "access",
            %request,
            customer = line.customer,
            stage = line.stage,
            app = line.app,
            replica = line.replica,
            zone = line.zone,
            subject = line.subject,
            decision = line.decision,
            status,
            ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        );
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
