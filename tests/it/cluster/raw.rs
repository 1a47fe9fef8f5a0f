//! The Postgres protocol by hand, for what no well-behaved client sends: portals with row limits, broken frames, a
//! start-up packet too large. Blocking, with a limit on every read.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const READ_TIMEOUT: Duration = Duration::from_secs(20);
const PROTOCOL_3_0: i32 = 3 << 16;

/// One message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub tag: char,
    pub body: Vec<u8>,
}

impl Message {
    /// A field of an ErrorResponse or NoticeResponse.
    pub fn field(&self, code: char) -> Option<String> {
        let mut fields = self.body.split(|byte| *byte == 0).filter(|field| !field.is_empty());
        fields.find(|field| field[0] == code as u8).map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    }

    /// The text of a CommandComplete.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.body.strip_suffix(&[0]).unwrap_or(&self.body)).into_owned()
    }

    /// The values of a DataRow.
    pub fn values(&self) -> Vec<Option<Vec<u8>>> {
        let mut rest = &self.body[2..];
        let count = i16::from_be_bytes([self.body[0], self.body[1]]);
        let values = (0..count).map(|_| {
            let (length, tail) = rest.split_first_chunk::<4>().expect("a length");
            let length = i32::from_be_bytes(*length);
            let (value, tail) = tail.split_at(usize::try_from(length).unwrap_or(0));
            rest = tail;
            (length >= 0).then(|| value.to_vec())
        });
        values.collect()
    }
}

pub struct RawClient {
    stream: TcpStream,
}

impl RawClient {
    /// A connection on which nothing was said yet.
    pub fn open(addr: SocketAddr) -> RawClient {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        RawClient { stream }
    }

    /// Logs in without a password. The messages up to the first ReadyForQuery are returned.
    pub fn login(addr: SocketAddr, user: &str, database: &str) -> (RawClient, Vec<Message>) {
        let mut client = RawClient::open(addr);
        client.send_startup(&[("user", user), ("database", database)]);
        let greeting = client.read_until('Z');
        (client, greeting)
    }

    pub fn send_startup(&mut self, parameters: &[(&str, &str)]) {
        let mut body = PROTOCOL_3_0.to_be_bytes().to_vec();
        for (key, value) in parameters {
            body.extend(cstr(key));
            body.extend(cstr(value));
        }
        body.push(0);
        self.send_bytes(&framed(None, &body));
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn send(&mut self, tag: char, body: &[u8]) {
        self.send_bytes(&framed(Some(tag), body));
    }

    pub fn query(&mut self, sql: &str) {
        self.send('Q', &cstr(sql));
    }

    pub fn parse(&mut self, statement: &str, sql: &str, oids: &[u32]) {
        let mut body = [cstr(statement), cstr(sql)].concat();
        body.extend((oids.len() as i16).to_be_bytes());
        oids.iter().for_each(|oid| body.extend(oid.to_be_bytes()));
        self.send('P', &body);
    }

    /// Text parameters; `binary` asks for binary results.
    pub fn bind(&mut self, portal: &str, statement: &str, values: &[Option<&str>], binary: bool) {
        let mut body = [cstr(portal), cstr(statement)].concat();
        body.extend(0_i16.to_be_bytes());
        body.extend((values.len() as i16).to_be_bytes());
        for value in values {
            body.extend(value.map_or(-1, |v| v.len() as i32).to_be_bytes());
            body.extend(value.unwrap_or_default().as_bytes());
        }
        body.extend([0, 1, 0, u8::from(binary)]);
        self.send('B', &body);
    }

    pub fn describe_statement(&mut self, statement: &str) {
        self.send('D', &[b"S".to_vec(), cstr(statement)].concat());
    }

    pub fn execute(&mut self, portal: &str, rows_max: i32) {
        self.send('E', &[cstr(portal), rows_max.to_be_bytes().to_vec()].concat());
    }

    pub fn sync(&mut self) {
        self.send('S', &[]);
    }

    pub fn flush(&mut self) {
        self.send('H', &[]);
    }

    /// The answer to a request for encryption.
    pub fn read_byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).unwrap();
        byte[0]
    }

    /// `None` when the server has closed the connection.
    pub fn read(&mut self) -> Option<Message> {
        let mut tag = [0];
        match self.stream.read(&mut tag) {
            Ok(0) => return None,
            Ok(_) => (),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(e) => panic!("reading a message: {e}"),
        }
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut body = vec![0; i32::from_be_bytes(length) as usize - 4];
        self.stream.read_exact(&mut body).unwrap();
        Some(Message { tag: tag[0] as char, body })
    }

    /// Everything up to and including the first message with this tag.
    pub fn read_until(&mut self, tag: char) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let message = self.read().unwrap_or_else(|| panic!("closed while waiting for {tag}, after {messages:?}"));
            messages.push(message);
            if messages.last().is_some_and(|m| m.tag == tag) {
                return messages;
            }
        }
    }

    /// Everything until the server closes the connection.
    pub fn read_to_end(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.read()).collect()
    }
}

fn cstr(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn framed(tag: Option<char>, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).expect("tests send small messages").to_be_bytes();
    let mut bytes = tag.map(|tag| tag as u8).into_iter().collect::<Vec<_>>();
    bytes.extend(length);
    bytes.extend(body);
    bytes
}
