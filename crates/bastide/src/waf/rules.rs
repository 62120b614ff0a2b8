//! `bastide waf import`, `update`, `rollback`, `check`: which rules there are.

use super::pinned::Pinned;
use crate::{args::DataArgs, files, layout::Layout, up};
use anyhow::{Context, Result, anyhow, bail};
use aws_lc_rs::digest::{SHA256, digest};
use bastide_edge::{
    rules::{
        Found, Places,
        versions::{
            Version, Versions,
            archive::{PACKED_BYTES_MAX, unpack},
        },
    },
    waf::force::Status,
};
use bastide_types::Digest;
use bastide_waf::Settings;
use clap::Args;
use http::{Method, StatusCode, header};
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

/// Roots of the public internet, as Debian keeps them.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Redirects that are followed, each to HTTPS.
const REDIRECTS_MAX: usize = 5;
/// How long a running edge gets to take other rules before we stop watching it.
const WATCH: Duration = Duration::from_secs(20);

/// Arguments of `waf import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// Release of a rule set, such as the OWASP CRS, as tar.gz
    pub archive: PathBuf,
    /// SHA-256 that it must have, 64 hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub sha256: Option<String>,
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
}

/// Arguments of `waf update`.
#[derive(Debug, Clone, Args)]
pub struct UpdateArgs {
    /// Address (https) or file of the release; remembered [default: that of the last time, or the release of the OWASP
    /// CRS that this version of Bastide names]
    #[arg(long, value_name = "URL|FILE", requires = "sha256")]
    pub from: Option<String>,
    /// SHA-256 of the release, 64 hexadecimal digits; remembered, too
    #[arg(long, value_name = "HEX", requires = "from", value_parser = sha256)]
    pub sha256: Option<String>,
    /// Forget what was remembered and take the release that this version of Bastide names
    #[arg(long = "default", conflicts_with = "from")]
    pub ours: bool,
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
}

/// Arguments of `waf check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Files, directories and globs, in order, or one unpacked release
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
}

/// Takes a release from a file.
pub fn import(args: &ImportArgs) -> Result<()> {
    let packed = read(&args.archive)?;
    if let Some(wanted) = &args.sha256 {
        expect_sha256(&packed, wanted)?;
    }
    take(&up::layout(args.data.data.as_deref()), &packed)
}

/// A release by name, or the one that is wanted here.
fn wanted(args: &UpdateArgs, layout: &Layout) -> Result<Pinned> {
    if args.ours {
        return Ok(Pinned::ours());
    }
    match (&args.from, &args.sha256) {
        (Some(from), Some(sha256)) => Ok(Pinned { from: from.clone(), sha256: sha256.clone() }),
        _ => Pinned::wanted(layout),
    }
}

/// Takes the pinned release.
pub async fn update(args: &UpdateArgs) -> Result<()> {
    let layout = up::layout(args.data.data.as_deref());
    let pinned = wanted(args, &layout)?;
    println!("Taking {}", pinned.from);
    let packed = if pinned.from.contains("://") {
        download(&pinned.from).await.map_err(|error| {
            anyhow!(
                "{error:#}. Nothing has changed. Fetch it on a machine that can, and bring it here: `bastide waf import \
                 FILE --sha256 {}`",
                pinned.sha256
            )
        })?
    } else {
        read(Path::new(&pinned.from))?
    };
    expect_sha256(&packed, &pinned.sha256)?;
    take(&layout, &packed)?;
    pinned.remember(&layout)
}

/// Goes back to the rules before the last change.
pub fn roll_back(data: &DataArgs) -> Result<()> {
    let layout = up::layout(data.data.as_deref());
    let versions = Versions::open(&layout.waf_versions());
    let previous = versions.previous()?.context("there is no version before the current one")?;
    loads(&previous.found()?)?;
    let version = versions.roll_back()?;
    println!("Back to {}.", version.digest.short());
    watch(&layout, &version)
}

/// Loads rules and says what they are.
pub fn check(args: &CheckArgs, json: bool) -> Result<()> {
    let found = match args.paths.as_slice() {
        [dir] if dir.join("rules").is_dir() => release(dir)?,
        paths => Places { named: paths.to_vec(), versions: None }.find()?,
    };
    let set = loads(&found)?;
    if json {
        let (files, rules, warnings) = (found.files.len(), set.rules(), set.warnings());
        println!("{}", serde_json::json!({"files": files, "rules": rules, "notes": warnings}));
        return Ok(());
    }
    println!("{} rules in {} files", set.rules(), found.files.len());
    for warning in set.warnings() {
        println!("note: {warning}");
    }
    Ok(())
}

/// The rules of a release that is unpacked somewhere: its set-up, if it has one, then its rules.
fn release(dir: &Path) -> Result<Found> {
    let set_up = ["crs-setup.conf", "crs-setup.conf.example"].map(|name| dir.join(name));
    let set_up = set_up.into_iter().find(|file| file.exists());
    let named = set_up.into_iter().chain([dir.join("rules")]).collect();
    Ok(Places { named, versions: None }.find()?)
}

/// Unpacks, checks and makes current; nothing changes unless all of it loads.
fn take(layout: &Layout, packed: &[u8]) -> Result<()> {
    let contents = unpack(packed).context("the archive cannot be taken")?;
    let dir = layout.waf_versions();
    files::private_dir(&dir)?;
    let versions = Versions::open(&dir);
    let version = versions.keep(&contents)?;
    let loaded = version.found().map_err(Into::into).and_then(|found| loads(&found).map(|set| (found, set)));
    let (found, set) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            versions.forget(&version)?;
            return Err(error.context("the rules cannot be loaded; nothing has changed"));
        }
    };
    versions.activate(&version)?;
    println!("{} rules in {} files are current: {}", set.rules(), found.files.len(), version.digest.short());
    if !set.warnings().is_empty() {
        println!("{} notes: `bastide waf check {}` lists them", set.warnings().len(), version.dir.display());
    }
    watch(layout, &version)
}

fn loads(found: &Found) -> Result<bastide_waf::RuleSet> {
    Ok(found.compile(&Settings::default())?)
}

/// Waits until the running edge says that it has taken the rules, or why not.
fn watch(layout: &Layout, version: &Version) -> Result<()> {
    if !layout.up().exists() {
        println!("They are taken at the next start.");
        return Ok(());
    }
    let wanted = bastide_edge::rules::Origin::Imported(version.clone()).to_string();
    let begun = std::time::Instant::now();
    while begun.elapsed() < WATCH {
        if let Some(status) = files::read_json::<Status>(&layout.waf_status())? {
            if status.origin == wanted && status.refused.is_none() {
                println!("In force.");
                return Ok(());
            }
            if status.origin == "named" {
                println!("The running edge was started with --waf-rules and keeps those.");
                return Ok(());
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("the running edge has not taken them: see `bastide waf status`")
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let opened = fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut packed = Vec::new();
    opened.take(PACKED_BYTES_MAX + 1).read_to_end(&mut packed)?;
    if packed.len() as u64 > PACKED_BYTES_MAX {
        bail!("{} is larger than {PACKED_BYTES_MAX} bytes", file.display());
    }
    Ok(packed)
}

/// Fetches over HTTPS, redirects included; who vouches for the content is the digest, not the server.
async fn download(address: &str) -> Result<Vec<u8>> {
    let client = bastide_cli::Client::trusting(Path::new(SYSTEM_ROOTS))?;
    let mut address = address.to_owned();
    for _ in 0..=REDIRECTS_MAX {
        if !address.starts_with("https://") {
            bail!("rules are fetched over https only, not from {address}");
        }
        let request = bastide_cli::request(Method::GET, &address, &[], bytes::Bytes::new())?;
        let answer = client.send(request).await?;
        if answer.status == StatusCode::OK {
            return Ok(answer.body.to_vec());
        }
        let next = answer.header(header::LOCATION).filter(|_| answer.status.is_redirection());
        let Some(next) = next else { bail!("{address} answered {}", answer.status) };
        next.clone_into(&mut address);
    }
    bail!("more than {REDIRECTS_MAX} redirects")
}

fn expect_sha256(packed: &[u8], wanted: &str) -> Result<()> {
    let found = sum(packed);
    if found != *wanted {
        bail!("the archive is not the one that is wanted: its SHA-256 is {found}, not {wanted}");
    }
    Ok(())
}

fn sum(bytes: &[u8]) -> String {
    let mut sha = [0; 32];
    sha.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Digest::from_sha256(sha).hex()
}

/// Reads a SHA-256 in hexadecimal.
pub(super) fn sha256(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    let is_digest = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_digest { Ok(text) } else { Err("a SHA-256 has 64 hexadecimal digits".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};

    fn packed(rules: &str) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(rules.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "set-1/rules/a.conf", rules.as_bytes()).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    }

    fn rule(id: u32) -> String {
        format!("SecRule ARGS \"@contains x\" \"id:{id},phase:2,deny\"\n")
    }

    fn at(dir: &Path) -> DataArgs {
        DataArgs { data: Some(dir.to_owned()) }
    }

    #[test]
    fn a_release_becomes_current_only_when_it_loads_and_can_be_gone_back_from() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, archive) = (Layout::new(dir.path()), dir.path().join("set.tar.gz"));
        let import = |packed: &[u8], sha256: Option<String>| {
            fs::write(&archive, packed).unwrap();
            super::import(&ImportArgs { archive: archive.clone(), sha256, data: at(dir.path()) })
        };
        let current = || Versions::open(&layout.waf_versions()).current().unwrap().unwrap().digest;
        import(&packed(&rule(1)), None).unwrap();
        let first = current();
        assert!(roll_back(&at(dir.path())).is_err(), "there is nothing before it");
        import(&packed(&rule(2)), None).unwrap();
        let second = current();
        let broken = packed("SecRule ARGS \"@noSuchOperator\" \"id:3\"\n");
        let refused = format!("{:#}", import(&broken, None).unwrap_err());
        assert!(refused.contains("rules/a.conf:1: ") && refused.contains("nothing has changed"), "{refused}");
        assert_eq!(current(), second);
        assert!(import(&packed(&rule(4)), Some("0".repeat(64))).is_err());
        assert_eq!(current(), second);
        roll_back(&at(dir.path())).unwrap();
        assert_eq!(current(), first);
        let versions = fs::read_dir(layout.waf_versions()).unwrap().flatten();
        assert_eq!(versions.filter(|entry| entry.path().is_dir()).count(), 2, "nothing is left over");
    }

    #[tokio::test]
    async fn an_update_takes_only_what_was_pinned_and_remembers_it() {
        let dir = tempfile::tempdir().unwrap();
        let (file, content) = (dir.path().join("set.tar.gz"), packed(&rule(1)));
        let sum = sum(&content);
        let args = |from: Option<&Path>, sha256: Option<&str>| UpdateArgs {
            from: from.map(|from| from.display().to_string()),
            sha256: sha256.map(str::to_owned),
            ours: false,
            data: at(dir.path()),
        };
        fs::write(&file, &content).unwrap();
        update(&args(Some(&file), Some(&sum))).await.unwrap();
        update(&args(None, None)).await.unwrap();
        fs::write(&file, packed(&rule(2))).unwrap();
        let refused = update(&args(None, None)).await.unwrap_err().to_string();
        assert!(refused.contains(&sum), "{refused}");
        let plain = update(&args(Some(Path::new("http://rules.example/x")), Some(&sum))).await.unwrap_err();
        let plain = format!("{plain:#}");
        assert!(plain.contains("https only") && plain.contains("waf import"), "{plain}");
    }
}
