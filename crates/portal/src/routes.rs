//! The pages.

use crate::{
    ask::Api,
    page::{page, problem},
    view::{App, Begun, Created, Customer, Invited, Member, Operation, Who},
};
use askama::Template;
use axum::{
    Form,
    extract::{Path, State, rejection::FormRejection},
    response::{IntoResponse, Redirect, Response},
};
use bastide_types::{AppName, Code, Problem, StageName};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;

#[derive(Template)]
#[template(path = "home.html")]
struct Home<'a> {
    who: Option<&'a Who>,
    apps: Vec<App>,
}

#[derive(Template)]
#[template(path = "app.html")]
struct AppPage<'a> {
    who: Option<&'a Who>,
    app: App,
    deploys: bool,
}

#[derive(Template)]
#[template(path = "operation.html")]
struct OperationPage<'a> {
    who: Option<&'a Who>,
    operation: Operation,
}

#[derive(Template)]
#[template(path = "members.html")]
struct MembersPage<'a> {
    who: Option<&'a Who>,
    members: Vec<Member>,
    invites: bool,
    link: Option<String>,
    problem: Option<Problem>,
}

#[derive(Template)]
#[template(path = "customers.html")]
struct CustomersPage<'a> {
    who: Option<&'a Who>,
    customers: Vec<Customer>,
    created: Option<Created>,
    problem: Option<Problem>,
}

/// A form of a new member.
#[derive(Deserialize)]
pub struct NewMember {
    email: String,
    #[serde(default)]
    name: String,
    role: String,
}

/// A form of a promotion.
#[derive(Deserialize)]
pub struct Promotion {
    stage: String,
}

/// A form of a new customer.
#[derive(Deserialize)]
pub struct NewCustomer {
    name: String,
    administrator_email: String,
}

type Answer = Result<Response, Response>;

/// The first page: apps, or customers for operators.
pub async fn home(State(api): State<Api>, headers: HeaderMap) -> Answer {
    let who = ask_who(&api, &headers).await?;
    if who.is_operator() {
        return customers(&api, &headers, &who, None, None).await;
    }
    let apps = api.get(&headers, "/apps").await.map_err(|p| problem(Some(&who), &p))?;
    Ok(page(StatusCode::OK, &Home { who: Some(&who), apps }))
}

/// One app.
pub async fn app(State(api): State<Api>, headers: HeaderMap, Path(name): Path<String>) -> Answer {
    let who = ask_who(&api, &headers).await?;
    let name = app_name(&who, name)?;
    let app: App = api.get(&headers, &format!("/apps/{name}")).await.map_err(|p| problem(Some(&who), &p))?;
    Ok(page(StatusCode::OK, &AppPage { deploys: who.may_deploy(), who: Some(&who), app }))
}

/// Promotes, then shows the operation.
pub async fn promote(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(name): Path<String>,
    form: Result<Form<Promotion>, FormRejection>,
) -> Answer {
    let who = ask_who(&api, &headers).await?;
    let name = app_name(&who, name)?;
    let Form(form) = form.map_err(|error| invalid(&who, &error.body_text()))?;
    let stage = StageName::new(form.stage).map_err(|error| invalid(&who, &error.to_string()))?;
    let path = format!("/apps/{name}/deployments");
    let begun: Begun =
        api.post(&headers, &path, &json!({ "stage": stage })).await.map_err(|p| problem(Some(&who), &p))?;
    let operation = id(&who, &begun.operation)?;
    Ok(Redirect::to(&format!("/portal/operations/{operation}")).into_response())
}

/// One operation.
pub async fn operation(State(api): State<Api>, headers: HeaderMap, Path(text): Path<String>) -> Answer {
    let who = ask_who(&api, &headers).await?;
    let path = format!("/operations/{}", id(&who, &text)?);
    let operation: Operation = api.get(&headers, &path).await.map_err(|p| problem(Some(&who), &p))?;
    let is_running = operation.status == "running";
    let mut response = page(StatusCode::OK, &OperationPage { who: Some(&who), operation });
    if is_running {
        // The page looks again by itself, without script.
        response.headers_mut().insert("refresh", http::HeaderValue::from_static("2"));
    }
    Ok(response)
}

/// Members.
pub async fn members(State(api): State<Api>, headers: HeaderMap) -> Answer {
    let who = ask_who(&api, &headers).await?;
    members_page(&api, &headers, &who, None, None).await
}

/// Invites, then shows the link.
pub async fn invite(
    State(api): State<Api>,
    headers: HeaderMap,
    form: Result<Form<NewMember>, FormRejection>,
) -> Answer {
    let who = ask_who(&api, &headers).await?;
    let Form(form) = form.map_err(|error| invalid(&who, &error.body_text()))?;
    let mut body = json!({ "email": form.email, "roles": [form.role] });
    if !form.name.trim().is_empty() {
        body["name"] = form.name.trim().into();
    }
    match api.post::<Invited>(&headers, "/members", &body).await {
        Ok(invited) => members_page(&api, &headers, &who, Some(invited.link), None).await,
        Err(refused) => members_page(&api, &headers, &who, None, Some(refused)).await,
    }
}

/// Creates a customer, then shows its link and client once.
pub async fn create_customer(
    State(api): State<Api>,
    headers: HeaderMap,
    form: Result<Form<NewCustomer>, FormRejection>,
) -> Answer {
    let who = ask_who(&api, &headers).await?;
    let Form(form) = form.map_err(|error| invalid(&who, &error.body_text()))?;
    let body = json!({ "name": form.name, "administrator_email": form.administrator_email });
    match api.post::<Created>(&headers, "/customers", &body).await {
        Ok(created) => customers(&api, &headers, &who, Some(created), None).await,
        Err(refused) => customers(&api, &headers, &who, None, Some(refused)).await,
    }
}

async fn members_page(
    api: &Api,
    headers: &HeaderMap,
    who: &Who,
    link: Option<String>,
    refused: Option<Problem>,
) -> Answer {
    let members = api.get(headers, "/members").await.map_err(|p| problem(Some(who), &p))?;
    let status = status_of(refused.as_ref());
    let invites = who.may_invite();
    Ok(page(status, &MembersPage { who: Some(who), members, invites, link, problem: refused }))
}

async fn customers(
    api: &Api,
    headers: &HeaderMap,
    who: &Who,
    created: Option<Created>,
    refused: Option<Problem>,
) -> Answer {
    let customers = api.get(headers, "/customers").await.map_err(|p| problem(Some(who), &p))?;
    let status = status_of(refused.as_ref());
    Ok(page(status, &CustomersPage { who: Some(who), customers, created, problem: refused }))
}

async fn ask_who(api: &Api, headers: &HeaderMap) -> Result<Who, Response> {
    api.get(headers, "/whoami").await.map_err(|refused| problem(None, &refused))
}

fn app_name(who: &Who, text: String) -> Result<AppName, Response> {
    AppName::new(text).map_err(|_| problem(Some(who), &Code::ApiUnknown.problem()))
}

/// An id, as far as it may stand in a path: letters, digits, hyphens.
fn id<'t>(who: &Who, text: &'t str) -> Result<&'t str, Response> {
    let plain =
        (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if plain { Ok(text) } else { Err(problem(Some(who), &Code::ApiUnknown.problem())) }
}

fn invalid(who: &Who, because: &str) -> Response {
    problem(Some(who), &Code::InputInvalid.because(because))
}

fn status_of(problem: Option<&Problem>) -> StatusCode {
    problem.map_or(StatusCode::OK, |problem| {
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    })
}
