//! `bastide break-glass`: one sign-in for an administrator who has no other way in.

use crate::{args::BreakGlassArgs, files, layout::Layout};
use anyhow::{Context, Result};
use bastide_platform::identity::{BREAK_GLASS_LIFE_S, break_glass};

/// Makes the link and prints it.
pub async fn run(layout: &Layout, args: BreakGlassArgs, json: bool) -> Result<()> {
    let config: Option<bastide_platform::Config> = files::read_json(&layout.config("platform-1"))?;
    let config =
        config.with_context(|| format!("there is no installation in {}", layout.root().display()))?;
    let store = config.database.open(bastide_platform::kek::of(&config).await?).await?;
    let user = ["SUDO_USER", "USER"].into_iter().find_map(|name| std::env::var(name).ok());
    let by = format!("operator of the machine ({})", user.as_deref().unwrap_or("unknown"));
    let made = break_glass(&store, &config.domains, &args.customer, args.email.as_deref(), &by).await?;
    if json {
        println!("{}", serde_json::json!({ "link": made.link.expose(), "email": made.email }));
        return Ok(());
    }
    eprintln!(
        "This signs {} in once, within {} minutes, without password and code. It is in the audit trails.",
        made.email,
        BREAK_GLASS_LIFE_S / 60
    );
    println!("{}", made.link.expose());
    Ok(())
}
