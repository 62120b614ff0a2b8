//! First-run material: authorities, certificates, keys and the broker's accounts.
//!
//! Every step makes only what is missing, so a start that was cut off is finished by the next one.

use crate::{files, layout::Layout, ports::Ports};
use anyhow::{Context, Result};
use bastide_bus::{
    SigningKey,
    bootstrap::{Authority, Issuers, Server},
};
use bastide_tls::{Issued, LocalCa};
use bastide_types::{Domains, Role, ZoneName};
use std::{fs, path::Path};
use time::{Duration, OffsetDateTime};

/// A certificate with less life than this is issued anew at the next start.
const RENEW_BELOW: Duration = Duration::days(30);

/// A process with a certificate of the internal CA.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Role in its certificate.
    pub role: Role,
    /// Name of the process, unique on this machine.
    pub name: &'static str,
}

/// The processes of one machine.
pub const MEMBERS: [Member; 7] = [
    Member { role: Role::Bus, name: "nats" },
    Member { role: Role::Edge, name: "edge" },
    Member { role: Role::Gateway, name: "gateway-a" },
    Member { role: Role::Gateway, name: "gateway-b" },
    Member { role: Role::Platform, name: "platform-1" },
    Member { role: Role::Platform, name: "platform-2" },
    Member { role: Role::Runtime, name: "runtime" },
];

/// The zones of one machine: failure domains, each with a gateway of its own.
pub fn zones() -> [ZoneName; 2] {
    ["a", "b"].map(|zone| ZoneName::new(zone).expect("a letter is a zone name"))
}

/// Makes what is missing.
pub fn prepare(layout: &Layout, ports: &Ports, domains: &Domains, now: OffsetDateTime) -> Result<()> {
    for dir in [layout.run(), layout.logs(), layout.platform(), layout.runtime(), layout.nats()] {
        files::private_dir(&dir)?;
    }
    site_certificates(layout, domains, now).context("cannot make certificates for sites")?;
    role_certificates(layout, now).context("cannot make certificates for roles")?;
    keys(layout).context("cannot make keys")?;
    broker(layout, ports, now).context("cannot prepare the broker")
}

/// Names of the certificate for Platform hosts and of the one for Runtime hosts.
pub fn site_names(domains: &Domains) -> [(&'static str, Vec<String>); 2] {
    [
        ("platform-site", vec![format!("*.{}", domains.platform)]),
        ("runtime-site", vec![format!("*.{}", domains.runtime)]),
    ]
}

/// Issues certificates for sites anew that end soon; the edge takes them without a restart.
pub fn site_certificates(layout: &Layout, domains: &Domains, now: OffsetDateTime) -> Result<()> {
    let (pem, key) = (layout.local_ca(), layout.local_ca_key());
    let bases = vec![domains.platform.clone(), domains.runtime.clone()];
    let authority = if pem.exists() && key.exists() {
        LocalCa::load(&pem, &key)?
    } else {
        let authority = LocalCa::create_public(&bases, now)?;
        files::private_dir(pem.parent().context("a file has a directory")?)?;
        authority.write(&pem, &key)?;
        authority
    };
    for (name, hosts) in site_names(domains) {
        renew(layout, name, now, || Ok(authority.issue_site(&hosts, now)?))?;
    }
    Ok(())
}

fn role_certificates(layout: &Layout, now: OffsetDateTime) -> Result<()> {
    let (pem, key) = (layout.internal_ca(), layout.internal_ca_key());
    let authority = if pem.exists() && key.exists() {
        LocalCa::load(&pem, &key)?
    } else {
        let authority = LocalCa::create_internal(now)?;
        authority.write(&pem, &key)?;
        authority
    };
    for Member { role, name } in MEMBERS {
        let hosts = if role == Role::Bus { vec!["127.0.0.1".to_owned()] } else { Vec::new() };
        renew(layout, name, now, || Ok(authority.issue_role(role, name, &hosts, now)?))?;
    }
    Ok(())
}

/// Issues a certificate unless the one that is there lives long enough.
fn renew(
    layout: &Layout,
    name: &str,
    now: OffsetDateTime,
    issue: impl FnOnce() -> Result<Issued>,
) -> Result<()> {
    let (certificate, key) = (layout.certificate(name), layout.certificate_key(name));
    let good = key.exists()
        && fs::read_to_string(&certificate)
            .ok()
            .and_then(|pem| bastide_tls::remaining(&pem, now).ok())
            .is_some_and(|left| left > RENEW_BELOW);
    if good {
        return Ok(());
    }
    files::private_dir(certificate.parent().context("a file has a directory")?)?;
    issue()?.write(&certificate, &key)?;
    Ok(())
}

fn keys(layout: &Layout) -> Result<()> {
    signing_key(&layout.snapshot_key(), &layout.snapshot_public())?;
    signing_key(&layout.deploy_key(), &layout.deploy_public())?;
    assertion_key(layout)?;
    sealing_key(layout)?;
    for path in [layout.kek(), layout.cookie_key()] {
        once(&path, || {
            let mut key = [0; 32];
            aws_lc_rs::rand::fill(&mut key).context("no randomness")?;
            Ok(key.to_vec())
        })?;
    }
    once(&layout.operator_client(), || {
        Ok(bastide_identity::opaque::Opaque::generate()?.secret.expose().into())
    })
}

fn signing_key(private: &Path, public: &Path) -> Result<()> {
    once(private, || Ok(SigningKey::generate()?))?;
    let key = SigningKey::from_pkcs8(&fs::read(private)?)?;
    files::write_private(public, key.verify_key().to_base64url().as_bytes())
}

fn assertion_key(layout: &Layout) -> Result<()> {
    once(&layout.assertion_key(), || Ok(bastide_identity::SigningKey::generate()?.to_pkcs8().to_vec()))?;
    let key = bastide_identity::SigningKey::from_pkcs8(&fs::read(layout.assertion_key())?)?;
    let public = key.verifying_key();
    let jwks = serde_json::json!({ "keys": [
        { "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": public.kid, "x": public.x }
    ] });
    files::write_private(&layout.assertion_jwks(), jwks.to_string().as_bytes())
}

fn sealing_key(layout: &Layout) -> Result<()> {
    once(&layout.edge_sealing_key(), || Ok(bastide_tls::SealingKey::generate()?.to_bytes()))?;
    let key = bastide_tls::SealingKey::from_bytes(&fs::read(layout.edge_sealing_key())?)?;
    files::write_private(&layout.edge_sealing_public(), key.public().as_bytes())
}

/// Writes a file that does not exist yet.
fn once(path: &Path, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<()> {
    if path.exists() { Ok(()) } else { files::write_private(path, &make()?) }
}

/// Who makes accounts on the bus, made when there is nobody yet, and as this version defines those of its own.
pub fn issuers(layout: &Layout, now: OffsetDateTime) -> Result<(Issuers, Authority)> {
    let dir = layout.nats();
    let now_s = u64::try_from(now.unix_timestamp())?;
    let issuers_file = dir.join("issuers.json");
    if !issuers_file.exists() {
        let material = bastide_bus::bootstrap::generate(now_s)?;
        // The file that marks the work as done comes last.
        for (name, bytes) in material.files.iter().filter(|(name, _)| *name != "issuers.json") {
            files::write_private(&dir.join(name), bytes)?;
        }
        files::write_private(&issuers_file, &material.files["issuers.json"])?;
    }
    let mut issuers = Issuers::load(&issuers_file)?;
    let authority = Authority::load(&dir.join("authority.json"))?;
    // A newer version may define the accounts differently.
    if issuers.refresh(&authority, now_s)? {
        files::write_private(&issuers_file, &issuers.to_bytes())?;
    }
    Ok((issuers, authority))
}

fn broker(layout: &Layout, ports: &Ports, now: OffsetDateTime) -> Result<()> {
    let dir = layout.nats();
    let now_s = u64::try_from(now.unix_timestamp())?;
    let (issuers, _) = issuers(layout, now)?;
    let server = Server {
        port: ports.address("nats").port(),
        cert_file: layout.certificate("nats"),
        key_file: layout.certificate_key("nats"),
        accounts_dir: dir.join("accounts"),
    };
    files::private_dir(&server.accounts_dir)?;
    issuers.write_accounts(&server.accounts_dir)?;
    files::write_private(&dir.join("nats.conf"), issuers.nats_conf(&server)?.as_bytes())?;
    for Member { role, name } in MEMBERS {
        if role == Role::Bus {
            continue;
        }
        for (file, content) in issuers.creds(role, name, now_s)? {
            files::write_private(&dir.join(file), content.expose().as_bytes())?;
        }
    }
    Ok(())
}
