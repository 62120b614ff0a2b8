//! The whole product, started as a user starts it, over real processes and sockets.

use anyhow::{Context, Result};
use bastide_testkit::{Client, Options, Product};
use http::{Method, StatusCode};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::HashSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const PASSWORD: &str = "Correct-horse-9\n";
/// Generous: only a product that hangs takes this long.
const PATIENCE: Duration = Duration::from_secs(90);

fn executable() -> PathBuf {
    env!("CARGO_BIN_EXE_bastide").into()
}

async fn start() -> Result<Product> {
    bastide_testkit::build_hello(&executable())?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    // Apps are isolated wherever the machine can do it.
    let arguments = vec!["--allow-no-isolation".into(), "--examples".into(), examples.display().to_string()];
    Product::start(Options { executable: executable(), arguments }).await
}

/// Whether apps are isolated here: without, there is neither Production nor a second customer.
fn isolates() -> bool {
    let missing = bastide_container::preflight().missing().next().map(|finding| finding.found.clone());
    if let Some(missing) = &missing {
        let _ = writeln!(std::io::stderr(), "SKIPPED Production and a second customer: {missing}");
    }
    missing.is_none()
}

/// Addresses of a started product.
struct Town<'p> {
    product: &'p Product,
    client: Client,
}

impl Town<'_> {
    fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.product.https_port)
    }
    async fn status(&self, host: &str, path: &str, fields: &[(&str, &str)]) -> Result<u16> {
        Ok(self.client.send(Method::GET, &self.url(host, path), fields, "").await?.status.as_u16())
    }
    async fn problem(&self, host: &str, path: &str, fields: &[(&str, &str)]) -> Result<String> {
        let answer = self.client.send(Method::GET, &self.url(host, path), fields, "").await?;
        Ok(answer.json()?["code"].as_str().unwrap_or_default().to_owned())
    }
    /// Waits until a page holds this text: the word of a deployment's end takes a moment to the edge.
    async fn serves(&self, host: &str, path: &str, text: &str) -> Result<()> {
        let begun = Instant::now();
        while !self.client.get(&self.url(host, path)).await?.text().contains(text) {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "{host}{path} never said `{text}`");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
    fn token(&self, arguments: &[&str]) -> Result<String> {
        let token = self.product.cli(&[&["token"], arguments].concat(), "")?;
        Ok(format!("Bearer {}", token.trim()))
    }
}

const DEVELOPMENT: &str = "demo--development.apps.localhost";
const PRODUCTION: &str = "demo.apps.localhost";
const PLATFORM: &str = "demo.platform.localhost";

#[tokio::test]
async fn one_command_brings_the_network_up() -> Result<()> {
    let product = start().await?;
    let town = Town { client: product.client()?, product: &product };
    let outcome = async {
        replicas_take_turns(&town).await?;
        the_firewall_refuses_attacks(&town).await?;
        names_lead_only_where_they_should(&town).await?;
        the_cache_keeps_what_is_for_everybody(&town).await?;
        a_user_signs_in_and_protected_routes_open(&town).await?;
        a_client_is_registered_and_finds_its_issuers(&town).await?;
        a_sign_out_ends_the_session_at_the_platform(&town).await?;
        the_cache_says_what_it_does_and_why(&town).await?;
        a_purge_reaches_the_edge(&town).await?;
        if isolates() {
            an_own_app_is_published_and_promoted(&town).await?;
            foreign_customers_are_kept_apart(&town).await?;
        }
        wrong_input_is_said_clearly(&town).await
    };
    product.explained(outcome.await)
}

async fn a_client_is_registered_and_finds_its_issuers(town: &Town<'_>) -> Result<()> {
    let create = |id: &str, kind: &str, redirect: &str| {
        let arguments =
            ["--json", "client", "create", "--id", id, "--kind", kind, "--redirect-uri", redirect];
        town.product.cli(&[&arguments[..], &["--post-logout-redirect-uri", redirect]].concat(), "")
    };
    let made: serde_json::Value =
        serde_json::from_str(&create("web", "confidential", "https://rp.example/cb?a=b")?)?;
    let secret = made["secret"].as_str().context("a secret, once")?;
    let native = create("native", "public", "http://127.0.0.1/cb")?;
    assert!(!native.contains("secret"), "a public client has none: {native}");
    assert!(create("native", "public", "http://127.0.0.1/cb").is_err(), "the id is taken");
    let shown = town.product.cli(&["client", "show", "web"], "")?;
    assert!(shown.contains("https://rp.example/cb?a=b") && !shown.contains(secret), "{shown}");
    for (base, stage) in [("/identity", ""), ("/identity/s/production", "/s/production")] {
        let below = town.url(PLATFORM, &format!("{base}/.well-known/openid-configuration"));
        let above = town.url(PLATFORM, &format!("/.well-known/oauth-authorization-server{base}"));
        let (below, above) = (town.client.get(&below).await?.json()?, town.client.get(&above).await?.json()?);
        assert_eq!(below, above);
        assert_eq!(below["issuer"], town.url(PLATFORM, &format!("/identity{stage}")));
    }
    town.product.cli(&["client", "suspend", "web"], "")?;
    assert!(town.product.cli(&["client", "list"], "")?.contains("web\tconfidential\tweb\ttrue"));
    town.product.cli(&["client", "delete", "web"], "")?;
    assert!(!town.product.cli(&["client", "list"], "")?.contains("web"));
    Ok(())
}

async fn a_sign_out_ends_the_session_at_the_platform(town: &Town<'_>) -> Result<()> {
    let file = town.product.scratch().join("config/bastide/credentials.json");
    let kept = fs::read(&file)?;
    town.product.cli(&["logout"], "")?;
    assert!(!fs::read_to_string(&file)?.contains("refresh_token"));
    fs::write(&file, kept)?;
    let refused = town.product.cli(&["whoami"], "").err().context("the session has ended")?;
    assert!(format!("{refused:#}").contains("your sign-in has ended"), "{refused:#}");
    // Without a Platform to reach, the credential is forgotten, and it says what that means.
    fs::write(
        &file,
        r#"{"current":"https://x.localhost:1","servers":{"https://x.localhost:1":{"member":{"refresh_token":"x"}}}}"#,
    )?;
    let offline = town.product.try_cli(&["logout"], "")?;
    assert!(offline.status.success() && String::from_utf8_lossy(&offline.stderr).contains("warning"));
    assert!(!fs::read_to_string(&file)?.contains("refresh_token"));
    let login = ["login", &town.url(PLATFORM, ""), "--email", "admin@demo.localhost", "--password-stdin"];
    town.product.cli(&login, PASSWORD).map(drop)
}

/// The zone and replica of twelve answers, one after the other; `None` when one of them is a failure.
async fn twelve_answers(town: &Town<'_>) -> Result<Option<Vec<(String, String)>>> {
    let mut replicas = Vec::new();
    for _ in 0..12 {
        let answer = town.client.get(&town.url(DEVELOPMENT, "/hello/")).await?;
        if answer.status != 200 {
            eprintln!("{} {}", answer.status, answer.text());
            return Ok(None);
        }
        anyhow::ensure!(answer.text().contains(answer.header("x-bastide-replica")), "{}", answer.text());
        replicas.push((
            answer.header("x-bastide-zone").to_owned(),
            answer.header("x-bastide-replica").to_owned(),
        ));
    }
    Ok(Some(replicas))
}

async fn replicas_take_turns(town: &Town<'_>) -> Result<()> {
    let begun = Instant::now();
    let replicas = loop {
        match twelve_answers(town).await? {
            Some(replicas) => break replicas,
            // A replica that answers too late for its probes is out of turn for a while.
            None => anyhow::ensure!(begun.elapsed() < PATIENCE, "not all of twelve requests are answered"),
        }
    };
    assert_eq!(replicas[..4], replicas[4..8], "strict rounds");
    assert_eq!(replicas[..4].iter().collect::<HashSet<_>>().len(), 4, "all four replicas");
    let zones: Vec<_> = replicas.iter().map(|(zone, _)| zone.as_str()).collect();
    assert!(zones.windows(2).all(|pair| pair[0] != pair[1]), "zones alternate: {zones:?}");
    Ok(())
}

async fn the_firewall_refuses_attacks(town: &Town<'_>) -> Result<()> {
    for attack in [
        "?id=1%27%20or%201=1--",
        "?q=%3Cscript%3Ealert(1)%3C/script%3E",
        "?f=../../../../etc/passwd",
        "?c=;cat%20/etc/passwd",
    ] {
        assert_eq!(
            town.problem(DEVELOPMENT, &format!("/hello/{attack}"), &[]).await?,
            "B-WAF-0403",
            "{attack}"
        );
    }
    let audit = fs::read_to_string(town.product.data().join("logs/waf-audit.jsonl"))?;
    assert!(audit.contains("\"id\":942100"), "{audit}");
    Ok(())
}

async fn names_lead_only_where_they_should(town: &Town<'_>) -> Result<()> {
    let unknown = town.problem(DEVELOPMENT, "/nope/", &[]).await?;
    assert_eq!(unknown, "B-EDGE-0404");
    assert_eq!(town.problem("nobody.apps.localhost", "/hello/", &[]).await?, unknown, "the same answer");
    assert_eq!(town.problem(PRODUCTION, "/hello/", &[]).await?, unknown, "not deployed there");
    let refused = town.client.get(&town.url("other.localhost", "/")).await;
    let refused = format!("{:#}", refused.err().context("an unknown name must get an alert")?);
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    let redirect =
        town.client.get(&format!("http://{PRODUCTION}:{}/hello/?a=b", town.product.http_port)).await?;
    assert_eq!(redirect.status, StatusCode::PERMANENT_REDIRECT);
    assert_eq!(redirect.header("location"), town.url(PRODUCTION, "/hello/?a=b"));
    assert_eq!(town.status(DEVELOPMENT, "/hello", &[]).await?, 308);
    assert_eq!(town.status(DEVELOPMENT, "/%68ello//", &[]).await?, 200, "one canonical path");
    Ok(())
}

async fn the_cache_keeps_what_is_for_everybody(town: &Town<'_>) -> Result<()> {
    let style = town.url(DEVELOPMENT, "/site/css/site.css");
    let first = town.client.get(&style).await?;
    let second = town.client.get(&style).await?;
    assert!(first.header("cache-status").contains("stored"), "{:?}", first.headers);
    assert!(second.header("cache-status").contains("hit"), "{:?}", second.headers);
    assert_eq!(first.body, second.body);
    assert!(first.header("x-bastide-cacheable").is_empty(), "the mark stays inside");
    let me = town.client.get(&town.url(DEVELOPMENT, "/hello/me")).await?;
    assert!(me.header("cache-status").contains("bypass"), "{:?}", me.headers);
    Ok(())
}

async fn the_cache_says_what_it_does_and_why(town: &Town<'_>) -> Result<()> {
    let style = town.url(DEVELOPMENT, "/site/css/site.css");
    town.client.get(&style).await?;
    let why = town.product.cli(&["cache", "why", &style], "")?;
    assert!(why.contains("edge: hit, because a stored response is fresh (RFC 9111 §4.2)"), "{why}");
    let me = town.product.cli(&["cache", "why", &town.url(DEVELOPMENT, "/hello/me")], "")?;
    assert!(me.contains("forward") && me.contains("site policy"), "{me}");
    let stats = town.product.cli(&["cache", "stats", "--app", "site", "--json"], "")?;
    let stats: serde_json::Value = serde_json::from_str(&stats)?;
    let site = &stats["apps"][0];
    assert!(site["hits"].as_u64() > Some(0) && site["bytes"].as_u64() > Some(0), "{stats}");
    assert!(site["hit_ratio"].as_f64() > Some(0.0), "{stats}");
    let refused = town.product.cli(&["cache", "why", "https://other.apps.localhost/x"], "");
    assert!(format!("{:#}", refused.err().context("it is nobody's address")?).contains("B-API-0422"));
    Ok(())
}

async fn a_purge_reaches_the_edge(town: &Town<'_>) -> Result<()> {
    let style = town.url(DEVELOPMENT, "/site/css/site.css");
    for arguments in [
        &["cache", "purge", &style][..],
        &["cache", "purge", "--prefix", &town.url(DEVELOPMENT, "/site/css/")],
        &["cache", "purge", "--app", "site"],
        &["cache", "purge", "--all-apps"],
    ] {
        town.client.get(&style).await?;
        assert!(town.client.get(&style).await?.header("cache-status").contains("hit"));
        town.product.cli(arguments, "")?;
        let begun = Instant::now();
        while town.client.get(&style).await?.header("cache-status").contains("hit") {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "{arguments:?} never reached the edge");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        eprintln!("{} in force after {:?}", arguments.join(" "), begun.elapsed());
    }
    let refused = town.product.cli(&["cache", "purge", "https://other.apps.localhost/x"], "");
    assert!(format!("{:#}", refused.err().context("it is nobody's address")?).contains("B-API-0422"));
    Ok(())
}

async fn a_user_signs_in_and_protected_routes_open(town: &Town<'_>) -> Result<()> {
    let up: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(town.product.data().join("run/up.json"))?)?;
    let link = up["invitation_link"].as_str().context("a first start prints a link")?;
    town.product.cli(
        &["login", "--invitation", link, "--email", "admin@demo.localhost", "--password-stdin"],
        PASSWORD,
    )?;
    assert_eq!(town.status(PLATFORM, "/api/v1/whoami", &[]).await?, 401);
    let token = town.token(&[])?;
    let who = town
        .client
        .send(Method::GET, &town.url(PLATFORM, "/api/v1/whoami"), &[("authorization", &token)], "")
        .await?;
    assert_eq!((who.status, who.json()?["email"].as_str()), (StatusCode::OK, Some("admin@demo.localhost")));
    assert_eq!(town.status(DEVELOPMENT, "/hello/me", &[]).await?, 401);
    let own = town.token(&["--app", "hello", "--stage", "development"])?;
    let forged = [("authorization", own.as_str()), ("x-bastide-user", "root"), ("x_bastide_roles", "admin")];
    let me = town.client.send(Method::GET, &town.url(DEVELOPMENT, "/hello/me"), &forged, "").await?;
    assert!(
        me.status == StatusCode::OK && me.text().contains("You are admin") && !me.text().contains("root"),
        "{}",
        me.text()
    );
    assert_eq!(
        town.status(DEVELOPMENT, "/hello/me", &[("authorization", &token)]).await?,
        401,
        "a token for the Platform"
    );
    assert_eq!(town.status(DEVELOPMENT, "/hello/admin", &forged).await?, 403, "the role is missing");
    town.product
        .cli(&["role", "grant", "hello", "admin", "admin@demo.localhost", "--stage", "development"], "")?;
    // Other rights, other tokens: those of before are of no use, also at the Platform.
    let whoami =
        async |token: &str| town.status(PLATFORM, "/api/v1/whoami", &[("authorization", token)]).await;
    assert_eq!(whoami(&token).await?, 401);
    let token = town.token(&[])?;
    assert_eq!(whoami(&token).await?, 200);
    let own = town.token(&["--app", "hello", "--stage", "development"])?;
    assert_eq!(town.status(DEVELOPMENT, "/hello/admin", &[("authorization", &own)]).await?, 200);
    let again = town.product.try_cli(
        &["login", "--invitation", link, "--email", "admin@demo.localhost", "--password-stdin"],
        PASSWORD,
    )?;
    assert!(String::from_utf8_lossy(&again.stderr).contains("B-ID-0410"), "a link works once");
    let wrong = town.product.try_cli(
        &["login", &town.url(PLATFORM, ""), "--email", "admin@demo.localhost", "--password-stdin"],
        "Wrong-horse-99\n",
    )?;
    assert!(
        String::from_utf8_lossy(&wrong.stderr).contains("B-ID-0411"),
        "{}",
        String::from_utf8_lossy(&wrong.stderr)
    );
    // The Portal sends browsers to sign in and serves its pages to who is signed in.
    let page =
        town.client.send(Method::GET, &town.url(PLATFORM, "/"), &[("accept", "text/html")], "").await?;
    assert!(
        page.status == StatusCode::FOUND && page.header("location").contains("/identity/authorize"),
        "{:?}",
        page.headers
    );
    let portal = town
        .client
        .send(
            Method::GET,
            &town.url(PLATFORM, "/"),
            &[("authorization", &token), ("accept", "text/html")],
            "",
        )
        .await?;
    assert!(portal.status == StatusCode::OK && portal.text().contains("hello"), "{}", portal.text());
    let jwks = town.client.get(&town.url(PLATFORM, "/identity/jwks")).await?.json()?;
    assert_eq!(jwks["keys"][0]["crv"], "Ed25519");
    Ok(())
}

async fn an_own_app_is_published_and_promoted(town: &Town<'_>) -> Result<()> {
    let dir = town.product.scratch().join("shop");
    fs::create_dir(&dir)?;
    fs::write(dir.join("index.html"), "<h1>shop one</h1>")?;
    fs::write(
        dir.join("bastide.toml"),
        "[app]\nname = \"shop\"\nkind = \"static\"\n[[route]]\npath = \"/\"\naccess = \"public\"\n",
    )?;
    let path = dir.display().to_string();
    let first: serde_json::Value =
        serde_json::from_str(&town.product.cli(&["--json", "publish", &path], "")?)?;
    assert_eq!(first["status"], "finished");
    town.serves(DEVELOPMENT, "/shop/", "shop one").await?;
    let early = town.product.try_cli(&["promote", "shop", "--to", "production"], "")?;
    assert!(String::from_utf8_lossy(&early.stderr).contains("B-DEPLOY-0422"), "stages in order");
    for stage in ["test", "production"] {
        let promoted: serde_json::Value =
            serde_json::from_str(&town.product.cli(&["--json", "promote", "shop", "--to", stage], "")?)?;
        assert_eq!(
            (&promoted["image"], &promoted["status"]),
            (&first["image"], &"finished".into()),
            "the same image"
        );
    }
    town.serves(PRODUCTION, "/shop/", "shop one").await?;
    // The same directory again is the same image; another content replaces it without a gap.
    let again: serde_json::Value =
        serde_json::from_str(&town.product.cli(&["--json", "publish", &path], "")?)?;
    assert_eq!(again["image"], first["image"], "reproducible");
    fs::write(dir.join("index.html"), "<h1>shop two</h1>")?;
    town.product.cli(&["publish", &path], "")?;
    town.serves(DEVELOPMENT, "/shop/", "shop two").await?;
    assert!(
        town.client.get(&town.url(PRODUCTION, "/shop/")).await?.text().contains("shop one"),
        "Production keeps its own"
    );
    assert!(town.product.cli(&["status", "shop"], "")?.contains("production"));
    Ok(())
}

async fn foreign_customers_are_kept_apart(town: &Town<'_>) -> Result<()> {
    let secret = fs::read_to_string(town.product.data().join("keys/operator-client.secret"))?;
    let operator = town.url("operator.platform.localhost", "");
    town.product.cli(&["login", &operator, "--client-id", "supervisor", "--client-secret-stdin"], &secret)?;
    let made = town
        .product
        .cli(&["--json", "customer", "create", "acme", "--administrator", "ann@acme.example"], "")?;
    let made: serde_json::Value = serde_json::from_str(&made)?;
    let taken =
        town.product.try_cli(&["customer", "create", "acme", "--administrator", "ann@acme.example"], "")?;
    assert!(String::from_utf8_lossy(&taken.stderr).contains("B-API-0409"), "a name is taken once");
    let reserved = town.product.try_cli(&["customer", "create", "operator", "--administrator", "a@b"], "")?;
    assert!(!reserved.status.success());
    let acme = "acme.platform.localhost";
    let begun = Instant::now();
    while town.status(acme, "/api/v1/openapi.json", &[]).await? != 200 {
        anyhow::ensure!(begun.elapsed() < PATIENCE, "the new customer's host is never served");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let secret = made["client"]["secret"].as_str().context("a secret")?;
    let id = made["client"]["id"].as_str().context("an id")?;
    town.product.cli(&["login", &town.url(acme, ""), "--client-id", id, "--client-secret-stdin"], secret)?;
    let foreign = town.token(&[])?;
    assert_eq!(town.status(acme, "/api/v1/whoami", &[("authorization", &foreign)]).await?, 200);
    assert_eq!(
        town.status(PLATFORM, "/api/v1/whoami", &[("authorization", &foreign)]).await?,
        401,
        "another customer's token"
    );
    assert_eq!(town.status(DEVELOPMENT, "/hello/me", &[("authorization", &foreign)]).await?, 401);
    assert!(town.product.cli(&["status"], "")?.contains("No apps yet"), "and sees nothing of demo");
    assert_eq!(town.status(acme, "/internal/session/token", &[("authorization", &foreign)]).await?, 404);
    town.product.cli(
        &["login", &town.url(PLATFORM, ""), "--email", "admin@demo.localhost", "--password-stdin"],
        PASSWORD,
    )?;
    Ok(())
}

async fn wrong_input_is_said_clearly(town: &Town<'_>) -> Result<()> {
    let token = town.token(&[])?;
    let publish = town.url(PLATFORM, "/api/v1/apps/evil/publish");
    let fields = [("authorization", token.as_str()), ("content-type", "application/gzip")];
    for (archive, code) in [
        (
            packed(
                "bastide.toml",
                b"[app]\nname = \"evil\"\nkind = \"static\"\ntypo = 1\n",
                tar::EntryType::Regular,
            ),
            "B-BUILD-0422",
        ),
        (packed("../evil", b"x", tar::EntryType::Regular), "B-BUILD-0423"),
        (packed("link", b"", tar::EntryType::Symlink), "B-BUILD-0423"),
        (packed("device", b"", tar::EntryType::Char), "B-BUILD-0423"),
        (b"junk".to_vec(), "B-BUILD-0423"),
    ] {
        let answer = town.client.send(Method::POST, &publish, &fields, archive).await?;
        assert_eq!(answer.json()?["code"], code, "{}", answer.text());
        assert!(answer.json()?["detail"].is_string(), "{}", answer.text());
    }
    assert_eq!(
        town.problem(PLATFORM, "/api/v1/apps/evil", &[("authorization", &token)]).await?,
        "B-API-0404",
        "nothing is half-created"
    );
    let huge = town.url(PLATFORM, "/api/v1/apps/hello/deployments");
    let huge =
        town.client.send(Method::POST, &huge, &[("authorization", &token)], vec![b'x'; 31_000_000]).await?;
    assert_eq!((huge.status, &huge.json()?["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &"B-EDGE-0413".into()));
    assert!(town.product.cli(&["explain", "b-build-0423"], "")?.contains("no links"));
    Ok(())
}

/// A gzipped tar of one entry, written by hand so that it may be evil.
fn packed(path: &str, content: &[u8], kind: tar::EntryType) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    if kind == tar::EntryType::Symlink {
        header.set_link_name("/etc/passwd").expect("a short name");
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&bytes).expect("memory takes all");
    gz.finish().expect("memory takes all")
}

#[tokio::test]
async fn every_role_may_die_and_down_leaves_nothing_behind() -> Result<()> {
    let mut product = start().await?;
    let outcome = async {
        let town = Town { client: product.client()?, product: &product };
        apps_answer_with_both_platform_replicas_dead(&town).await?;
        for role in
            ["nats", "platform-1", "platform-2", "gateway-a", "gateway-b", "egress", "runtime", "edge"]
        {
            if role == "egress" && !isolates() {
                continue;
            }
            every_role_may_be_killed(&town, role).await.with_context(|| role.to_owned())?;
        }
        only_the_edge_listens_beyond_loopback(&product)
    };
    product.explained(outcome.await)?;
    let data = product.data();
    product.down()?;
    assert_eq!(processes_of(&data)?, Vec::<String>::new(), "down leaves nothing behind");
    Ok(())
}

/// Stopped by a signal, the replicas are as good as dead, and stay so.
async fn apps_answer_with_both_platform_replicas_dead(town: &Town<'_>) -> Result<()> {
    let replicas = [town.product.pid_of("platform-1")?, town.product.pid_of("platform-2")?];
    for pid in replicas {
        kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
    }
    let mut outcome = Ok(());
    for path in ["/hello/", "/site/", "/hello/", "/site/css/site.css"] {
        match town.status(DEVELOPMENT, path, &[]).await {
            Ok(200) => {}
            other => outcome = Err(anyhow::anyhow!("{path}: {other:?}")),
        }
    }
    for pid in replicas {
        kill(Pid::from_raw(pid), Signal::SIGCONT)?;
    }
    outcome
}

async fn every_role_may_be_killed(town: &Town<'_>, role: &str) -> Result<()> {
    let before = town.product.pid_of(role)?;
    kill(Pid::from_raw(before), Signal::SIGKILL)?;
    let begun = Instant::now();
    loop {
        let returned = town.product.pid_of(role).is_ok_and(|pid| pid != before);
        let app = town.status(DEVELOPMENT, "/hello/", &[]).await.ok() == Some(200);
        let platform = town.status(PLATFORM, "/identity/jwks", &[]).await.ok() == Some(200);
        if returned && app && platform {
            return Ok(());
        }
        anyhow::ensure!(
            begun.elapsed() < PATIENCE,
            "no service: returned={returned} app={app} platform={platform}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Every listening socket of ours but the edge's is bound to loopback. (In the test the edge is, too.)
fn only_the_edge_listens_beyond_loopback(product: &Product) -> Result<()> {
    let config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(product.data().join("run/gateway-a.json"))?)?;
    assert!(config["listen"].as_str().is_some_and(|addr| addr.starts_with("127.0.0.1:")), "{config}");
    for process in ["platform-1", "platform-2", "gateway-b"] {
        let config = fs::read_to_string(product.data().join(format!("run/{process}.json")))?;
        let config: serde_json::Value = serde_json::from_str(&config)?;
        assert!(config["listen"].as_str().is_some_and(|addr| addr.starts_with("127.0.0.1:")), "{process}");
    }
    let runtime = fs::read_to_string(product.data().join("run/runtime.json"))?;
    assert!(!runtime.contains("\"listen\""), "the runtime listens for nobody");
    let broker = fs::read_to_string(product.data().join("nats/nats.conf"))?;
    assert!(broker.contains("127.0.0.1"), "the broker listens on loopback");
    Ok(())
}

/// Command lines of running processes that name this data directory.
fn processes_of(data: &Path) -> Result<Vec<String>> {
    let needle = data.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&needle) {
            found.push(command);
        }
    }
    Ok(found)
}
