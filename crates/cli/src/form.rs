//! Fills in the sign-in pages without a browser: finds the form of a page, its hidden fields, and
//! keeps cookies on the way.

use crate::http::{Answer, Client, request};
use anyhow::{Context, Result, bail};
use http::{Method, header};
use std::collections::BTreeMap;
use url::Url;

/// Most redirects that are followed.
const REDIRECTS_MAX: usize = 10;

/// A browser's memory, as far as signing in needs it: cookies of one host.
pub struct Visitor {
    client: Client,
    cookies: BTreeMap<String, String>,
}

/// A form of a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Form {
    /// Where it is sent.
    pub action: String,
    /// Fields and the values that the page gave them.
    pub fields: BTreeMap<String, String>,
}

/// Where a walk ended.
pub enum Arrival {
    /// A page of the same server.
    Page(Url, Answer),
    /// A redirect to another server, which is not followed.
    Elsewhere(Url),
}

impl Visitor {
    /// A visitor without cookies.
    pub fn new(client: Client) -> Self {
        Self { client, cookies: BTreeMap::new() }
    }

    /// Opens a page and follows redirects within its server.
    pub async fn open(&mut self, url: &Url) -> Result<Arrival> {
        self.walk(Method::GET, url.clone(), Vec::new()).await
    }

    /// Sends a form that stood on the page `on`.
    pub async fn submit(&mut self, on: &Url, form: &Form) -> Result<Arrival> {
        let to = on.join(&form.action).context("the form leads nowhere")?;
        if to.origin() != on.origin() {
            bail!("the form leads to another server");
        }
        let fields = form.fields.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        self.walk(Method::POST, to, fields).await
    }

    async fn walk(
        &mut self,
        mut method: Method,
        mut url: Url,
        mut form: Vec<(String, String)>,
    ) -> Result<Arrival> {
        let origin = url.origin();
        for _ in 0..REDIRECTS_MAX {
            let answer = self.step(&method, &url, &form).await?;
            let Some(target) = answer.header(header::LOCATION).filter(|_| answer.status.is_redirection())
            else {
                return Ok(Arrival::Page(url, answer));
            };
            url = url.join(target).context("a redirect leads nowhere")?;
            if url.origin() != origin {
                return Ok(Arrival::Elsewhere(url));
            }
            (method, form) = (Method::GET, Vec::new());
        }
        bail!("too many redirects")
    }

    async fn step(&mut self, method: &Method, url: &Url, form: &[(String, String)]) -> Result<Answer> {
        let cookies: Vec<_> = self.cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let cookies = cookies.join("; ");
        let origin = url.origin().ascii_serialization();
        let mut fields =
            vec![("accept", "text/html"), ("sec-fetch-site", "same-origin"), ("origin", &origin)];
        if !cookies.is_empty() {
            fields.push(("cookie", &cookies));
        }
        let answer = if *method == Method::POST {
            let pairs: Vec<_> = form.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            self.client.post_form(url.as_str(), &fields, &pairs).await?
        } else {
            self.client.send(request(method.clone(), url.as_str(), &fields, bytes::Bytes::new())?).await?
        };
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            self.remember(cookie.to_str().unwrap_or_default());
        }
        Ok(answer)
    }

    fn remember(&mut self, cookie: &str) {
        let mut parts = cookie.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        if parts.any(|part| part.eq_ignore_ascii_case("max-age=0")) {
            self.cookies.remove(name);
        } else {
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
    }
}

impl Form {
    /// The first form of a page that has a password field.
    pub fn find(page: &str) -> Option<Self> {
        Self::find_with(page, |form| form.contains("type=\"password\"") || form.contains("type=password"))
    }

    /// The first form of a page that asks for a code.
    pub fn find_code(page: &str) -> Option<Self> {
        Self::find_with(page, |form| form.contains("autocomplete=\"one-time-code\""))
    }

    fn find_with(page: &str, wanted: impl Fn(&str) -> bool) -> Option<Self> {
        let lower = page.to_ascii_lowercase();
        let mut from = 0;
        while let Some(start) = lower[from..].find("<form").map(|at| at + from) {
            let end = lower[start..].find("</form").map_or(page.len(), |at| at + start);
            if wanted(&lower[start..end]) {
                return Some(Self::read(&page[start..end]));
            }
            from = end;
            if from <= start {
                break;
            }
        }
        None
    }

    fn read(form: &str) -> Self {
        let open = &form[..form.find('>').unwrap_or(form.len())];
        let mut fields = BTreeMap::new();
        for tag in form.split('<').filter(|tag| tag.to_ascii_lowercase().starts_with("input")) {
            let tag = &tag[..tag.find('>').unwrap_or(tag.len())];
            if let Some(name) = attribute(tag, "name") {
                fields.insert(name, attribute(tag, "value").unwrap_or_default());
            }
        }
        Self { action: attribute(open, "action").unwrap_or_default(), fields }
    }

    /// The field for a password.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        match self.fields.get_mut(name) {
            Some(field) => {
                value.clone_into(field);
                true
            }
            None => false,
        }
    }
}

/// An attribute of a tag, entities resolved.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let lower = tag.to_ascii_lowercase();
    let at = lower
        .match_indices(&format!("{name}="))
        .find(|(at, _)| *at > 0 && lower.as_bytes()[at - 1].is_ascii_whitespace())?;
    let rest = &tag[at.0 + name.len() + 1..];
    let value = match rest.as_bytes().first()? {
        quote @ (b'"' | b'\'') => rest[1..].split(*quote as char).next()?,
        _ => rest.split(|c: char| c.is_ascii_whitespace() || c == '>').next()?,
    };
    let plain =
        value.replace("&quot;", "\"").replace("&#34;", "\"").replace("&#39;", "'").replace("&#x27;", "'");
    let plain = plain.replace("&lt;", "<").replace("&#60;", "<").replace("&gt;", ">").replace("&#62;", ">");
    Some(plain.replace("&#38;", "&").replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_with_the_password_is_found_with_its_fields() {
        let page = r#"<form action="/search"><input name="q"></form>
            <FORM method=post action="/identity/login?x=1&amp;y=2">
            <input type="hidden" name="transaction" value="a&amp;b"><input name=email type=email>
            <input type="password" name="password" required></FORM>"#;
        let form = Form::find(page).unwrap();
        assert_eq!(form.action, "/identity/login?x=1&y=2");
        assert_eq!(form.fields["transaction"], "a&b");
        assert!(form.fields.contains_key("email") && form.fields.contains_key("password"));
    }

    #[test]
    fn pages_without_a_password_form_have_none() {
        assert_eq!(Form::find("<form><input name=a></form>"), None);
        assert_eq!(Form::find("<form"), None);
        assert_eq!(Form::find(""), None);
    }
}
