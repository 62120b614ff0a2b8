//! How a refusal is said: RFC 9457 problem details with a stable code.
//!
//! The catalogue below is the whole list; `bastide explain <code>` prints it. A code is never reused
//! for something else.

use crate::RequestId;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

macro_rules! codes {
    ($($variant:ident = $code:literal, $status:literal, $title:literal, $explain:literal;)*) => {
        /// A stable code: which station refused, and why.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $title] $variant,)* }

        impl Code {
            /// All codes, in the order of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The code as text, such as `B-EDGE-0404`.
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $code,)* } }
            /// HTTP status.
            pub const fn status(self) -> u16 { match self { $(Self::$variant => $status,)* } }
            /// One line for everybody.
            pub const fn title(self) -> &'static str { match self { $(Self::$variant => $title,)* } }
            /// What it means and what to do, for `bastide explain`.
            pub const fn explanation(self) -> &'static str { match self { $(Self::$variant => $explain,)* } }
        }
    };
}

codes! {
    BadRequest = "B-EDGE-0400", 400, "The request is not valid HTTP.",
        "The edge refuses what two parsers could read differently: two Host fields, Content-Length with Transfer-Encoding, folded or malformed lines, broken chunks. The detail names the fault. Mend the client.";
    SiteUnknown = "B-EDGE-0404", 404, "Nothing is served here.",
        "No app is served under this host and path. Check the spelling; `bastide status` lists the addresses of your apps. An app answers only in the stages it was deployed to.";
    Misdirected = "B-EDGE-0421", 421, "This connection is not for that host.",
        "The Host field names a site that the certificate of this connection does not cover. Open a new connection to that host.";
    HeadTooLarge = "B-EDGE-0431", 431, "The request's header fields are too large.",
        "At most 100 fields and 64 KiB in all are accepted. Cookies are the usual cause.";
    TargetTooLong = "B-EDGE-0414", 414, "The request's address is too long.",
        "At most 16 KiB of path and query are accepted. Send long input in a body.";
    BodyTooLarge = "B-EDGE-0413", 413, "The request's body is too large.",
        "The body is larger than this site accepts. For publish the limit is 256 MiB packed and 1 GiB unpacked.";
    RequestTimeout = "B-EDGE-0408", 408, "The request did not arrive in time.",
        "The client stopped sending before the request was complete.";
    LoopDetected = "B-EDGE-0508", 508, "The request came back to us.",
        "CDN-Loop already names this edge: an origin sends its requests back here. Check the origin's address.";
    Banned = "B-EDGE-0403", 403, "Requests from this address are not served.",
        "The address, or the network around it, is banned: everywhere by the security office, or at the hosts of one customer by that customer. Bans end by themselves or are lifted: `bastide ban list` shows them to whoever made them. Nobody else's settings let a banned source in.";
    WafBlocked = "B-WAF-0403", 403, "The request was refused by the firewall.",
        "The loaded WAF rules scored this request as an attack. The security office finds the rules in the audit log under the request id; it can lower the mode or exclude a rule.";
    PolicyLoosened = "B-WAF-0409", 409, "The policy would loosen what is decided above.",
        "The security office decides; every level below (Platform, stage, app) may only tighten: a stricter mode, a higher paranoia level, lower thresholds, more of a body inspected. Exclusions of customers count as far as the office allows them. `bastide waf policy show` shows what holds.";
    GatewayUnreachable = "B-EDGE-0502", 502, "No gateway answered.",
        "The edge reached no gateway of any zone. `bastide status` shows which roles run.";
    GatewayTimeout = "B-EDGE-0504", 504, "The answer took too long.",
        "The request's deadline passed before an answer began. Make the app answer sooner, or in pieces.";
    OriginUnreachable = "B-EDGE-0503", 502, "The origin did not answer.",
        "The stand-alone edge could not reach its origin. Check `--origin` and that the origin runs.";
    NothingStored = "B-CACHE-0504", 504, "Nothing is stored for this request.",
        "The request says `only-if-cached`, and no stored response may be used for it. Send it without, or with `max-stale`.";
    PurgeLimit = "B-CACHE-0429", 429, "Too many purges at once.",
        "A customer may purge 60 times a minute. Purge by prefix, group or app instead of address by address, or wait a little.";
    EdgesSilent = "B-CACHE-0503", 503, "No edge answers.",
        "What edges store is known to them alone, and none of them answered the Platform just now. Apps are served all the same; retry.";
    StaleForbidden = "B-CACHE-0505", 504, "What is stored may not be used without asking, and nobody answers.",
        "A response is stored, but it is stale and forbids to be used then (`must-revalidate`, `proxy-revalidate`, `s-maxage` or `no-cache`), and what stands behind the edge did not answer.";
    Overloaded = "B-EDGE-0529", 503, "Too many requests at once.",
        "A limit of requests in flight is reached. Retry after the time given.";
    Maintenance = "B-SITE-0503", 503, "This is closed for maintenance.",
        "Whoever looks after this stage or app has closed it for a while: `bastide site show`. Apps run on, and clients of listed addresses still get in. Retry after the time given.";
    SiteInvalid = "B-SITE-0422", 422, "The settings of the site cannot be used.",
        "The detail names the page, redirect or field, and what would do. Nothing was changed.";
    SiteLimit = "B-SITE-0429", 429, "Too much for a site, or too often.",
        "Settings of sites travel to every edge. The detail has the numbers: shorten pages or redirects, take some out, or wait a little.";
    NotSignedIn = "B-ID-0401", 401, "You are not signed in.",
        "This part needs a signed-in user. Sign in with the browser, or send `Authorization: Bearer <token>`; `bastide token` prints one.";
    TokenRefused = "B-ID-0402", 401, "The token is not valid here.",
        "The token is expired, not yet valid, badly signed, or made for another customer, stage or app. The detail names the check that failed. Get a fresh one for this address.";
    RevocationUnknown = "B-ID-0503", 503, "It is not known whether your sign-in still counts.",
        "The gateway has not heard the Platform for a while (15 s by default), so it cannot know who was signed out or suspended meanwhile. It refuses members until it hears of it again; users of apps go on. Retry.";
    Forbidden = "B-ID-0403", 403, "You may not do this.",
        "You are signed in, but lack the role that this needs. Ask an administrator of your organization.";
    KeyTooYoung = "B-ID-0409", 409, "The next key is not known everywhere yet.",
        "A key signs only after it was published for two minutes, so that everybody knows it. Retry after the time given; should the key in use be known to others, rotate with `--emergency`.";
    CrossSite = "B-ID-0406", 403, "A page of another site sent this request.",
        "Requests that change something and carry a session cookie must come from the same site (Sec-Fetch-Site or Origin). Use a token for programs.";
    LoginFailed = "B-ID-0411", 401, "E-mail or password is wrong.",
        "The two do not belong together. After five failures in a row each further try must wait longer.";
    SecondFactorWrong = "B-ID-0412", 401, "The code is wrong, or was used before.",
        "A code of an authenticator app lives 30 seconds and counts once: wait for the next one, and look whether the clock of the phone is right. A recovery code counts once, too. Who has neither asks an administrator: `bastide member reset-mfa <e-mail>`.";
    PasskeyRefused = "B-ID-0415", 401, "This passkey was not accepted.",
        "It belongs to another account or another place, was taken away, or its answer came too late: begin again. An authenticator whose counter went back is refused, for there may be a copy of it; the audit trail says so. Who has no other way in asks an administrator: `bastide member reset-passkeys <e-mail>`.";
    ProviderRefused = "B-ID-0414", 401, "You were not signed in by this provider.",
        "The detail says why. An address that the provider has not proven, or that has an account here already, makes nobody that account: sign in with its password, or ask an administrator.";
    ProviderFailed = "B-ID-0502", 502, "This provider of identity does not work at the moment.",
        "It gave no answer, or one that does not count; the Platform's log says which. Administrators look at its settings with `bastide idp show` and take it out of the way with `bastide idp disable`; passwords go on.";
    StepUpNeeded = "B-ID-0413", 401, "You are signed in, but this needs a better sign-in.",
        "This part wants a second factor, a passkey, or a sign-in that is younger. Browsers are sent to sign in again; for the command line `bastide login --mfa` or `bastide login --passkey` does it. `WWW-Authenticate` says what is wanted (RFC 9470).";
    LoginLocked = "B-ID-0429", 429, "Too many failed tries; wait a little.",
        "Retry after the time given. The wait doubles with each failure up to five minutes, and ends with a success.";
    LinkExpired = "B-ID-0410", 410, "This link is no longer valid.",
        "Invitation links work once and for seven days. Ask an administrator for a new one: `bastide member invite <e-mail>`, or for users of apps `bastide user invite <e-mail>`.";
    PasswordWeak = "B-ID-0422", 422, "The password is too weak.",
        "At least 12 characters, one digit and one capital letter.";
    OAuthInvalid = "B-ID-0400", 400, "The sign-in request is not valid.",
        "A parameter of the OAuth 2 request is missing or wrong; `error` names it (RFC 6749 section 5.2).";
    NoReplica = "B-GW-0503", 503, "The app is not ready.",
        "No replica of the app is ready in any zone. `bastide status <app>` says how its replicas are.";
    UpgradeUnsupported = "B-GW-0501", 501, "This upgrade is not served.",
        "WebSockets to apps are served. No other protocol is, and none to the Platform.";
    ReplicaFailed = "B-GW-0502", 502, "The app did not answer.",
        "The replica closed the connection before its answer. Look at its log; `bastide status <app>` says how its replicas are.";
    ReplicaTimeout = "B-GW-0504", 504, "The app took too long.",
        "The replica did not begin its answer in time.";
    PlatformUnavailable = "B-GW-0505", 503, "The Platform is not available.",
        "No replica of the platform services answered. Published apps keep answering; retry.";
    ApiUnknown = "B-API-0404", 404, "There is no such thing.",
        "The address names nothing, or something you may not know about.";
    MethodNotAllowed = "B-API-0405", 405, "This method is not allowed here.",
        "The address exists, but not with this method. `/api/v1/openapi.json` lists what there is.";
    InputInvalid = "B-API-0422", 422, "The input is not valid.",
        "The detail names the field and what would do.";
    NameTaken = "B-API-0409", 409, "The name is already taken.",
        "Names of customers are unique, names of apps are unique within a customer. Choose another.";
    PreconditionFailed = "B-API-0412", 412, "It is not what you saw any more.",
        "`If-Match` names another state of what the request would change: somebody was faster. Read it again, decide again, and send the new tag.";
    KeyReused = "B-API-0423", 422, "This idempotency key belongs to another request.",
        "A key stands for one request: the same method, address and body. Take a new key for a new request; keys are remembered for 24 hours.";
    KeyBusy = "B-API-0425", 409, "The first request with this key is still running.",
        "Ask again after the seconds in `Retry-After`: then its answer is told again, and nothing is done twice.";
    AnswerLost = "B-API-0410", 409, "It was done, but its answer is lost.",
        "A request with this idempotency key was carried out by a replica that ended before its answer was kept, or whose answer was too long to keep. Look at what it changed; a new key does it again.";
    TooManyRequests = "B-API-0429", 429, "Too many requests in this minute.",
        "Each customer may make so many requests in a minute to each service of the Platform, and fewer that build or deploy. The detail has the number, `Retry-After` the seconds until the next minute.";
    BanLimit = "B-BAN-0429", 429, "Too many bans.",
        "Bans travel to every edge. The detail has the number: ban a network instead of its addresses, or lift what is not needed any more.";
    DomainInvalid = "B-DOM-0422", 422, "This domain cannot be used.",
        "A custom domain is one host name of the public internet, in ASCII or Unicode: no wildcard, no address, nothing at or below the domains of Bastide itself. The detail names what is wrong.";
    DomainTaken = "B-DOM-0409", 409, "The domain belongs to somebody else.",
        "Another stage or customer has proven that the domain is theirs, or gave it up less than 180 days ago. If it is yours, take the other's TXT record out of your DNS and ask the operator.";
    DomainUnproven = "B-DOM-0403", 409, "The ownership of the domain is not proven.",
        "The TXT record was not found, or is another one. `bastide domain list` shows what it must say; DNS may take a while to tell everybody. Within 72 hours after `bastide domain add` the record is looked for again and again.";
    DomainLimit = "B-DOM-0429", 429, "Too many domains, or too often.",
        "The detail has the number. Remove a domain that you do not need, or wait a little.";
    CertificateInvalid = "B-DOM-0423", 422, "The certificate cannot be used.",
        "The chain begins with the certificate of the domain, each one is signed by the next, none has expired, and the key belongs to the first. The detail names what is wrong. What served before keeps serving.";
    ManifestInvalid = "B-BUILD-0422", 422, "`bastide.toml` is not valid.",
        "The detail names the key, the value found and what would do.";
    ArchiveInvalid = "B-BUILD-0423", 422, "The archive is not acceptable.",
        "An archive holds plain files and directories below its root: no `..`, no absolute paths, no links, no devices. The detail names the entry. Nothing was kept.";
    ContentUnknown = "B-BUILD-0409", 409, "The Build Service does not have what the upload builds upon.",
        "The upload leaves away what an earlier publish brought, and that is not there any more, or is not the same. Publish the whole directory; `bastide publish` does so by itself.";
    UploadTooLarge = "B-BUILD-0413", 413, "The upload is too large.",
        "At most 256 MiB packed, 1 GiB unpacked and 20 000 entries. Nothing was kept.";
    BinaryNotStatic = "B-BUILD-0424", 422, "The program cannot run here.",
        "The program named by `app.command` must be in the archive and be a program for this machine that needs nothing else: linked statically, or with its loader and libraries in the archive. Rust: `-C target-feature=+crt-static`; Go: CGO_ENABLED=0; C: -static.";
    ImageInvalid = "B-BUILD-0425", 422, "The image is not acceptable.",
        "An image is for this machine, holds files, directories and links within itself, and names a program that is in it. The detail names the fault. `app.command`, `app.port` and `app.workdir` overrule what the image says. Nothing was kept.";
    PullFailed = "B-BUILD-0426", 422, "The image could not be pulled.",
        "The registry did not give the image of this digest. The detail says what it answered. Images of the public internet are pulled without credentials; the operator names other registries in the Platform's configuration.";
    DeployFailed = "B-DEPLOY-0500", 409, "The deployment failed; the revision before it keeps serving.",
        "The new replicas did not become ready in time. `bastide status <app>` says why, for each replica.";
    RevisionChanged = "B-DEPLOY-0403", 409, "This revision is not what was published.",
        "Each revision carries the Platform's mark over its image, manifest and digest; this one's does not fit. Somebody changed the database. It runs nowhere any more; publish anew, and tell the operator.";
    NothingBefore = "B-DEPLOY-0404", 409, "There is nothing to go back to.",
        "The detail says what is missing. `bastide revisions <app>` lists revisions and where they serve; only what served in a stage can be rolled back to there.";
    DeployBusy = "B-DEPLOY-0409", 409, "A deployment of this app is still running.",
        "Wait until it has ended; `bastide status <app>` shows it.";
    QuotaExceeded = "B-DEPLOY-0429", 409, "The quota of replicas is used up.",
        "Your organization may have so many replicas in all its stages together; the detail has the numbers. Scale another app down (`bastide scale`), or ask the operator for more (`bastide customer quota`).";
    StageOrder = "B-DEPLOY-0422", 409, "This revision has not run in the stage before.",
        "An app goes through the stages in order: publish deploys to the first, promote moves the same image on.";
    ServiceMissing = "B-SVC-0409", 409, "This installation does not offer that service.",
        "`[services.postgres]` needs a PostgreSQL server that the operator has configured, and a runtime that isolates apps from each other. Nothing was kept. Ask your operator, or take the table out of `bastide.toml`.";
    SettingMissing = "B-CONFIG-0409", 409, "A setting that the app needs is not set.",
        "`[settings]` of the manifest says what an app cannot do without; the detail names what is missing in this stage. `bastide settings set <app> NAME=value --stage <stage>` sets it, `bastide secret set` if it is a secret. What the revision that serves needs cannot be taken away.";
    IsolationMissing = "B-RT-0403", 403, "The runtime here isolates nothing.",
        "The `process` driver runs apps as plain processes. It starts only with `--allow-no-isolation`, for one customer and never for the last stage (Production). `bastide check` says what this machine lacks for isolation; run Bastide where it lacks nothing.";
    IsolationImpossible = "B-RT-0404", 503, "Apps cannot be isolated on this machine.",
        "The `linux` driver needs root, namespaces, cgroups, seccomp, overlayfs, nftables and conntrack. `bastide check` says which of them is missing and what to do.";
    Internal = "B-0500", 500, "Something went wrong on our side.",
        "This is a fault of Bastide. The operator finds the cause in the log under the request id.";
}

impl Code {
    /// The code of this text, in any case of letters.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str().eq_ignore_ascii_case(text))
    }
    /// A problem with only the code.
    pub fn problem(self) -> Problem {
        Problem {
            kind: Cow::Owned(format!("urn:bastide:problem:{}", self.as_str())),
            title: Cow::Borrowed(self.title()),
            status: self.status(),
            code: Cow::Borrowed(self.as_str()),
            detail: None,
            request_id: None,
            trace_id: None,
        }
    }
    /// A problem with a detail that the client may know.
    pub fn because(self, detail: impl Into<String>) -> Problem {
        Problem { detail: Some(detail.into()), ..self.problem() }
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

/// Problem details (RFC 9457). Only what the client may know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {title}{}", detail.as_deref().map(|d| format!(" {d}")).unwrap_or_default())]
pub struct Problem {
    /// URI of the kind of problem.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// One line for everybody.
    pub title: Cow<'static, str>,
    /// HTTP status.
    pub status: u16,
    /// Stable code.
    pub code: Cow<'static, str>,
    /// What exactly is wrong this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Which request; the operator finds the receipt under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// Its trace (W3C Trace Context): 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// Media type of a serialized [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

impl Problem {
    /// The same problem, with the request it belongs to. Its trace begins at our edge, under the same id.
    #[must_use]
    pub fn of_request(mut self, id: RequestId) -> Self {
        self.trace_id = Some(id.0.simple().to_string());
        self.request_id = Some(id);
        self
    }

    /// The same problem, with the trace that `traceparent` names; where it names none, it stays as it is.
    #[must_use]
    pub fn of_trace(mut self, traceparent: Option<&str>) -> Self {
        let id = traceparent.and_then(|text| text.split('-').nth(1));
        let is_id = |id: &&str| id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if let Some(id) = id.filter(is_id) {
            self.trace_id = Some(id.to_owned());
        }
        self
    }

    /// The body for programs: JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("a problem is plain data")
    }

    /// The body for people: a small page without script or style from elsewhere.
    pub fn html(&self) -> String {
        let id = self.request_id.map(|id| format!("<p>Request <code>{id}</code></p>")).unwrap_or_default();
        let detail = self.detail.as_deref().map(|d| format!("<p>{}</p>", escape(d))).unwrap_or_default();
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
             <meta name=color-scheme content=\"light dark\"><title>{status} {title}</title>\
             <main><h1>{title}</h1>{detail}<p><code>{code}</code></p>{id}</main></html>\n",
            status = self.status,
            title = escape(&self.title),
            code = escape(&self.code),
        )
    }

    /// Which of the two bodies an `Accept` field asks for (RFC 9110 §12.5.1): a page for who names HTML and likes it
    /// better than JSON, as browsers do; JSON for the rest.
    pub fn wants_html(accept: Option<&str>) -> bool {
        let Some(accept) = accept else { return false };
        let liked = |kinds: &[&str]| {
            let members = accept.split(',').filter_map(|member| quality(member, kinds));
            members.max().unwrap_or(0)
        };
        liked(&["text/html", "application/xhtml+xml"]) > liked(&["application/json", MEDIA_TYPE])
    }
}

/// The weight of a member of `Accept`, in thousandths, if it is one of these media types. One that cannot be read
/// counts for nothing.
fn quality(member: &str, kinds: &[&str]) -> Option<u16> {
    let mut parts = member.split(';').map(str::trim);
    let kind = parts.next()?;
    kinds.iter().find(|known| kind.eq_ignore_ascii_case(known))?;
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let Some(weight) = weight else { return Some(1000) };
    let (whole, part) = weight.split_once('.').unwrap_or((weight, ""));
    if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{part:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

/// Text as HTML shows it, also between quotes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_is_named_once_and_found_again() {
        let mut seen = HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{} twice", code.as_str());
            assert_eq!(Code::from_text(&code.as_str().to_lowercase()), Some(*code));
            assert!((400..600).contains(&code.status()));
            assert!(code.explanation().len() > 20);
        }
    }

    #[test]
    fn a_page_shows_the_detail_without_letting_it_in() {
        let page = Code::InputInvalid.because("<script>x</script>").html();
        assert!(!page.contains("<script>"));
    }

    #[test]
    fn who_likes_html_better_than_json_gets_a_page() {
        let check = |accept: &str, expected: bool| {
            assert_eq!(Problem::wants_html(Some(accept)), expected, "{accept}");
        };
        check("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", true);
        check("Text/HTML; charset=utf-8", true);
        check("application/json;q=0.5, text/html;q=0.9", true);
        check("application/xhtml+xml", true);
        for json in [
            "",
            "*/*",
            "text/*",
            "application/json",
            "application/json, text/html",
            "application/problem+json, text/html;q=0.9",
            "application/json, text/plain, */*",
            "text/html;q=0",
            "text/html;q=0.000",
            "text/html;q=1.5",
            "text/html;q=0.1234",
            "text/html;q=x",
            "text/html;q=-1",
            "text/htmlx",
        ] {
            check(json, false);
        }
        assert!(!Problem::wants_html(None));
    }

    #[test]
    fn a_refusal_names_the_trace_that_begins_with_its_request() {
        let id = RequestId::generate();
        let problem = Code::NameTaken.problem().of_request(id);
        assert_eq!(problem.trace_id, Some(id.to_string().replace('-', "")));
        assert_eq!(problem.clone().of_trace(Some("junk")), problem);
        let other = problem.of_trace(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert_eq!(other.trace_id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    }

    #[test]
    fn a_problem_reads_back_as_written() {
        let problem = Code::NameTaken.because("demo").of_request(RequestId::generate());
        assert_eq!(serde_json::from_str::<Problem>(&problem.json()).unwrap(), problem);
    }
}
