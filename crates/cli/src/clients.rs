//! Clients of the Identity Service: other people's programs that sign your users in, or act for themselves.

use crate::{
    Context,
    org::{roles_in, show, table},
    session::Session,
};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use std::fs;

/// `bastide client …`
#[derive(Debug, Clone, Subcommand)]
pub enum ClientCommand {
    /// List clients
    List,
    /// Show a client
    Show {
        /// Id of the client
        id: String,
    },
    /// Register a client; prints its secret, once
    Create(CreateArgs),
    /// Remove a client and end its sessions
    Delete {
        /// Id of the client
        id: String,
    },
    /// Suspend a client, which ends its sessions
    Suspend {
        /// Id of the client
        id: String,
    },
    /// Let a suspended client work again
    Resume {
        /// Id of the client
        id: String,
    },
    /// Secrets of a client
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Public keys of a client
    #[command(subcommand)]
    Key(KeyCommand),
}

/// Arguments of `client create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// Id of the client: a-z, 0-9, `-`, `_`
    #[arg(long)]
    pub id: String,
    /// public (no secret), confidential (a server with users), service (acts for itself), device
    #[arg(long, value_parser = ["public", "confidential", "service", "device"])]
    pub kind: String,
    /// Name to show
    #[arg(long)]
    pub name: Option<String>,
    /// Where answers may go, exactly; on 127.0.0.1 and [::1] the port is free. May be repeated
    #[arg(long = "redirect-uri", value_name = "URI")]
    pub redirect_uris: Vec<String>,
    /// Where browsers may go after sign-out, exactly. May be repeated
    #[arg(long = "post-logout-redirect-uri", value_name = "URI")]
    pub post_logout_redirect_uris: Vec<String>,
    /// Where the client hears that a session of its users has ended (back-channel logout)
    #[arg(long, value_name = "URI")]
    pub backchannel_logout_uri: Option<String>,
    /// Organization role of a service; for others the most that a member's token carries. May be repeated
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// Stage in which these roles count; without one, in all. May be repeated
    #[arg(long = "stage", value_name = "STAGE")]
    pub stages: Vec<String>,
    /// File with public keys (JWK, or JWKS), by which the client proves itself instead of by a secret; `-`: the input
    #[arg(long, value_name = "FILE")]
    pub keys: Option<String>,
}

/// `bastide client secret …`
#[derive(Debug, Clone, Subcommand)]
pub enum SecretCommand {
    /// Make another secret and print it, once; two may overlap
    Add {
        /// Id of the client
        id: String,
        /// Days until it ends [default: it does not]
        #[arg(long)]
        days: Option<u32>,
    },
    /// Take a secret away
    Revoke {
        /// Id of the client
        id: String,
        /// Id of the secret, as `client show` lists it
        secret: String,
    },
}

/// `bastide client key …`
#[derive(Debug, Clone, Subcommand)]
pub enum KeyCommand {
    /// List public keys
    List {
        /// Id of the client
        id: String,
    },
    /// Give a client public keys, by which it proves itself (`private_key_jwt`)
    Add {
        /// Id of the client
        id: String,
        /// File with a public key (JWK), or several (JWKS); `-`: the input
        file: String,
    },
    /// Take a public key away
    Remove {
        /// Id of the client
        id: String,
        /// Id of the key
        kid: String,
    },
}

/// Clients.
pub async fn client(context: &Context, command: ClientCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    match command {
        ClientCommand::List => {
            let clients = session.get("/clients").await?;
            table(context, &clients, &["id", "kind", "name", "suspended"])
        }
        ClientCommand::Show { id } => {
            let client = session.get(&address(&id)).await?;
            if context.json {
                println!("{client}");
                return Ok(());
            }
            let keys = [
                "id",
                "name",
                "kind",
                "redirect_uris",
                "post_logout_redirect_uris",
                "backchannel_logout_uri",
                "roles",
                "suspended",
            ];
            show(context, &client, &keys)?;
            for secret in client["secrets"].as_array().into_iter().flatten() {
                println!("secret: {}", secret["id"].as_str().unwrap_or_default());
            }
            for key in client["keys"].as_array().into_iter().flatten() {
                println!("key: {}", key["kid"].as_str().unwrap_or_default());
            }
            Ok(())
        }
        ClientCommand::Create(args) => create(context, &session, args).await,
        ClientCommand::Delete { id } => act(&session, Method::DELETE, &address(&id), None).await,
        ClientCommand::Suspend { id } => suspend(&session, &id, true).await,
        ClientCommand::Resume { id } => suspend(&session, &id, false).await,
        ClientCommand::Secret(SecretCommand::Add { id, days }) => {
            let path = format!("{}/secrets", address(&id));
            let added = session.send(Method::POST, &path, &json!({ "days": days })).await?;
            show(context, &added, &["id", "secret"])
        }
        ClientCommand::Secret(SecretCommand::Revoke { id, secret }) => {
            let path = format!("{}/secrets/{}", address(&id), segment(&secret));
            act(&session, Method::DELETE, &path, None).await
        }
        ClientCommand::Key(command) => key(context, &session, command).await,
    }
}

async fn key(context: &Context, session: &Session, command: KeyCommand) -> Result<()> {
    let shown = match command {
        KeyCommand::List { id } => session.get(&format!("{}/keys", address(&id))).await?,
        KeyCommand::Add { id, file } => {
            session.send(Method::POST, &format!("{}/keys", address(&id)), &keys_in(&file)?).await?
        }
        KeyCommand::Remove { id, kid } => {
            let path = format!("{}/keys/{}", address(&id), segment(&kid));
            return act(session, Method::DELETE, &path, None).await;
        }
    };
    table(context, &shown, &["kid", "alg", "since"])
}

/// Public keys in a file.
fn keys_in(file: &str) -> Result<Value> {
    let text = match file {
        "-" => std::io::read_to_string(std::io::stdin())?,
        path => fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?,
    };
    serde_json::from_str(&text).with_context(|| format!("{file}: not a JWK, nor a set of them"))
}

async fn create(context: &Context, session: &Session, args: CreateArgs) -> Result<()> {
    let mut body = json!({
        "id": args.id,
        "name": args.name,
        "kind": args.kind,
        "redirect_uris": args.redirect_uris,
        "post_logout_redirect_uris": args.post_logout_redirect_uris,
        "backchannel_logout_uri": args.backchannel_logout_uri,
        "roles": roles_in(&args.roles, &args.stages),
    });
    // Platforms of before know no keys, and refuse what they do not know.
    if let Some(file) = args.keys.as_deref() {
        body["keys"] = keys_in(file)?;
    }
    let created = session.send(Method::POST, "/clients", &body).await?;
    let keys: &[&str] = if created["secret"].is_string() { &["id", "secret"] } else { &["id"] };
    show(context, &created, keys)
}

async fn suspend(session: &Session, id: &str, suspended: bool) -> Result<()> {
    let path = format!("{}/suspension", address(id));
    act(session, Method::PUT, &path, Some(json!({ "suspended": suspended }))).await
}

async fn act(session: &Session, method: Method, path: &str, body: Option<Value>) -> Result<()> {
    let kind = body.as_ref().map(|_| "application/json");
    let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
    session.call(method, path, kind, body).await?.good().map(drop)
}

fn address(id: &str) -> String {
    format!("/clients/{}", segment(id))
}

fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
