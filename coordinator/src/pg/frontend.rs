//! Messages from the client, decoded with every length checked.
//!
//! pgwire's own decoder is not used for these: it reads past the end of a message into the next one, panics on a
//! truncated body and replaces invalid UTF-8. Here a body is cut to its frame first, and a field that does not fit is
//! `08P01`.

use bytes::{Buf, Bytes};
use engine::types::utf8;
use proto::{Error, Result, SqlState};

/// A message with its body cut to size, not yet understood.
#[derive(Debug)]
pub(super) struct Frame {
    pub kind: u8,
    pub body: Bytes,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frontend {
    Query {
        sql: String,
    },
    Parse {
        name: String,
        sql: String,
        param_types: Vec<u32>,
    },
    Bind(Bind),
    Describe(Target),
    /// At most `rows_max` rows; `None` is all.
    Execute {
        portal: String,
        rows_max: Option<u64>,
    },
    Close(Target),
    Flush,
    Sync,
    Terminate,
    /// A piece of a CopyData message.
    CopyData(Bytes),
    CopyDone,
    CopyFail {
        message: String,
    },
    FunctionCall,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bind {
    pub portal: String,
    pub statement: String,
    pub param_formats: Vec<i16>,
    pub params: Vec<Option<Bytes>>,
    pub result_formats: Vec<i16>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    Statement(String),
    Portal(String),
}

/// Whether an error in a message of this kind is followed by silence until Sync.
pub(super) fn is_extended(kind: u8) -> bool {
    matches!(kind, b'P' | b'B' | b'D' | b'E' | b'C' | b'H')
}

/// Largest length field accepted for a kind; `None` for an unknown kind. Names and flags fit into 10,000 bytes, as in
/// PostgreSQL; CopyData is passed on in pieces and needs no bound of ours.
pub(super) fn length_max(kind: u8, message_bytes_max: usize) -> Option<usize> {
    const SMALL_BYTES_MAX: usize = 10_000;
    const COPY_BYTES_MAX: usize = (1 << 30) - 1;
    match kind {
        b'Q' | b'P' | b'B' | b'F' => Some(message_bytes_max),
        b'd' => Some(COPY_BYTES_MAX),
        b'D' | b'E' | b'C' | b'H' | b'S' | b'X' | b'c' | b'f' => Some(SMALL_BYTES_MAX),
        _ => None,
    }
}

impl Frontend {
    /// # Errors
    /// `08P01` for a body that does not have the form of its kind, `22021` for text that is not UTF-8.
    pub(super) fn decode(frame: Frame) -> Result<Frontend> {
        let mut body = Body(frame.body);
        let message = match frame.kind {
            b'Q' => Frontend::Query { sql: body.text()? },
            b'P' => {
                let (name, sql) = (body.text()?, body.text()?);
                Frontend::Parse { name, sql, param_types: body.list(Body::u32)? }
            }
            b'B' => Frontend::Bind(Bind {
                portal: body.text()?,
                statement: body.text()?,
                param_formats: body.list(Body::i16)?,
                params: body.list(Body::value)?,
                result_formats: body.list(Body::i16)?,
            }),
            b'D' => Frontend::Describe(body.target("DESCRIBE")?),
            b'E' => {
                let (portal, rows_max) = (body.text()?, body.i32()?);
                Frontend::Execute { portal, rows_max: u64::try_from(rows_max).ok().filter(|rows| *rows > 0) }
            }
            b'C' => Frontend::Close(body.target("CLOSE")?),
            b'H' => Frontend::Flush,
            b'S' => Frontend::Sync,
            b'X' => Frontend::Terminate,
            b'd' => Frontend::CopyData(std::mem::take(&mut body.0)),
            b'c' => Frontend::CopyDone,
            b'f' => Frontend::CopyFail { message: body.text()? },
            b'F' => {
                body.0.clear();
                Frontend::FunctionCall
            }
            kind => return Err(Error::new(SqlState::PROTOCOL_VIOLATION, format!("unexpected message type {kind}"))),
        };
        match body.0.is_empty() {
            true => Ok(message),
            false => Err(Error::new(SqlState::PROTOCOL_VIOLATION, "invalid message format")),
        }
    }
}

/// A message body read from its start.
pub(super) struct Body(pub Bytes);

fn cut_short() -> Error {
    Error::new(SqlState::PROTOCOL_VIOLATION, "insufficient data left in message")
}

impl Body {
    fn i16(&mut self) -> Result<i16> {
        self.0.try_get_i16().map_err(|_| cut_short())
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        self.0.try_get_i32().map_err(|_| cut_short())
    }

    fn u32(&mut self) -> Result<u32> {
        self.0.try_get_u32().map_err(|_| cut_short())
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<Bytes> {
        match count <= self.0.len() {
            true => Ok(self.0.split_to(count)),
            false => Err(cut_short()),
        }
    }

    /// A NUL-terminated string.
    pub(super) fn text(&mut self) -> Result<String> {
        let end = self.0.iter().position(|byte| *byte == 0);
        let end = end.ok_or_else(|| Error::new(SqlState::PROTOCOL_VIOLATION, "invalid string in message"))?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        Ok(utf8(&text)?.to_owned())
    }

    /// A 16-bit count, unsigned as all clients mean it, and as many items. Every item takes at least two bytes, so what
    /// is reserved stays in proportion to what was sent.
    fn list<T>(&mut self, item: impl Fn(&mut Body) -> Result<T>) -> Result<Vec<T>> {
        let count = self.0.try_get_u16().map_err(|_| cut_short())?;
        let mut items = Vec::with_capacity(usize::from(count).min(self.0.len() / 2));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// A parameter: its length and bytes, or -1 for NULL.
    fn value(&mut self) -> Result<Option<Bytes>> {
        match self.i32()? {
            -1 => Ok(None),
            length => self.bytes(usize::try_from(length).map_err(|_| cut_short())?).map(Some),
        }
    }

    fn target(&mut self, message: &str) -> Result<Target> {
        let kind = self.0.try_get_u8().map_err(|_| cut_short())?;
        let name = self.text()?;
        match kind {
            b'S' => Ok(Target::Statement(name)),
            b'P' => Ok(Target::Portal(name)),
            other => {
                Err(Error::new(SqlState::PROTOCOL_VIOLATION, format!("invalid {message} message subtype {other}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(kind: u8, body: &'static [u8]) -> Result<Frontend> {
        Frontend::decode(Frame { kind, body: Bytes::from_static(body) })
    }

    #[test]
    fn a_bind_is_read_field_by_field() {
        let body = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02hi\xff\xff\xff\xff\0\x01\0\x01";
        let bind = Bind {
            portal: "p".into(),
            statement: "s".into(),
            param_formats: vec![1],
            params: vec![Some(Bytes::from_static(b"hi")), None],
            result_formats: vec![1],
        };
        assert_eq!(decode(b'B', body).unwrap(), Frontend::Bind(bind));
    }

    /// Every prefix, and one byte too many: an error, never a panic and never bytes of the next message.
    #[test]
    fn a_body_that_does_not_fit_its_frame_is_refused() {
        let whole: [(u8, &[u8]); 5] = [
            (b'B', b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02hi\xff\xff\xff\xff\0\x01\0\x01"),
            (b'P', b"name\0select 1\0\0\x02\0\0\0\x17\0\0\0\0"),
            (b'E', b"portal\0\0\0\0\x05"),
            (b'D', b"Sname\0"),
            (b'Q', b"select 1\0"),
        ];
        for (kind, body) in whole {
            for end in 0..body.len() {
                let error = decode(kind, &body[..end]).unwrap_err();
                assert_eq!(error.code, SqlState::PROTOCOL_VIOLATION, "{} bytes of {}", end, kind as char);
            }
            let longer = [body, b"\0"].concat();
            let frame = Frame { kind, body: Bytes::from(longer) };
            assert_eq!(Frontend::decode(frame).unwrap_err().code, SqlState::PROTOCOL_VIOLATION);
        }
    }

    #[test]
    fn lengths_at_the_edges_of_32_bits_are_refused() {
        for length in [i32::MIN, -2, i32::MAX, 0x4000_0000] {
            let mut body = b"\0\0\0\0\0\x01".to_vec();
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(b"abcd\0\0");
            let frame = Frame { kind: b'B', body: body.into() };
            assert_eq!(Frontend::decode(frame).unwrap_err().code, SqlState::PROTOCOL_VIOLATION);
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_named_as_postgres_names_it() {
        let error = decode(b'Q', b"select '\xff'\0").unwrap_err();
        assert_eq!(error.message, "invalid byte sequence for encoding \"UTF8\": 0xff");
        let error = decode(b'Q', b"select '\xe2\x28\xa1'\0").unwrap_err();
        assert_eq!(error.message, "invalid byte sequence for encoding \"UTF8\": 0xe2 0x28 0xa1");
        assert_eq!(error.code, SqlState::CHARACTER_NOT_IN_REPERTOIRE);
    }
}
