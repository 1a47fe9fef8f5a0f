//! From the first byte to the first ReadyForQuery: the refusal of encryption, cancel requests, the start-up packet,
//! authentication, and what a client is told about its session.
//!
//! Before the client is known, no message larger than `UNKNOWN_BYTES_MAX` is taken in, of no other kind than the expected
//! one, and everything together has to be done within the authentication timeout.

use super::backend::{Authentication, Conversation, Frontdoor, Startup};
use super::failure::End;
use super::frontend::Body;
use super::scram::{self, Exchange};
use super::wire::{Inlet, Outlet};
use bytes::Bytes;
use engine::types::utf8;
use pgwire::messages::startup::{
    Authentication as AuthenticationMessage, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};
use proto::{Error, Rng, SqlState};
use std::collections::BTreeMap;
use std::net::SocketAddr;

const CANCEL_REQUEST: (u16, u16) = (1234, 5678);
const SSL_REQUEST: (u16, u16) = (1234, 5679);
const GSSENC_REQUEST: (u16, u16) = (1234, 5680);

/// The newest minor version of protocol 3 spoken here. 3.2 has longer cancel keys, 3.1 does not exist.
const MINOR_MAX: u16 = 2;

/// PostgreSQL's bound of a start-up packet.
const PACKET_BYTES_MAX: usize = 10_000;

/// Bound of a message of a client that has not authenticated.
const UNKNOWN_BYTES_MAX: usize = 32 << 10;

/// Longer names are cut, as identifiers are.
const NAME_BYTES_MAX: usize = 63;

pub(super) enum Opening {
    Session(Greeting),
    Cancel { pid: i32, secret: Bytes },
}

/// A start-up packet, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub user: String,
    pub database: String,
    pub options: BTreeMap<String, String>,
    /// Of the cancel key: 4 bytes, or 32 from protocol 3.2 on.
    pub secret_bytes: usize,
}

/// Reads up to and including the start-up packet. Each kind of encryption may be asked for once.
pub(super) async fn open(inlet: &mut Inlet, outlet: &mut Outlet) -> Result<Opening, End> {
    let (mut ssl_asked, mut gss_asked) = (false, false);
    loop {
        let mut packet = Body(inlet.startup_packet(PACKET_BYTES_MAX).await?);
        let version = packet.i32()? as u32;
        let version = ((version >> 16) as u16, version as u16);
        let asked = match version {
            CANCEL_REQUEST => {
                let pid = packet.i32().map_err(|_| End::Gone)?;
                return Ok(Opening::Cancel { pid, secret: packet.0 });
            }
            SSL_REQUEST => &mut ssl_asked,
            GSSENC_REQUEST => &mut gss_asked,
            _ => return greet(version, packet, outlet).map(Opening::Session),
        };
        if std::mem::replace(asked, true) {
            return Err(unsupported_version(version));
        }
        // Whoever sent these bytes did not wait to learn whether they would be encrypted.
        if inlet.buffered_bytes() > 0 {
            return Err(End::violation("received unencrypted data after a request for encryption"));
        }
        outlet.feed_byte(b'N');
        outlet.flush().await?;
    }
}

fn unsupported_version((major, minor): (u16, u16)) -> End {
    let message = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{MINOR_MAX}");
    End::Fatal(Error::new(SqlState::FEATURE_NOT_SUPPORTED, message))
}

fn greet((major, minor): (u16, u16), mut packet: Body, outlet: &mut Outlet) -> Result<Greeting, End> {
    if major != 3 {
        return Err(unsupported_version((major, minor)));
    }
    let (mut options, mut unknown) = (BTreeMap::new(), Vec::new());
    loop {
        let layout = |_| End::violation("invalid startup packet layout: expected terminator as last byte");
        let name = packet.text().map_err(layout)?;
        if name.is_empty() {
            break;
        }
        let value = packet.text().map_err(layout)?;
        match name.starts_with("_pq_.") {
            true => unknown.push(name),
            false => drop(options.insert(name, value)),
        }
    }
    if !packet.0.is_empty() {
        return Err(End::violation("invalid startup packet layout: expected terminator as last byte"));
    }
    if minor > MINOR_MAX || !unknown.is_empty() {
        let spoken = 3 << 16 | i32::from(minor.min(MINOR_MAX));
        outlet.feed(&NegotiateProtocolVersion::new(spoken, unknown))?;
    }
    if options.remove("replication").is_some_and(|value| !matches!(value.as_str(), "false" | "off" | "no" | "0")) {
        return Err(Error::unsupported("the replication protocol").into());
    }
    let user = options.remove("user").unwrap_or_default();
    if user.is_empty() {
        let message = "no PostgreSQL user name specified in startup packet";
        return Err(Error::new(SqlState::INVALID_AUTHORIZATION, message).into());
    }
    let user = cut_name(user);
    let database = options.remove("database").filter(|name| !name.is_empty()).map_or(user.clone(), cut_name);
    if let Some(switches) = options.remove("options") {
        options.extend(command_line(&switches)?);
    }
    Ok(Greeting { user, database, options, secret_bytes: if minor >= 2 { 32 } else { 4 } })
}

fn cut_name(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    name
}

/// Settings from `options`: `-c name=value`, `-cname=value` or `--name=value`, parted by blanks; `\` keeps the next
/// character as it is.
fn command_line(switches: &str) -> Result<Vec<(String, String)>, Error> {
    let mut settings = Vec::new();
    let mut words = words(switches).into_iter();
    while let Some(word) = words.next() {
        let invalid = || {
            let message = format!("invalid command-line argument for server process: {word}");
            Error::new(SqlState::SYNTAX_ERROR, message)
        };
        let setting = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") => words.next().ok_or_else(invalid)?,
            Some(setting) => setting.to_owned(),
            None => return Err(invalid()),
        };
        let (name, value) = setting.split_once('=').ok_or_else(invalid)?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

fn words(text: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.get_or_insert_default().extend(characters.next()),
            blank if blank.is_ascii_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

/// Lets the client prove who it is. An unknown role costs it the same messages as a wrong password.
pub(super) async fn authenticate(
    inlet: &mut Inlet,
    outlet: &mut Outlet,
    front: &dyn Frontdoor,
    greeting: &Greeting,
    peer: Option<SocketAddr>,
    rng: &dyn Rng,
) -> Result<(), End> {
    match front.authentication(&greeting.user, &greeting.database, peer) {
        Authentication::Trust => {}
        Authentication::Refuse(error) => return Err(error.into()),
        Authentication::Scram { verifier, known } => {
            let proof = sasl(inlet, outlet, &verifier, rng).await?;
            match proof {
                scram::Proof::Right { server_final } if known => {
                    outlet.feed(&AuthenticationMessage::SASLFinal(server_final.into()))?;
                }
                _ => {
                    tracing::warn!(user = greeting.user, ?peer, "password authentication failed");
                    let message = format!("password authentication failed for user \"{}\"", greeting.user);
                    return Err(Error::new(SqlState::INVALID_PASSWORD, message).into());
                }
            }
        }
    }
    outlet.feed(&AuthenticationMessage::Ok)?;
    Ok(())
}

async fn sasl(
    inlet: &mut Inlet,
    outlet: &mut Outlet,
    verifier: &scram::Verifier,
    rng: &dyn Rng,
) -> Result<scram::Proof, End> {
    outlet.feed(&AuthenticationMessage::SASL(vec![scram::MECHANISM.to_owned()]))?;
    outlet.flush().await?;

    let mut initial = Body(inlet.only(b'p', UNKNOWN_BYTES_MAX).await?);
    if initial.text()? != scram::MECHANISM {
        return Err(End::violation("client selected an invalid SASL authentication mechanism"));
    }
    let length = usize::try_from(initial.i32()?).map_err(|_| End::violation("malformed SCRAM message"))?;
    let client_first = initial.bytes(length)?;
    if !initial.0.is_empty() {
        return Err(End::violation("invalid message format"));
    }
    let exchange = Exchange::start(verifier, utf8(&client_first)?, rng)?;
    outlet.feed(&AuthenticationMessage::SASLContinue(exchange.server_first().to_owned().into()))?;
    outlet.flush().await?;

    let client_final = inlet.only(b'p', UNKNOWN_BYTES_MAX).await?;
    Ok(exchange.finish(utf8(&client_final)?)?)
}

/// Opens the session and tells the client about it. Ends before ReadyForQuery, which the conversation sends.
pub(super) async fn welcome(
    outlet: &mut Outlet,
    front: &dyn Frontdoor,
    greeting: Greeting,
    peer: Option<SocketAddr>,
    pid: i32,
    secret: &[u8],
) -> Result<Box<dyn Conversation>, End> {
    let Greeting { user, database, options, .. } = greeting;
    let mut conversation = front.connect(Startup { user, database, options, peer, pid }).await?;
    for (name, value) in conversation.take_parameter_changes() {
        outlet.feed(&ParameterStatus::new(name, value))?;
    }
    let secret_key = SecretKey::Bytes(Bytes::copy_from_slice(secret));
    outlet.feed(&BackendKeyData::new(pid, secret_key))?;
    Ok(conversation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greet_packet(minor: u16, parameters: &[u8]) -> Result<Greeting, End> {
        let mut outlet = Outlet::new(tokio::io::sink());
        greet((3, minor), Body(Bytes::copy_from_slice(parameters)), &mut outlet)
    }

    #[test]
    fn the_database_defaults_to_the_user_and_switches_become_options() {
        let greeting = greet_packet(0, b"user\0me\0options\0-c a=1 --b-c=x\\ y -cd=2\0\0").unwrap();
        assert_eq!((greeting.user.as_str(), greeting.database.as_str()), ("me", "me"));
        let options = [("a", "1"), ("b_c", "x y"), ("d", "2")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(greeting.options, options.into());
        assert_eq!(greeting.secret_bytes, 4);
        assert_eq!(greet_packet(2, b"user\0me\0\0").unwrap().secret_bytes, 32);
    }

    #[test]
    fn packets_of_another_layout_are_refused() {
        for bad in [&b""[..], b"user\0me", b"user\0me\0", b"user\0me\0\0x", b"user\0", b"database\0d\0\0", b"\0"] {
            assert!(matches!(greet_packet(0, bad), Err(End::Fatal(_))), "{bad:?}");
        }
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let name = "ä".repeat(40);
        let greeting = greet_packet(0, format!("user\0{name}\0\0").as_bytes()).unwrap();
        assert_eq!(greeting.user, "ä".repeat(31));
    }
}
