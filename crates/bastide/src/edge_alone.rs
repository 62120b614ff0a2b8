//! `bastide edge --origin …`: CDN and WAF before any HTTP origin.

use crate::{
    args::{EdgeArgs, WafMode},
    roles::cancel_on_signal,
};
use anyhow::{Context, Result, bail};
use bastide_edge::{
    StandAlone,
    config::{CertificateFile, WafConfig},
};
use tokio_util::sync::CancellationToken;

/// Runs until a signal.
pub fn run(args: EdgeArgs) -> Result<()> {
    let tls = match (args.tls_cert, args.tls_key) {
        (Some(cert_file), Some(key_file)) => Some(CertificateFile { cert_file, key_file }),
        _ => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let waf = if args.no_waf {
        None
    } else {
        Some(WafConfig {
            rules: args.waf_rules,
            mode: match args.waf_mode {
                WafMode::Detect => bastide_waf::Mode::Detect,
                WafMode::Block => bastide_waf::Mode::Block,
            },
            paranoia: args.waf_paranoia,
            variables: args.waf_set.iter().map(|text| variable(text)).collect::<Result<_>>()?,
            audit: args.waf_audit,
        })
    };
    let origin = args.origin.clone();
    let config = StandAlone {
        origin: args.origin,
        listen: args.listen,
        tls,
        cache: !args.no_cache,
        compress: !args.no_compression,
        metrics: args.metrics,
        takeover_socket: args.takeover,
        waf,
    };
    let stop = CancellationToken::new();
    let waiting = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || runtime.block_on(cancel_on_signal(waiting)))?;
    let ready = move |addr| eprintln!("Serving {scheme}://{addr} for {origin}");
    bastide_edge::run_alone(config, ready, stop).context("the edge cannot run")
}

/// `NAME=VALUE`, with or without the `tx.` before it.
fn variable(text: &str) -> Result<(String, String)> {
    let Some((name, value)) = text.split_once('=') else { bail!("--waf-set takes NAME=VALUE, not `{text}`") };
    let name = name.trim().to_ascii_lowercase();
    let name = name.strip_prefix("tx.").unwrap_or(&name);
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        bail!("--waf-set: `{name}` is no variable");
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_said_with_or_without_its_collection() {
        for text in ["tx.allowed_methods=GET POST", "allowed_methods=GET POST", "TX.Allowed_Methods=GET POST"]
        {
            assert_eq!(
                variable(text).unwrap(),
                ("allowed_methods".to_owned(), "GET POST".to_owned()),
                "{text}"
            );
        }
        assert_eq!(variable("x=a=b").unwrap().1, "a=b");
        for wrong in ["x", "=1", "tx.=1", "a b=1", "args.x=1"] {
            assert!(variable(wrong).is_err(), "{wrong}");
        }
    }
}
