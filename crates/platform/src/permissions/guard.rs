//! The one place where the API decides whether somebody may do something: before every handler.

use super::{
    operation::{Need, is_about_stages, need},
    refusals,
};
use crate::{
    ApiError, App,
    caller::Caller,
    wire::{self, Gate},
};
use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bastide_store::now_s;
use bastide_types::{API, Code};
use http::{HeaderValue, Method, header};

/// Lets a request through to its handler when its caller holds the permission of the operation. Handlers get the
/// caller from here and from nowhere else, so that none runs unguarded.
pub(crate) async fn guard(
    State(gate): State<Gate>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let app = &gate.app;
    let mut caller = Caller::of(&parts.headers, app).await?;
    let operation = path.as_str().strip_prefix(API).unwrap_or_default();
    let (method, asked) = (parts.method.clone(), parts.uri.path().to_owned());
    let response = match admit(app, &mut caller, &method, (operation, &asked)).await {
        Ok(None) => {
            parts.extensions.insert(caller.clone());
            serve(&gate, &caller, operation, Request::from_parts(parts, body), next)
                .await
                .unwrap_or_else(IntoResponse::into_response)
        }
        Ok(Some(other)) => other,
        Err(error) => error.into_response(),
    };
    if let Some(code) = refusals::worth_an_entry(&method, &response) {
        refusals::note(app, &caller, (&method, operation, &asked), &code).await;
    }
    Ok(response)
}

/// Lets a caller through, refuses, or names the methods that there are.
async fn admit(
    app: &App,
    caller: &mut Caller,
    method: &Method,
    (operation, asked): (&str, &str),
) -> Result<Option<Response>, ApiError> {
    match need(method, operation) {
        Need::Permission(permission) => {
            caller.begin(permission, is_about_stages(method, operation))?;
            if let Some(stage) = stage_in(operation, asked) {
                caller.demand_in_named(stage)?;
            }
            caller.demand_sign_in(app, permission, None).await?;
            Ok(None)
        }
        Need::Method(known) => Ok(Some(other_method(&known))),
        Need::Line => {
            tracing::error!(%method, operation, "an operation needs no permission yet");
            Err(ApiError::new(Code::Forbidden))
        }
    }
}

/// The stage that a path names, at the place where the router's path says so. The router may have taken the beginning of the
/// API's paths away.
fn stage_in<'p>(operation: &str, asked: &'p str) -> Option<&'p str> {
    let place = operation.split('/').position(|segment| segment == "{stage}")?;
    asked.strip_prefix(API).unwrap_or(asked).split('/').nth(place).or(Some(""))
}

/// Serves an operation to somebody who may have it, as all are on the wire.
async fn serve(
    gate: &Gate,
    caller: &Caller,
    operation: &str,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    if request.extensions().get::<Counted>().is_some() {
        let (pace, limits) = (&gate.app.pace, &gate.app.config.api_limits);
        pace.take(limits, caller.customer.id, method.as_str(), operation, now_s())?;
    }
    gate.know(method.as_str(), operation, request.uri().query())?;
    if method == Method::GET {
        wire::read(operation, request, next).await
    } else {
        wire::write(gate, operation, caller, request, next).await
    }
}

/// Marks a request that came over the network; what pages of the Portal ask is not counted.
#[derive(Clone, Copy)]
pub(crate) struct Counted;

/// Marks each request.
pub(crate) async fn counted(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Counted);
    next.run(request).await
}

/// RFC 9110 §15.5.6: with the methods that there are.
fn other_method(known: &[Method]) -> Response {
    let known: Vec<_> = known.iter().map(Method::as_str).collect();
    let mut response = ApiError::new(Code::MethodNotAllowed).into_response();
    if let Ok(allow) = HeaderValue::from_str(&known.join(", ")) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::stage_in;

    #[test]
    fn the_stage_of_a_path_is_where_the_router_finds_it() {
        let check = |operation: &str, path: &str, stage: Option<&str>| {
            assert_eq!(stage_in(operation, &format!("/api/v1{path}")), stage, "{path}");
            assert_eq!(stage_in(operation, path), stage, "{path}");
        };
        check("/apps/{app}", "/apps/development", None);
        check("/stages/{stage}/site", "/stages/test/site", Some("test"));
        check(
            "/apps/{app}/roles/{stage}/{role}/{member}",
            "/apps/test/roles/development/test/test",
            Some("development"),
        );
        // What is not a plain name is the name of no stage.
        check("/stages/{stage}/site", "/stages/t%65st/site", Some("t%65st"));
        assert_eq!(stage_in("/stages/{stage}/site", "/elsewhere"), Some(""));
    }
}
