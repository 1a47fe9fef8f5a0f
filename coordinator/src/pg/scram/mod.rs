//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side: [`Verifier`] is what is stored instead of a password,
//! `Exchange` the conversation that checks a client against one. No channel binding: there is no TLS to bind to.
//!
//! pgwire has an exchange too; it fails early for unknown roles and compares proofs byte by byte, so ours is used.

mod exchange;
mod verifier;

pub(super) use exchange::{Exchange, MECHANISM, Proof};
pub use verifier::Verifier;

use ring::{digest, hmac};

const KEY_BYTES: usize = 32;

type Key = [u8; KEY_BYTES];

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Key {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut context = hmac::Context::with_key(&key);
    parts.iter().for_each(|part| context.update(part));
    context.sign().as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
}

fn sha256(bytes: &[u8]) -> Key {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}
