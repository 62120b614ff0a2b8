//! Our own certificate authorities: one that browsers are told to trust, one that says which role a
//! process plays. P-256 throughout, because rustls signs with it several times faster than with RSA.
//!
//! Deliberately absent: revocation lists and intermediate authorities. Leaves live 90 days and are made
//! anew at start when fewer than 30 are left ([`remaining`]).

use crate::{TlsError, file};
use bastide_types::{Role, Secret};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::net::IpAddr;
use std::path::Path;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

/// Life of an authority, in days.
const CA_DAYS: i64 = 3650;
/// Life of a leaf, in days.
const LEAF_DAYS: i64 = 90;
/// How long before now a certificate begins, for clocks that are a little behind.
const BACKDATED: Duration = Duration::hours(1);

/// A certificate authority of this installation.
pub struct LocalCa {
    certificate_pem: String,
    key: KeyPair,
    name: String,
    domains: Vec<String>,
}

/// A leaf certificate and its key, just made.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM (PKCS #8).
    pub key_pem: Secret,
}

impl Issued {
    /// Writes both files, mode 0600, the key first.
    pub fn write(&self, cert_file: &Path, key_file: &Path) -> Result<(), TlsError> {
        file::write_private(key_file, self.key_pem.expose().as_bytes())?;
        file::write_private(cert_file, self.certificate_pem.as_bytes())
    }
}

impl LocalCa {
    /// Makes the authority for sites. It can sign only for `domains` and names below them (critical
    /// name constraints), and for no address: whoever imports it into a browser risks no other site.
    pub fn create_public(domains: &[String], now: OffsetDateTime) -> Result<Self, TlsError> {
        if domains.is_empty() {
            return Err(TlsError::Certificate("an authority for sites needs at least one domain".into()));
        }
        for domain in domains {
            check_name(domain)?;
        }
        Self::create("Bastide local CA", domains.to_vec(), now)
    }

    /// Makes the authority for roles. Nothing outside our own processes trusts it.
    pub fn create_internal(now: OffsetDateTime) -> Result<Self, TlsError> {
        Self::create("Bastide internal CA", Vec::new(), now)
    }

    fn create(kind: &str, domains: Vec<String>, now: OffsetDateTime) -> Result<Self, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(TlsError::Issue)?;
        // The name holds part of the key's hash: a browser that knows an earlier CA of ours must not
        // take it for this one.
        let mark = CertificateParams::default().key_identifier(&key);
        let name = format!("{kind} {}", hex(&mark[..4]));
        let params = Self::own_params(&name, &domains, now);
        let certificate_pem = params.self_signed(&key).map_err(TlsError::Issue)?.pem();
        Ok(Self { certificate_pem, key, name, domains })
    }

    fn own_params(name: &str, domains: &[String], now: OffsetDateTime) -> CertificateParams {
        let mut params = dated(now, CA_DAYS);
        params.distinguished_name = distinguished(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        if !domains.is_empty() {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: domains.iter().cloned().map(GeneralSubtree::DnsName).collect(),
                // Names alone would leave addresses free.
                excluded_subtrees: vec![
                    GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                    GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
                ],
            });
        }
        params
    }

    /// Reads an authority that [`Self::create_public`] or [`Self::create_internal`] made.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let key = KeyPair::from_pem(key_pem).map_err(|_| TlsError::Pem { what: "private key" })?;
        let der = first_certificate(certificate_pem)?;
        let parsed = parse(&der)?;
        if parsed.public_key().subject_public_key.data.as_ref() != rcgen::PublicKeyData::der_bytes(&key) {
            return Err(TlsError::KeyMismatch);
        }
        if !parsed.is_ca() {
            return Err(TlsError::Certificate("it is not an authority".into()));
        }
        let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let name = name.ok_or_else(|| TlsError::Certificate("the authority has no name".into()))?.to_owned();
        Ok(Self { certificate_pem: certificate_pem.to_owned(), key, name, domains: permitted(&parsed) })
    }

    /// Reads the authority from its two files.
    pub fn load(cert_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        Self::from_pem(&file::read(cert_file)?, &file::read(key_file)?)
    }

    /// Writes both files, mode 0600, the key first.
    pub fn write(&self, cert_file: &Path, key_file: &Path) -> Result<(), TlsError> {
        file::write_private(key_file, self.key.serialize_pem().as_bytes())?;
        file::write_private(cert_file, self.certificate_pem.as_bytes())
    }

    /// The authority's own certificate, PEM: what others must trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Base domains for which this authority may sign; empty for the internal one.
    pub fn domains(&self) -> &[String] {
        &self.domains
    }

    /// Makes a certificate for a site: DNS names, wildcards of one label (`*.apps.localhost`) included.
    pub fn issue_site(&self, names: &[String], now: OffsetDateTime) -> Result<Issued, TlsError> {
        let Some(first) = names.first() else {
            return Err(TlsError::Certificate("no name was given".into()));
        };
        let mut params = dated(now, LEAF_DAYS);
        for name in names {
            check_name(name.strip_prefix("*.").unwrap_or(name))?;
            if !self.domains.iter().any(|domain| is_below(name, domain)) {
                return Err(TlsError::Name { name: name.clone(), why: "outside the authority's domains" });
            }
            params.subject_alt_names.push(dns(name)?);
        }
        params.distinguished_name = distinguished(first);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    /// Makes the certificate of a process: role and name as a URI, `<role>.bastide.internal` as its
    /// DNS name, valid for both ends of a connection.
    ///
    /// `hosts` (addresses or DNS names) are for the broker only: its clients check the host they dial,
    /// so no other role may carry one.
    pub fn issue_role(
        &self,
        role: Role,
        name: &str,
        hosts: &[String],
        now: OffsetDateTime,
    ) -> Result<Issued, TlsError> {
        if !self.domains.is_empty() {
            return Err(TlsError::Certificate("the authority for sites signs no roles".into()));
        }
        if !crate::node::is_instance_name(name) {
            return Err(TlsError::Name { name: name.into(), why: "an instance name holds a-z, 0-9 and `-`" });
        }
        if role != Role::Bus && !hosts.is_empty() {
            return Err(TlsError::Name { name: hosts[0].clone(), why: "only the broker is dialled by host" });
        }
        let mut params = dated(now, LEAF_DAYS);
        params.distinguished_name = distinguished(&format!("{role} {name}"));
        let uri = crate::node::role_uri(role, name);
        params.subject_alt_names = vec![
            SanType::URI(uri.try_into().map_err(TlsError::Issue)?),
            dns(&crate::node::server_name(role))?,
        ];
        for host in hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => {
                    check_name(host)?;
                    dns(host)?
                }
            });
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Issued, TlsError> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let own = Self::own_params(&self.name, &[], params.not_before);
        let issuer = Issuer::from_params(&own, &self.key);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(TlsError::Issue)?;
        let certificate = params.signed_by(&key, &issuer).map_err(TlsError::Issue)?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: Secret::new(key.serialize_pem()) })
    }
}

/// What people should know of an authority.
#[derive(Debug, Clone)]
pub struct About {
    /// Its name.
    pub name: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub sha256: String,
    /// Names below which it may sign.
    pub domains: Vec<String>,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

/// Reads what an authority's certificate says about itself.
pub fn about(certificate_pem: &str) -> Result<About, TlsError> {
    let der = first_certificate(certificate_pem)?;
    let parsed = parse(&der)?;
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der.as_ref());
    Ok(About {
        name: name.unwrap_or("an authority without a name").to_owned(),
        sha256: hex(sha256.as_ref()).to_uppercase(),
        domains: permitted(&parsed),
        not_after: parsed.validity().not_after.to_datetime(),
    })
}

/// How long the first certificate of a PEM text is still valid; negative when it has expired.
pub fn remaining(certificate_pem: &str, now: OffsetDateTime) -> Result<Duration, TlsError> {
    let der = first_certificate(certificate_pem)?;
    Ok(parse(&der)?.validity().not_after.to_datetime() - now)
}

fn dated(now: OffsetDateTime, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATED;
    params.not_after = now + Duration::days(days);
    params
}

fn distinguished(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn dns(name: &str) -> Result<SanType, TlsError> {
    Ok(SanType::DnsName(name.try_into().map_err(TlsError::Issue)?))
}

fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A DNS name as we certify it: lower case, labels of letters, digits and hyphens, no trailing dot.
fn check_name(name: &str) -> Result<(), TlsError> {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(TlsError::Name { name: name.into(), why: "it is not a lower-case DNS name" });
    }
    Ok(())
}

fn permitted(certificate: &X509Certificate<'_>) -> Vec<String> {
    let constraints =
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::NameConstraints(constraints) => constraints.permitted_subtrees.as_ref(),
            _ => None,
        });
    let subtrees = constraints.into_iter().flatten();
    subtrees
        .filter_map(|subtree| match subtree.base {
            GeneralName::DNSName(name) => Some(name.to_owned()),
            _ => None,
        })
        .collect()
}

pub(crate) fn first_certificate(pem: &str) -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| TlsError::Pem { what: "certificate" })
}

pub(crate) fn parse<'d>(der: &'d CertificateDer<'_>) -> Result<X509Certificate<'d>, TlsError> {
    match X509Certificate::from_der(der.as_ref()) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(TlsError::Certificate("bytes follow it".into())),
        Err(error) => Err(TlsError::Certificate(error.to_string())),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
