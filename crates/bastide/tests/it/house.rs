//! The rules of the house, read from `cargo metadata`: arrows between crates only go down, engines do
//! no I/O, and no dependency brings a banned crate, licence or source.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use std::collections::{BTreeMap, BTreeSet};

/// Floor of each crate of ours; an arrow may only point to a lower floor.
const FLOORS: &[(&str, u8)] = &[
    ("bastide-types", 1),
    ("bastide-waf", 2),
    ("bastide-cache", 2),
    ("bastide-balancer", 2),
    ("bastide-identity", 2),
    ("bastide-isolation", 2),
    ("bastide-tls", 3),
    ("bastide-proxy", 3),
    ("bastide-bus", 3),
    ("bastide-container", 3),
    ("bastide-image", 3),
    ("bastide-network", 3),
    ("bastide-store", 3),
    ("bastide-verify", 3),
    ("bastide-edge", 4),
    ("bastide-gateway", 4),
    ("bastide-egress", 4),
    ("bastide-runtime", 4),
    ("bastide-platform", 4),
    ("bastide-portal", 4),
    ("bastide-cli", 5),
    ("bastide", 6),
];

/// Arrows between two crates of the same floor that are meant to be there.
const SIDEWAYS: &[(&str, &str)] = &[("bastide-bus", "bastide-tls")];

const ENGINES: &[&str] = &[
    "bastide-waf",
    "bastide-cache",
    "bastide-balancer",
    "bastide-identity",
    "bastide-isolation",
    "bastide-types",
];

/// Crates that mean I/O, a runtime or a clock of their own.
const NOT_IN_ENGINES: &[&str] = &[
    "tokio",
    "hyper",
    "hyper-util",
    "async-nats",
    "sqlx",
    "rustls",
    "tokio-rustls",
    "socket2",
    "nix",
    "axum",
];

/// Words in an engine's source that mean I/O, a clock or the environment.
const NOT_IN_ENGINE_SOURCE: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::env",
    "std::process",
    "SystemTime::now",
    "Instant::now",
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .other_options(["--locked".to_owned(), "--filter-platform=x86_64-unknown-linux-gnu".to_owned()])
        .exec()
        .expect("cargo metadata runs")
}

fn ours(metadata: &Metadata) -> BTreeMap<String, &Package> {
    metadata.workspace_packages().into_iter().map(|p| (p.name.to_string(), p)).collect()
}

fn floor(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, floor)| *floor)
}

#[test]
fn arrows_between_crates_only_go_down() {
    let metadata = metadata();
    for (name, package) in ours(&metadata) {
        let Some(own) = floor(&name) else {
            assert!(
                ["bastide-testkit", "hello", "xtask"].contains(&name.as_str()),
                "{name} has no floor: give it one in this test and in ARCHITECTURE.md"
            );
            continue;
        };
        for dependency in &package.dependencies {
            if dependency.kind == DependencyKind::Development {
                continue;
            }
            let Some(other) = floor(&dependency.name) else { continue };
            let sideways = SIDEWAYS.contains(&(name.as_str(), dependency.name.as_str()));
            assert!(other < own || sideways, "{name} must not depend on {}", dependency.name);
        }
    }
}

#[test]
fn only_the_platform_knows_sql_and_only_the_bus_knows_nats() {
    let metadata = metadata();
    for (name, package) in ours(&metadata) {
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            match dependency.name.as_str() {
                "sqlx" => assert_eq!(name, "bastide-store"),
                "async-nats" => assert_eq!(name, "bastide-bus"),
                "bastide-store" => {
                    assert!(["bastide-platform", "bastide"].contains(&name.as_str()), "{name}");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn engines_do_no_io() {
    let metadata = metadata();
    for (name, package) in ours(&metadata) {
        if !ENGINES.contains(&name.as_str()) {
            continue;
        }
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            assert!(!NOT_IN_ENGINES.contains(&dependency.name.as_str()), "{name} uses {}", dependency.name);
        }
        let source = package.manifest_path.parent().expect("a manifest has a directory").join("src");
        for (file, text) in sources(source.as_std_path()) {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for word in NOT_IN_ENGINE_SOURCE {
                let found =
                    code.lines().find(|line| line.contains(word) && !line.trim_start().starts_with("//"));
                assert!(found.is_none(), "{file} uses {word}: {}", found.unwrap_or_default());
            }
        }
    }
}

/// Codes of refusals in a text, such as `B-EDGE-0404` and `B-0500`.
fn codes(text: &str) -> BTreeSet<&str> {
    let ends = |character: char| !(character.is_ascii_alphanumeric() || character == '-');
    let number = |part: &str| part.len() == 4 && part.bytes().all(|byte| byte.is_ascii_digit());
    let area = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_uppercase());
    let is_code = |word: &&str| match word.split('-').collect::<Vec<_>>()[..] {
        ["B", last] => number(last),
        ["B", middle, last] => area(middle) && number(last),
        _ => false,
    };
    text.split(ends).filter(is_code).collect()
}

#[test]
fn every_code_that_is_said_anywhere_can_be_explained() {
    let found = codes("\"B-EDGE-0404\", (B-0500). B-x-1 AB-0500 B-EDGE-04041");
    assert_eq!(found, BTreeSet::from(["B-0500", "B-EDGE-0404"]));
    let mut said = 0;
    for package in ours(&metadata()).values() {
        let source = package.manifest_path.parent().expect("a manifest has a directory").join("src");
        for (file, text) in sources(source.as_std_path()) {
            for code in codes(&text) {
                assert!(bastide_types::Code::from_text(code).is_some(), "{file}: {code}");
                said += 1;
            }
        }
    }
    assert!(said >= bastide_types::Code::ALL.len(), "{said}");
}

fn sources(dir: &std::path::Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a source directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("source is text");
            found.push((path.display().to_string(), text));
        }
    }
    found
}

/// Crates, the licence that they name, and why that is fine: two of libcontainer, the others of webauthn-rs.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "pathrs",
        "MPL-2.0 OR LGPL-3.0-or-later",
        "MPL-2.0 binds changes of its own files; it is used unchanged",
    ),
    ("rust-criu", "none", "its licence file is the MIT licence; only the manifest's field is missing"),
    ("webauthn-rs", "MPL-2.0", "MPL-2.0 binds changes of its own files; it is used unchanged"),
    ("webauthn-rs-core", "MPL-2.0", "as webauthn-rs"),
    ("webauthn-rs-proto", "MPL-2.0", "as webauthn-rs"),
    ("webauthn-attestation-ca", "MPL-2.0", "as webauthn-rs"),
    ("crypto-glue", "MPL-2.0", "as webauthn-rs"),
];

#[test]
fn a_command_whose_reader_stops_ends_without_a_word() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bastide"));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = command.args(["explain", "B-WAF-0403"]).stdout(writer).output().expect("it runs");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(141), ""));
}

/// Commands that `bastide` and these of its commands offer, such as `waf check`.
fn commands(within: &[&str]) -> BTreeSet<String> {
    let mut help = std::process::Command::new(env!("CARGO_BIN_EXE_bastide"));
    let help = help.args(within).arg("--help").output().expect("bastide runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(|name| [within, &[name]].concat().join(" ")).collect()
}

#[test]
fn every_command_is_in_the_docs_and_operators_commands_are_named_as_such() {
    let text = include_str!("../../../../docs/commands.md");
    let (operators, api) = text.split_once("## Commands of the API").expect("two parts");
    let named = |part: &str| -> BTreeSet<String> {
        let rows = part.lines().filter(|line| line.starts_with("| `"));
        let cells = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split(", "));
        cells.map(|cell| cell.trim().trim_matches('`').trim_start_matches("bastide ").to_owned()).collect()
    };
    let (operators, api) = (named(operators), named(api));
    assert!(operators.is_disjoint(&api), "in one part only");
    let mut all = commands(&[]);
    assert!(all.remove("waf"), "it has commands of both kinds");
    all.extend(commands(&["waf"]));
    assert_eq!(operators.union(&api).cloned().collect::<BTreeSet<_>>(), all);
}

#[test]
fn no_banned_crate_licence_or_source_is_pulled_in() {
    // The last one backtracks: only tests may use it.
    const BANNED: &[&str] = &["ring", "openssl", "openssl-sys", "native-tls", "fancy-regex"];
    const ALLOWED: &[&str] = &[
        "MIT",
        "MIT-0",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Zlib",
        "Unicode-3.0",
        "CC0-1.0",
        "0BSD",
        "BSL-1.0",
        "Unlicense",
        "CDLA-Permissive-2.0",
    ];
    let metadata = metadata();
    let used = used_packages();
    assert!(used.len() > 100, "{used:?}");
    for package in &metadata.packages {
        if !used.contains(&(package.name.to_string(), package.version.to_string())) {
            continue;
        }
        assert!(!BANNED.contains(&package.name.as_str()), "{} is banned", package.name);
        if let Some(source) = &package.source {
            assert!(source.is_crates_io(), "{} comes from {source}", package.name);
        }
        let licence = package.license.as_deref().unwrap_or("none");
        if let Some((_, known, _)) = EXCEPTIONS.iter().find(|(name, ..)| *name == package.name.as_str()) {
            assert_eq!(licence, *known, "{}: judge its licence anew", package.name);
            continue;
        }
        assert!(licence_fits(licence, ALLOWED), "{}: licence {licence}", package.name);
    }
}

/// Names and versions of packages that really get built here. `cargo metadata` also names optional ones
/// that no feature switches on, so `cargo tree` is asked.
fn used_packages() -> BTreeSet<(String, String)> {
    let output = std::process::Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["tree", "--workspace", "--locked", "--offline", "--prefix", "none", "--edges", "normal,build"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--format", "{p}"])
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned()))
        })
        .collect()
}

/// Whether a licence expression can be met with the allowed licences: every AND part has an allowed
/// OR alternative.
fn licence_fits(expression: &str, allowed: &[&str]) -> bool {
    let expression = expression.replace('/', " OR ");
    let flat = expression.replace(['(', ')'], " ");
    if !expression.contains('(') {
        return flat
            .split(" OR ")
            .any(|either| either.split(" AND ").all(|part| allowed.contains(&part.trim())));
    }
    // With parentheses: AND binds the groups, OR stands inside them (the only form in use).
    expression.split(" AND ").all(|group| {
        let group = group.trim().trim_matches(['(', ')']);
        group.split(" OR ").any(|part| allowed.contains(&part.trim().trim_matches(['(', ')'])))
    })
}

#[test]
fn licence_expressions_are_read_right() {
    let allowed = ["MIT", "Apache-2.0", "ISC"];
    assert!(licence_fits("MIT OR GPL-3.0", &allowed));
    assert!(licence_fits("MIT/Apache-2.0", &allowed));
    assert!(licence_fits("ISC AND (Apache-2.0 OR GPL-2.0)", &allowed));
    assert!(!licence_fits("MIT AND GPL-3.0", &allowed));
    assert!(!licence_fits("GPL-3.0", &allowed));
}
