//! The documents of an image (OCI image specification 1.1, and Docker's forms of the same): index, manifest,
//! configuration. Only what is used is read.

use crate::{
    DOCUMENT_BYTES_MAX, Error, Result,
    error::{refused, shown},
};
use bastide_types::{Digest, manifest::Manifest as Wanted};
use serde::{Deserialize, de::IgnoredAny};
use std::collections::{BTreeMap, BTreeSet};

/// Refers to other content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Digest of the content.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// For which machine it is.
    #[serde(default)]
    pub platform: Option<Platform>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Architecture in Go's word.
    #[serde(default)]
    pub architecture: String,
    /// Operating system.
    #[serde(default)]
    pub os: String,
}

/// Names images, one per machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Index {
    /// The images, or further indexes.
    pub manifests: Vec<Descriptor>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Manifest {
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Config {
    /// Architecture in Go's word.
    #[serde(default)]
    pub architecture: String,
    /// Operating system.
    #[serde(default)]
    pub os: String,
    /// Digests of the layers' content.
    pub rootfs: RootFs,
    /// How it is run.
    #[serde(default)]
    pub config: Option<Execution>,
}

/// The layers' content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RootFs {
    /// Digests of the unpacked layers, lowest first.
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

/// How an image is run. Its user is not read: apps run as ours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Execution {
    /// Program and first arguments.
    pub entrypoint: Option<Vec<String>>,
    /// Further arguments.
    pub cmd: Option<Vec<String>>,
    /// Environment, as `NAME=value`.
    pub env: Option<Vec<String>>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Ports, as `8080/tcp`.
    pub exposed_ports: Option<BTreeMap<String, IgnoredAnyEq>>,
}

/// A value that nobody reads.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub struct IgnoredAnyEq(IgnoredAny);

impl PartialEq for IgnoredAnyEq {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for IgnoredAnyEq {}

/// An index or a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// An index.
    Index(Index),
    /// A manifest.
    Manifest(Manifest),
}

/// Reads an index or a manifest.
///
/// # Errors
/// [`Error::Refused`]; also for a document that could be read as both.
pub fn parse(document: &[u8]) -> Result<Parsed> {
    #[derive(Deserialize)]
    struct Either {
        manifests: Option<Vec<Descriptor>>,
        config: Option<Descriptor>,
        layers: Option<Vec<Descriptor>>,
    }
    if document.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(Error::TooLarge("a manifest is larger than 1 MiB".into()));
    }
    let either: Either = serde_json::from_slice(document)
        .map_err(|error| Error::Refused(format!("its manifest cannot be read: {error}")))?;
    match either {
        Either { manifests: Some(manifests), config: None, layers: None } => {
            Ok(Parsed::Index(Index { manifests }))
        }
        Either { manifests: None, config: Some(config), layers: Some(layers) } => {
            Ok(Parsed::Manifest(Manifest { config, layers }))
        }
        _ => refused(
            "a manifest names a configuration and layers, an index names manifests, and nothing is both",
        ),
    }
}

/// The architecture of this machine in Go's word.
pub const fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// The image of an index that is for this machine.
///
/// # Errors
/// [`Error::Refused`] says what there is instead.
pub fn choose(index: &Index) -> Result<Descriptor> {
    let fits = |descriptor: &&Descriptor| {
        let platform = descriptor.platform.as_ref();
        platform.is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture())
    };
    let fitting: Vec<&Descriptor> = index.manifests.iter().filter(fits).collect();
    let digests: BTreeSet<Digest> = fitting.iter().map(|descriptor| descriptor.digest).collect();
    match (fitting.as_slice(), digests.len()) {
        ([first, ..], 1) => Ok((*first).clone()),
        ([], _) => {
            let offered = index.manifests.iter().filter_map(|descriptor| descriptor.platform.as_ref());
            let mut offered: Vec<_> = offered.map(|p| format!("{}/{}", p.os, p.architecture)).collect();
            offered.retain(|platform| platform != "unknown/unknown");
            let offered = shown(offered.join(", ").as_bytes());
            refused(format!("it holds no image for linux/{}, only for: {offered}", architecture()))
        }
        (all, _) => refused(format!("it holds {} images for this machine; keep one", all.len())),
    }
}

impl Config {
    /// Reads the configuration, which must be for this machine and fit its manifest.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn read(document: &[u8], manifest: &Manifest) -> Result<Self> {
        let config: Self = serde_json::from_slice(document)
            .map_err(|error| Error::Refused(format!("its configuration cannot be read: {error}")))?;
        if config.os != "linux" || config.architecture != architecture() {
            let made = shown(format!("{}/{}", config.os, config.architecture).as_bytes());
            return refused(format!("it was made for {made}; this machine is linux/{}", architecture()));
        }
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return refused("manifest and configuration name different numbers of layers");
        }
        Ok(config)
    }

    /// Puts into an app's manifest what it leaves to the image: command, working directory, port, environment.
    ///
    /// # Errors
    /// [`Error::Refused`] when the image leaves it open too.
    pub fn complete(&self, app: &mut Wanted) -> Result<()> {
        let own = self.config.clone().unwrap_or_default();
        if app.app.command.is_empty() {
            app.app.command = own.entrypoint.unwrap_or_default();
            app.app.command.extend(own.cmd.unwrap_or_default());
        }
        if app.app.command.first().is_none_or(String::is_empty) {
            return refused("the image names no program: set app.command");
        }
        if app.app.command.iter().any(|word| word.contains('\0')) {
            return refused("the image's command holds NUL");
        }
        if app.app.workdir.is_none() {
            app.app.workdir =
                own.working_dir.filter(|dir| !dir.is_empty() && !dir.contains('\0')).map(|dir| {
                    let below = dir.trim_start_matches('/');
                    format!("/{below}")
                });
        }
        if app.app.port.is_none() {
            app.app.port = port(own.exposed_ports.as_ref())?;
        }
        for variable in own.env.unwrap_or_default() {
            let Some((name, value)) = variable.split_once('=') else { continue };
            let ours = matches!(name, "PORT" | "HOST") || name.starts_with("BASTIDE_");
            if !name.is_empty() && !ours && !variable.contains('\0') {
                app.env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
        Ok(())
    }
}

/// The one port that an image exposes, if it exposes any.
fn port(exposed: Option<&BTreeMap<String, IgnoredAnyEq>>) -> Result<Option<u16>> {
    let ports: BTreeSet<u16> = exposed
        .into_iter()
        .flat_map(BTreeMap::keys)
        .filter_map(|text| match text.split_once('/') {
            None => text.parse().ok(),
            Some((number, "tcp")) => number.parse().ok(),
            Some(_) => None,
        })
        .filter(|port| *port != 0)
        .collect();
    match ports.len() {
        0 => Ok(None),
        1 => Ok(ports.first().copied()),
        _ => {
            let all: Vec<_> = ports.iter().map(u16::to_string).collect();
            refused(format!("the image exposes several ports ({}): set app.port", all.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn digest(byte: u8) -> Digest {
        Digest::from_sha256([byte; 32])
    }

    fn descriptor(byte: u8, platform: Option<&str>) -> Value {
        let mut made = json!({"mediaType": "x", "digest": digest(byte).to_string(), "size": 1});
        if let Some((os, architecture)) = platform.and_then(|platform| platform.split_once('/')) {
            made["platform"] = json!({"os": os, "architecture": architecture});
        }
        made
    }

    fn chosen(manifests: &[Value]) -> Result<Digest> {
        match parse(json!({"schemaVersion": 2, "manifests": manifests}).to_string().as_bytes())? {
            Parsed::Index(index) => choose(&index).map(|descriptor| descriptor.digest),
            Parsed::Manifest(_) => panic!("that is no manifest"),
        }
    }

    #[test]
    fn the_image_for_this_machine_is_chosen() {
        let ours = format!("linux/{}", architecture());
        let other = descriptor(1, Some("linux/s390x"));
        let attestation = descriptor(2, Some("unknown/unknown"));
        let list = [other.clone(), descriptor(3, Some(&ours)), attestation.clone()];
        assert_eq!(chosen(&list).unwrap(), digest(3));
        assert_eq!(chosen(&[descriptor(4, None)]).unwrap(), digest(4));
        assert_eq!(chosen(&[descriptor(4, None), descriptor(4, Some(&ours))]).unwrap(), digest(4));
        let error = chosen(&[other, attestation]).unwrap_err().to_string();
        assert!(error.contains("linux/s390x") && !error.contains("unknown"), "{error}");
        assert!(chosen(&[descriptor(4, None), descriptor(5, None)]).is_err());
        assert!(chosen(&[]).is_err());
    }

    #[test]
    fn a_document_is_one_thing() {
        let both = json!({"manifests": [], "config": descriptor(1, None), "layers": []});
        for text in
            [both.to_string(), "{}".into(), "[]".into(), "x".into(), json!({"layers": []}).to_string()]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        let sha512 = format!(r#"{{"manifests":[{{"digest":"sha512:{}","size":1}}]}}"#, "0".repeat(128));
        assert!(parse(sha512.as_bytes()).is_err());
    }

    fn completed(app: &str, execution: Value) -> Result<Wanted> {
        let mut wanted: Wanted = serde_json::from_str(app).unwrap();
        let config = json!({
            "architecture": architecture(), "os": "linux", "rootfs": {"diff_ids": []}, "config": execution,
        });
        let manifest =
            Manifest { config: serde_json::from_value(descriptor(1, None)).unwrap(), layers: vec![] };
        Config::read(config.to_string().as_bytes(), &manifest)?.complete(&mut wanted)?;
        Ok(wanted)
    }

    const APP: &str = r#"{"app":{"name":"shop","kind":"image","image":"x"},"env":{"A":"mine"}}"#;

    #[test]
    fn what_the_app_does_not_say_the_image_says() {
        let execution = json!({
            "User": "root", "Entrypoint": ["/app"], "Cmd": ["serve"], "WorkingDir": "srv", "Labels": null,
            "Env": ["PATH=/usr/bin", "A=theirs", "PORT=1", "BASTIDE_APP=x", "odd", "=x"],
            "ExposedPorts": {"3000/tcp": {}, "53/udp": {}},
        });
        let app = completed(APP, execution.clone()).unwrap();
        assert_eq!(app.app.command, ["/app", "serve"]);
        assert_eq!((app.app.workdir.as_deref(), app.port()), (Some("/srv"), 3000));
        let env: Vec<_> = app.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(env, ["A=mine", "PATH=/usr/bin"]);
        let own =
            r#"{"app":{"name":"shop","kind":"image","image":"x","command":["sh"],"port":80,"workdir":"/"}}"#;
        let app = completed(own, execution).unwrap();
        assert_eq!(
            (app.app.command, app.app.port, app.app.workdir.as_deref()),
            (vec!["sh".into()], Some(80), Some("/"))
        );
    }

    #[test]
    fn what_nobody_says_is_asked_for() {
        let nothing =
            completed(APP, json!({"Entrypoint": null, "Cmd": null, "Env": null, "ExposedPorts": null}));
        assert!(nothing.unwrap_err().to_string().contains("app.command"));
        let ports = json!({"Cmd": ["x"], "ExposedPorts": {"80/tcp": {}, "443": {}}});
        assert!(completed(APP, ports).unwrap_err().to_string().contains("80, 443"));
        assert!(completed(APP, Value::Null).is_err());
    }
}
