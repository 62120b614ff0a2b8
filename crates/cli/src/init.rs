//! `init`: writes a manifest for what is in a directory. It asks nobody.

use crate::Context;
use anyhow::{Context as _, Result, bail};
use bastide_types::AppName;
use clap::Args;
use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const FILE: &str = "bastide.toml";
/// First bytes of a program (ELF).
const PROGRAM: [u8; 4] = [0x7f, b'E', b'L', b'F'];

/// Arguments of `init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Directory to publish later
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Name of the app [default: that of the directory]
    #[arg(long)]
    pub name: Option<AppName>,
}

/// What a directory holds.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Pages.
    Static,
    /// A program, by its file name.
    Binary(String),
}

/// Writes a manifest.
pub fn init(context: &Context, args: &InitArgs) -> Result<()> {
    let dir = args.dir.canonicalize().with_context(|| format!("cannot read {}", args.dir.display()))?;
    let path = dir.join(FILE);
    if path.symlink_metadata().is_ok() {
        bail!("{} is there already; nothing was changed", path.display());
    }
    let found = look(&dir)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(&dir)?,
    };
    let text = manifest(&name, &found);
    let written = OpenOptions::new().write(true).create_new(true).open(&path);
    match written {
        Ok(mut file) => file.write_all(text.as_bytes())?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there already; nothing was changed", path.display())
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
    }
    let what = match &found {
        Found::Static => "a static site".to_owned(),
        Found::Binary(program) => format!("the program {program}"),
    };
    if context.json {
        println!("{}", serde_json::json!({ "file": path, "app": name, "found": what }));
    } else {
        println!(
            "Wrote {} for {what}. Look at it, then: bastide publish {}",
            path.display(),
            args.dir.display()
        );
    }
    Ok(())
}

/// A program that can be run, else pages.
fn look(dir: &Path) -> Result<Found> {
    let mut programs = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let about = entry.metadata()?;
        let runs = about.is_file() && about.permissions().mode() & 0o111 != 0;
        // The rest would need quoting, and nobody names a program so.
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if runs && plain && is_program(&entry.path())? {
            programs.push(name);
        }
    }
    programs.sort();
    match programs.as_slice() {
        [program] => Ok(Found::Binary(program.clone())),
        [] if dir.join("index.html").is_file() => Ok(Found::Static),
        [] => bail!(
            "{} holds neither a program nor an index.html. Build first, and name the directory with what is built; what else there is stands in docs/manifest.md",
            dir.display()
        ),
        many => bail!("{} holds more than one program: {}", dir.display(), many.join(", ")),
    }
}

fn is_program(path: &Path) -> Result<bool> {
    let mut first = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(PROGRAM.len() as u64).read_to_end(&mut first)?;
    Ok(first == PROGRAM)
}

/// The name of a directory as that of an app: what cannot be in one becomes a hyphen.
fn name_of(dir: &Path) -> Result<AppName> {
    let own = dir.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let mut name = String::new();
    for letter in own.chars() {
        match letter {
            'a'..='z' | '0'..='9' => name.push(letter),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    let name = name.trim_start_matches(|first: char| first.is_ascii_digit() || first == '-');
    let name: String = name.chars().take(35).collect();
    AppName::new(name.trim_end_matches('-').to_owned())
        .context("the name of the directory is none for an app; say --name")
}

fn manifest(name: &AppName, found: &Found) -> String {
    let about = match found {
        Found::Static => {
            "kind = \"static\"               # these files; index.html is the page of its directory\n"
                .to_owned()
        }
        Found::Binary(program) => format!(
            "kind = \"binary\"               # a program that listens on PORT and speaks HTTP\n\
             command = [\"./{program}\"]\n\
             health = \"/healthz\"           # answers 2xx when it is ready\n"
        ),
    };
    format!(
        "# What Bastide knows of this app. All keys: docs/manifest.md\n\
         \n\
         [app]\n\
         name = \"{name}\"               # path segment under which it is served\n\
         {about}\
         \n\
         # Who may use which part. What no route covers needs a signed-in user.\n\
         # [[route]]\n\
         # path = \"/\"\n\
         # access = \"public\"           # public, authenticated, {{ roles = [\"admin\"] }}\n\
         \n\
         [scale]                       # per stage, spread over the zones\n\
         replicas = 2\n\
         \n\
         # What is the same in all stages.\n\
         # [env]\n\
         # GREETING = \"hello\"\n\
         \n\
         # What is set in each stage: bastide settings set, bastide secret set\n\
         # [settings]\n\
         # API_KEY = {{ required = true, secret = true }}\n\
         # LOG_LEVEL = {{ default = \"info\" }}\n"
    )
}

/// What was written is read as it will be.
#[cfg(test)]
fn read(text: &str) -> Result<bastide_types::Manifest> {
    let manifest: bastide_types::Manifest = toml::from_str(text)?;
    manifest.check()?;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_types::{Manifest, manifest::Kind};

    fn context() -> Context {
        Context { ca: PathBuf::new(), config_dir: PathBuf::new(), server: None, json: false }
    }

    fn dir(name: &str, files: &[(&str, &[u8], u32)]) -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join(name);
        fs::create_dir(&dir).unwrap();
        for (name, bytes, mode) in files {
            fs::write(dir.join(name), bytes).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(*mode)).unwrap();
        }
        (temp, dir)
    }

    fn run(dir: &Path, name: Option<&str>) -> Result<Manifest, String> {
        let name = name.map(|name| AppName::new(name.to_owned()).unwrap());
        let args = InitArgs { dir: dir.to_owned(), name };
        init(&context(), &args).map_err(|error| format!("{error:#}"))?;
        Ok(read(&fs::read_to_string(dir.join(FILE)).unwrap()).unwrap())
    }

    #[test]
    fn pages_and_programs_are_told_apart_and_what_is_written_is_a_manifest() {
        let (_temp, site) =
            dir("My Site_2", &[("index.html", b"hi", 0o644), ("run.sh", b"#!/bin/sh", 0o755)]);
        let manifest = run(&site, None).unwrap();
        assert_eq!((manifest.app.name.as_str(), manifest.app.kind), ("my-site-2", Kind::Static));
        let (_temp, shop) = dir("x", &[("index.html", b"hi", 0o644), ("server", b"\x7fELF\x02", 0o755)]);
        let manifest = run(&shop, Some("shop")).unwrap();
        assert_eq!((manifest.app.name.as_str(), manifest.app.kind), ("shop", Kind::Binary));
        assert_eq!(manifest.app.command, ["./server"]);
        assert_eq!(manifest.routes, [], "nothing is public that nobody said so");
    }

    #[test]
    fn all_that_is_only_a_comment_is_right_too() {
        let name = AppName::new("shop".to_owned()).unwrap();
        let text = manifest(&name, &Found::Static);
        let lines = text.lines().filter_map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || rest.contains(" = ") => Some(rest),
            Some(_) => None,
            None => Some(line),
        });
        let manifest = read(&lines.collect::<Vec<_>>().join("\n")).unwrap();
        assert!(manifest.settings["API_KEY"].required && manifest.routes.len() == 1);
    }

    #[test]
    fn a_manifest_that_is_there_stays_and_what_is_unclear_is_said() {
        let (_temp, old) = dir("old", &[("index.html", b"hi", 0o644), (FILE, b"mine", 0o644)]);
        assert!(run(&old, None).unwrap_err().contains("there already"));
        assert_eq!(fs::read(old.join(FILE)).unwrap(), b"mine");
        let (_temp, empty) = dir("empty", &[("server", b"\x7fELF\x02", 0o644)]);
        assert!(run(&empty, None).unwrap_err().contains("neither a program"), "it cannot be run");
        let (_temp, two) = dir("two", &[("a", b"\x7fELF", 0o755), ("b", b"\x7fELF", 0o755)]);
        assert!(run(&two, None).unwrap_err().contains("a, b"));
        let (_temp, odd) = dir("123", &[("index.html", b"hi", 0o644)]);
        assert!(run(&odd, None).unwrap_err().contains("--name"));
        assert!(!odd.join(FILE).exists());
    }
}
