//! Command lines against installations of another commit: run by `bench/former/run`.

use anyhow::{Context, Result, ensure};
use bastide_testkit::{Options, Product, build_hello};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What people do from day to day, in this order. A row that begins with `!` is refused.
const DAY: &[&[&str]] = &[
    &["whoami"],
    &["token"],
    &["publish", "SITE", "-m", "one"],
    &["status"],
    &["status", "site"],
    &["promote", "site", "--to", "test"],
    &["revisions", "site"],
    &["operations", "site"],
    &["diff", "site", "development", "test"],
    &["scale", "site", "--stage", "development", "--replicas", "3"],
    &["scale", "site", "--stage", "development"],
    &["publish", "SITE", "-m", "two"],
    &["rollback", "site"],
    &["member", "list"],
    &["member", "invite", "bob@example.com"],
    &["role", "list", "hello"],
    &["client", "create", "--id", "robot", "--kind", "service"],
    &["client", "list"],
    &["session", "list"],
    &["keys", "list"],
    &["domain", "list"],
    &["egress", "show", "--stage", "development"],
    &["site", "show", "--stage", "development"],
    &["waf", "policy", "show"],
    &["audit", "list"],
    &["audit", "verify"],
    &["!", "promote", "site", "--to", "nowhere"],
    &["undeploy", "site", "--stage", "test"],
    &["logout"],
];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let (former, new) = (arguments.next().context("former")?, arguments.next().context("new")?);
    for (installation, command_line, name) in [
        (&new, &former, "the former command line, a new installation"),
        (&former, &new, "the new command line, a former installation"),
    ] {
        build_hello(installation)?;
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").display().to_string();
        let arguments = vec!["--allow-no-isolation".to_owned(), "--examples".to_owned(), examples];
        let mut product = Product::start(Options { executable: installation.clone(), arguments }).await?;
        let outcome = a_day(&product, command_line);
        product.explained(outcome)?;
        product.down()?;
        println!("* {name}: {} commands did what they should", DAY.len() + 1);
    }
    Ok(())
}

fn a_day(product: &Product, executable: &Path) -> Result<()> {
    let up: Value = serde_json::from_str(&fs::read_to_string(product.data().join("run/up.json"))?)?;
    let link = up["invitation_link"].as_str().context("a link")?;
    let email = up["administrator_email"].as_str().context("an address")?;
    let site = product.scratch().join("site");
    fs::create_dir(&site)?;
    fs::write(site.join("index.html"), "<h1>site</h1>")?;
    let manifest =
        "[app]\nname = \"site\"\nkind = \"static\"\n[[route]]\npath = \"/\"\naccess = \"public\"\n";
    fs::write(site.join("bastide.toml"), manifest)?;
    let login = ["login", "--invitation", link, "--email", email, "--password-stdin"];
    run(product, executable, &login, "Correct-horse-9\n", true)?;
    for row in DAY {
        let (refused, row) = if row[0] == "!" { (true, &row[1..]) } else { (false, *row) };
        if row[0] == "publish" {
            fs::write(site.join("index.html"), format!("<h1>{}</h1>", row[3]))?;
        }
        let site = site.display().to_string();
        let row: Vec<&str> = row.iter().map(|word| if *word == "SITE" { &*site } else { word }).collect();
        run(product, executable, &row, "", !refused)?;
    }
    Ok(())
}

fn run(product: &Product, executable: &Path, row: &[&str], input: &str, should: bool) -> Result<()> {
    let output = product.try_cli_of(executable, row, input)?;
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() == should, "bastide {row:?}: {}\n{said}{why}", output.status);
    ensure!(!why.contains("not what was expected") && !why.contains("panicked"), "bastide {row:?}: {why}");
    Ok(())
}
