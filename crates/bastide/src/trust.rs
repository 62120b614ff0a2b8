//! `bastide trust`: the local CA for people and their programs.
//!
//! The authority can sign only for names below the base domains (its name constraints are critical), so whoever
//! trusts it risks no other site. Still nothing outside the data directory changes without being asked for.

use crate::{
    args::{TrustArgs, TrustStore},
    layout::Layout,
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    io::{ErrorKind, IsTerminal, Write},
    path::{Path, PathBuf},
    process::Command,
};

/// Where Debian looks for authorities of its administrator.
const SYSTEM_DIR: &str = "usr/local/share/ca-certificates";

/// Shows, exports, installs or removes the authority.
pub fn run(layout: &Layout, args: &TrustArgs) -> Result<()> {
    let file = layout.local_ca();
    let pem = fs::read_to_string(&file).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::anyhow!(
            "there is no CA in {} yet; `bastide up` makes one at its first start",
            layout.root().display()
        ),
        _ => anyhow::Error::new(error).context(format!("cannot read {}", file.display())),
    })?;
    let about = bastide_tls::about(&pem)?;
    if let Some(out) = &args.out {
        fs::write(out, &pem).with_context(|| format!("cannot write {}", out.display()))?;
        println!("Wrote {}.", out.display());
        return Ok(());
    }
    if args.pem {
        print!("{pem}");
        return Ok(());
    }
    let Some(store) = args.install.or(args.remove) else {
        print!("{}", shown(&file, &about));
        return Ok(());
    };
    let removing = args.remove.is_some();
    let question = match (store, removing) {
        (TrustStore::System, false) => format!("Let every program of this machine trust {}?", about.name),
        (TrustStore::System, true) => format!("Take {} out of this machine's authorities?", about.name),
        (TrustStore::Browser, false) => format!("Let Chromium and others that use NSS trust {}?", about.name),
        (TrustStore::Browser, true) => format!("Take {} out of the NSS database of this user?", about.name),
    };
    if !args.yes && !agreed(&question)? {
        bail!("nothing was changed; say --yes to agree without being asked");
    }
    let changed = match (store, removing) {
        (TrustStore::System, false) => System::new(args).add(&about, &pem)?,
        (TrustStore::System, true) => System::new(args).remove(&about)?,
        (TrustStore::Browser, false) => browser(&["-A", "-t", "C,,", "-n", &about.name, "-i"], Some(&file))?,
        (TrustStore::Browser, true) => browser(&["-D", "-n", &about.name], None)?,
    };
    println!("{changed}");
    Ok(())
}

fn shown(file: &Path, about: &bastide_tls::About) -> String {
    let file = file.display();
    format!(
        "{name}\n  file         {file}\n  SHA-256      {print}\n  signs for    {domains} and names below, nothing else\n  valid until  {until}\n\n\
         curl       curl --cacert {file} https://…\n\
         browsers   bastide trust --install browser      (Chromium; in Firefox import the file under Settings → Certificates)\n\
         system     sudo bastide trust --data DIR --install system\n",
        name = about.name,
        print = about.sha256,
        domains = about.domains.join(", "),
        until = about.not_after.date(),
    )
}

/// Asks a person; without one the answer is no.
fn agreed(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    print!("{question} [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// The authorities of this machine, as Debian keeps them.
struct System {
    dir: PathBuf,
    root: Option<PathBuf>,
}

impl System {
    fn new(args: &TrustArgs) -> Self {
        let root = args.system_root.clone();
        Self { dir: root.as_deref().unwrap_or(Path::new("/")).join(SYSTEM_DIR), root }
    }

    fn file(&self, about: &bastide_tls::About) -> PathBuf {
        self.dir.join(format!("bastide-{}.crt", &about.sha256[..12].to_lowercase()))
    }

    fn add(&self, about: &bastide_tls::About, pem: &str) -> Result<String> {
        let file = self.file(about);
        fs::create_dir_all(&self.dir)
            .and_then(|()| fs::write(&file, pem))
            .with_context(|| format!("cannot write {} (are you root?)", file.display()))?;
        self.update()?;
        Ok(format!("This machine trusts {} ({}).", about.name, file.display()))
    }

    fn remove(&self, about: &bastide_tls::About) -> Result<String> {
        let file = self.file(about);
        match fs::remove_file(&file) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(format!("This machine did not trust {}.", about.name));
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot remove {} (are you root?)", file.display()));
            }
        }
        self.update()?;
        Ok(format!("This machine does not trust {} any more.", about.name))
    }

    /// Lets the system build its bundle anew; within another root that is left to whoever boots it.
    fn update(&self) -> Result<()> {
        if self.root.is_some() {
            return Ok(());
        }
        let status = Command::new("update-ca-certificates")
            .stdout(std::process::Stdio::null())
            .status()
            .context("cannot run update-ca-certificates (package ca-certificates)")?;
        anyhow::ensure!(status.success(), "update-ca-certificates failed: {status}");
        Ok(())
    }
}

/// Changes the NSS database of this user.
fn browser(what: &[&str], file: Option<&Path>) -> Result<String> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    let database = Path::new(&home).join(".pki/nssdb");
    anyhow::ensure!(
        database.exists(),
        "{} is not there: no browser of this user uses it. Import the file into your browser instead",
        database.display()
    );
    let mut command = Command::new("certutil");
    command.arg("-d").arg(format!("sql:{}", database.display())).args(what).args(file);
    let status = command.status().context("cannot run certutil (package libnss3-tools)")?;
    anyhow::ensure!(status.success(), "certutil failed: {status}");
    Ok("Done. Browsers that run must be started anew.".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_tls::LocalCa;

    fn installation(dir: &Path) -> Layout {
        let layout = Layout::new(dir.join("data"));
        let ca = LocalCa::create_public(&["apps.localhost".into()], time::OffsetDateTime::now_utc()).unwrap();
        crate::files::private_dir(layout.local_ca().parent().unwrap()).unwrap();
        ca.write(&layout.local_ca(), &layout.local_ca_key()).unwrap();
        layout
    }

    fn args(root: &Path) -> TrustArgs {
        TrustArgs {
            data: crate::args::DataArgs { data: None },
            pem: false,
            out: None,
            install: None,
            remove: None,
            yes: false,
            system_root: Some(root.to_owned()),
        }
    }

    #[test]
    fn the_system_is_changed_only_after_a_yes_and_can_be_changed_back() {
        let dir = tempfile::tempdir().unwrap();
        let layout = installation(dir.path());
        let installed = || fs::read_dir(dir.path().join(SYSTEM_DIR)).map_or(0, Iterator::count);
        let install = TrustArgs { install: Some(TrustStore::System), ..args(dir.path()) };
        // Tests have no terminal: nobody agrees.
        let refused = run(&layout, &install).unwrap_err();
        assert!(refused.to_string().contains("--yes") && installed() == 0, "{refused}");
        run(&layout, &TrustArgs { yes: true, ..install }).unwrap();
        assert_eq!(installed(), 1);
        let remove = TrustArgs { remove: Some(TrustStore::System), yes: true, ..args(dir.path()) };
        run(&layout, &remove).unwrap();
        assert_eq!(installed(), 0);
        run(&layout, &remove).unwrap();
    }

    #[test]
    fn the_authority_is_shown_with_what_it_can_sign_and_exported_without_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let layout = installation(dir.path());
        let about = bastide_tls::about(&fs::read_to_string(layout.local_ca()).unwrap()).unwrap();
        let text = shown(&layout.local_ca(), &about);
        assert!(text.contains("apps.localhost") && text.contains(&about.sha256), "{text}");
        let out = dir.path().join("ca.pem");
        run(&layout, &TrustArgs { out: Some(out.clone()), ..args(dir.path()) }).unwrap();
        let written = fs::read_to_string(out).unwrap();
        assert!(written.contains("BEGIN CERTIFICATE") && !written.contains("KEY"));
    }

    #[test]
    fn without_an_authority_it_says_what_makes_one() {
        let dir = tempfile::tempdir().unwrap();
        let refused = run(&Layout::new(dir.path()), &args(dir.path())).unwrap_err();
        assert!(refused.to_string().contains("bastide up"), "{refused}");
    }
}
