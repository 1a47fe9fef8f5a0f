//! What a server keeps of a password: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, the last three in
//! base64, as PostgreSQL writes it into `pg_authid.rolpassword`. A client's proof can be checked against it; the password
//! cannot be read from it, nor can one log in with it.

use super::{KEY_BYTES, Key, hmac_sha256, sha256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proto::Rng;
use ring::pbkdf2;
use std::fmt;
use std::num::NonZeroU32;

const PREFIX: &str = "SCRAM-SHA-256$";
const SALT_BYTES: usize = 16;

/// PostgreSQL 15's fixed count; a ready verifier may bring another.
const ITERATIONS_COUNT: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not zero");

/// Prints as its text form through `Display`; `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub(super) iterations_count: NonZeroU32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
}

impl Verifier {
    /// Derives a verifier; about a millisecond of work.
    pub fn from_password(password: &str, rng: &dyn Rng) -> Verifier {
        let mut salt = vec![0; SALT_BYTES];
        rng.fill(&mut salt);
        Verifier::derive(password, salt, ITERATIONS_COUNT)
    }

    /// A password that SASLprep refuses is taken as it is, as PostgreSQL and its clients do.
    fn derive(password: &str, salt: Vec<u8>, iterations_count: NonZeroU32) -> Verifier {
        let prepared = stringprep::saslprep(password).unwrap_or(password.into());
        let mut salted_password = [0; KEY_BYTES];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, iterations_count, &salt, prepared.as_bytes(), &mut salted_password);
        Verifier {
            iterations_count,
            salt,
            stored_key: sha256(&hmac_sha256(&salted_password, &[b"Client Key"])),
            server_key: hmac_sha256(&salted_password, &[b"Server Key"]),
        }
    }

    /// Whether it was derived from this password.
    pub fn matches(&self, password: &str) -> bool {
        Verifier::derive(password, self.salt.clone(), self.iterations_count) == *self
    }

    /// The verifier shown to a client that names a role without one: the same at every attempt, and not to be told
    /// from a real one. Nothing proves it.
    pub fn mock(secret: &[u8], role: &str) -> Verifier {
        let derived = |purpose: &[u8]| hmac_sha256(secret, &[purpose, b"\0", role.as_bytes()]);
        Verifier {
            iterations_count: ITERATIONS_COUNT,
            salt: derived(b"salt")[..SALT_BYTES].to_vec(),
            stored_key: derived(b"stored key"),
            server_key: derived(b"server key"),
        }
    }

    /// Reads the text form; `None` for anything else, which then is a password in clear.
    pub fn parse(text: &str) -> Option<Verifier> {
        let (parameters, keys) = text.strip_prefix(PREFIX)?.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text: &str| Key::try_from(BASE64.decode(text).ok()?).ok();
        let digits_only = iterations.bytes().all(|byte| byte.is_ascii_digit());
        Some(Verifier {
            iterations_count: iterations.parse().ok().filter(|_| digits_only)?,
            salt: BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verifier { iterations_count, salt, stored_key, server_key } = self;
        let [salt, stored_key, server_key] = [salt, &stored_key[..], &server_key[..]].map(|part| BASE64.encode(part));
        write!(f, "{PREFIX}{iterations_count}:{salt}${stored_key}:{server_key}")
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::SystemRng;

    /// The salt, count and password of RFC 7677's example; its server signature is checked in `exchange`.
    #[test]
    fn the_text_form_is_read_back() {
        let made = Verifier::from_password("pencil", &SystemRng);
        let text = made.to_string();
        assert!(text.starts_with("SCRAM-SHA-256$4096:"));
        assert_eq!(text.len(), 19 + 24 + 1 + 44 + 1 + 44);
        assert_eq!(Verifier::parse(&text), Some(made));
    }

    #[test]
    fn text_that_is_not_a_verifier_is_a_password() {
        let good = Verifier::from_password("x", &SystemRng).to_string();
        for bad in [
            "secret".to_owned(),
            String::new(),
            "SCRAM-SHA-256$".to_owned(),
            good.replace("4096", "0"),
            good.replace("4096", "+4096"),
            good.replace("4096", "99999999999"),
            good[..good.len() - 4].to_owned(),
            format!("{good}AAAA"),
            good.replace('=', "*"),
        ] {
            assert_eq!(Verifier::parse(&bad), None, "{bad}");
        }
    }

    /// RFC 4013, section 3: these forms of a password are the same one.
    #[test]
    fn saslprep_makes_equal_what_users_type_alike() {
        let derive = |password| Verifier::derive(password, b"0123456789abcdef".to_vec(), ITERATIONS_COUNT);
        assert_eq!(derive("I\u{ad}X"), derive("IX"));
        assert_eq!(derive("\u{2168}"), derive("IX"));
        assert_ne!(derive("user"), derive("USER"));
        // Prohibited by SASLprep: taken raw.
        assert_ne!(derive("\u{7}"), derive("\u{8}"));
    }

    #[test]
    fn a_mock_stays_the_same_for_a_role_and_differs_between_roles() {
        assert_eq!(Verifier::mock(b"secret", "a"), Verifier::mock(b"secret", "a"));
        assert_ne!(Verifier::mock(b"secret", "a").salt, Verifier::mock(b"secret", "b").salt);
        assert_ne!(Verifier::mock(b"secret", "a").salt, Verifier::mock(b"other", "a").salt);
        assert_eq!(
            Verifier::mock(b"secret", "a").to_string().len(),
            Verifier::from_password("a", &SystemRng).to_string().len()
        );
    }
}
