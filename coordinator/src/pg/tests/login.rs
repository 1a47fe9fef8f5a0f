//! Before the client is known.

use super::raw::{Message, Raw, V3, kinds, message, startup};
use super::{start, start_with};
use crate::pg::backend::REPORTED_PARAMETERS;
use std::time::Duration;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

fn sasl_initial(client_first: &str) -> Vec<u8> {
    let body = [b"SCRAM-SHA-256\0", &(client_first.len() as u32).to_be_bytes()[..], client_first.as_bytes()].concat();
    message(b'p', &body)
}

/// Logs in with a proof that is wrong for every password; all messages of the server.
async fn log_in_wrongly(addr: std::net::SocketAddr, user: &str) -> Vec<Message> {
    let mut raw = Raw::connect(addr).await;
    raw.send(&startup(V3, format!("user\0{user}\0").as_bytes())).await;
    let mut messages = vec![raw.read().await.unwrap()];
    raw.send(&sasl_initial("n,,n=,r=abcdef")).await;
    let challenge = raw.read().await.unwrap();
    let server_first = String::from_utf8(challenge.body[4..].to_vec()).unwrap();
    let nonce = server_first.split(',').next().unwrap().to_owned();
    messages.push(challenge);
    raw.send(&message(b'p', format!("c=biws,{nonce},p={}=", "A".repeat(43)).as_bytes())).await;
    messages.extend(raw.until_closed().await);
    messages
}

#[tokio::test]
async fn an_unknown_role_and_a_wrong_password_look_the_same() {
    let server = start().await;
    let wrong = log_in_wrongly(server.addr, "alice").await;
    let unknown = log_in_wrongly(server.addr, "ghost").await;
    assert_eq!(kinds(&wrong), "RRE");
    let shape = |messages: &[Message]| messages.iter().map(|m| (m.kind, m.body.len())).collect::<Vec<_>>();
    assert_eq!(shape(&wrong), shape(&unknown));
    assert_eq!(wrong[0], unknown[0]);
    let as_alice = String::from_utf8(unknown[2].body.clone()).unwrap().replace("ghost", "alice");
    assert_eq!(wrong[2].body, as_alice.as_bytes());
    assert_eq!(wrong[2].field(b'C'), "28P01");
    assert_eq!(wrong[2].field(b'S'), "FATAL");
    assert_eq!(wrong[2].field(b'M'), "password authentication failed for user \"alice\"");

    // The salt of an unknown role is as stable as a real one.
    let salt = |message: &Message| {
        String::from_utf8(message.body[4..].to_vec()).unwrap().split(',').nth(1).unwrap().to_owned()
    };
    assert_eq!(salt(&unknown[1]), salt(&log_in_wrongly(server.addr, "ghost").await[1]));
    assert_eq!(salt(&wrong[1]), salt(&log_in_wrongly(server.addr, "alice").await[1]));
}

#[tokio::test]
async fn the_client_is_told_all_thirteen_parameters_and_its_key() {
    let server = start().await;
    for (version, key_bytes) in [(V3, 4), (V3 + 2, 32)] {
        let mut raw = Raw::connect(server.addr).await;
        raw.send(&startup(version, b"user\0trusty\0application_name\0it\0")).await;
        let messages = raw.until_ready().await;
        assert_eq!(kinds(&messages), format!("R{}KZ", "S".repeat(13)));
        let names = messages[1..14].iter().map(|m| m.body.split(|byte| *byte == 0).next().unwrap().to_vec());
        assert!(names.eq(REPORTED_PARAMETERS.iter().map(|name| name.as_bytes().to_vec())));
        assert_eq!(messages[1].body, b"application_name\0it\0");
        assert_eq!(messages[14].body.len(), 4 + key_bytes);
        assert_eq!(messages[15].body, b"I");
    }
}

#[tokio::test]
async fn newer_protocols_and_unknown_extensions_are_negotiated() {
    let server = start().await;
    let cases: [(u32, &[u8], u32, &[u8]); 3] = [
        (V3 + 9999, b"user\0trusty\0", V3 + 2, b"\0\0\0\0"),
        (V3, b"user\0trusty\0_pq_.x\0on\0", V3, b"\0\0\0\x01_pq_.x\0"),
        (V3 + 2, b"user\0trusty\0_pq_.x\0on\0", V3 + 2, b"\0\0\0\x01_pq_.x\0"),
    ];
    for (asked, parameters, spoken, options) in cases {
        let mut raw = Raw::connect(server.addr).await;
        raw.send(&startup(asked, parameters)).await;
        let messages = raw.until_ready().await;
        assert_eq!(messages[0].kind, b'v');
        assert_eq!(messages[0].body, [&spoken.to_be_bytes()[..], options].concat());
        assert_eq!(messages[1].kind, b'R');
    }
}

#[tokio::test]
async fn encryption_is_declined_once_for_each_kind() {
    let server = start().await;
    let mut raw = Raw::connect(server.addr).await;
    raw.send(&GSSENC_REQUEST).await;
    assert_eq!(raw.byte().await, b'N');
    raw.send(&SSL_REQUEST).await;
    assert_eq!(raw.byte().await, b'N');
    raw.send(&SSL_REQUEST).await;
    let messages = raw.until_closed().await;
    assert_eq!((kinds(&messages).as_str(), messages[0].field(b'C').as_str()), ("E", "0A000"));
}

#[tokio::test]
async fn bytes_sent_behind_a_request_for_encryption_are_not_used() {
    let server = start().await;
    let mut raw = Raw::connect(server.addr).await;
    raw.send(&[&SSL_REQUEST[..], &startup(V3, b"user\0trusty\0")].concat()).await;
    let messages = raw.until_closed().await;
    assert_eq!((kinds(&messages).as_str(), messages[0].field(b'C').as_str()), ("E", "08P01"));
}

#[tokio::test]
async fn garbage_is_hung_up_on() {
    let server = start().await;
    let mut tls_hello = vec![0x16, 3, 1, 2, 0, 1];
    tls_hello.resize(600, 7);
    let lengths = [0u32, 3, 4, 7, 10_001, 0x7fff_ffff, 0xffff_ffff].map(|length| length.to_be_bytes().to_vec());
    let garbage = [b"GET / HTTP/1.1\r\n\r\n".to_vec(), tls_hello].into_iter().chain(lengths);
    for bytes in garbage {
        let mut raw = Raw::connect(server.addr).await;
        raw.send(&bytes).await;
        assert_eq!(kinds(&raw.until_closed().await), "", "{bytes:?}");
    }
    let mut raw = Raw::connect(server.addr).await;
    raw.send(&startup(2 << 16, b"user\0trusty\0")).await;
    assert_eq!(
        raw.until_closed().await[0].field(b'M'),
        "unsupported frontend protocol 2.0: server supports 3.0 to 3.2"
    );
    // And the server is well.
    Raw::trusty(server.addr).await;
}

/// The length alone is enough to be refused: none of the gigabyte is waited for.
#[tokio::test]
async fn an_oversized_message_before_login_is_refused_unread() {
    let server = start().await;
    for length in [0x3fff_ffff_u32, 32 * 1024 + 1, 0xffff_ffff, 3] {
        let mut raw = Raw::connect(server.addr).await;
        raw.send(&startup(V3, b"user\0alice\0")).await;
        assert_eq!(raw.read().await.unwrap().kind, b'R');
        raw.send(&[&b"p"[..], &length.to_be_bytes()].concat()).await;
        let messages = raw.until_closed().await;
        assert_eq!((kinds(&messages).as_str(), messages[0].field(b'C').as_str()), ("E", "08P01"));
    }
}

#[tokio::test]
async fn nothing_but_the_proof_is_taken_in_before_login() {
    let server = start().await;
    for kind in *b"QPBdcfSX" {
        let mut raw = Raw::connect(server.addr).await;
        raw.send(&startup(V3, b"user\0alice\0")).await;
        assert_eq!(raw.read().await.unwrap().kind, b'R');
        raw.send(&message(kind, b"rows 1\0")).await;
        let messages = raw.until_closed().await;
        assert_eq!((kinds(&messages).as_str(), messages[0].field(b'C').as_str()), ("E", "08P01"));
    }
}

#[tokio::test]
async fn malformed_proofs_are_refused() {
    let server = start().await;
    let bodies: [&[u8]; 6] = [
        b"",
        b"SCRAM-SHA-256\0",
        b"SCRAM-SHA-256\0\xff\xff\xff\xff",
        b"SCRAM-SHA-256\0\x7f\xff\xff\xffn,,n=,r=a",
        b"SCRAM-SHA-256-PLUS\0\0\0\0\x0an,,n=,r=ab",
        b"SCRAM-SHA-256\0\0\0\0\x01n,,n=,r=a",
    ];
    for body in bodies {
        let mut raw = Raw::connect(server.addr).await;
        raw.send(&startup(V3, b"user\0alice\0")).await;
        assert_eq!(raw.read().await.unwrap().kind, b'R');
        raw.send(&message(b'p', body)).await;
        let messages = raw.until_closed().await;
        assert_eq!((kinds(&messages).as_str(), messages[0].field(b'C').as_str()), ("E", "08P01"));
    }
}

#[tokio::test]
async fn a_silent_client_is_hung_up_on() {
    let server = start_with(|options| options.auth_timeout = Duration::from_millis(50)).await;
    let mut raw = Raw::connect(server.addr).await;
    assert_eq!(kinds(&raw.until_closed().await), "");
    let mut raw = Raw::connect(server.addr).await;
    raw.send(&startup(V3, b"user\0alice\0")).await;
    assert_eq!(kinds(&raw.until_closed().await), "R");
}

#[tokio::test]
async fn one_client_too_many_is_told_so() {
    let server = start_with(|options| options.connections_max = 1).await;
    let mut first = Raw::trusty(server.addr).await;
    let mut second = Raw::connect(server.addr).await;
    second.send(&startup(V3, b"user\0trusty\0")).await;
    let messages = second.until_closed().await;
    assert_eq!(messages[0].field(b'C'), "53300");
    assert_eq!(messages[0].field(b'M'), "sorry, too many clients already");
    first.send(&message(b'X', b"")).await;
    assert_eq!(kinds(&first.until_closed().await), "");
    Raw::trusty(server.addr).await;
}

#[tokio::test]
async fn an_error_of_the_session_at_connection_is_fatal() {
    let server = start().await;
    let mut raw = Raw::connect(server.addr).await;
    raw.send(&startup(V3, b"user\0trusty\0database\0gone\0")).await;
    let messages = raw.until_closed().await;
    let error = messages.last().unwrap();
    assert_eq!((error.field(b'S').as_str(), error.field(b'C').as_str()), ("FATAL", "3D000"));
}
