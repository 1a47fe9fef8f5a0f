//! From the first byte to the first ReadyForQuery.

use super::{raw_login, sql_addr};
use crate::cluster::{RawClient, Server, connect, error_of};

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_session_opens_with_the_thirteen_parameters_and_a_cancel_key() {
    let server = Server::start().await;
    let (_client, greeting) = raw_login(&server);
    let mut names = Vec::new();
    for message in greeting.iter().filter(|m| m.tag == 'S') {
        let mut parts = message.body.split(|byte| *byte == 0).map(|p| String::from_utf8_lossy(p).into_owned());
        let (name, value) = (parts.next().expect("a name"), parts.next().expect("a value"));
        match name.as_str() {
            "server_version" => assert!(value.starts_with("15."), "{value}"),
            "DateStyle" => assert_eq!(value, "ISO, MDY"),
            "client_encoding" | "server_encoding" => assert_eq!(value, "UTF8"),
            "integer_datetimes" | "standard_conforming_strings" | "is_superuser" => assert_eq!(value, "on", "{name}"),
            "IntervalStyle" => assert_eq!(value, "postgres"),
            "in_hot_standby" | "default_transaction_read_only" => assert_eq!(value, "off", "{name}"),
            "session_authorization" => assert_eq!(value, "postgres"),
            _ => (),
        }
        names.push(name);
    }
    names.sort();
    let expected = [
        "DateStyle",
        "IntervalStyle",
        "TimeZone",
        "application_name",
        "client_encoding",
        "default_transaction_read_only",
        "in_hot_standby",
        "integer_datetimes",
        "is_superuser",
        "server_encoding",
        "server_version",
        "session_authorization",
        "standard_conforming_strings",
    ];
    assert_eq!(names, expected);
    assert_eq!(greeting.iter().filter(|m| m.tag == 'K').count(), 1, "BackendKeyData");
    assert_eq!(greeting.last().expect("ReadyForQuery").body, b"I");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_changed_parameter_is_reported() {
    let server = Server::start().await;
    let (mut client, _) = raw_login(&server);
    client.query("SET TIME ZONE 'Europe/Berlin'");
    let messages = client.read_until('Z');
    let status = messages.iter().find(|m| m.tag == 'S').expect("a ParameterStatus");
    assert_eq!(status.body, b"TimeZone\0Europe/Berlin\0");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn tls_and_gss_are_declined_and_the_session_goes_on() {
    let server = Server::start().await;
    let mut client = RawClient::open(sql_addr(&server));
    // A PostgreSQL built with Kerberos accepts GSS.
    let requests = if server.is_reference() { &[80_877_103_u32][..] } else { &[80_877_104, 80_877_103] };
    for code in requests {
        client.send_bytes(&[8_u32.to_be_bytes(), code.to_be_bytes()].concat());
        assert_eq!(client.read_byte(), b'N');
    }
    let database = server.config().get_dbname().expect("a database").to_owned();
    client.send_startup(&[("user", "postgres"), ("database", &database)]);
    assert_eq!(client.read_until('Z').last().expect("ReadyForQuery").body, b"I");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn an_unknown_database_is_refused_at_login() {
    let server = Server::start().await;
    let mut config = server.config().clone();
    let error = error_of(&connect(config.dbname("nowhere")).await.err().expect("no such database"));
    assert_eq!((error.code().code(), error.message()), ("3D000", "database \"nowhere\" does not exist"));
    assert_eq!(error.severity(), "FATAL");
}
