//! The command line over the HTTPS API: what a developer or an operator types.
//!
//! It uses nothing but the public API and the Identity Service's public endpoints; there is no back
//! door. It reads no environment besides what clap declares; the executable hands in where the local CA
//! and the credentials live.

mod audit;
mod ban;
mod cache;
mod clients;
mod credentials;
mod domain;
pub mod exit;
mod form;
mod http;
mod idps;
mod init;
mod keys;
mod lifecycle;
mod login;
mod network;
mod oauth;
mod org;
mod organization;
mod pack;
mod publish;
mod scale;
mod services;
mod session;
mod sessions;
mod settings;
mod sign_in;
mod site;
mod status;
mod users;
pub mod waf;

use anyhow::Result;
use clap::{Args, Subcommand};
use std::path::PathBuf;

pub use crate::http::{Answer, Client, request};
pub use crate::oauth::client_token;
pub use crate::pack::pack;

/// What every command knows.
#[derive(Debug, Clone)]
pub struct Context {
    /// PEM file of the CA to trust.
    pub ca: PathBuf,
    /// Directory of the credentials file.
    pub config_dir: PathBuf,
    /// Address of the customer's Platform; the one of the last login when missing.
    pub server: Option<String>,
    /// Print JSON instead of text for people.
    pub json: bool,
}

/// Options of every command that talks to a Platform.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Address of your Platform, such as https://demo.platform.localhost:8443 [default: that of the last login]
    #[arg(long, global = true, env = "BASTIDE_SERVER")]
    pub server: Option<String>,
    /// CA to trust, as a PEM file [default: the local CA of this machine]
    #[arg(long, global = true, env = "BASTIDE_CA")]
    pub ca: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Sign in to a Platform
    Login(login::LoginArgs),
    /// Sign out and forget the credentials
    Logout,
    /// Show who is signed in
    Whoami,
    /// Print an access token
    Token(login::TokenArgs),
    /// Write a bastide.toml for what is in a directory
    Init(init::InitArgs),
    /// Publish a directory: build it once and deploy it to the first stage
    Publish(publish::PublishArgs),
    /// Run the revision of one stage in the next, the same image
    Promote(publish::PromoteArgs),
    /// Go back to a revision that served before: image, configuration, routes, access rules and policy
    Rollback(lifecycle::RollbackArgs),
    /// Take an app out of a stage; its revisions and data stay
    Undeploy(lifecycle::UndeployArgs),
    /// List the revisions of an app
    Revisions(lifecycle::RevisionsArgs),
    /// Show what is different between two revisions or stages
    Diff(lifecycle::DiffArgs),
    /// List publishes, promotes and whatever else changed apps
    Operations(lifecycle::OperationsArgs),
    /// Show or set how many replicas an app has in a stage
    Scale(scale::ScaleArgs),
    /// Show your apps, or one app with its replicas
    Status(status::StatusArgs),
    /// Members of your organization
    #[command(subcommand)]
    Member(org::MemberCommand),
    /// Roles of your organization and of its apps
    #[command(subcommand)]
    Role(org::RoleCommand),
    /// End users of a stage
    #[command(subcommand)]
    User(users::UserCommand),
    /// Groups of a stage's end users
    #[command(subcommand)]
    Group(users::GroupCommand),
    /// Providers of identity outside, by which your users sign in
    #[command(subcommand)]
    Idp(idps::IdpCommand),
    /// Where the apps of a stage may call to
    #[command(subcommand)]
    Egress(network::EgressCommand),
    /// Which apps of a stage may call which
    #[command(subcommand)]
    Grant(network::GrantCommand),
    /// What an app has besides its replicas, such as a database
    #[command(subcommand)]
    Services(services::ServicesCommand),
    /// Settings of an app in a stage, told to its replicas as environment variables
    #[command(subcommand)]
    Settings(settings::SettingsCommand),
    /// Secrets of an app in a stage: as settings, and shown to nobody
    #[command(subcommand)]
    Secret(settings::SecretCommand),
    /// What the edges store of apps
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Hosts of your own for the apps of a stage
    #[command(subcommand)]
    Domain(domain::DomainCommand),
    /// Where you are signed in, and how long sessions last
    #[command(subcommand)]
    Session(sessions::SessionCommand),
    /// What is demanded of your members' sign-ins
    #[command(subcommand)]
    SignIn(sign_in::SignInCommand),
    /// Programs that sign your users in, or act for themselves
    #[command(subcommand)]
    Client(clients::ClientCommand),
    /// Keys that sign your organization's tokens
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// How the hosts of a stage behave: error pages, maintenance, redirects, security fields
    #[command(subcommand)]
    Site(site::SiteCommand),
    /// Banned sources: everywhere (for operators), or at the hosts of your stages
    #[command(subcommand)]
    Ban(ban::BanCommand),
    /// Title and logo of your organization's sign-in pages
    #[command(subcommand)]
    Organization(organization::OrganizationCommand),
    /// Who did what, and whether that record is whole
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Customers (for operators)
    #[command(subcommand)]
    Customer(org::CustomerCommand),
    /// Explain an error code, such as B-WAF-0403
    Explain {
        /// The code
        code: String,
    },
}

/// Runs a command to its end.
pub async fn run(context: Context, command: Command) -> Result<()> {
    match command {
        Command::Login(args) => login::login(&context, args).await,
        Command::Logout => login::logout(&context).await,
        Command::Whoami => login::whoami(&context).await,
        Command::Token(args) => login::token(&context, args).await,
        Command::Init(args) => init::init(&context, &args),
        Command::Publish(args) => publish::publish(&context, args).await,
        Command::Promote(args) => publish::promote(&context, args).await,
        Command::Rollback(args) => lifecycle::rollback(&context, args).await,
        Command::Undeploy(args) => lifecycle::undeploy(&context, args).await,
        Command::Revisions(args) => lifecycle::revisions(&context, args).await,
        Command::Diff(args) => lifecycle::diff(&context, args).await,
        Command::Operations(args) => lifecycle::operations(&context, args).await,
        Command::Scale(args) => scale::scale(&context, args).await,
        Command::Status(args) => status::status(&context, args).await,
        Command::Member(command) => org::member(&context, command).await,
        Command::Role(command) => org::role(&context, command).await,
        Command::User(command) => users::user(&context, command).await,
        Command::Group(command) => users::group(&context, command).await,
        Command::Idp(command) => idps::idp(&context, command).await,
        Command::Egress(command) => network::egress(&context, command).await,
        Command::Grant(command) => network::grant(&context, command).await,
        Command::Services(command) => services::services(&context, command).await,
        Command::Settings(command) => settings::settings(&context, command).await,
        Command::Secret(command) => settings::secret(&context, command).await,
        Command::Cache(command) => cache::cache(&context, command).await,
        Command::Domain(command) => domain::domain(&context, command).await,
        Command::Session(command) => sessions::session(&context, command).await,
        Command::SignIn(command) => sign_in::sign_in(&context, command).await,
        Command::Client(command) => clients::client(&context, command).await,
        Command::Keys(command) => keys::keys(&context, command).await,
        Command::Site(command) => site::site(&context, command).await,
        Command::Ban(command) => ban::ban(&context, command).await,
        Command::Organization(command) => organization::organization(&context, command).await,
        Command::Audit(command) => audit::audit(&context, command).await,
        Command::Customer(command) => org::customer(&context, command).await,
        Command::Explain { code } => explain(&context, &code),
    }
}

/// Prints what a code means. Works offline.
fn explain(context: &Context, code: &str) -> Result<()> {
    use bastide_types::Code;
    let Some(found) = Code::from_text(code) else {
        let near: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        anyhow::bail!("there is no code {code}. These are the codes:\n  {}", near.join("\n  "));
    };
    if context.json {
        let (title, explanation) = (found.title(), found.explanation());
        println!(
            "{}",
            serde_json::json!({"code": found, "status": found.status(), "title": title, "explanation": explanation})
        );
    } else {
        println!(
            "{} (HTTP {})\n{}\n\n{}",
            found.as_str(),
            found.status(),
            found.title(),
            found.explanation()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_in_any_case_of_letters() {
        for json in [false, true] {
            let context = Context { ca: PathBuf::new(), config_dir: PathBuf::new(), server: None, json };
            for code in bastide_types::Code::ALL {
                explain(&context, code.as_str()).unwrap();
                explain(&context, &code.as_str().to_lowercase()).unwrap();
            }
            let error = explain(&context, "none").unwrap_err().to_string();
            assert!(error.contains("B-EDGE-0404"), "{error}");
        }
    }
}
