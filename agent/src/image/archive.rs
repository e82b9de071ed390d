//! What an archive of an image holds, read while it passes.
//!
//! Owns the two forms that there are: `manifest.json` beside everything (docker and podman save), and an OCI layout with its
//! `index.json`. Keeps small JSON files and lets layers go by, so that memory does not depend on the image's size. What is named
//! by its digest must have it; the engine checks no layer that it has already. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::volume::{BLOCK, TarFields, padding};

/// Largest file that is kept: configurations and manifests are some KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// All of them together.
const FILES_BYTES_MAX: usize = 16 << 20;
const MANIFEST: &str = "manifest.json";
const INDEX: &str = "index.json";
const BLOBS: &str = "blobs/sha256/";

/// An image in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its names, if it has any.
    pub(crate) references: Vec<String>,
    /// The id that it has wherever it is loaded: the digest of its configuration.
    pub(crate) digest: String,
    /// What machines it was built for.
    pub(crate) architecture: String,
    /// Its configuration.
    pub(crate) config: Vec<u8>,
    /// From an index of images for several machines, of which the engine takes the one that fits.
    pub(crate) one_of_several: bool,
}

impl Found {
    /// What to call it.
    pub(crate) fn name(&self) -> &str {
        self.references.first().unwrap_or(&self.digest)
    }
}

enum Place {
    /// In a header, of which so much is there.
    Header(Vec<u8>),
    /// In a member.
    Content { left: u64, padding: u64, keep: Keep },
    /// Behind the end mark.
    Tail,
}

enum Keep {
    Nothing,
    /// A file that is kept if it is small and begins like JSON, and whose name may say what it must be.
    File {
        name: String,
        json: Option<Vec<u8>>,
        digest: Option<Sha256>,
    },
    /// An extended header for the next member.
    Extension(Vec<u8>),
    /// The long name of the next member.
    LongName(Vec<u8>),
}

/// Reads an archive piece by piece.
pub(crate) struct Inspector {
    place: Place,
    files: BTreeMap<String, Vec<u8>>,
    kept_bytes: usize,
    /// From an extended header: name and size of the next member.
    name: Option<String>,
    size: Option<u64>,
}

impl Default for Inspector {
    fn default() -> Self {
        Self { place: Place::Header(Vec::new()), files: BTreeMap::new(), kept_bytes: 0, name: None, size: None }
    }
}

impl Inspector {
    /// Takes the next piece; an error says what is wrong with the archive.
    pub(crate) fn feed(&mut self, mut piece: &[u8]) -> Result<(), String> {
        while !piece.is_empty() {
            let place = std::mem::replace(&mut self.place, Place::Tail);
            self.place = match place {
                Place::Header(mut block) => {
                    let (head, rest) = piece.split_at(piece.len().min(BLOCK - block.len()));
                    block.extend_from_slice(head);
                    piece = rest;
                    match block.first_chunk::<BLOCK>() {
                        Some(block) => self.member(block)?,
                        None => Place::Header(block),
                    }
                }
                Place::Content { left: 0, padding: 0, keep } => {
                    self.keep(keep)?;
                    Place::Header(Vec::new())
                }
                Place::Content { left: 0, padding, keep } => {
                    let skipped = piece.len().min(usize::try_from(padding).unwrap_or(usize::MAX));
                    piece = &piece[skipped..];
                    Place::Content { left: 0, padding: padding - skipped as u64, keep }
                }
                Place::Content { left, padding, keep } => {
                    let taken = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let keep = keep.with(&piece[..taken]);
                    piece = &piece[taken..];
                    Place::Content { left: left - taken as u64, padding, keep }
                }
                Place::Tail if piece.iter().all(|byte| *byte == 0) => return Ok(()),
                Place::Tail => return Err("something follows its end".to_owned()),
            };
        }
        // A member without padding that ends with the piece.
        if let Place::Content { left: 0, padding: 0, .. } = &self.place {
            let Place::Content { keep, .. } = std::mem::replace(&mut self.place, Place::Header(Vec::new())) else {
                return Ok(());
            };
            self.keep(keep)?;
        }
        Ok(())
    }

    fn member(&mut self, block: &[u8; BLOCK]) -> Result<Place, String> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(Place::Tail);
        }
        let fields = TarFields::decode(block)?;
        let is_extension = matches!(fields.letter, b'x' | b'g' | b'L' | b'K');
        let size = if is_extension { fields.size } else { self.size.take().unwrap_or(fields.size) };
        let name = if is_extension { None } else { self.name.take() };
        let name = name.unwrap_or_else(|| String::from_utf8_lossy(&fields.name).into_owned());
        let name = name.trim_start_matches("./").to_owned();
        let small = size <= FILE_BYTES_MAX;
        let keep = match fields.letter {
            b'x' if small => Keep::Extension(Vec::new()),
            b'L' if small => Keep::LongName(Vec::new()),
            b'0' => Keep::file(name, small),
            b'1' | b'2' | b'5' | b'g' | b'K' => Keep::Nothing,
            _ => return Err("a member of it is of a kind that images do not have".to_owned()),
        };
        // Only files and extensions have content, whatever a header says.
        let size = if is_extension || fields.letter == b'0' { size } else { 0 };
        Ok(Place::Content { left: size, padding: padding(size), keep })
    }

    fn keep(&mut self, keep: Keep) -> Result<(), String> {
        match keep {
            Keep::File { name, json, digest } => {
                if digest.is_some_and(|digest| named_digest(&name) != Some(&hex(&digest.finalize()))) {
                    return Err(format!("{name} is damaged"));
                }
                let Some(content) = json else { return Ok(()) };
                self.kept_bytes += content.len();
                if self.kept_bytes > FILES_BYTES_MAX {
                    return Err("its descriptions are larger than those of any image".to_owned());
                }
                // Of two that differ nobody knows which one the engine takes.
                if self.files.get(&name).is_some_and(|known| *known != content) {
                    return Err(format!("{name} is in it twice"));
                }
                self.files.insert(name, content);
            }
            Keep::Extension(records) => {
                for (key, value) in pax(&records) {
                    match key {
                        "path" => self.name = Some(value.to_owned()),
                        "size" => {
                            self.size = Some(value.parse().map_err(|_| "a size in it cannot be read".to_owned())?)
                        }
                        _ => {}
                    }
                }
            }
            Keep::LongName(name) => {
                self.name = Some(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned());
            }
            Keep::Nothing => {}
        }
        Ok(())
    }

    /// What the whole archive holds.
    pub(crate) fn finish(self) -> Result<Vec<Found>, String> {
        if !matches!(self.place, Place::Tail) {
            return Err("it is cut off".to_owned());
        }
        let found = match (self.files.get(MANIFEST), self.files.get(INDEX)) {
            (Some(manifest), _) => self.of_manifest(manifest)?,
            (None, Some(index)) => self.of_index(index)?,
            (None, None) => return Err("there is neither a manifest.json nor an index.json in it".to_owned()),
        };
        if found.is_empty() { Err("there is no image in it".to_owned()) } else { Ok(found) }
    }

    fn of_manifest(&self, manifest: &[u8]) -> Result<Vec<Found>, String> {
        let entries: Vec<ManifestEntry> = parse(manifest, MANIFEST)?;
        entries.into_iter().map(|entry| self.image(&entry.config, entry.repo_tags.unwrap_or_default(), false)).collect()
    }

    fn of_index(&self, index: &[u8]) -> Result<Vec<Found>, String> {
        let mut found = Vec::new();
        let top: Index = parse(index, INDEX)?;
        for entry in top.manifests {
            let references: Vec<_> = entry.annotations.and_then(|all| all.reference).into_iter().collect();
            let blob = entry.digest.path();
            let node: Node = parse(self.file(&blob)?, &blob)?;
            match (node.config, node.manifests) {
                (Some(config), _) => found.push(self.image(&config.digest.path(), references, false)?),
                (None, Some(several)) => {
                    // Attestations hang in the same list and name no machine.
                    for one in several.into_iter().filter(Descriptor::is_for_a_machine) {
                        let blob = one.digest.path();
                        // Whoever saved it may have left the other machines' images out.
                        let Some(content) = self.files.get(&blob) else { continue };
                        let node: Node = parse(content, &blob)?;
                        if let Some(config) = node.config {
                            found.push(self.image(&config.digest.path(), references.clone(), true)?);
                        }
                    }
                }
                (None, None) => return Err(format!("{blob} describes no image")),
            }
        }
        Ok(found)
    }

    fn file(&self, name: &str) -> Result<&[u8], String> {
        let name = name.trim_start_matches("./");
        self.files.get(name).map(Vec::as_slice).ok_or_else(|| format!("{name} is missing from it"))
    }

    fn image(&self, path: &str, references: Vec<String>, one_of_several: bool) -> Result<Found, String> {
        let config = self.file(path)?;
        let described: Config = parse(config, path)?;
        Ok(Found {
            references,
            digest: format!("sha256:{}", sha256(config)),
            architecture: described.architecture,
            config: config.to_vec(),
            one_of_several,
        })
    }
}

impl Keep {
    fn file(name: String, small: bool) -> Self {
        let digest = named_digest(&name).map(|_| Sha256::new());
        let json = (small && (name.ends_with(".json") || name.starts_with(BLOBS))).then(Vec::new);
        if digest.is_none() && json.is_none() { Keep::Nothing } else { Keep::File { name, json, digest } }
    }

    fn with(mut self, bytes: &[u8]) -> Self {
        match &mut self {
            Keep::File { json, digest, .. } => {
                if let Some(digest) = digest {
                    digest.update(bytes);
                }
                match json {
                    // Layers are blobs too, and none of them begins like JSON.
                    Some(content) if content.is_empty() && !matches!(bytes.first(), Some(b'{' | b'[')) => *json = None,
                    Some(content) => content.extend_from_slice(bytes),
                    None => {}
                }
            }
            Keep::Extension(content) | Keep::LongName(content) => content.extend_from_slice(bytes),
            Keep::Nothing => {}
        }
        self
    }
}

/// The digest that a file is named by, if it is: blobs of one form, configurations and layers of the other.
fn named_digest(name: &str) -> Option<&str> {
    let stem = name.strip_prefix(BLOBS).or_else(|| name.strip_suffix(".json")).or_else(|| name.strip_suffix(".tar"))?;
    (stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(stem)
}

#[derive(Deserialize)]
struct ManifestEntry {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    repo_tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// A manifest or an index.
#[derive(Deserialize)]
struct Node {
    config: Option<Descriptor>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: BlobDigest,
    annotations: Option<Annotations>,
    platform: Option<Platform>,
}

impl Descriptor {
    fn is_for_a_machine(&self) -> bool {
        self.platform.as_ref().is_none_or(|platform| platform.architecture != "unknown")
    }
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "org.opencontainers.image.ref.name")]
    reference: Option<String>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
}

#[derive(Deserialize)]
struct BlobDigest(String);

impl BlobDigest {
    fn path(&self) -> String {
        format!("{BLOBS}{}", self.0.trim_start_matches("sha256:"))
    }
}

#[derive(Deserialize)]
struct Config {
    architecture: String,
}

fn parse<'a, T: Deserialize<'a>>(content: &'a [u8], name: &str) -> Result<T, String> {
    serde_json::from_slice(content).map_err(|error| format!("{name} cannot be read: {error}"))
}

/// Records of an extended header: their length, a space, `key=value`, a newline.
fn pax(records: &[u8]) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = std::str::from_utf8(records).unwrap_or_default();
    while let Some((length, _)) = rest.split_once(' ') {
        let Some(record) = length.parse().ok().and_then(|length: usize| rest.get(..length)) else { break };
        let body = record.get(length.len() + 1..).unwrap_or_default();
        found.extend(body.trim_end_matches('\n').split_once('='));
        rest = rest.get(record.len()..).unwrap_or_default();
    }
    found
}

fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{Found, Inspector, sha256};
    use crate::volume::{BLOCK, TarFields, padding};

    #[derive(Default)]
    struct Tar(Vec<u8>);

    impl Tar {
        fn member(&mut self, name: &str, letter: u8, content: &[u8]) -> &mut Self {
            let size = content.len() as u64;
            let fields = TarFields { name: name.into(), letter, size, ..TarFields::default() };
            self.0.extend_from_slice(&fields.encode());
            self.0.extend_from_slice(content);
            self.0.resize(self.0.len() + usize::try_from(padding(size)).unwrap(), 0);
            self
        }

        fn file(&mut self, name: &str, content: impl AsRef<[u8]>) -> &mut Self {
            self.member(name, b'0', content.as_ref())
        }

        fn blob(&mut self, content: &serde_json::Value) -> String {
            let content = content.to_string();
            let digest = sha256(content.as_bytes());
            self.file(&format!("blobs/sha256/{digest}"), content);
            format!("sha256:{digest}")
        }

        fn whole(&self) -> Vec<u8> {
            [self.0.as_slice(), &[0; 2 * BLOCK]].concat()
        }
    }

    fn read(bytes: &[u8], step: usize) -> Result<Vec<Found>, String> {
        let mut inspector = Inspector::default();
        bytes.chunks(step.max(1)).try_for_each(|piece| inspector.feed(piece))?;
        inspector.finish()
    }

    fn docker() -> Tar {
        let config = json!({ "architecture": "arm64", "os": "linux" }).to_string();
        let name = format!("{}.json", sha256(config.as_bytes()));
        let manifest =
            json!([{ "Config": name, "RepoTags": ["localhost/feather-work:latest"], "Layers": ["layer.tar"] }]);
        let mut tar = Tar::default();
        let layer = [7; 5000];
        tar.file(&format!("{}.tar", sha256(&layer)), layer).file(&name, config).member("x/layer.tar", b'2', b"");
        tar.file("manifest.json", manifest.to_string()).file("repositories", "{}");
        tar
    }

    #[test]
    fn both_forms_are_understood_in_pieces_of_any_size() {
        let docker = docker().whole();
        for step in [1, 7, 511, 512, 513, docker.len()] {
            let found = read(&docker, step).unwrap();
            assert_eq!((found.len(), found[0].architecture.as_str()), (1, "arm64"));
            assert_eq!(found[0].references, ["localhost/feather-work:latest"]);
            assert!(found[0].digest.starts_with("sha256:"));
        }
        let mut oci = Tar::default();
        let layer = [7; 3000];
        oci.file(&format!("blobs/sha256/{}", sha256(&layer)), layer);
        let config = oci.blob(&json!({ "architecture": "amd64", "os": "linux" }));
        let manifest = oci.blob(&json!({ "config": { "digest": config }, "layers": [] }));
        let named = json!({ "org.opencontainers.image.ref.name": "localhost/work:1" });
        let index = json!({ "manifests": [{ "digest": manifest, "annotations": named }] });
        oci.file("./index.json", index.to_string());
        let found = read(&oci.whole(), 600).unwrap();
        assert_eq!(
            (found[0].digest.as_str(), found[0].references.as_slice()),
            (config.as_str(), &["localhost/work:1".to_owned()][..])
        );
        assert!(!found[0].one_of_several);
    }

    #[test]
    fn an_index_for_several_machines_gives_all_of_them_and_no_attestation() {
        let mut oci = Tar::default();
        let mut several = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let config = oci.blob(&json!({ "architecture": architecture }));
            let manifest = oci.blob(&json!({ "config": { "digest": config } }));
            several.push(json!({ "digest": manifest, "platform": { "architecture": architecture } }));
        }
        several.push(json!({ "digest": "sha256:00", "platform": { "architecture": "unknown" } }));
        let inner = oci.blob(&json!({ "manifests": several }));
        oci.file("index.json", json!({ "manifests": [{ "digest": inner }] }).to_string());
        let found = read(&oci.whole(), 4096).unwrap();
        let machines: Vec<_> = found.iter().map(|one| (one.architecture.as_str(), one.one_of_several)).collect();
        assert_eq!(machines, [("amd64", true), ("arm64", true)]);
    }

    #[test]
    fn sizes_and_names_that_do_not_fit_a_header_are_found_in_front_of_it() {
        let config = json!({ "architecture": "amd64" }).to_string();
        let long = format!("{}/config.json", "d".repeat(120));
        let mut tar = Tar::default();
        let record = format!(" path={long}\n");
        let length = record.len() + 3;
        tar.member("pax", b'x', format!("{length}{record}").as_bytes()).file("short", &config);
        let other = format!("{}/other.json", "e".repeat(120));
        tar.member("././@LongLink", b'L', format!("{other}\0").as_bytes()).file("short", &config);
        let manifest = json!([{ "Config": long }, { "Config": other }]);
        tar.file("manifest.json", manifest.to_string());
        assert_eq!(read(&tar.whole(), 512).unwrap().len(), 2);
    }

    #[test]
    fn what_is_cut_off_damaged_or_something_else_is_refused() {
        let good = docker();
        let whole = good.whole();
        for cut in [0, 100, 512, 3000, good.0.len() - 1, good.0.len()] {
            assert!(read(&whole[..cut], 512).is_err(), "cut at {cut}");
        }
        let at = whole.windows(7).position(|window| window == b"\"linux\"").unwrap();
        let mut damaged = whole.clone();
        damaged[at + 1] = b'L';
        assert!(read(&damaged, 512).unwrap_err().contains("is damaged"));
        let mut layer = whole.clone();
        layer[4000] ^= 1;
        assert!(read(&layer, 512).unwrap_err().contains(".tar is damaged"));
        let gzip = [&[0x1f, 0x8b, 8, 0][..], &[0; 600]].concat();
        assert!(read(&gzip, 512).unwrap_err().contains("compressed"));
        let mut volume = Tar::default();
        volume.file("home/user/notes.txt", "a tar archive, but of no image");
        assert!(read(&volume.whole(), 512).unwrap_err().contains("manifest.json"));
        let mut empty = Tar::default();
        empty.file("manifest.json", "[]");
        assert!(read(&empty.whole(), 512).unwrap_err().contains("no image"));
        let mut lost = Tar::default();
        lost.file("manifest.json", json!([{ "Config": "gone.json" }]).to_string());
        assert!(read(&lost.whole(), 512).unwrap_err().contains("missing"));
        let two = [whole.as_slice(), &whole].concat();
        assert!(read(&two, 512).unwrap_err().contains("follows its end"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), step in 1_usize..700) {
            drop(read(&bytes, step));
        }

        #[test]
        fn no_damage_makes_it_panic(at in 0_usize..8000, byte: u8, step in 1_usize..700) {
            let mut bytes = docker().whole();
            let at = at % bytes.len();
            bytes[at] = byte;
            drop(read(&bytes, step));
        }
    }
}
