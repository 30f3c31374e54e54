//! Passwords, random tokens and digests.

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest,
    rand::{SecureRandom as _, SystemRandom},
};

use crate::Error;

/// The argon2id hash of a password as a text with its parameters and salt. Takes tens of
/// milliseconds and 19 MiB: call it on a blocking thread, few at a time.
pub(crate) fn hash(secret: &str) -> Result<String, Error> {
    match Argon2::default().hash_password(secret.as_bytes()) {
        Ok(hash) => Ok(hash.to_string()),
        Err(error) => {
            tracing::error!(%error, "A secret could not be hashed.");
            Err(Error::Crypto("hash the secret"))
        }
    }
}

/// Whether `secret` is the password of `hash`. As costly as [`hash`].
pub(crate) fn matches(secret: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| {
        Argon2::default()
            .verify_password(secret.as_bytes(), &hash)
            .is_ok()
    })
}

/// 256 random bits as text.
pub(crate) fn random() -> Result<String, Error> {
    Ok(URL_SAFE_NO_PAD.encode(bytes::<32>()?))
}

/// A random number that a JSON number carries exactly.
pub(crate) fn number() -> Result<i64, Error> {
    Ok(i64::from_be_bytes(bytes::<8>()?) & ((1 << 53) - 1))
}

fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Crypto("get random numbers from the system"))?;
    Ok(bytes)
}

/// What is kept of a random token instead of the token.
pub(crate) fn digest(token: &str) -> [u8; 32] {
    let mut out = [0; 32];
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    // SHA-256 has 32 bytes; zip never leaves any out.
    for (to, from) in out.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_its_hash_only_and_two_hashes_differ() {
        let one = hash("micro").unwrap();
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert!(matches("micro", &one));
        assert!(!matches("Micro", &one));
        assert!(!matches("micro", "no hash"));
        assert_ne!(one, hash("micro").unwrap());
    }

    #[test]
    fn random_tokens_are_long_and_do_not_look_like_a_jwt() {
        let token = random().unwrap();
        assert_eq!(token.len(), 43);
        assert!(!token.contains('.'));
        assert_ne!(token, random().unwrap());
        assert!((0..1 << 53).contains(&number().unwrap()));
        assert_eq!(digest("")[..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }
}
