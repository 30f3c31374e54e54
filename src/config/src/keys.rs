//! Where the keys of secrets come from: a credential that systemd hands to the server, or a file of
//! ours. Never the database.
//!
//! Both have the same form: a key of 32 bytes in base64 on each line, the newest above. The first
//! encrypts; the others are there while secrets that they encrypted are left. Lines that begin with
//! `#` are ignored. With a credential, keys in the file only decrypt, so that a server can move from
//! one to the other.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use micro_core::StateDir;
use zeroize::Zeroizing;

use crate::{
    Error,
    secrets::{KEY_LEN, Key, Ring},
};

/// The name of the credential.
pub(crate) const CREDENTIAL: &str = "micro-config-key";
/// No file of keys is longer.
const LONGEST: u64 = 64 * 1024;

/// Where the keys are.
pub struct KeySource {
    file: PathBuf,
    credential: Option<Zeroizing<String>>,
}

impl KeySource {
    /// The name of the systemd credential that [`Self::with_credential`] takes.
    pub const CREDENTIAL: &'static str = CREDENTIAL;

    /// The file `keys/config` of the state directory, made when the first secret is set.
    pub fn new(state: &StateDir) -> Self {
        Self {
            file: state.keys().join("config"),
            credential: None,
        }
    }

    /// The text of the systemd credential, if there is one.
    #[must_use]
    pub fn with_credential(mut self, text: Option<&str>) -> Self {
        self.credential = text.map(|text| Zeroizing::new(text.to_owned()));
        self
    }
}

/// The keys in use.
pub(crate) struct Keys {
    source: KeySource,
    /// Held while the file is read or written. `None`: not read yet, or there is no key.
    ring: Mutex<Option<Ring>>,
}

impl Keys {
    pub(crate) fn new(source: KeySource) -> Self {
        Self {
            source,
            ring: Mutex::default(),
        }
    }

    /// The keys; `None` when there is none yet.
    pub(crate) fn ring(&self) -> Result<Option<Ring>, Error> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.is_none() {
            *ring = self.load()?;
        }
        Ok(ring.clone())
    }

    /// The keys; the first one is made if need be.
    pub(crate) fn need(&self) -> Result<Ring, Error> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.is_none() {
            *ring = self.load()?;
        }
        if let Some(ring) = &*ring {
            return Ok(ring.clone());
        }
        let new = self.write([Arc::new(Key::random()?)])?;
        tracing::info!(path = %self.source.file.display(), key = %new.first().id(),
            "Made the key of secrets. Back it up apart from the data: without it they are lost.");
        *ring = Some(new.clone());
        Ok(new)
    }

    /// Whether this node may change its keys.
    pub(crate) fn are_ours(&self) -> bool {
        self.source.credential.is_none()
    }

    /// A new key before the others. From now on it encrypts.
    pub(crate) fn add(&self) -> Result<Ring, Error> {
        if !self.are_ours() {
            return Err(Error::Credential);
        }
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        // Read again: what is on the disk is what a crash would leave.
        let old = self.load()?;
        let old = old.iter().flat_map(Ring::keys).cloned();
        let keys: Vec<_> = std::iter::once(Arc::new(Key::random()?))
            .chain(old)
            .collect();
        let new = self.write(keys)?;
        *ring = Some(new.clone());
        Ok(new)
    }

    /// Forgets all keys but the first of `used`. Called when nothing needs them any more.
    pub(crate) fn retire(&self, used: &Ring) -> Result<(), Error> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let still = ring
            .as_ref()
            .is_some_and(|ring| ring.first().id() == used.first().id());
        if !still || !used.has_old() {
            return Ok(());
        }
        if self.are_ours() {
            *ring = Some(self.write([Arc::clone(used.first())])?);
        } else {
            tracing::warn!(key = %used.first().id(), file = %self.source.file.display(),
                "Every secret is encrypted with the first key of the credential. Remove the other lines and the file of keys, if there is one.");
        }
        Ok(())
    }

    fn load(&self) -> Result<Option<Ring>, Error> {
        let mut keys = Vec::new();
        if let Some(text) = &self.source.credential {
            let place = format!("the systemd credential {CREDENTIAL}");
            keys.extend(parse(text, &place)?);
        }
        if let Some(text) = read(&self.source.file)? {
            keys.extend(parse(&text, &self.source.file.display().to_string())?);
        }
        Ok(Ring::new(keys.into_iter().map(Arc::new)))
    }

    fn write(&self, keys: impl IntoIterator<Item = Arc<Key>>) -> Result<Ring, Error> {
        let file = &self.source.file;
        let ring = Ring::new(keys).ok_or(Error::Crypto)?;
        let mut text = Zeroizing::new(String::with_capacity(LINE * ring.keys().count()));
        for key in ring.keys() {
            STANDARD.encode_string(key.bytes(), &mut text);
            text.push('\n');
        }
        if let Some(directory) = file.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(|e| unreadable(file, &e))?;
        }
        micro_storage::write_atomic(file, text.as_bytes(), 0o600)?;
        Ok(ring)
    }
}

/// Characters of a key in base64, with the end of the line.
const LINE: usize = 45;

fn unreadable(file: &Path, error: &io::Error) -> Error {
    Error::Keys {
        place: file.display().to_string(),
        reason: error.to_string(),
        hint: "check the owner and the permissions of the file and its directory".into(),
    }
}

/// The text of the file, if there is one and nobody else can read it.
fn read(path: &Path) -> Result<Option<Zeroizing<String>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(path, &e)),
    };
    let meta = file.metadata().map_err(|e| unreadable(path, &e))?;
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::Keys {
            place: path.display().to_string(),
            reason: format!("others than its owner may read or write it (mode {mode:04o})"),
            hint: format!(
                "chmod 600 {}, and rotate the key if somebody may have read it",
                path.display()
            ),
        });
    }
    // Room for all of it, so that it is not copied while it grows.
    let room = usize::try_from(meta.len().min(LONGEST)).unwrap_or(0) + 1;
    let mut text = Zeroizing::new(String::with_capacity(room));
    file.take(LONGEST)
        .read_to_string(&mut text)
        .map_err(|e| unreadable(path, &e))?;
    Ok(Some(text))
}

fn parse(text: &str, place: &str) -> Result<Vec<Key>, Error> {
    let wrong = |reason: String| Error::Keys {
        place: place.to_owned(),
        reason,
        hint: "each line is a key of 32 bytes in base64, as `openssl rand -base64 32` makes it"
            .into(),
    };
    let mut keys = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bytes = Zeroizing::new(STANDARD.decode(line).unwrap_or_default());
        let bytes: &[u8; KEY_LEN] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| wrong(format!("line {number} is no key")))?;
        keys.push(Key::new(Zeroizing::new(*bytes))?);
    }
    if keys.is_empty() {
        return Err(wrong("there is no key in it".to_owned()));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(dir: &Path) -> KeySource {
        KeySource::new(&StateDir::new(dir))
    }

    fn text(fill: u8) -> String {
        STANDARD.encode([fill; KEY_LEN])
    }

    fn ids(keys: &Keys) -> Vec<String> {
        let ring = keys.ring().unwrap().unwrap();
        ring.keys().map(|key| key.id().to_string()).collect()
    }

    #[test]
    fn a_key_is_made_when_it_is_needed_and_is_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::new(source(dir.path()));
        let file = dir.path().join("keys/config");
        assert!(keys.ring().unwrap().is_none() && !file.exists());
        let made = keys.need().unwrap().first().id();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(file.parent().unwrap()), 0o700);
        let line = fs::read_to_string(&file).unwrap();
        assert_eq!(STANDARD.decode(line.trim()).unwrap().len(), 32);
        let again = Keys::new(source(dir.path()));
        assert_eq!(again.need().unwrap().first().id(), made);
    }

    #[test]
    fn a_file_that_others_can_read_is_not_used_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::new(source(dir.path()));
        let file = dir.path().join("keys/config");
        fs::create_dir(dir.path().join("keys")).unwrap();
        fs::write(&file, text(1)).unwrap();
        for mode in [0o644, 0o640, 0o602] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let text = keys.need().err().unwrap().to_string();
            assert!(
                text.contains("keys/config") && text.contains("mode 06"),
                "{text}"
            );
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(keys.need().is_ok());
    }

    #[test]
    fn a_broken_file_is_named_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("keys")).unwrap();
        let file = dir.path().join("keys/config");
        for broken in ["", "# nothing\n", "AAAA", &format!("{}\nx", text(1))] {
            micro_storage::write_atomic(&file, broken.as_bytes(), 0o600).unwrap();
            let error = Keys::new(source(dir.path())).need().err().unwrap();
            assert!(error.to_string().contains("keys/config"), "{error}");
            assert_eq!(fs::read_to_string(&file).unwrap(), broken);
        }
    }

    #[test]
    fn a_new_key_comes_before_the_old_one_until_that_is_retired() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::new(source(dir.path()));
        let old = keys.need().unwrap().first().id().to_string();
        let ring = keys.add().unwrap();
        let new = ring.first().id().to_string();
        assert_eq!(ids(&keys), [new.clone(), old.clone()]);
        // What a crash here would leave.
        assert_eq!(ids(&Keys::new(source(dir.path()))), [new.clone(), old]);
        keys.retire(&ring).unwrap();
        assert_eq!(ids(&keys), std::slice::from_ref(&new));
        assert_eq!(ids(&Keys::new(source(dir.path()))), [new]);
    }

    #[test]
    fn keys_of_the_credential_go_before_those_of_the_file_and_are_not_ours_to_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = Keys::new(source(dir.path()));
        let old = file.need().unwrap().first().id().to_string();
        let credential = format!("# newest first\n{}\n{}\n", text(2), text(1));
        let with = |text: &str| Keys::new(source(dir.path()).with_credential(Some(text)));
        let keys = with(&credential);
        assert_eq!(ids(&keys).len(), 3);
        assert_eq!(ids(&keys)[2], old);
        let error = keys.add().err().unwrap();
        assert!(matches!(error, Error::Credential));
        keys.retire(&keys.need().unwrap()).unwrap();
        assert!(dir.path().join("keys/config").exists());
        assert!(with("nonsense").need().is_err());
    }
}
