//! Whether a certificate that somebody brings can serve a domain.

use crate::{ca, store};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{GeneralName, ParsedExtension, X509Certificate};

/// Longest chain and key together, in bytes.
const PEM_BYTES_MAX: usize = 64 * 1024;
/// Most certificates in a chain.
const CHAIN_MAX: usize = 8;

/// Why a certificate cannot serve a domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiteFault {
    /// Too much text.
    #[error("chain and key together have at most {PEM_BYTES_MAX} bytes")]
    TooLarge,
    /// No chain.
    #[error("the chain is no PEM text with 1 to {CHAIN_MAX} certificates")]
    Chain,
    /// A certificate of the chain cannot be read.
    #[error("certificate {0} of the chain cannot be read")]
    Unreadable(usize),
    /// It is for other names.
    #[error("the first certificate is not for this domain; it is for {0}")]
    Names(String),
    /// The first one is an authority, or not for servers.
    #[error("the first certificate is not one of a server")]
    Purpose,
    /// Outside its time.
    #[error("certificate {0} of the chain has expired")]
    Expired(usize),
    /// Outside its time.
    #[error("certificate {0} of the chain is not valid yet")]
    NotYet(usize),
    /// Wrong order, or something between is missing.
    #[error(
        "certificate {0} of the chain is not signed by the next one: leaf first, then what signed it, in order"
    )]
    Order(usize),
    /// The key.
    #[error("the key is no PEM private key that serves TLS")]
    Key,
    /// Of another certificate.
    #[error("the key does not belong to the first certificate")]
    KeyMismatch,
}

/// Checks chain and key for one host name; gives the end of the chain's validity, in seconds since 1970.
///
/// Whether a public authority is at its end is not asked: a certificate of one's own may be meant.
pub fn check_site(
    name: &str,
    certificate_pem: &str,
    key_pem: &str,
    now: OffsetDateTime,
) -> Result<i64, SiteFault> {
    if certificate_pem.len() + key_pem.len() > PEM_BYTES_MAX {
        return Err(SiteFault::TooLarge);
    }
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| SiteFault::Chain)?;
    if !(1..=CHAIN_MAX).contains(&chain.len()) {
        return Err(SiteFault::Chain);
    }
    let mut parsed = Vec::new();
    for (at, der) in chain.iter().enumerate() {
        parsed.push(ca::parse(der).map_err(|_| SiteFault::Unreadable(at + 1))?);
    }
    is_for(&parsed[0], name)?;
    let mut ends = i64::MAX;
    for (at, certificate) in parsed.iter().enumerate() {
        let validity = certificate.validity();
        if validity.not_after.to_datetime() <= now {
            return Err(SiteFault::Expired(at + 1));
        }
        if validity.not_before.to_datetime() > now {
            return Err(SiteFault::NotYet(at + 1));
        }
        ends = ends.min(validity.not_after.timestamp());
    }
    for (at, pair) in parsed.windows(2).enumerate() {
        if pair[0].issuer() != pair[1].subject() || !pair[1].is_ca() {
            return Err(SiteFault::Order(at + 1));
        }
    }
    signed_in_order(&chain)?;
    match store::certified(certificate_pem, key_pem) {
        Ok(_) => Ok(ends),
        Err(crate::TlsError::KeyMismatch) => Err(SiteFault::KeyMismatch),
        Err(_) => Err(SiteFault::Key),
    }
}

fn is_for(leaf: &X509Certificate<'_>, name: &str) -> Result<(), SiteFault> {
    let names: Vec<&str> = match leaf.subject_alternative_name() {
        Ok(Some(extension)) => {
            let names = extension.value.general_names.iter();
            names
                .filter_map(|name| if let GeneralName::DNSName(name) = name { Some(*name) } else { None })
                .collect()
        }
        Ok(None) | Err(_) => Vec::new(),
    };
    let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
    let is_named = |stated: &&str| {
        stated.eq_ignore_ascii_case(name)
            || wildcard.as_ref().is_some_and(|own| stated.eq_ignore_ascii_case(own))
    };
    if !names.iter().any(is_named) {
        let list = names.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        return Err(SiteFault::Names(if list.is_empty() { "no name at all".into() } else { list }));
    }
    let usage = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::ExtendedKeyUsage(usage) => Some(usage.server_auth || usage.any),
        _ => None,
    });
    if leaf.is_ca() || usage == Some(false) { Err(SiteFault::Purpose) } else { Ok(()) }
}

/// Each certificate carries the signature of the next: webpki says so, with the next one as the only anchor.
fn signed_in_order(chain: &[CertificateDer<'static>]) -> Result<(), SiteFault> {
    let provider = store::provider();
    for (at, pair) in chain.windows(2).enumerate() {
        let signed = ca::parse(&pair[0]).map_err(|_| SiteFault::Unreadable(at + 1))?;
        let by = ca::parse(&pair[1]).map_err(|_| SiteFault::Unreadable(at + 2))?;
        let (key_algorithm, algorithm) =
            (&by.public_key().algorithm.algorithm, &signed.signature_algorithm.algorithm);
        let message = tbs(&pair[0]).ok_or(SiteFault::Unreadable(at + 1))?;
        let (key, signature) =
            (by.public_key().subject_public_key.data.as_ref(), signed.signature_value.data.as_ref());
        let matching = provider.signature_verification_algorithms.all.iter().filter(|one| {
            oid(one.signature_alg_id().as_ref()) == Some(algorithm.as_bytes())
                && oid(one.public_key_alg_id().as_ref()) == Some(key_algorithm.as_bytes())
        });
        if !matching.into_iter().any(|one| one.verify_signature(key, message, signature).is_ok()) {
            return Err(SiteFault::Order(at + 1));
        }
    }
    Ok(())
}

/// The part of a certificate that is signed (RFC 5280 §4.1): the first element of the outer sequence.
fn tbs<'d>(der: &'d CertificateDer<'_>) -> Option<&'d [u8]> {
    let (_, inner) = element(der.as_ref())?;
    let (whole, _) = element(inner)?;
    Some(whole)
}

/// The object identifier at the beginning of an algorithm identifier's content.
fn oid(algorithm: &[u8]) -> Option<&[u8]> {
    element(algorithm).map(|(_, content)| content)
}

/// The first DER element: all of it, and its content.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = usize::from(*der.get(1)?);
    let (head, length) = if first < 0x80 {
        (2, first)
    } else {
        let bytes = der.get(2..2 + (first & 0x7f))?;
        if bytes.len() > 4 {
            return None;
        }
        (2 + bytes.len(), bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    };
    let whole = der.get(..head.checked_add(length)?)?;
    Some((whole, &whole[head..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LocalCa;
    use proptest::prelude::*;
    use time::Duration;

    const NAME: &str = "apps.example.com";

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap()
    }

    fn made(names: &[&str]) -> (String, String, String) {
        let ca = LocalCa::create_public(&["example.com".into()], now()).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let issued = ca.issue_site(&names, now()).unwrap();
        (issued.certificate_pem, ca.certificate_pem().to_owned(), issued.key_pem.expose().to_owned())
    }

    #[test]
    fn a_good_chain_tells_when_it_ends() {
        for names in [&[NAME][..], &["*.example.com"], &["other.example.com", NAME]] {
            let (leaf, ca, key) = made(names);
            let ends = now().unix_timestamp() + 90 * 86_400;
            assert_eq!(check_site(NAME, &leaf, &key, now()), Ok(ends));
            assert_eq!(check_site(NAME, &format!("{leaf}{ca}"), &key, now()), Ok(ends));
        }
    }

    #[test]
    fn what_cannot_serve_is_refused_with_the_reason() {
        let (leaf, ca, key) = made(&[NAME]);
        let (other_leaf, other_ca, other_key) = made(&[NAME]);
        let check = |chain: &str, key: &str, days: i64, fault: SiteFault| {
            assert_eq!(check_site(NAME, chain, key, now() + Duration::days(days)), Err(fault));
        };
        check(&leaf, &other_key, 0, SiteFault::KeyMismatch);
        check(&leaf, "no key", 0, SiteFault::Key);
        check("", &key, 0, SiteFault::Chain);
        check(&leaf.repeat(9), &key, 0, SiteFault::Chain);
        check(&leaf, &key, 91, SiteFault::Expired(1));
        check(&leaf, &key, -1, SiteFault::NotYet(1));
        check(&format!("{leaf}{other_ca}"), &key, 0, SiteFault::Order(1));
        check(&format!("{leaf}{other_leaf}"), &key, 0, SiteFault::Order(1));
        check(&format!("{ca}{leaf}"), &key, 0, SiteFault::Names("no name at all".into()));
        check(&"x".repeat(PEM_BYTES_MAX), "y", 0, SiteFault::TooLarge);
        let (foreign, _, foreign_key) = made(&["www.example.com", "*.apps.example.com"]);
        let names = SiteFault::Names("www.example.com, *.apps.example.com".into());
        check(&foreign, &foreign_key, 0, names);
    }

    #[test]
    fn an_authority_of_the_same_name_signs_nothing_for_another() {
        let make = |key: &rcgen::KeyPair| {
            let mut params = rcgen::CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, "one name");
            let pem = params.clone().self_signed(key).unwrap().pem();
            (params, pem)
        };
        let (one, two) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let ((params, good), (_, impostor)) = (make(&one), make(&two));
        let issuer = rcgen::Issuer::from_params(&params, &one);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf =
            rcgen::CertificateParams::new(vec![NAME.into()]).unwrap().signed_by(&key, &issuer).unwrap().pem();
        let key = key.serialize_pem();
        assert!(check_site(NAME, &format!("{leaf}{good}"), &key, now()).is_ok());
        assert_eq!(check_site(NAME, &format!("{leaf}{impostor}"), &key, now()), Err(SiteFault::Order(1)));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(body in "[A-Za-z0-9+/=\\n]{0,200}", key in "\\PC{0,60}") {
            let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
            prop_assert!(check_site(NAME, &pem, &key, now()).is_err());
        }
        #[test]
        fn elements_are_within_their_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some((whole, content)) = element(&bytes) {
                prop_assert!(bytes.starts_with(whole) && whole.ends_with(content));
            }
        }
    }
}
