//! The RSA key pair that signs tokens: two files in Micro's format (contract §5.4).
//!
//! `id_rsa` is the base64 of a PKCS#1 PEM, `id_rsa.pub` the base64 of the PKIX PEM; a PEM without the
//! base64 is read, too. A pair that a Micro server made can be put here, and its tokens stay valid.
//! The crate `rsa` makes keys and reads files; ring alone signs and verifies. The choice of the
//! length is in `docs/decisions/0004-token-keys.md`.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    rand::{SecureRandom as _, SystemRandom},
    signature::{KeyPair as _, RsaKeyPair},
};
use rsa::{
    pkcs1::{DecodeRsaPrivateKey as _, EncodeRsaPrivateKey as _},
    pkcs8::{EncodePublicKey as _, LineEnding},
    rand_core::{TryCryptoRng, TryRng},
};

use crate::Error;

/// Bits of a new key.
pub(crate) const BITS: usize = 3072;

/// A key pair in the forms that others want.
pub(crate) struct KeyPair {
    private: Vec<u8>,
    public: Vec<u8>,
    text: String,
}

impl KeyPair {
    /// PKCS#1, what ring signs with.
    pub(crate) fn private_der(&self) -> &[u8] {
        &self.private
    }

    /// PKCS#1, what ring verifies with.
    pub(crate) fn public_der(&self) -> &[u8] {
        &self.public
    }

    /// What services get: base64 of the PKIX PEM.
    pub(crate) fn public_text(&self) -> &str {
        &self.text
    }

    /// Reads the pair in `directory`; makes one when there is none. A file that cannot be used is an
    /// error and stays as it is, because every issued token hangs on it.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let (private, public) = (directory.join("id_rsa"), directory.join("id_rsa.pub"));
        let key = match fs::read_to_string(&private) {
            Ok(text) => {
                let key = decode(text.trim()).map_err(|reason| bad(&private, reason))?;
                protect(&private)?;
                key
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(directory)
                    .map_err(|e| bad(directory, e))?;
                let key = generate(BITS)?;
                let pem = key
                    .to_pkcs1_pem(LineEnding::LF)
                    .map_err(|e| bad(&private, e))?;
                micro_storage::write_atomic(&private, STANDARD.encode(&*pem).as_bytes(), 0o600)?;
                tracing::info!(bits = BITS, "Made the key that signs tokens.");
                key
            }
            Err(e) => return Err(bad(&private, e)),
        };
        let pair = Self::of(&key).map_err(|reason| bad(&private, reason))?;
        // Made anew when it is missing or belongs to another key.
        if fs::read_to_string(&public).ok().as_deref() != Some(&pair.text) {
            micro_storage::write_atomic(&public, pair.text.as_bytes(), 0o644)?;
        }
        Ok(pair)
    }

    fn of(key: &rsa::PrivateKey) -> Result<Self, String> {
        let der = key.to_pkcs1_der().map_err(|e| e.to_string())?;
        let private = der.as_bytes().to_vec();
        let ring = RsaKeyPair::from_der(&private).map_err(|e| e.to_string())?;
        let pem = key
            .to_public_key()
            .to_public_key_pem(LineEnding::LF)
            .map_err(|e| e.to_string())?;
        Ok(Self {
            private,
            public: ring.public_key().as_ref().to_vec(),
            text: STANDARD.encode(pem),
        })
    }
}

fn bad(path: &Path, reason: impl ToString) -> Error {
    Error::Key {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn decode(text: &str) -> Result<rsa::PrivateKey, String> {
    let pem = if text.starts_with("-----BEGIN") {
        text.to_owned()
    } else {
        let bytes = STANDARD.decode(text).map_err(|e| e.to_string())?;
        String::from_utf8(bytes).map_err(|_| "it is no base64 of a PEM file".to_owned())?
    };
    rsa::PrivateKey::from_pkcs1_pem(pem.trim()).map_err(|e| e.to_string())
}

/// Takes the key away from everybody but its owner, in case it was copied here carelessly.
fn protect(path: &Path) -> Result<(), Error> {
    let mode = fs::metadata(path)
        .map_err(|e| bad(path, e))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "The token key was readable for others; now it is not.");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(|e| bad(path, e))?;
    }
    Ok(())
}

/// A new key; takes from a tenth of a second to a few seconds.
fn generate(bits: usize) -> Result<rsa::PrivateKey, Error> {
    rsa::PrivateKey::new(&mut System(SystemRandom::new()), bits)
        .map_err(|_| Error::Crypto("make the key that signs tokens"))
}

/// ring's random generator with the face that `rsa` wants.
struct System(SystemRandom);

/// The system gave no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
struct NoRandom;

impl TryRng for System {
    type Error = NoRandom;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes).map_err(|_| NoRandom)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes).map_err(|_| NoRandom)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(bytes).map_err(|_| NoRandom)
    }
}

impl TryCryptoRng for System {}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::LazyLock;

    use super::*;

    static PLACE: LazyLock<(tempfile::TempDir, KeyPair)> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        let pair = KeyPair::open(dir.path()).unwrap();
        (dir, pair)
    });

    /// One pair for all tests: making one takes a while.
    pub(crate) fn pair() -> &'static KeyPair {
        &PLACE.1
    }

    /// Puts that pair into `directory`.
    pub(crate) fn place(directory: &Path) {
        fs::create_dir_all(directory).unwrap();
        fs::copy(PLACE.0.path().join("id_rsa"), directory.join("id_rsa")).unwrap();
    }

    #[test]
    fn a_pair_is_made_once_with_the_format_and_permissions_of_micro() {
        let _ = pair();
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        place(&keys);
        fs::set_permissions(keys.join("id_rsa"), fs::Permissions::from_mode(0o644)).unwrap();
        let read = KeyPair::open(&keys).unwrap();
        assert_eq!(read.private, pair().private);
        let mode = |name: &str| {
            let meta = fs::metadata(PLACE.0.path().join(name)).unwrap();
            meta.permissions().mode() & 0o777
        };
        assert_eq!((mode("id_rsa"), mode("id_rsa.pub")), (0o600, 0o644));
        let tightened = fs::metadata(keys.join("id_rsa")).unwrap();
        assert_eq!(tightened.permissions().mode() & 0o777, 0o600);
        let pem = |name: &str| {
            let text = fs::read_to_string(keys.join(name)).unwrap();
            String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
        };
        assert!(pem("id_rsa").starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
        assert!(pem("id_rsa.pub").starts_with("-----BEGIN PUBLIC KEY-----\n"));
        assert_eq!(
            fs::read_to_string(keys.join("id_rsa.pub")).unwrap(),
            pair().public_text()
        );
    }

    #[test]
    fn a_plain_pem_is_read_and_a_wrong_public_half_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let text = fs::read({
            let _ = pair();
            PLACE.0.path().join("id_rsa")
        })
        .unwrap();
        fs::write(dir.path().join("id_rsa"), STANDARD.decode(text).unwrap()).unwrap();
        fs::write(dir.path().join("id_rsa.pub"), "old").unwrap();
        let read = KeyPair::open(dir.path()).unwrap();
        assert_eq!(read.private, pair().private);
        assert_eq!(
            fs::read_to_string(dir.path().join("id_rsa.pub")).unwrap(),
            read.text
        );
    }

    #[test]
    fn a_broken_key_is_named_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for broken in ["", "nonsense", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n"] {
            fs::write(dir.path().join("id_rsa"), broken).unwrap();
            let text = KeyPair::open(dir.path()).err().unwrap().to_string();
            assert!(text.contains("id_rsa"), "{text}");
            assert_eq!(
                fs::read_to_string(dir.path().join("id_rsa")).unwrap(),
                broken
            );
        }
    }

    #[test]
    fn keys_of_other_lengths_sign_what_their_public_half_verifies() {
        // Micro makes 4096 bits; older servers and operators bring 2048.
        for bits in [2048, 4096] {
            let pair = KeyPair::of(&generate(bits).unwrap()).unwrap();
            let signer = RsaKeyPair::from_der(pair.private_der()).unwrap();
            let mut signature = vec![0; signer.public().modulus_len()];
            let encoding = &ring::signature::RSA_PKCS1_SHA256;
            signer
                .sign(encoding, &SystemRandom::new(), b"x", &mut signature)
                .unwrap();
            let public = ring::signature::UnparsedPublicKey::new(
                &ring::signature::RSA_PKCS1_2048_8192_SHA256,
                pair.public_der(),
            );
            assert!(public.verify(b"x", &signature).is_ok(), "{bits}");
            assert!(public.verify(b"y", &signature).is_err(), "{bits}");
        }
    }
}
