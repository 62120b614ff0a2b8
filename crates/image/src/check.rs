//! Whether an image can run here, found out before it becomes a revision: its layers are really unpacked,
//! with the code that the runtime unpacks them with.

use crate::{
    Blobs, Config, DOCUMENT_BYTES_MAX, Error, Limits, Manifest, Parsed, Result, Tree, Unpacker, elf,
    elf::Program,
    error::{refused, shown},
    parse,
};
use bastide_types::{Digest, manifest::Manifest as Wanted};
use std::{
    io::{BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// `PATH` of an image that says none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of the first line of a script.
const LINE_BYTES_MAX: usize = 256;

/// An image that can run here.
#[derive(Debug)]
pub struct Checked {
    /// All its blobs: manifest, configuration, layers from the lowest on.
    pub blobs: Vec<Digest>,
}

/// Checks the image whose manifest is `image` and whose parts lie in `blobs`, and completes `app` with what
/// the image says. `root` must be a new and empty directory; afterwards it holds the unpacked image.
///
/// # Errors
/// [`Error::Refused`] and [`Error::TooLarge`] say what is wrong with it.
pub fn check(
    blobs: &Blobs,
    image: &Digest,
    limits: &Limits,
    root: &Path,
    app: &mut Wanted,
) -> Result<Checked> {
    let Parsed::Manifest(manifest) = parse(&blobs.bytes(image, DOCUMENT_BYTES_MAX)?)? else {
        return refused("it is an index, not an image");
    };
    if manifest.layers.is_empty() {
        return refused("it has no layers");
    }
    let config = Config::read(&blobs.bytes(&manifest.config.digest, DOCUMENT_BYTES_MAX)?, &manifest)?;
    config.complete(app)?;
    let unpacker = unpack(blobs, &manifest, &config, limits, root)?;
    program(unpacker.tree(), app)?;
    let mut all = vec![*image, manifest.config.digest];
    all.extend(manifest.layers.iter().map(|layer| layer.digest));
    Ok(Checked { blobs: all })
}

fn unpack(
    blobs: &Blobs,
    manifest: &Manifest,
    config: &Config,
    limits: &Limits,
    root: &Path,
) -> Result<Unpacker> {
    let mut unpacker = Unpacker::new(root, *limits)?;
    for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        let (file, bytes) = blobs.open(&layer.digest)?;
        if bytes != layer.size {
            return refused(format!("{} is not as long as its manifest says", layer.digest.short()));
        }
        let content = unpacker.layer(file).map_err(|error| match error {
            Error::Refused(why) => Error::Refused(format!("layer {}: {why}", layer.digest.short())),
            other => other,
        })?;
        if content != *diff_id {
            return refused(format!(
                "layer {} does not hold what its configuration says",
                layer.digest.short()
            ));
        }
    }
    Ok(unpacker)
}

/// Whether the program that shall run is there and can.
fn program(tree: &Tree, app: &Wanted) -> Result<()> {
    let name = app.app.command.first().map(String::as_str).unwrap_or_default();
    let workdir = Path::new(app.app.workdir.as_deref().unwrap_or("/"));
    let places: Vec<PathBuf> = if name.contains('/') {
        vec![workdir.join(name)]
    } else {
        let path = app.env.get("PATH").map_or(PATH, String::as_str);
        path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| Path::new(dir).join(name)).collect()
    };
    for place in &places {
        let Some(file) = tree.open(place)? else { continue };
        let mode = file.metadata().map_err(Error::file(place))?.permissions().mode();
        if mode & 0o111 == 0 {
            continue;
        }
        let mut head = Vec::new();
        BufReader::new(file)
            .take(elf::HEAD_BYTES as u64)
            .read_to_end(&mut head)
            .map_err(Error::file(place))?;
        return judge(tree, name, &head);
    }
    let name = shown(name.as_bytes());
    if places.len() == 1 {
        refused(format!("its program `{name}` is not there, or is not an executable file"))
    } else {
        refused(format!("its program `{name}` is in no directory of its PATH"))
    }
}

fn judge(tree: &Tree, name: &str, head: &[u8]) -> Result<()> {
    let needed = match elf::inspect(head) {
        Program::Static => return Ok(()),
        Program::Dynamic { loader } => loader,
        Program::Script => {
            let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let line = &line[..line.len().min(LINE_BYTES_MAX)];
            let words = String::from_utf8_lossy(line.get(2..).unwrap_or_default()).into_owned();
            words.split_ascii_whitespace().next().unwrap_or_default().to_owned()
        }
        other => {
            return refused(other.refusal(&shown(name.as_bytes())).unwrap_or_default());
        }
    };
    if tree.open(Path::new(&needed))?.is_none() {
        let (name, needed) = (shown(name.as_bytes()), shown(needed.as_bytes()));
        return refused(format!("its program `{name}` needs `{needed}`, which is not in the image"));
    }
    Ok(())
}
