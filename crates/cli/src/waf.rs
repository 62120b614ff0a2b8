//! `waf policy`: what the WAF does, from the security office down to one app.

use crate::{Context, session::Session};
use anyhow::{Result, bail};
use bastide_types::{
    AppName, CustomerName, StageName,
    waf::{AllowExclusions, Beyond, BodyLimit, WafExclusion, WafLayer, WafMode, WafPolicy, WafRules},
};
use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;

/// `bastide waf policy …`
#[derive(Debug, Clone, Subcommand)]
pub enum PolicyCommand {
    /// Show what holds at a level
    Show {
        /// Where
        #[command(flatten)]
        at: At,
    },
    /// Change what is said at a level; below the top it may only be tightened
    Set(Box<Change>),
}

/// Which level is meant: without anything the top, which is the security office's.
#[derive(Debug, Clone, Default, Args)]
pub struct At {
    /// Hosts of the Platform (for operators)
    #[arg(long, conflicts_with_all = ["customer", "stage", "app"])]
    pub platform: bool,
    /// Customer (for operators)
    #[arg(long, requires = "stage")]
    pub customer: Option<CustomerName>,
    /// Stage
    #[arg(long)]
    pub stage: Option<StageName>,
    /// App in the stage
    #[arg(long, requires = "stage")]
    pub app: Option<AppName>,
}

/// What to change.
#[derive(Debug, Clone, Args)]
pub struct Change {
    #[command(flatten)]
    at: At,
    /// Say nothing at this level any more, before all else
    #[arg(long)]
    reset: bool,
    /// off, detect or block
    #[arg(long, value_parser = mode)]
    mode: Option<WafMode>,
    /// Paranoia level up to which rules count, 1 to 4
    #[arg(long, value_name = "N")]
    paranoia: Option<u8>,
    /// Paranoia level up to which rules are run and told
    #[arg(long, value_name = "N")]
    paranoia_detection: Option<u8>,
    /// Score of a request at which it is refused
    #[arg(long, value_name = "SCORE")]
    inbound_threshold: Option<u32>,
    /// Score of an answer at which it is refused
    #[arg(long, value_name = "SCORE")]
    outbound_threshold: Option<u32>,
    /// How much of a request's body is inspected, and what becomes of longer ones: 131072:prefix or 131072:refuse
    #[arg(long, value_name = "BYTES:BEYOND", value_parser = body)]
    request_body: Option<BodyLimit>,
    /// The same for answers
    #[arg(long, value_name = "BYTES:BEYOND", value_parser = body)]
    response_body: Option<BodyLimit>,
    /// Set a `tx` variable of the rules (office)
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    variable: Vec<(String, String)>,
    /// Take a variable out again (office)
    #[arg(long, value_name = "NAME")]
    remove_variable: Vec<String>,
    /// Leave rules out: an id, a range, tag:… or msg:…, then a target and a path if not all are meant, such as
    /// "942100 ARGS:comment /shop/post" or "942100-942199 /shop/*"
    #[arg(long, value_name = "EXCLUSION")]
    exclude: Vec<WafExclusion>,
    /// Take an exclusion out again
    #[arg(long, value_name = "EXCLUSION")]
    remove_exclusion: Vec<WafExclusion>,
    /// Which exclusions customers may add: none, any, or a list such as 942000-942999,930100 (office, at the top)
    #[arg(long, value_name = "WHICH", value_parser = allow)]
    allow_exclusions: Option<AllowExclusions>,
}

/// What the API says of a level.
#[derive(Debug, Clone, Deserialize)]
struct Shown {
    level: String,
    layer: WafLayer,
    policy: WafPolicy,
    version: String,
    allow_exclusions: AllowExclusions,
}

/// Policies.
pub async fn policy(context: &Context, command: PolicyCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    let answer = match command {
        PolicyCommand::Show { at } => session.get(&path(&at)).await?,
        PolicyCommand::Set(change) => {
            let shown: Shown = serde_json::from_value(session.get(&path(&change.at)).await?)?;
            let layer = change.upon(shown.layer)?;
            put(&session, &change.at, &layer).await?
        }
    };
    if context.json {
        println!("{answer}");
    } else {
        print!("{}", text(&serde_json::from_value(answer)?));
    }
    Ok(())
}

/// Adds exclusions at the level of an app, a stage or the Platform: as the office where an operator is signed in,
/// else as the customer. Gives the version of the policy that holds then.
///
/// # Errors
/// When the Platform refuses them.
pub async fn exclude(context: &Context, at: &At, exclusions: &[WafExclusion]) -> Result<String> {
    let session = Session::open(context, None).await?;
    let who = session.get("/whoami").await?;
    let is_office = who["customer"] == CustomerName::operator().as_str();
    let at = At { customer: at.customer.clone().filter(|_| is_office), ..at.clone() };
    let shown: Shown = serde_json::from_value(session.get(&path(&at)).await?)?;
    let mut layer = shown.layer;
    for exclusion in exclusions {
        if !layer.exclusions.contains(exclusion) {
            layer.exclusions.push(exclusion.clone());
        }
    }
    let answer = put(&session, &at, &layer).await?;
    Ok(serde_json::from_value::<Shown>(answer)?.version)
}

async fn put(session: &Session, at: &At, layer: &WafLayer) -> Result<serde_json::Value> {
    session.send(Method::PUT, &path(at), &serde_json::to_value(layer)?).await
}

fn path(at: &At) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    if at.platform {
        query.append_pair("platform", "true");
    }
    let named = [
        ("customer", at.customer.as_ref().map(CustomerName::as_str)),
        ("stage", at.stage.as_ref().map(StageName::as_str)),
        ("app", at.app.as_ref().map(AppName::as_str)),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let query = query.finish();
    if query.is_empty() { "/waf/policy".into() } else { format!("/waf/policy?{query}") }
}

impl Change {
    fn upon(&self, layer: WafLayer) -> Result<WafLayer> {
        let mut layer = if self.reset { WafLayer::default() } else { layer };
        layer.mode = self.mode.or(layer.mode);
        layer.paranoia = self.paranoia.or(layer.paranoia);
        layer.paranoia_detection = self.paranoia_detection.or(layer.paranoia_detection);
        layer.inbound_threshold = self.inbound_threshold.or(layer.inbound_threshold);
        layer.outbound_threshold = self.outbound_threshold.or(layer.outbound_threshold);
        layer.request_body = self.request_body.or(layer.request_body);
        layer.response_body = self.response_body.or(layer.response_body);
        layer.allow_exclusions = self.allow_exclusions.clone().or(layer.allow_exclusions);
        for name in &self.remove_variable {
            if layer.variables.remove(name).is_none() {
                bail!("no variable `{name}` is set at this level");
            }
        }
        layer.variables.extend(self.variable.iter().cloned());
        for gone in &self.remove_exclusion {
            let before = layer.exclusions.len();
            layer.exclusions.retain(|own| own != gone);
            if layer.exclusions.len() == before {
                bail!("there is no exclusion `{gone}` at this level");
            }
        }
        for new in &self.exclude {
            if !layer.exclusions.contains(new) {
                layer.exclusions.push(new.clone());
            }
        }
        layer.check()?;
        Ok(layer)
    }
}

fn text(shown: &Shown) -> String {
    let Shown { level, layer, policy, version, allow_exclusions } = shown;
    let here = |said: bool| if said { "   (said here)" } else { "" };
    let body = |body: BodyLimit| {
        let longer = if body.beyond == Beyond::Refuse { "refused" } else { "inspected in part" };
        format!("{} bytes; longer ones are {longer}", body.bytes_max)
    };
    let mut lines = vec![
        format!("level       {level}, policy {version}"),
        format!("mode        {}{}", policy.mode, here(layer.mode.is_some())),
        format!(
            "paranoia    {}, detection {}{}",
            policy.paranoia,
            policy.paranoia_detection,
            here(layer.paranoia.is_some() || layer.paranoia_detection.is_some())
        ),
        format!(
            "thresholds  {} inbound, {} outbound{}",
            policy.inbound_threshold,
            policy.outbound_threshold,
            here(layer.inbound_threshold.is_some() || layer.outbound_threshold.is_some())
        ),
        format!("requests    {}{}", body(policy.request_body), here(layer.request_body.is_some())),
        format!("answers     {}{}", body(policy.response_body), here(layer.response_body.is_some())),
    ];
    for (name, value) in &policy.variables {
        lines.push(format!("variable    {name}={value}{}", here(layer.variables.contains_key(name))));
    }
    for exclusion in &policy.exclusions {
        lines.push(format!("excluded    {exclusion}{}", here(layer.exclusions.contains(exclusion))));
    }
    for waiting in layer.exclusions.iter().filter(|own| !policy.exclusions.contains(own)) {
        lines.push(format!("excluded    {waiting}   (said here; the office does not allow it)"));
    }
    lines.push(match allow_exclusions {
        AllowExclusions::None => "customers   may add no exclusions".to_owned(),
        AllowExclusions::Any => "customers   may add exclusions".to_owned(),
        AllowExclusions::Listed(list) => {
            let list: Vec<_> = list.iter().map(ToString::to_string).collect();
            format!("customers   may add exclusions of {}", list.join(", "))
        }
    });
    lines.join("\n") + "\n"
}

fn mode(text: &str) -> Result<WafMode, String> {
    match text {
        "off" => Ok(WafMode::Off),
        "detect" => Ok(WafMode::Detect),
        "block" => Ok(WafMode::Block),
        _ => Err("write off, detect or block".into()),
    }
}

fn body(text: &str) -> Result<BodyLimit, String> {
    let wrong = || "write BYTES:prefix or BYTES:refuse, such as 131072:refuse".to_owned();
    let (bytes, beyond) = text.split_once(':').ok_or_else(wrong)?;
    let beyond = match beyond {
        "prefix" => Beyond::Prefix,
        "refuse" => Beyond::Refuse,
        _ => return Err(wrong()),
    };
    Ok(BodyLimit { bytes_max: bytes.parse().map_err(|_| wrong())?, beyond })
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let name = name.trim().to_ascii_lowercase();
    let name = name.strip_prefix("tx.").unwrap_or(&name).to_owned();
    Ok((name, value.to_owned()))
}

fn allow(text: &str) -> Result<AllowExclusions, String> {
    match text {
        "none" => Ok(AllowExclusions::None),
        "any" => Ok(AllowExclusions::Any),
        list => {
            let rules: Result<Vec<WafRules>, _> = list.split(',').map(|one| one.trim().parse()).collect();
            rules.map(AllowExclusions::Listed).map_err(|error| error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: PolicyCommand,
    }

    fn typed(line: &[&str]) -> Change {
        let line = Line::try_parse_from(["policy", "set"].iter().chain(line)).unwrap();
        match line.command {
            PolicyCommand::Set(change) => *change,
            PolicyCommand::Show { .. } => panic!("it sets"),
        }
    }

    #[test]
    fn what_is_typed_changes_the_layer_and_nothing_else() {
        let before =
            typed(&["--mode", "detect", "--variable", "tx.X=1", "--exclude", "942100 ARGS:q /shop/*"]);
        let before = before.upon(WafLayer::default()).unwrap();
        assert_eq!((before.mode, before.variables["x"].as_str()), (Some(WafMode::Detect), "1"));
        let exclusion = &before.exclusions[0];
        assert_eq!(
            (exclusion.target.as_deref(), exclusion.path.as_deref()),
            (Some("ARGS:q"), Some("/shop/*"))
        );
        let after = typed(&[
            "--paranoia",
            "2",
            "--request-body",
            "65536:refuse",
            "--remove-exclusion",
            "942100 ARGS:q /shop/*",
        ]);
        let after = after.upon(before.clone()).unwrap();
        assert_eq!((after.mode, after.paranoia, after.exclusions.len()), (Some(WafMode::Detect), Some(2), 0));
        assert_eq!(after.request_body, Some(BodyLimit { bytes_max: 65536, beyond: Beyond::Refuse }));
        assert_eq!(typed(&["--reset"]).upon(before.clone()).unwrap(), WafLayer::default());
        assert!(typed(&["--remove-variable", "none"]).upon(before.clone()).is_err());
        let scoring = ["policy", "set", "--exclude", "949110"];
        assert!(Line::try_parse_from(scoring).is_err(), "that would switch the scoring off");
    }

    #[test]
    fn a_level_is_one_address() {
        let at = |line: &[&str]| path(&typed(line).at);
        assert_eq!(at(&[]), "/waf/policy");
        assert_eq!(at(&["--platform"]), "/waf/policy?platform=true");
        let app = at(&["--customer", "acme", "--stage", "test", "--app", "shop"]);
        assert_eq!(app, "/waf/policy?customer=acme&stage=test&app=shop");
        assert!(Line::try_parse_from(["policy", "show", "--app", "shop"]).is_err());
    }
}
