//! Letters: invitations, new passwords, accounts of one's own, reminders; and the server that takes them.

use super::{
    api::{World, world, world_of},
    identity::{self, Browser, EMAIL, filled},
};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use bastide_identity::opaque;
use bastide_platform::{
    config::{MailSecurity, MailSettings},
    mail::{pass, remind},
    router,
};
use bastide_store::{Mail, MemberRow, NewStage, now_s};
use bastide_testkit::smtp::{Letter, Smtp, Way};
use bastide_types::{CustomerId, Secret, StageName, UserId};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::fs;
use tower::ServiceExt;

const EVE: &str = "eve@example.com";
const CHOSEN: &str = "Wander-falke-77";
const STAGE: &str = "/identity/s/development";

fn settings(smtp: &Smtp, security: MailSecurity) -> MailSettings {
    MailSettings {
        host: "localhost".into(),
        port: Some(smtp.port()),
        security,
        username: None,
        password_file: None,
        from: "Bastide <bastide@example.com>".into(),
        ca_file: None,
    }
}

/// A replica with a mail server, the customer acme with the stage Development, and its administrator's word.
struct Post {
    world: World,
    smtp: Smtp,
    acme: CustomerId,
    boss: String,
}

impl Post {
    async fn new() -> Self {
        let smtp = Smtp::start(Way::Plain, None);
        let world = world_of(|config| config.mail = Some(settings(&smtp, MailSecurity::None))).await;
        let acme = stage_of(&world).await;
        let boss = world.assertion(acme, &["administrator"]);
        Self { world, smtp, acme, boss }
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let path = format!("/api/v1{path}");
        let (status, text) = self.world.call("acme", method, &path, Some(&self.boss), body.to_string()).await;
        (status.as_u16(), serde_json::from_str(&text).unwrap_or_default())
    }

    /// Letters that came since the last look.
    async fn letters(&self, before: usize) -> Vec<Letter> {
        pass(&self.world.app).await.unwrap();
        self.smtp.letters().split_off(before)
    }

    /// A page as a browser with these cookies gets it.
    async fn browse(
        &self,
        browser: &mut Browser,
        method: Method,
        path: &str,
        form: &str,
    ) -> (StatusCode, String) {
        let cookies: Vec<_> = browser.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "acme.platform.localhost:8443")
            .header("sec-fetch-site", "same-origin")
            .header("cookie", cookies.join("; "))
            .body(Body::from(form.to_owned()))
            .unwrap();
        let answer = router(self.world.app.clone(), |_| axum::Router::new()).oneshot(request).await.unwrap();
        for cookie in answer.headers().get_all(header::SET_COOKIE) {
            let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            browser.0.insert(name.to_owned(), value.to_owned());
        }
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// Opens a form and sends it with what a person types.
    async fn fills(&self, path: &str, typed: &[(&str, &str)]) -> (StatusCode, String) {
        let mut browser = Browser::default();
        let (status, page) = self.browse(&mut browser, Method::GET, path, "").await;
        if status != 200 {
            return (status, page);
        }
        self.browse(&mut browser, Method::POST, path, &filled(&page, typed)).await
    }

    async fn chooses(&self, link: &str) -> (StatusCode, String) {
        let path = link.strip_prefix("https://acme.platform.localhost:8443").unwrap();
        self.fills(path, &[("name", "Eve"), ("password", CHOSEN), ("password_again", CHOSEN)]).await
    }

    async fn eve(&self) -> Option<MemberRow> {
        self.world.app.store.customer(self.acme).user_with_email("development", EVE).await.unwrap()
    }
}

async fn stage_of(world: &World) -> CustomerId {
    let acme = world.customer("acme").await;
    let stage = StageName::development();
    let mut write = world.app.store.write().await.unwrap();
    let new = NewStage { name: &stage, account: "A", seed: &Secret::new("s") };
    world.app.store.customer(acme).create_stage(&mut write, &new).await.unwrap();
    write.commit().await.unwrap();
    acme
}

#[tokio::test]
async fn an_invitation_goes_by_mail_and_whoever_has_it_has_the_address() {
    let post = Post::new().await;
    let (status, made) = post.call(Method::POST, "/stages/development/users", json!({ "email": EVE })).await;
    assert_eq!((status, &made), (201, &json!({ "mailed": true })), "the link is in the letter only");
    let letters = post.letters(0).await;
    assert_eq!((letters.len(), letters[0].to.as_str()), (1, EVE));
    assert!(letters[0].text.contains("From: Bastide <bastide@example.com>"), "{}", letters[0].text);
    assert!(post.letters(1).await.is_empty(), "each is sent once");
    assert!(!post.eve().await.unwrap().verified);
    assert_eq!(post.chooses(&letters[0].link().unwrap()).await.0, 200);
    let eve = post.eve().await.unwrap();
    assert!(eve.verified && eve.state == "active");
    let (status, made) = post
        .call(Method::POST, "/members", json!({ "email": "Bob@example.com", "roles": ["developer"] }))
        .await;
    assert_eq!((status, made), (201, json!({ "mailed": true })));
    let letters = post.letters(1).await;
    assert_eq!(letters[0].to, "bob@example.com");
    assert!(letters[0].link().unwrap().contains("/identity/invite/"));
}

#[tokio::test]
async fn a_forgotten_password_is_replaced_by_a_letter_and_strangers_learn_nothing() {
    let post = Post::new().await;
    post.call(Method::POST, "/stages/development/users", json!({ "email": EVE })).await;
    let letters = post.letters(0).await;
    post.chooses(&letters[0].link().unwrap()).await;
    let before = post.eve().await.unwrap();
    let own = post.world.app.store.customer(post.acme);
    assert_eq!(own.sessions_of(before.id).await.unwrap().len(), 1);
    let forgot = format!("{STAGE}/forgot");
    let known = post.fills(&forgot, &[("email", "EVE@example.com ")]).await;
    let unknown = post.fills(&forgot, &[("email", "nobody@example.com")]).await;
    assert_eq!((known.0.as_u16(), &known), (200, &unknown));
    assert_eq!(post.fills(&forgot, &[("email", "nobody")]).await.0, 422);
    let letters = post.letters(1).await;
    assert_eq!((letters.len(), letters[0].to.as_str()), (1, EVE));
    let link = letters[0].link().unwrap();
    // It is a link of her stage, and no other kind of link.
    for wrong in ["/identity/reset/", "/identity/s/development/register/", "/identity/s/development/invite/"]
    {
        let other = link.replace("/identity/s/development/reset/", wrong);
        assert!(post.chooses(&other).await.0.is_client_error(), "{other}");
    }
    let path = link.strip_prefix("https://acme.platform.localhost:8443").unwrap();
    let weak = [("password", "Password1234"), ("password_again", "Password1234")];
    assert_eq!(post.fills(path, &weak).await.0, 422);
    let done = post.chooses(&link).await;
    assert!(done.0 == 200 && done.1.contains("is changed"), "{}", done.1);
    let after = post.eve().await.unwrap();
    assert!(after.password != before.password && after.verified);
    assert!(own.sessions_of(after.id).await.unwrap().is_empty(), "her sessions have ended");
    assert_eq!(post.chooses(&link).await.0, 410, "it counts once");
    // A newer link takes the place of an older one; whoever is suspended meanwhile stays out.
    post.fills(&forgot, &[("email", EVE)]).await;
    post.fills(&forgot, &[("email", EVE)]).await;
    let links: Vec<_> = post.letters(2).await.iter().map(|letter| letter.link().unwrap()).collect();
    assert_eq!((links.len(), post.chooses(&links[0]).await.0.as_u16()), (2, 410));
    let mut write = post.world.app.store.write().await.unwrap();
    own.suspend_member(&mut write, after.id, true).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(post.chooses(&links[1]).await.0, 410);
    post.fills(&forgot, &[("email", EVE)]).await;
    assert!(post.letters(4).await.is_empty());
}

#[tokio::test]
async fn an_administrator_makes_a_link_for_a_new_password_and_without_mail_sees_it() {
    let post = Post::new().await;
    post.call(Method::POST, "/stages/development/users", json!({ "email": EVE })).await;
    let eve = post.eve().await.unwrap();
    let path = format!("/stages/development/users/{}/password-reset", eve.id);
    assert_eq!(post.call(Method::POST, &path, json!({})).await.0, 422, "she has no password yet");
    post.chooses(&post.letters(0).await[0].link().unwrap()).await;
    assert_eq!(post.call(Method::POST, &path, json!({})).await, (201, json!({ "mailed": true })));
    assert_eq!(post.chooses(&post.letters(1).await[0].link().unwrap()).await.0, 200);

    let world = world().await;
    let acme = world.customer("acme").await;
    let own = world.app.store.customer(acme);
    let ann = MemberRow {
        state: "active".into(),
        ..MemberRow::invited("", EMAIL, "Ann", vec!["administrator".into()])
    };
    let mut write = world.app.store.write().await.unwrap();
    own.add_member(&mut write, &ann).await.unwrap();
    write.commit().await.unwrap();
    let path = format!("/api/v1/members/{}/password-reset", ann.id);
    let link = async |roles: &[&str]| {
        let who = world.assertion(acme, roles);
        let (status, text) = world.call("acme", Method::POST, &path, Some(&who), "{}").await;
        (status.as_u16(), serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    let (status, made) = link(&["administrator"]).await;
    let token = made["link"].as_str().unwrap().rsplit_once('/').unwrap().1;
    assert_eq!((status, made["mailed"].as_bool()), (201, Some(false)));
    let kept = own.link(&opaque::hash(token)).await.unwrap().unwrap();
    assert!(!kept.mailed && (kept.until - now_s() - 900).abs() < 300, "{kept:?}");
    // Whoever reads such a link can be that member: nobody makes one for the mightier.
    let mut write = world.app.store.write().await.unwrap();
    let row = bastide_store::RoleRow { name: "keeper".into(), permissions: vec!["members.write".into()] };
    own.add_role(&mut write, &row).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(link(&["keeper"]).await.0, 403);
}

#[tokio::test]
async fn everybody_makes_an_account_where_a_stage_is_open_and_proves_the_address() {
    let post = Post::new().await;
    let register = format!("{STAGE}/register");
    assert_eq!(post.fills(&register, &[("email", EVE)]).await.0, 404, "off unless somebody opens it");
    let switch = "/stages/development/registration";
    assert_eq!(post.call(Method::GET, switch, json!({})).await.1, json!({ "open": false }));
    assert_eq!(post.call(Method::PUT, switch, json!({ "open": true })).await.0, 204);
    assert_eq!(post.fills("/identity/register", &[("email", EVE)]).await.0, 404, "never among members");
    let asked = post.fills(&register, &[("email", EVE)]).await;
    assert_eq!(asked.0, 200);
    assert!(post.eve().await.is_none(), "no account before the address is proven");
    let letters = post.letters(0).await;
    let link = letters[0].link().unwrap();
    assert_eq!((letters[0].to.as_str(), post.chooses(&link).await.0.as_u16()), (EVE, 200));
    let eve = post.eve().await.unwrap();
    assert!(eve.verified && eve.state == "active" && eve.name == "Eve" && eve.roles.is_empty());
    assert_eq!(post.chooses(&link).await.0, 410);
    // The same answer for a known address, whose owner reads more in the letter.
    assert_eq!(post.fills(&register, &[("email", EVE)]).await, asked);
    let letters = post.letters(1).await;
    assert!(
        letters[0].link().is_none() && letters[0].text.contains("There is one already"),
        "{}",
        letters[0].text
    );
    let own = post.world.app.store.customer(post.acme);
    let mut write = post.world.app.store.write().await.unwrap();
    own.suspend_member(&mut write, eve.id, true).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(post.fills(&register, &[("email", EVE)]).await, asked);
    assert!(post.letters(2).await.is_empty(), "whoever was suspended hears nothing");
    // Closing takes back what was asked for.
    post.fills(&register, &[("email", "mia@example.com")]).await;
    let link = post.letters(2).await[0].link().unwrap();
    assert_eq!(post.call(Method::PUT, switch, json!({ "open": false })).await.0, 204);
    assert_eq!(post.chooses(&link).await.0, 404);
    assert_eq!(post.call(Method::PUT, switch, json!({ "open": true })).await.0, 204);
    assert_eq!(post.chooses(&link).await.0, 410);
}

#[tokio::test]
async fn no_stage_is_opened_where_no_mail_is_sent() {
    let world = world().await;
    let acme = stage_of(&world).await;
    let boss = world.assertion(acme, &["administrator"]);
    let path = "/api/v1/stages/development/registration";
    let (status, text) = world.call("acme", Method::PUT, path, Some(&boss), r#"{"open":true}"#).await;
    assert!(status == 422 && text.contains("--identity-settings"), "{text}");
}

#[tokio::test]
async fn letters_are_limited_for_each_address_and_for_each_source() {
    let world = identity::World::with_ann().await;
    let mut browser = Browser::default();
    let page = world.browse(&mut browser, Method::GET, "/identity/forgot", "").await;
    let mut asked = async |email: &str| {
        let form = filled(&page.body, &[("email", email)]);
        world.browse(&mut browser, Method::POST, "/identity/forgot", &form).await
    };
    for email in [EMAIL, "nobody@example.com"] {
        let statuses: Vec<_> =
            [asked(email).await, asked(email).await, asked(email).await, asked(email).await]
                .iter()
                .map(|answer| answer.status.as_u16())
                .collect();
        assert_eq!(statuses, [200, 200, 200, 200], "{email}");
    }
    // Nine and ten are other addresses; then the source has to wait, whatever it types.
    for email in ["a@example.com", "b@example.com"] {
        assert_eq!(asked(email).await.status, 200);
    }
    let refused = asked("c@example.com").await;
    assert!(refused.status == 429 && refused.headers.contains_key("retry-after"), "{}", refused.body);
}

#[tokio::test]
async fn a_letter_that_a_server_does_not_take_waits_and_is_given_up_when_its_time_is_over() {
    let post = Post::new().await;
    let own = post.world.app.store.customer(post.acme);
    let put = async |until: i64| {
        let mut write = post.world.app.store.write().await.unwrap();
        let mail = Mail { to: EVE.into(), subject: "Hello".into(), text: "Eve,\nhow are you?\n".into() };
        assert!(own.post(&mut write, &mail, until).await.unwrap());
        write.commit().await.unwrap();
    };
    post.smtp.refuse(1);
    put(now_s() + 600).await;
    assert!(post.letters(0).await.is_empty());
    let due = async |id: &str| {
        let mut write = post.world.app.store.write().await.unwrap();
        own.put_mail_off(&mut write, id, now_s()).await.unwrap();
        write.commit().await.unwrap();
    };
    // What waits is sealed: the file does not show whom it is for.
    let bytes = fs::read(post.world.at("db")).unwrap();
    let wal = fs::read(post.world.at("db-wal")).unwrap_or_default();
    assert!(![bytes, wal].concat().windows(EVE.len()).any(|window| window == EVE.as_bytes()));
    let waiting = post.world.app.store.mail_waiting().await.unwrap();
    due(&waiting[0]).await;
    let letters = post.letters(0).await;
    assert_eq!(letters.len(), 1);
    post.smtp.refuse(1);
    put(now_s() + 1).await;
    assert!(post.letters(1).await.is_empty());
    assert!(post.world.app.store.mail_waiting().await.unwrap().is_empty(), "given up");
    let trail = own.audit_trail(10).await.unwrap();
    assert!(trail.iter().any(|row| row.what == "mail.given-up"));
}

#[tokio::test]
async fn the_way_to_the_server_is_secured_as_the_operator_says() {
    let check = async |smtp: &Smtp, security, login: Option<&str>, trusted: bool| {
        let dir = tempfile::tempdir().unwrap();
        let mut set = settings(smtp, security);
        fs::write(dir.path().join("ca.pem"), smtp.certificate()).unwrap();
        fs::write(dir.path().join("password"), format!("{}\n", login.unwrap_or_default())).unwrap();
        set.ca_file = trusted.then(|| dir.path().join("ca.pem"));
        set.username = login.map(|_| "bastide".to_owned());
        set.password_file = login.map(|_| dir.path().join("password"));
        let world = world_of(|config| config.mail = Some(set)).await;
        let acme = world.customer("acme").await;
        let mut write = world.app.store.write().await.unwrap();
        let mail = Mail { to: EVE.into(), subject: "Hello".into(), text: "Hello\n".into() };
        world.app.store.customer(acme).post(&mut write, &mail, now_s() + 600).await.unwrap();
        write.commit().await.unwrap();
        let before = smtp.letters().len();
        pass(&world.app).await.unwrap();
        smtp.letters().len() > before
    };
    let starttls = Smtp::start(Way::Starttls, Some(("bastide", "secret")));
    assert!(check(&starttls, MailSecurity::Starttls, Some("secret"), true).await);
    assert!(!check(&starttls, MailSecurity::Starttls, Some("wrong"), true).await);
    assert!(!check(&starttls, MailSecurity::Starttls, Some("secret"), false).await, "nobody vouches for it");
    assert!(!check(&starttls, MailSecurity::None, None, true).await);
    let tls = Smtp::start(Way::Tls, None);
    assert!(check(&tls, MailSecurity::Tls, None, true).await);
    // A server that does not offer it gets nothing in the clear.
    let plain = Smtp::start(Way::Plain, None);
    assert!(!check(&plain, MailSecurity::Starttls, None, true).await);
    assert!(check(&plain, MailSecurity::None, None, true).await);
}

#[tokio::test]
async fn administrators_are_reminded_once_of_a_secret_that_ends_soon() {
    let post = Post::new().await;
    let own = post.world.app.store.customer(post.acme);
    let mut write = post.world.app.store.write().await.unwrap();
    for (email, role) in [(EMAIL, "administrator"), ("dev@example.com", "developer")] {
        let member = MemberRow {
            id: UserId::generate(),
            state: "active".into(),
            ..MemberRow::invited("", email, "x", vec![role.into()])
        };
        own.add_member(&mut write, &member).await.unwrap();
    }
    for (client, days) in [("soon", 13), ("later", 20)] {
        let row = bastide_store::ClientRow::service(client, vec![]);
        own.add_client(&mut write, &row).await.unwrap();
        let until = Some(now_s() + days * 86_400 + 600);
        own.add_client_secret(&mut write, client, &opaque::hash(client), until, 2).await.unwrap();
    }
    write.commit().await.unwrap();
    remind(&post.world.app).await.unwrap();
    remind(&post.world.app).await.unwrap();
    let letters = post.letters(0).await;
    assert_eq!((letters.len(), letters[0].to.as_str()), (1, EMAIL));
    assert!(letters[0].text.contains("soon") && letters[0].text.contains("13 days"), "{}", letters[0].text);
}
