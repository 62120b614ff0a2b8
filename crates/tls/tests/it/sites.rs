//! Towards the world.

use crate::{now, shake, tls_error};
use bastide_tls::{AcceptError, CertificateStore, LocalCa, TlsError, accept, server_config};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{AlertDescription, ClientConfig, HandshakeKind, NamedGroup, RootCertStore};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(1);

/// A client that trusts one authority and shows no certificate.
pub fn browser(ca_pem: &str) -> Arc<ClientConfig> {
    Arc::new(plain_client(ca_pem, rustls::DEFAULT_VERSIONS))
}

fn plain_client(ca_pem: &str, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots).with_no_client_auth()
}

fn world() -> (LocalCa, Arc<CertificateStore>) {
    let domains = ["platform.localhost".to_owned(), "apps.localhost".to_owned()];
    let ca = LocalCa::create_public(&domains, now()).unwrap();
    let store = CertificateStore::new();
    for names in [&["*.platform.localhost"][..], &["*.apps.localhost"], &["own.apps.localhost"]] {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let issued = ca.issue_site(&names, now()).unwrap();
        assert_eq!(store.insert(&issued.certificate_pem, issued.key_pem.expose()).unwrap(), names);
    }
    (ca, store)
}

/// What the client gets when it dials `name` through our own accept.
async fn dial(
    config: Arc<ClientConfig>,
    store: &CertificateStore,
    server: &Arc<rustls::ServerConfig>,
    name: ServerName<'static>,
) -> (std::io::Result<()>, Result<(), AcceptError>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connector = tokio_rustls::TlsConnector::from(config);
    let (dialled, answered) = tokio::join!(connector.connect(name, near), accept(far, store, server, LIMIT));
    (dialled.map(drop), answered.map(drop))
}

#[tokio::test]
async fn an_unknown_name_gets_the_alert_unrecognized_name_and_no_certificate() {
    let (ca, store) = world();
    let server = server_config(store.clone(), &[b"h2", b"http/1.1"]).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for name in ["other.localhost", "a.b.apps.localhost", "apps.localhost", "localhost"] {
            let client = Arc::new(plain_client(ca.certificate_pem(), &[version]));
            let (dialled, answered) = dial(client, &store, &server, name.try_into().unwrap()).await;
            let error = dialled.unwrap_err();
            assert_eq!(
                tls_error(&error),
                Some(&rustls::Error::AlertReceived(AlertDescription::UnrecognisedName)),
                "{name}: {error:?}"
            );
            assert!(matches!(answered, Err(AcceptError::UnknownName { sni: Some(sni) }) if sni == name));
        }
    }
}

#[tokio::test]
async fn a_client_that_names_no_host_is_refused() {
    let (ca, store) = world();
    let server = server_config(store.clone(), &[]).unwrap();
    let address = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
    let (dialled, answered) = dial(browser(ca.certificate_pem()), &store, &server, address).await;
    let error = dialled.unwrap_err();
    assert_eq!(tls_error(&error), Some(&rustls::Error::AlertReceived(AlertDescription::UnrecognisedName)));
    assert!(matches!(answered, Err(AcceptError::UnknownName { sni: None })));
}

#[tokio::test]
async fn each_name_gets_its_own_certificate_and_the_hybrid_key_exchange() {
    let (ca, store) = world();
    let server = server_config(store, &[b"h2", b"http/1.1"]).unwrap();
    let mut seen = Vec::new();
    for name in
        ["own.apps.localhost", "acme.apps.localhost", "acme.platform.localhost", "ACME.apps.localhost"]
    {
        let (dialled, answered) = shake(browser(ca.certificate_pem()), name, server.clone()).await;
        let dialled = dialled.unwrap();
        answered.unwrap();
        let state = dialled.get_ref().1;
        assert_eq!(state.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
        seen.push(state.peer_certificates().unwrap()[0].clone());
    }
    assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[1] == seen[3]);
}

/// A ClientHello of this version and nothing newer, with this SNI.
fn old_hello(version: [u8; 2], sni: &str) -> Vec<u8> {
    let name = [&[0, 0][..], &[u8::try_from(sni.len()).unwrap()], sni.as_bytes()].concat();
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let list = [&length(&name)[..], &name].concat();
    let groups = [0, 10, 0, 4, 0, 2, 0, 23];
    let extensions = [&[0, 0][..], &length(&list), &list, &groups].concat();
    let suites = [0xc0, 0x09, 0xc0, 0x13, 0x00, 0x2f];
    let body =
        [&version[..], &[7; 32], &[0], &length(&suites), &suites, &[1, 0], &length(&extensions), &extensions]
            .concat();
    let message = [&[1, 0][..], &length(&body), &body].concat();
    [&[22, 3, 1][..], &length(&message), &message].concat()
}

#[tokio::test]
async fn older_versions_and_suites_without_forward_secrecy_are_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (_, store) = world();
    let server = server_config(store.clone(), &[]).unwrap();
    for version in [[3, 0], [3, 1], [3, 2], [3, 3]] {
        let (mut near, far) = tokio::io::duplex(64 * 1024);
        near.write_all(&old_hello(version, "acme.apps.localhost")).await.unwrap();
        let talk = async {
            let mut answer = Vec::new();
            near.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let (answer, accepted) = tokio::join!(talk, accept(far, &store, &server, LIMIT));
        assert!(accepted.is_err(), "{version:?}");
        // A fatal alert: protocol_version, or handshake_failure where only the suites are old.
        assert_eq!((answer[0], answer[5]), (21, 2), "{version:?}: {answer:?}");
        assert!(matches!(answer[6], 70 | 40), "{version:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_stops_in_the_handshake_is_cut_off() {
    let (_, store) = world();
    let server = server_config(store.clone(), &[]).unwrap();
    let (_near, far) = tokio::io::duplex(1024);
    let accepted = accept(far, &store, &server, Duration::from_millis(20)).await;
    assert!(matches!(accepted, Err(AcceptError::TimedOut)));
}

#[test]
fn a_host_is_covered_by_the_certificate_of_the_connection_or_misdirected() {
    let (_, store) = world();
    let covered = |sni: &str, host: &str| store.covers(sni, host);
    assert!(covered("acme.apps.localhost", "acme.apps.localhost"));
    assert!(covered("acme.apps.localhost", "other.apps.localhost"));
    assert!(covered("acme.apps.localhost.", "OTHER.apps.localhost"));
    assert!(!covered("acme.apps.localhost", "acme.platform.localhost"));
    assert!(!covered("acme.apps.localhost", "a.b.apps.localhost"));
    assert!(!covered("acme.apps.localhost", "apps.localhost"));
    assert!(!covered("own.apps.localhost", "acme.apps.localhost"));
    assert!(!covered("nowhere.localhost", "nowhere.localhost"));
    for no_host in ["", ".", ".apps.localhost", "*.apps.localhost", "*.apps.localhost.x"] {
        assert!(!covered("acme.apps.localhost", no_host), "{no_host}");
        assert_eq!(store.site_of(no_host), None, "{no_host}");
    }
    assert_eq!(store.site_of("own.apps.localhost").as_deref(), Some("own.apps.localhost"));
    assert_eq!(store.site_of("x.apps.localhost").as_deref(), Some("*.apps.localhost"));
    assert_eq!(store.site_of("apps.localhost"), None);
}

#[test]
fn a_key_that_does_not_belong_to_its_certificate_is_refused_and_changes_nothing() {
    let (ca, store) = world();
    let one = ca.issue_site(&["one.apps.localhost".into()], now()).unwrap();
    let two = ca.issue_site(&["two.apps.localhost".into()], now()).unwrap();
    let refused = store.insert(&one.certificate_pem, two.key_pem.expose());
    assert!(matches!(refused, Err(TlsError::KeyMismatch)), "{refused:?}");
    assert_eq!(store.site_of("one.apps.localhost").as_deref(), Some("*.apps.localhost"));
    assert!(store.insert("not pem", "not pem").is_err());
    store.remove("*.apps.localhost");
    assert_eq!(store.site_of("one.apps.localhost"), None);
}

#[test]
fn the_authority_for_sites_signs_only_below_its_domains() {
    let (ca, _) = world();
    for name in
        ["example.com", "localhost", "evilapps.localhost", "*.localhost", "*", "a..apps.localhost", ""]
    {
        assert!(ca.issue_site(&[name.into()], now()).is_err(), "{name}");
    }
    assert!(ca.issue_role(bastide_types::Role::Edge, "edge", &[], now()).is_err());
}

#[tokio::test]
async fn a_stolen_authority_key_cannot_make_a_certificate_for_another_site() {
    let (ca, _) = world();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("ca.pem"), dir.path().join("ca.key"));
    ca.write(&cert, &key).unwrap();
    let stolen = rcgen::KeyPair::from_pem(&std::fs::read_to_string(key).unwrap()).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(ca.certificate_pem().as_bytes()).unwrap();
    let name =
        pem.parse_x509().unwrap().subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned();
    let mut own = rcgen::CertificateParams::default();
    own.distinguished_name = rcgen::DistinguishedName::new();
    own.distinguished_name.push(rcgen::DnType::CommonName, name);
    let leaf = rcgen::KeyPair::generate().unwrap();
    let certify = |host: &str| {
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = now() - time::Duration::hours(1);
        params.not_after = now() + time::Duration::days(1);
        params.signed_by(&leaf, &rcgen::Issuer::from_params(&own, &stolen)).unwrap().pem()
    };
    for (host, works) in
        [("bank.example", false), ("192.0.2.1", false), ("::1", false), ("acme.apps.localhost", true)]
    {
        let server = bastide_tls::single_config(&certify(host), &leaf.serialize_pem(), &[]).unwrap();
        let (dialled, _) = shake(browser(ca.certificate_pem()), host, server).await;
        assert_eq!(dialled.is_ok(), works, "{host}");
    }
}

/// A client that offers its last session to whatever name it dials.
#[derive(Debug, Default)]
struct Careless(Mutex<(Option<Tls12ClientSessionValue>, VecDeque<Tls13ClientSessionValue>)>);

impl ClientSessionStore for Careless {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.lock().unwrap().0 = Some(value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.lock().unwrap().0.clone()
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.lock().unwrap().1.push_back(value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().unwrap().1.pop_back()
    }
}

#[tokio::test]
async fn a_session_is_resumed_only_under_the_name_it_began_with() {
    let (ca, store) = world();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let server = server_config(store.clone(), &[]).unwrap();
        let mut client = plain_client(ca.certificate_pem(), &[version]);
        client.resumption = Resumption::store(Arc::new(Careless::default()));
        let client = Arc::new(client);
        let mut kinds = Vec::new();
        for name in [
            "a.apps.localhost",
            "a.apps.localhost",
            "a.platform.localhost",
            "a.platform.localhost",
            "b.platform.localhost",
        ] {
            let (dialled, answered) = shake(client.clone(), name, server.clone()).await;
            answered.unwrap();
            let kind = dialled.unwrap().get_ref().1.handshake_kind().unwrap();
            kinds.push(kind == HandshakeKind::Resumed);
        }
        assert_eq!(kinds, [false, true, false, true, false], "{version:?}");
    }
}

#[tokio::test]
async fn an_authority_that_asks_by_tls_alpn_is_answered_for_the_name_in_question_and_gets_nothing_else() {
    let (ca, store) = world();
    let server = server_config(store.clone(), &[b"h2", b"http/1.1"]).unwrap();
    let asked = bastide_tls::CustomSite::new().challenge("a.example.com", "token.thumbprint").unwrap();
    store.set_custom([("a.example.com".to_owned(), asked)].into());
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"token.thumbprint");
    let ask = async |name: &'static str, protocols: &[&[u8]]| {
        let seen = Arc::new(Mutex::new(None));
        let mut client = plain_client(ca.certificate_pem(), rustls::DEFAULT_VERSIONS);
        client.dangerous().set_certificate_verifier(Arc::new(Looks(seen.clone())));
        client.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let (_, answered) = dial(Arc::new(client), &store, &server, name.try_into().unwrap()).await;
        (seen.lock().unwrap().take(), answered)
    };
    let (certificate, answered) = ask("a.example.com", &[b"acme-tls/1"]).await;
    assert!(matches!(answered, Err(AcceptError::Challenge)), "{answered:?}");
    let certificate: CertificateDer<'static> = certificate.expect("it was shown one");
    let extension = [&[0x06, 8, 43, 6, 1, 5, 5, 7, 1, 31, 1, 1, 0xff, 4, 34, 4, 32], hash.as_ref()].concat();
    let is_there = certificate.windows(extension.len()).any(|part| part == extension);
    assert!(is_there, "RFC 8737 §3: critical, with the hash of the key authorization");
    for (name, protocols) in
        [("b.example.com", &[&b"acme-tls/1"[..]][..]), ("a.example.com", &[b"h2"]), ("a.example.com", &[])]
    {
        let (certificate, answered) = ask(name, protocols).await;
        assert!(certificate.is_none() && matches!(answered, Err(AcceptError::UnknownName { .. })), "{name}");
    }
    store.set_custom(std::collections::HashMap::new());
    let (certificate, _) = ask("a.example.com", &[b"acme-tls/1"]).await;
    assert!(certificate.is_none());
}

/// Believes everything and keeps what it saw.
#[derive(Debug)]
struct Looks(Arc<Mutex<Option<CertificateDer<'static>>>>);

impl rustls::client::danger::ServerCertVerifier for Looks {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = Some(end_entity.clone().into_owned());
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
