//! Between our own processes.

use crate::{now, shake, tls_error};
use bastide_tls::{LocalCa, NodeTls, peer_role, server_name};
use bastide_types::Role;
use std::path::Path;

struct House {
    dir: tempfile::TempDir,
    ca: LocalCa,
}

impl House {
    fn new() -> Self {
        let (dir, ca) = (tempfile::tempdir().unwrap(), LocalCa::create_internal(now()).unwrap());
        ca.write(&dir.path().join("ca.pem"), &dir.path().join("ca.key")).unwrap();
        Self { dir, ca }
    }
    fn member(&self, role: Role, name: &str) -> NodeTls {
        let path = |end: &str| self.dir.path().join(format!("{name}.{end}"));
        self.ca.issue_role(role, name, &[], now()).unwrap().write(&path("pem"), &path("key")).unwrap();
        NodeTls { ca_file: self.dir.path().join("ca.pem"), cert_file: path("pem"), key_file: path("key") }
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn peers_with_the_right_roles_meet_over_tls_1_3_and_know_each_other() {
    let house = House::new();
    let server = house.member(Role::Gateway, "gateway-a").server_config(&[Role::Edge], &[b"h2"]).unwrap();
    let client = house.member(Role::Edge, "edge").client_config(Role::Gateway, &[b"h2"]).unwrap();
    let (dialled, answered) = shake(client, &server_name(Role::Gateway), server).await;
    let (dialled, answered) = (dialled.unwrap(), answered.unwrap());
    let seen = |state: &rustls::CommonState| peer_role(&state.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!(seen(dialled.get_ref().1), (Role::Gateway, "gateway-a".into()));
    assert_eq!(seen(answered.get_ref().1), (Role::Edge, "edge".into()));
    assert_eq!(dialled.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(dialled.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let group = dialled.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn a_server_refuses_a_client_of_another_role() {
    let house = House::new();
    let server = house.member(Role::Platform, "platform-1").server_config(&[Role::Gateway], &[]).unwrap();
    let client = house.member(Role::Runtime, "runtime").client_config(Role::Platform, &[]).unwrap();
    let (dialled, answered) = shake(client, &server_name(Role::Platform), server).await;
    assert!(dialled.is_err(), "the client must see the refusal");
    let error = answered.unwrap_err();
    assert!(matches!(tls_error(&error), Some(rustls::Error::InvalidCertificate(_))), "{error:?}");
}

#[tokio::test]
async fn a_client_refuses_a_server_of_another_role_even_under_the_right_name() {
    let house = House::new();
    let server = house.member(Role::Runtime, "runtime").server_config(&[Role::Edge], &[]).unwrap();
    let edge = house.member(Role::Edge, "edge");
    let by_name = edge.client_config(Role::Gateway, &[]).unwrap();
    let (dialled, _) = shake(by_name.clone(), &server_name(Role::Gateway), server.clone()).await;
    assert!(dialled.is_err(), "the name is wrong");
    let (dialled, _) = shake(by_name, &server_name(Role::Runtime), server).await;
    let error = dialled.unwrap_err();
    assert!(
        matches!(
            tls_error(&error),
            Some(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure))
        ),
        "the role is wrong: {error:?}"
    );
}

#[tokio::test]
async fn certificates_of_a_foreign_authority_are_refused_on_both_sides() {
    let (house, foreign) = (House::new(), House::new());
    let server = house.member(Role::Gateway, "gateway-a").server_config(&[Role::Edge], &[]).unwrap();
    let mut intruder = foreign.member(Role::Edge, "edge");
    let (dialled, _) = shake(
        intruder.client_config(Role::Gateway, &[]).unwrap(),
        &server_name(Role::Gateway),
        server.clone(),
    )
    .await;
    assert!(dialled.is_err(), "the client does not know the server's authority");
    intruder.ca_file = house.dir.path().join("ca.pem");
    let (dialled, answered) =
        shake(intruder.client_config(Role::Gateway, &[]).unwrap(), &server_name(Role::Gateway), server).await;
    assert!(dialled.is_err() && answered.is_err(), "the server does not know the client's authority");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let house = House::new();
    let server = house.member(Role::Gateway, "gateway-a").server_config(&[Role::Edge], &[]).unwrap();
    let client = crate::sites::browser(house.ca.certificate_pem());
    let (dialled, answered) = shake(client, &server_name(Role::Gateway), server).await;
    assert!(dialled.is_err());
    let error = answered.unwrap_err();
    assert!(matches!(tls_error(&error), Some(rustls::Error::NoCertificatesPresented)), "{error:?}");
}

#[test]
fn private_files_are_for_their_owner_only_and_read_back() {
    let house = House::new();
    let path = |name: &str| house.dir.path().join(name);
    assert_eq!(mode(&path("ca.key")), 0o600);
    let again = LocalCa::load(&path("ca.pem"), &path("ca.key")).unwrap();
    assert_eq!(again.certificate_pem(), house.ca.certificate_pem());
    again.issue_role(Role::Edge, "edge", &[], now()).unwrap();
    std::fs::write(path("ca.key"), rcgen_key()).unwrap();
    assert!(matches!(
        LocalCa::load(&path("ca.pem"), &path("ca.key")),
        Err(bastide_tls::TlsError::KeyMismatch)
    ));
}

fn rcgen_key() -> String {
    rcgen::KeyPair::generate().unwrap().serialize_pem()
}

#[test]
fn only_the_broker_may_carry_a_host_and_only_plain_names_are_taken() {
    let house = House::new();
    let host = ["127.0.0.1".to_owned()];
    assert!(house.ca.issue_role(Role::Edge, "edge", &host, now()).is_err());
    assert!(house.ca.issue_role(Role::Edge, "../platform", &[], now()).is_err());
    assert!(house.ca.issue_role(Role::Edge, "", &[], now()).is_err());
    house.ca.issue_role(Role::Bus, "bus", &host, now()).unwrap();
}

#[test]
fn a_leaf_lives_ninety_days() {
    let house = House::new();
    let issued = house.ca.issue_role(Role::Edge, "edge", &[], now()).unwrap();
    let days = bastide_tls::remaining(&issued.certificate_pem, now()).unwrap().whole_days();
    assert!((89..=90).contains(&days), "{days}");
}
