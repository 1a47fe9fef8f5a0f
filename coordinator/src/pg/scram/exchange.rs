//! The two messages a client sends and our answers.
//!
//! ```text
//! C: n,,n=,r=<client nonce>                                the role is the start-up packet's; n= is ignored
//! S: r=<client nonce><our nonce>,s=<salt>,i=<iterations>
//! C: c=biws,r=<both nonces>,p=<proof>                      c= is base64 of the header sent first
//! S: v=<server signature>
//! ```

use super::{Key, Verifier, hmac_sha256, sha256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proto::{Error, Rng, SqlState};
use subtle::ConstantTimeEq;

pub(in crate::pg) const MECHANISM: &str = "SCRAM-SHA-256";

/// Encoded it makes 24 characters.
const NONCE_BYTES: usize = 18;

/// A check in progress: the client's first message was answered.
pub(in crate::pg) struct Exchange<'a> {
    verifier: &'a Verifier,
    /// What `c=` must hold, the header of the client's first message.
    header: &'static str,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

/// How a well-formed exchange ended.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::pg) enum Proof {
    /// The client knows the password; it is shown that we do too.
    Right {
        server_final: String,
    },
    Wrong,
}

fn malformed(detail: impl Into<String>) -> Error {
    Error::new(SqlState::PROTOCOL_VIOLATION, "malformed SCRAM message").detail(detail)
}

/// `<name>=<value>` up to the next comma; the value and what follows the comma.
fn attribute(name: char, message: &str) -> Result<(&str, Option<&str>), Error> {
    let value = message.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
    let value = value.ok_or_else(|| malformed(format!("Expected attribute \"{name}\".")))?;
    match value.split_once(',') {
        Some((value, rest)) => Ok((value, Some(rest))),
        None => Ok((value, None)),
    }
}

fn next(rest: Option<&str>, name: char) -> Result<&str, Error> {
    rest.ok_or_else(|| malformed(format!("Attribute \"{name}\" is missing.")))
}

impl<'a> Exchange<'a> {
    /// Reads the client's first message.
    ///
    /// # Errors
    /// `08P01` for one that is malformed or asks for channel binding, `0A000` for an authorization identity or a
    /// mandatory extension.
    pub(in crate::pg) fn start(verifier: &'a Verifier, client_first: &str, rng: &dyn Rng) -> Result<Self, Error> {
        let (header, bare) = gs2_header(client_first)?;
        if bare.starts_with("m=") {
            let message = "client requires an unsupported SCRAM extension";
            return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, message));
        }
        let (_ignored_user, rest) = attribute('n', bare)?;
        let (client_nonce, _optional_extensions) = attribute('r', next(rest, 'r')?)?;
        if client_nonce.is_empty() || !client_nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::new(SqlState::PROTOCOL_VIOLATION, "non-printable characters in SCRAM nonce"));
        }
        let mut own_nonce = [0; NONCE_BYTES];
        rng.fill(&mut own_nonce);
        let nonce = format!("{client_nonce}{}", BASE64.encode(own_nonce));
        let salt = BASE64.encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations_count);
        Ok(Exchange { verifier, header, client_first_bare: bare.to_owned(), server_first, nonce })
    }

    /// Our answer to the first message.
    pub(in crate::pg) fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Reads the client's last message. Takes the same time for a right proof and a wrong one.
    ///
    /// # Errors
    /// `08P01` for a malformed one, a nonce that is not ours or another channel binding than announced.
    pub(in crate::pg) fn finish(self, client_final: &str) -> Result<Proof, Error> {
        let (binding, rest) = attribute('c', client_final)?;
        if binding != BASE64.encode(self.header) {
            let message = "unexpected SCRAM channel-binding attribute in client-final-message";
            return Err(Error::new(SqlState::PROTOCOL_VIOLATION, message));
        }
        let (nonce, rest) = attribute('r', next(rest, 'r')?)?;
        if nonce != self.nonce {
            let message = "invalid SCRAM response";
            return Err(Error::new(SqlState::PROTOCOL_VIOLATION, message).detail("Nonce does not match."));
        }
        // Optional extensions may stand between nonce and proof; the proof is last.
        let rest = next(rest, 'p')?;
        let proof_start = if rest.starts_with("p=") { 0 } else { rest.rfind(",p=").map_or(0, |comma| comma + 1) };
        let (proof, garbage) = attribute('p', &rest[proof_start..])?;
        if garbage.is_some() {
            return Err(malformed("Garbage found at the end of client-final-message."));
        }
        let proof = BASE64.decode(proof).ok().and_then(|proof| Key::try_from(proof).ok());
        let proof = proof.ok_or_else(|| malformed("Malformed proof in client-final-message."))?;

        let without_proof = client_final.len() - (rest.len() - proof_start) - 1;
        let signed: [&[u8]; 5] = [
            self.client_first_bare.as_bytes(),
            b",",
            self.server_first.as_bytes(),
            b",",
            &client_final.as_bytes()[..without_proof],
        ];
        let client_signature = hmac_sha256(&self.verifier.stored_key, &signed);
        let mut client_key = proof;
        client_key.iter_mut().zip(client_signature).for_each(|(byte, mask)| *byte ^= mask);
        let server_signature = hmac_sha256(&self.verifier.server_key, &signed);
        match bool::from(sha256(&client_key).ct_eq(&self.verifier.stored_key)) {
            true => Ok(Proof::Right { server_final: format!("v={}", BASE64.encode(server_signature)) }),
            false => Ok(Proof::Wrong),
        }
    }
}

/// The header in front of the client's first message, and the rest.
fn gs2_header(client_first: &str) -> Result<(&'static str, &str), Error> {
    let header = match client_first.bytes().next() {
        Some(b'n') => "n,,",
        // The client could bind, and believes that we cannot. It is right: nothing but the mechanism without was offered.
        Some(b'y') => "y,,",
        Some(b'p') => {
            return Err(malformed(
                "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel \
                 binding data.",
            ));
        }
        _ => return Err(malformed("Unexpected channel-binding flag.")),
    };
    let Some(rest) = client_first[1..].strip_prefix(',') else {
        return Err(malformed("Comma expected."));
    };
    if rest.starts_with('a') {
        let message = "client uses authorization identity, but it is not supported";
        return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, message));
    }
    match rest.strip_prefix(',') {
        Some(bare) => Ok((header, bare)),
        None => Err(malformed("Unexpected attribute in client-first-message.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::pbkdf2;

    /// The server nonce of RFC 7677's example cannot be drawn (it is no base64 of 18 bytes), so the exchange is set up
    /// behind its first step.
    fn rfc_exchange(verifier: &Verifier) -> Exchange<'_> {
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        Exchange {
            verifier,
            header: "n,,",
            client_first_bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".to_owned(),
            server_first: format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
            nonce: nonce.to_owned(),
        }
    }

    fn verifier(password: &str) -> Verifier {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let mut salted = [0; 32];
        let count = 4096.try_into().unwrap();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, count, &salt, password.as_bytes(), &mut salted);
        Verifier {
            iterations_count: count,
            salt,
            stored_key: sha256(&hmac_sha256(&salted, &[b"Client Key"])),
            server_key: hmac_sha256(&salted, &[b"Server Key"]),
        }
    }

    const RFC_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    #[test]
    fn the_example_of_rfc_7677_is_accepted() {
        let server_final = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_owned();
        let proof = rfc_exchange(&verifier("pencil")).finish(RFC_FINAL).unwrap();
        assert_eq!(proof, Proof::Right { server_final });
    }

    #[test]
    fn another_password_does_not_prove_it() {
        assert_eq!(rfc_exchange(&verifier("pencils")).finish(RFC_FINAL).unwrap(), Proof::Wrong);
        assert_eq!(rfc_exchange(&Verifier::mock(b"secret", "user")).finish(RFC_FINAL).unwrap(), Proof::Wrong);
    }

    #[test]
    fn malformed_last_messages_are_refused() {
        let verifier = verifier("pencil");
        for bad in [
            String::new(),
            "c=biws".to_owned(),
            RFC_FINAL.replace("biws", "eSws"),
            RFC_FINAL.replace("biws", ""),
            RFC_FINAL.replace("k0,", "k1,"),
            RFC_FINAL.replace("k0,", "k,"),
            RFC_FINAL.replace("VQ=", ""),
            RFC_FINAL.replace("VQ=", "VQ!"),
            RFC_FINAL.replace("dHzb", ""),
            RFC_FINAL.replace(",p=", ",q="),
            format!("{RFC_FINAL},x=y"),
            format!("{RFC_FINAL}\0"),
        ] {
            let error = rfc_exchange(&verifier).finish(&bad).unwrap_err();
            assert_eq!(error.code, SqlState::PROTOCOL_VIOLATION, "{bad}");
        }
    }

    #[test]
    fn malformed_first_messages_are_refused() {
        let verifier = verifier("pencil");
        let start = |message: &str| Exchange::start(&verifier, message, &proto::SystemRng).map(|_| ());
        assert_eq!(start("n,,n=,r=abc"), Ok(()));
        assert_eq!(start("y,,n=,r=abc"), Ok(()));
        let refused = [
            ("", "08P01"),
            ("n", "08P01"),
            ("n,", "08P01"),
            ("n,,", "08P01"),
            ("n,,n=", "08P01"),
            ("n,,n=,r=", "08P01"),
            ("n,,n=,r=a\u{7}", "08P01"),
            ("n,,n=,s=abc", "08P01"),
            ("x,,n=,r=abc", "08P01"),
            ("p=tls-server-end-point,,n=,r=abc", "08P01"),
            ("p=tls-unique,,n=,r=abc", "08P01"),
            ("n,a=postgres,n=,r=abc", "0A000"),
            ("n,,m=ext,n=,r=abc", "0A000"),
        ];
        for (message, code) in refused {
            assert_eq!(start(message).unwrap_err().code.as_str(), code, "{message}");
        }
    }

    #[test]
    fn our_nonce_follows_the_clients_and_is_new_every_time() {
        let verifier = verifier("pencil");
        let start = || Exchange::start(&verifier, "n,,n=,r=abc", &proto::SystemRng).unwrap();
        let (one, two) = (start(), start());
        assert!(one.server_first().starts_with("r=abc") && one.nonce.len() == 3 + 24);
        assert_ne!(one.nonce, two.nonce);
    }
}
