//! Keys, and what is encrypted with them: AES-256-GCM, a fresh random nonce for each value.
//!
//! Namespace and path are authenticated with each value, so that a ciphertext that somebody copies
//! to another place is not decrypted there. Each ciphertext names its key.

use std::{fmt, sync::Arc};

use micro_core::Namespace;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
    rand::{SecureRandom as _, SystemRandom},
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{Error, document::Node};

/// Bytes of a key.
pub(crate) const KEY_LEN: usize = 32;
/// Before what a key's name is the digest of.
const ID_DOMAIN: &[u8] = b"micro config key\0";
/// Before what is authenticated with a value.
const VALUE_DOMAIN: &[u8] = b"micro config value\0";
/// The format of [`Sealed::to_bytes`].
const FORMAT: u8 = 1;

/// The name of a key, which gives nothing of it away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyId([u8; 8]);

/// An encrypted leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    key: KeyId,
    nonce: [u8; NONCE_LEN],
    /// With the tag at its end.
    text: Box<[u8]>,
}

/// One key.
pub(crate) struct Key {
    id: KeyId,
    bytes: Zeroizing<[u8; KEY_LEN]>,
    cipher: LessSafeKey,
}

/// The keys of this node: the first encrypts, all decrypt.
#[derive(Clone)]
pub(crate) struct Ring {
    first: Arc<Key>,
    others: Vec<Arc<Key>>,
}

/// Where a value lies.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) path: &'a [Box<str>],
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path.join("."))
    }
}

impl Place<'_> {
    /// What is authenticated: no two places have the same bytes.
    fn bytes(&self) -> Vec<u8> {
        let mut out = VALUE_DOMAIN.to_vec();
        let names = self.path.iter().map(|name| &**name);
        for part in std::iter::once(self.namespace.as_str()).chain(names) {
            out.extend_from_slice(&(part.len() as u64).to_be_bytes());
            out.extend_from_slice(part.as_bytes());
        }
        out
    }
}

impl Key {
    pub(crate) fn new(bytes: Zeroizing<[u8; KEY_LEN]>) -> Result<Self, Error> {
        let cipher = UnboundKey::new(&AES_256_GCM, &*bytes).map_err(|_| Error::Crypto)?;
        let mut named = Zeroizing::new(ID_DOMAIN.to_vec());
        named.extend_from_slice(&*bytes);
        let digest = digest::digest(&digest::SHA256, &named);
        let mut id = [0; 8];
        for (to, from) in id.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Ok(Self {
            id: KeyId(id),
            bytes,
            cipher: LessSafeKey::new(cipher),
        })
    }

    /// A new key.
    pub(crate) fn random() -> Result<Self, Error> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        SystemRandom::new()
            .fill(&mut *bytes)
            .map_err(|_| Error::NoRandom)?;
        Self::new(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.bytes
    }

    pub(crate) fn id(&self) -> KeyId {
        self.id
    }
}

impl Ring {
    /// `None` without a key.
    pub(crate) fn new(keys: impl IntoIterator<Item = Arc<Key>>) -> Option<Self> {
        let mut keys = keys.into_iter();
        let mut ring = Self {
            first: keys.next()?,
            others: Vec::new(),
        };
        for key in keys {
            if !ring.keys().any(|known| known.id == key.id) {
                ring.others.push(key);
            }
        }
        Some(ring)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Arc<Key>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The key that encrypts.
    pub(crate) fn first(&self) -> &Arc<Key> {
        &self.first
    }

    /// Whether there are keys that only decrypt.
    pub(crate) fn has_old(&self) -> bool {
        !self.others.is_empty()
    }

    /// Encrypts the JSON of a leaf.
    pub(crate) fn seal(&self, place: Place<'_>, json: &str) -> Result<Sealed, Error> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| Error::NoRandom)?;
        let mut text = Vec::with_capacity(json.len() + AES_256_GCM.tag_len());
        text.extend_from_slice(json.as_bytes());
        let aad = Aad::from(place.bytes());
        let nonce_once = Nonce::assume_unique_for_key(nonce);
        let sealed = self
            .first
            .cipher
            .seal_in_place_append_tag(nonce_once, aad, &mut text);
        if sealed.is_err() {
            text.zeroize();
            return Err(Error::Crypto);
        }
        Ok(Sealed {
            key: self.first.id,
            nonce,
            text: text.into(),
        })
    }

    /// Decrypts a leaf.
    pub(crate) fn open(
        &self,
        place: Place<'_>,
        sealed: &Sealed,
    ) -> Result<Zeroizing<String>, Error> {
        let Some(key) = self.keys().find(|key| key.id == sealed.key) else {
            return Err(sealed.no_key(place));
        };
        let damaged = || Error::Damaged {
            path: place.to_string(),
        };
        let mut text = Zeroizing::new(sealed.text.to_vec());
        let nonce = Nonce::assume_unique_for_key(sealed.nonce);
        let json = key
            .cipher
            .open_in_place(nonce, Aad::from(place.bytes()), &mut text)
            .map_err(|_| damaged())?;
        let json = std::str::from_utf8(json).map_err(|_| damaged())?;
        Ok(Zeroizing::new(json.to_owned()))
    }

    /// Encrypts what [`Self::open`] decrypts, with the first key.
    pub(crate) fn reseal(&self, place: Place<'_>, sealed: &Sealed) -> Result<Sealed, Error> {
        self.seal(place, &self.open(place, sealed)?)
    }

    /// `node`, which is to be put at `at`, with every leaf encrypted.
    pub(crate) fn seal_all(
        &self,
        namespace: &Namespace,
        at: &[Box<str>],
        node: &Node,
    ) -> Result<Node, Error> {
        node.map(&mut at.to_vec(), &mut |path, leaf| match leaf {
            Node::Leaf(json) => {
                let sealed = self.seal(Place { namespace, path }, json)?;
                Ok(Node::Secret(Arc::new(sealed)))
            }
            node => Ok(node.clone()),
        })
    }
}

impl Sealed {
    pub(crate) fn key(&self) -> KeyId {
        self.key
    }

    /// Why it cannot be decrypted without its key.
    pub(crate) fn no_key(&self, place: Place<'_>) -> Error {
        Error::NoKey {
            path: place.to_string(),
            key: self.key.to_string(),
        }
    }

    /// format · key · nonce · text
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        [&[FORMAT], &self.key.0[..], &self.nonce, &self.text].concat()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&FORMAT, rest) = bytes.split_first()? else {
            return None;
        };
        let (key, rest) = rest.split_first_chunk()?;
        let (nonce, text) = rest.split_first_chunk()?;
        Some(Self {
            key: KeyId(*key),
            nonce: *nonce,
            text: text.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Path;

    fn ring(fill: u8) -> Ring {
        Ring::new([Arc::new(Key::new(Zeroizing::new([fill; KEY_LEN])).unwrap())]).unwrap()
    }

    fn at(namespace: &str, path: &str) -> (Namespace, Path) {
        (
            Namespace::parse(namespace).unwrap(),
            Path::parse(path).unwrap(),
        )
    }

    fn place(pair: &(Namespace, Path)) -> Place<'_> {
        Place {
            namespace: &pair.0,
            path: pair.1.segments(),
        }
    }

    #[test]
    fn a_secret_opens_at_its_own_place_only() {
        let ring = ring(1);
        let here = at("foo", "db.password");
        let sealed = ring.seal(place(&here), "\"hunter2\"").unwrap();
        assert_eq!(*ring.open(place(&here), &sealed).unwrap(), "\"hunter2\"");
        let bytes = sealed.to_bytes();
        assert!(!bytes.windows(6).any(|w| w == b"hunter"));
        assert_eq!(Sealed::from_bytes(&bytes), Some(sealed.clone()));
        for other in [at("bar", "db.password"), at("foo", "db"), at("foo", "db.x")] {
            let error = ring.open(place(&other), &sealed).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
        }
        let joined = (here.0.clone(), Path::default());
        let odd: Vec<Box<str>> = vec!["db.password".into()];
        let odd = Place {
            namespace: &joined.0,
            path: &odd,
        };
        assert!(
            ring.open(odd, &sealed).is_err(),
            "a name with a dot is another place"
        );
    }

    #[test]
    fn a_changed_byte_is_noticed_and_a_cut_value_is_refused() {
        let ring = ring(1);
        let here = at("foo", "a");
        let bytes = ring.seal(place(&here), "12").unwrap().to_bytes();
        for i in 9..bytes.len() {
            let mut changed = bytes.clone();
            changed[i] ^= 1;
            let sealed = Sealed::from_bytes(&changed).unwrap();
            assert!(ring.open(place(&here), &sealed).is_err(), "byte {i}");
        }
        assert!((0..21).all(|n| Sealed::from_bytes(&bytes[..n]).is_none()));
    }

    #[test]
    fn the_same_value_is_never_encrypted_the_same_way() {
        let (ring, here) = (ring(1), at("foo", "a"));
        let one = ring.seal(place(&here), "1").unwrap();
        let two = ring.seal(place(&here), "1").unwrap();
        assert_ne!(one, two);
    }

    #[test]
    fn a_ring_opens_what_its_old_keys_sealed_and_names_a_key_it_lacks() {
        let here = at("foo", "a");
        let (old, new) = (ring(1), ring(2));
        let sealed = old.seal(place(&here), "1").unwrap();
        let error = new.open(place(&here), &sealed).unwrap_err().to_string();
        assert!(error.contains(&old.first().id().to_string()), "{error}");
        let both = Ring::new(new.keys().chain(old.keys()).cloned()).unwrap();
        assert!(both.has_old());
        let again = both.reseal(place(&here), &sealed).unwrap();
        assert_eq!(again.key(), new.first().id());
        assert_eq!(*new.open(place(&here), &again).unwrap(), "1");
        assert!(
            !Ring::new(new.keys().chain(new.keys()).cloned())
                .unwrap()
                .has_old()
        );
        assert!(Ring::new([]).is_none());
    }
}
