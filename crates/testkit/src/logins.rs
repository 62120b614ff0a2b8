//! A flood of wrong passwords for many addresses from many sources, and what one client of another route feels. Only for
//! servers of our own, on loopback.

use crate::load::Target;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Failures of a source before it must wait: then the attacker takes another one.
const TRIES: u64 = 9;
/// Pause between two requests of the client that is watched.
const PAUSE: Duration = Duration::from_millis(5);
/// The sign-in request that the forms carry.
const REQUEST: &str = "response_type=code&client_id=bastide-cli&redirect_uri=http%3A%2F%2F127.0.0.1%3A4711%2Fcallback\
                       &code_challenge=dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk&code_challenge_method=S256";

/// What attackers heard.
#[derive(Debug, Default)]
pub struct Tally {
    /// A hash was worked out: the password is wrong.
    pub hashed: AtomicU64,
    /// Refused without, since too many wait.
    pub refused: AtomicU64,
    /// Anything else, such as a connection that ended.
    pub other: AtomicU64,
}

/// Attackers; they end when this is dropped.
pub struct Attack {
    /// What they heard so far.
    pub tally: Arc<Tally>,
    attackers: JoinSet<()>,
    over: Arc<AtomicBool>,
}

impl Attack {
    /// Starts so many attackers at a Platform.
    pub fn start(target: &Target, attackers: usize) -> Self {
        let (tally, over) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
        let sources = Arc::new(AtomicU64::new(0));
        let mut attack = Self { tally: tally.clone(), attackers: JoinSet::new(), over: over.clone() };
        for _ in 0..attackers {
            let (target, tally, over, sources) =
                (target.clone(), tally.clone(), over.clone(), sources.clone());
            attack.attackers.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let number = sources.fetch_add(1, Ordering::Relaxed);
                    if from_one_source(&target, number, &tally, &over).await.is_err() {
                        tally.other.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            });
        }
        attack
    }

    /// Lets them finish.
    pub async fn end(mut self) -> Arc<Tally> {
        self.over.store(true, Ordering::Relaxed);
        while self.attackers.join_next().await.is_some() {}
        self.tally.clone()
    }
}

async fn from_one_source(target: &Target, number: u64, tally: &Tally, over: &AtomicBool) -> Result<()> {
    let source = Ipv4Addr::from_bits(0x7f01_0000 + (number as u32 & 0x00fe_ffff));
    let io = TokioIo::new(target.connect_from(source, false).await?);
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(io).await?;
    let driver = tokio::spawn(connection);
    let host = format!("{}:{}", target.host, target.port);
    let page = Request::get(format!("/identity/authorize?{REQUEST}"))
        .header(header::HOST, &host)
        .header(header::ACCEPT, "text/html")
        .body(Full::default())?;
    let (head, body) = sender.send_request(page).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    ensure!(head.status == StatusCode::OK, "{}", head.status);
    let cookie = head.headers[header::SET_COOKIE].to_str()?.split(';').next().unwrap_or_default().to_owned();
    let text = String::from_utf8_lossy(&body);
    let token = text.split("name=\"form_token\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let token = token.context("no form")?.to_owned();
    for attempt in 0..TRIES {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let form = format!(
            "{REQUEST}&form_token={token}&username=a{number}.{attempt}%40example.com&password=Wrong-password-1"
        );
        let login = Request::post("/identity/login")
            .header(header::HOST, &host)
            .header(header::ACCEPT, "text/html")
            .header(header::COOKIE, &cookie)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(form))?;
        let response = sender.send_request(login).await?;
        let counter = match response.status() {
            StatusCode::UNAUTHORIZED => &tally.hashed,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => &tally.refused,
            _ => &tally.other,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        response.into_body().collect().await?;
    }
    drop(sender);
    driver.abort();
    Ok(())
}

/// How long each answer took that one client got in this time.
///
/// # Errors
/// When an answer is not 200.
pub async fn watch(target: &Target, time: Duration) -> Result<Vec<Duration>> {
    let mut sender = target.http1().await?;
    let (until, mut took) = (Instant::now() + time, Vec::new());
    while Instant::now() < until {
        let began = Instant::now();
        let request: Request<Empty<Bytes>> = target.request(&target.path)?;
        let response = sender.send_request(request).await?;
        ensure!(response.status() == StatusCode::OK, "{}", response.status());
        response.into_body().collect().await?;
        took.push(began.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(took)
}
