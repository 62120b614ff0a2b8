//! Certificates of custom domains, as Snapshots bring them: opened here, served without a restart.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_tls::{CertificateStore, CustomSite, SealingKey};
use bastide_types::{DomainName, Snapshot, snapshot::CustomDomain};
use std::{collections::HashMap, sync::Arc};

/// Opens what was sealed for this edge, and serves it.
pub(crate) struct CustomSites {
    store: Arc<CertificateStore>,
    key: Option<SealingKey>,
}

/// Sites of custom domains, and what each was made of.
pub(crate) type Made = HashMap<DomainName, (CustomDomain, CustomSite)>;

impl CustomSites {
    /// Nothing is served yet. Without a key no certificate can be opened.
    pub(crate) fn new(store: Arc<CertificateStore>, key: Option<SealingKey>) -> Self {
        Self { store, key }
    }

    /// What a Snapshot says. A certificate that cannot be used leaves the one before it in place, as long as the
    /// domain is the same stage's.
    pub(crate) fn made(&self, snapshot: &Snapshot, before: Option<&Made>) -> Made {
        let mut made = Made::new();
        for (name, domain) in &snapshot.hosts {
            let before = before.and_then(|before| before.get(name));
            let site = match before {
                Some((same, site)) if same == domain => site.clone(),
                _ => self.make(name, domain, before),
            };
            made.insert(name.clone(), (domain.clone(), site));
        }
        made
    }

    /// Serves these, and no others.
    pub(crate) fn serve(&self, made: &Made) {
        let sites = made.iter().map(|(name, (_, site))| (name.to_string(), site.clone()));
        self.store.set_custom(sites.collect());
    }

    fn make(
        &self,
        name: &DomainName,
        domain: &CustomDomain,
        before: Option<&(CustomDomain, CustomSite)>,
    ) -> CustomSite {
        let same_stage =
            |old: &CustomDomain| (&old.customer, &old.stage) == (&domain.customer, &domain.stage);
        let before = before.filter(|(old, _)| same_stage(old) && domain.certificate.is_some());
        let before = before.map(|(_, site)| site.clone().without_challenge()).unwrap_or_default();
        let site = match self.opened(name, domain) {
            None => before,
            Some(Ok(site)) => site,
            Some(Err(why)) => {
                tracing::warn!(domain = %name, why, "a certificate is not taken");
                before
            }
        };
        // One challenge at a time; it is answered over TLS as well as over plain HTTP.
        match domain.challenges.values().next() {
            Some(answer) => site.clone().challenge(name.as_str(), answer).unwrap_or(site),
            None => site,
        }
    }

    /// The site with its certificate; `None` while there is none for this edge.
    fn opened(&self, name: &DomainName, domain: &CustomDomain) -> Option<Result<CustomSite, String>> {
        let certificate = domain.certificate.as_ref()?;
        let key = self.key.as_ref()?;
        let sealed = certificate.keys.get(&key.public().id())?;
        let site = || {
            let sealed = BASE64_URL_SAFE_NO_PAD.decode(sealed).map_err(|error| error.to_string())?;
            let private = key.open(name.as_str(), &sealed).map_err(|error| error.to_string())?;
            CustomSite::new()
                .certificate(name.as_str(), &certificate.chain, private.expose())
                .map_err(|error| error.to_string())
        };
        Some(site())
    }
}

/// What an authority that asks over plain HTTP is answered, if this host and token are known.
pub(crate) fn challenge<'s>(snapshot: &'s Snapshot, host: &str, token: &str) -> Option<&'s str> {
    snapshot.hosts.get(host)?.challenges.get(token).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_tls::LocalCa;
    use bastide_types::{CustomerName, Secret, StageName, snapshot::Certificate};
    use std::collections::BTreeMap;
    use time::OffsetDateTime;

    const NAME: &str = "shop.example.com";

    fn domain(certificate: Option<Certificate>) -> CustomDomain {
        CustomDomain {
            customer: CustomerName::new("acme").unwrap(),
            stage: StageName::production(),
            root: None,
            certificate,
            challenges: BTreeMap::new(),
        }
    }

    fn sealed(ca: &LocalCa, to: &SealingKey, place: &str) -> Certificate {
        let issued =
            ca.issue_site(&[NAME.into(), "*.apps.localhost".into()], OffsetDateTime::now_utc()).unwrap();
        let key = Secret::new(issued.key_pem.expose());
        let sealed = BASE64_URL_SAFE_NO_PAD.encode(to.public().seal(place, &key).unwrap());
        Certificate { chain: issued.certificate_pem, keys: [(to.public().id(), sealed)].into() }
    }

    fn snapshot(hosts: &[(&str, CustomDomain)]) -> Snapshot {
        Snapshot {
            epoch: 1,
            revision: 1,
            made_at: 0,
            domains: bastide_types::Domains::default(),
            customers: BTreeMap::new(),
            hosts: hosts
                .iter()
                .map(|(name, domain)| (DomainName::new(name).unwrap(), domain.clone()))
                .collect(),
            waf: BTreeMap::new(),
            kept: Vec::new(),
            schema: bastide_types::snapshot::SCHEMA,
            platform_waf: bastide_types::Digest::from_sha256([0; 32]),
        }
    }

    #[test]
    fn a_domain_serves_its_own_name_only_with_the_key_that_was_sealed_for_this_edge() {
        let (mine, other) = (SealingKey::generate().unwrap(), SealingKey::generate().unwrap());
        let bases = ["example.com".to_owned(), "localhost".to_owned()];
        let ca = LocalCa::create_public(&bases, OffsetDateTime::now_utc()).unwrap();
        let store = CertificateStore::new();
        let good = sealed(&ca, &mine, NAME);
        let sites = CustomSites::new(store.clone(), Some(mine));
        let mut made = Made::new();
        let mut serve = |certificate: Option<Certificate>| {
            made = sites.made(&snapshot(&[(NAME, domain(certificate))]), Some(&made));
            sites.serve(&made);
            store.site_of(NAME).is_some()
        };
        assert!(!serve(None), "there is no certificate yet");
        assert!(!serve(Some(sealed(&ca, &other, NAME))), "it is for another edge");
        assert!(serve(Some(good.clone())));
        assert!(store.site_of("x.apps.localhost").is_none(), "whatever else its certificate states");
        assert!(store.covers(NAME, NAME) && !store.covers(NAME, "x.apps.localhost"));
        let mut moved = good.clone();
        moved.keys.values_mut().for_each(|sealed| sealed.insert(3, 'A'));
        assert!(serve(Some(moved)), "what cannot be used leaves the one before it in force");
        assert!(!serve(None), "but a certificate that is gone is gone");
        assert!(serve(Some(good)));
        sites.serve(&sites.made(&snapshot(&[]), Some(&made)));
        assert!(store.site_of(NAME).is_none());
    }

    #[test]
    fn a_domain_that_changes_hands_does_not_keep_the_certificate_of_before() {
        let key = SealingKey::generate().unwrap();
        let ca =
            LocalCa::create_public(&["example.com".into(), "localhost".into()], OffsetDateTime::now_utc())
                .unwrap();
        let store = CertificateStore::new();
        let good = sealed(&ca, &key, NAME);
        let sites = CustomSites::new(store.clone(), Some(key));
        let made = sites.made(&snapshot(&[(NAME, domain(Some(good)))]), None);
        sites.serve(&made);
        assert!(store.site_of(NAME).is_some());
        let theirs = Certificate { chain: String::new(), keys: BTreeMap::new() };
        let beta = CustomDomain { customer: CustomerName::new("beta").unwrap(), ..domain(Some(theirs)) };
        sites.serve(&sites.made(&snapshot(&[(NAME, beta)]), Some(&made)));
        assert!(store.site_of(NAME).is_none());
    }

    #[test]
    fn only_the_token_of_the_host_is_answered() {
        let mut asked = domain(None);
        asked.challenges = [("token".to_owned(), "token.thumb".to_owned())].into();
        let snapshot = snapshot(&[(NAME, asked), ("other.example.com", domain(None))]);
        assert_eq!(challenge(&snapshot, NAME, "token"), Some("token.thumb"));
        assert_eq!(challenge(&snapshot, NAME, "toke"), None);
        assert_eq!(challenge(&snapshot, "other.example.com", "token"), None);
        assert_eq!(challenge(&snapshot, "elsewhere.example.com", "token"), None);
    }
}
