//! A client made of bytes.

use super::within;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct Raw(pub(crate) TcpStream);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// A field of an ErrorResponse or NoticeResponse.
    pub(crate) fn field(&self, code: u8) -> String {
        let fields = self.body.split(|byte| *byte == 0);
        let field = fields.filter(|field| field.first() == Some(&code)).map(|field| &field[1..]).next();
        String::from_utf8(field.unwrap_or_default().to_vec()).unwrap()
    }
}

/// The kinds of messages, as one string.
pub(crate) fn kinds(messages: &[Message]) -> String {
    messages.iter().map(|message| message.kind as char).collect()
}

/// One frontend message.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

pub(crate) fn startup(version: u32, parameters: &[u8]) -> Vec<u8> {
    let body = [&version.to_be_bytes()[..], parameters, b"\0"].concat();
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

pub(crate) const V3: u32 = 3 << 16;

impl Raw {
    pub(crate) async fn connect(addr: SocketAddr) -> Raw {
        Raw(TcpStream::connect(addr).await.unwrap())
    }

    /// Logged in without a password, ready for a query.
    pub(crate) async fn trusty(addr: SocketAddr) -> Raw {
        let mut raw = Raw::connect(addr).await;
        raw.send(&startup(V3, b"user\0trusty\0")).await;
        raw.until_ready().await;
        raw
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn query(&mut self, sql: &str) -> Vec<Message> {
        self.send(&message(b'Q', format!("{sql}\0").as_bytes())).await;
        self.until_ready().await
    }

    pub(crate) async fn byte(&mut self) -> u8 {
        within(self.0.read_u8()).await.unwrap()
    }

    /// `None` at the end of the connection.
    pub(crate) async fn read(&mut self) -> Option<Message> {
        within(async {
            let kind = self.0.read_u8().await.ok()?;
            let mut body = vec![0; self.0.read_u32().await.ok()? as usize - 4];
            self.0.read_exact(&mut body).await.ok()?;
            Some(Message { kind, body })
        })
        .await
    }

    pub(crate) async fn until(&mut self, kind: u8) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let message = self.read().await.unwrap_or_else(|| panic!("closed after {}", kinds(&messages)));
            messages.push(message);
            if messages.last().unwrap().kind == kind {
                return messages;
            }
        }
    }

    pub(crate) async fn until_ready(&mut self) -> Vec<Message> {
        self.until(b'Z').await
    }

    pub(crate) async fn until_closed(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.read().await {
            messages.push(message);
        }
        messages
    }
}
