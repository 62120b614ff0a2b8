//! An installation whose rows are on a PostgreSQL server.

use crate::backup::{DEVELOPMENT, TEST, refused_at_last, sign_in, until};
use anyhow::{Result, ensure};
use bastide_testkit::{Options, Product, postgres::shared};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Whether the arguments of some process hold this text.
fn is_in_arguments(text: &str) -> Result<bool> {
    for entry in fs::read_dir("/proc")? {
        // Processes end meanwhile.
        let arguments = fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&arguments).contains(text) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[tokio::test]
async fn rows_on_a_server_outlive_a_kill_and_are_not_half_backed_up() -> Result<()> {
    let executable: PathBuf = env!("CARGO_BIN_EXE_bastide").into();
    bastide_testkit::build_hello(&executable)?;
    let database = shared();
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("address");
    fs::write(&file, database.url())?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let arguments = ["--allow-no-isolation", "--examples", &examples.display().to_string(), "--database"];
    let arguments: Vec<_> =
        arguments.into_iter().map(str::to_owned).chain([file.display().to_string()]).collect();
    let mut product = Product::start(Options { executable, arguments: arguments.clone() }).await?;
    let data = product.data().display().to_string();
    let client = product.client()?;
    let before = async {
        until(&product, &client, DEVELOPMENT, 200).await?;
        ensure!(!product.data().join("platform/bastide.db").exists(), "there is no file of it");
        ensure!(!is_in_arguments(&database.url())?, "nobody sees the password in a list of processes");
        sign_in(&product)?;
        product.cli(&["promote", "hello", "--to", "test"], "")?;
        until(&product, &client, TEST, 200).await?;
        let backup = dir.path().join("backup.tar").display().to_string();
        for arguments in [["backup", "--data", &data, &backup], ["restore", "--data", &data, &backup]] {
            let refused = product.try_cli(&arguments, "")?;
            let why = String::from_utf8_lossy(&refused.stderr).into_owned();
            ensure!(!refused.status.success() && why.contains("pg_dump"), "{arguments:?}: {why}");
        }
        ensure!(!Path::new(&backup).exists(), "nothing that looks like a backup");
        product.cli(&["token"], "")
    };
    let token = product.explained(before.await)?;
    product.kill()?;
    product.start_again(&arguments).await?;
    let after = async {
        until(&product, &client, TEST, 200).await?;
        let operations = product.cli(&["operations"], "")?;
        ensure!(operations.contains("promote"), "{operations}");
        let running = product.try_cli(&["new-life", "--data", &data], "")?;
        ensure!(!running.status.success(), "not while it runs");
        Ok(())
    };
    product.explained(after.await)?;
    // As after the server's own program has put the rows back.
    product.down()?;
    product.cli(&["new-life", "--data", &data], "")?;
    product.start_again(&arguments).await?;
    let reborn = async {
        until(&product, &client, TEST, 200).await?;
        refused_at_last(&product, &client, &token).await
    };
    product.explained(reborn.await)?;
    product.down()
}
