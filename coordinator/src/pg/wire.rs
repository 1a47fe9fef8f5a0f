//! The socket of one connection: an [`Inlet`] that cuts the client's bytes into messages and an [`Outlet`] that gathers
//! ours. Both are bounded: the inlet holds one message and a little read-ahead, the outlet is flushed every
//! `OUTPUT_BYTES` by whoever produces much.
//!
//! Invariants
//! - `Inlet::frame`, `Inlet::watch` and `Outlet::flush` may be dropped at any await and called again: no byte is lost
//!   or sent twice, and the outlet always holds whole messages behind the one being written.

use super::failure::End;
use super::frontend::{Frame, length_max};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use pgwire::messages::Message;
use proto::{Error, SqlState};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Output is written to the socket when this much has gathered.
pub(super) const OUTPUT_BYTES: usize = 64 << 10;

/// While a statement runs, the socket is read this far, so that a client that goes away is noticed.
const READ_AHEAD_BYTES_MAX: usize = 64 << 10;

/// One read from the socket.
const READ_BYTES: usize = 16 << 10;

/// CopyData is passed on in pieces of at most this size.
const COPY_PIECE_BYTES_MAX: usize = 64 << 10;

pub(super) struct Inlet {
    socket: Box<dyn AsyncRead + Send + Unpin>,
    input: BytesMut,
    /// Bytes of the current CopyData message not yet passed on.
    copy_left_bytes: usize,
}

impl Inlet {
    pub(super) fn new(socket: impl AsyncRead + Send + Unpin + 'static) -> Inlet {
        Inlet { socket: Box::new(socket), input: BytesMut::new(), copy_left_bytes: 0 }
    }

    /// Bytes that came behind the last message.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.input.len()
    }

    async fn fill(&mut self) -> Result<(), End> {
        self.input.reserve(READ_BYTES);
        // A large message leaves a large buffer behind; it is no reason to read far ahead.
        let mut room = (&mut self.input).limit(READ_BYTES);
        match self.socket.read_buf(&mut room).await {
            Ok(0) | Err(_) => Err(End::Gone),
            Ok(_) => Ok(()),
        }
    }

    async fn fill_to(&mut self, bytes_count: usize) -> Result<(), End> {
        while self.input.len() < bytes_count {
            self.fill().await?;
        }
        Ok(())
    }

    /// The next message of an open session, or the next piece of CopyData.
    pub(super) async fn frame(&mut self, message_bytes_max: usize) -> Result<Frame, End> {
        if self.copy_left_bytes > 0 {
            return self.copy_piece().await;
        }
        self.limited_frame(|kind| length_max(kind, message_bytes_max)).await
    }

    /// The next message, which has to be of `kind` and no longer than `bytes_max`. Neither is buffered before it is known
    /// to be so.
    pub(super) async fn only(&mut self, kind: u8, bytes_max: usize) -> Result<Bytes, End> {
        let frame = self.limited_frame(|found| (found == kind).then_some(bytes_max)).await?;
        Ok(frame.body)
    }

    /// `accept` gives the largest length field of a kind; `None` refuses the kind.
    async fn limited_frame(&mut self, accept: impl Fn(u8) -> Option<usize>) -> Result<Frame, End> {
        self.fill_to(1).await?;
        let kind = self.input[0];
        let Some(length_max) = accept(kind) else {
            return Err(End::violation(format!("invalid frontend message type {kind}")));
        };
        self.fill_to(5).await?;
        let length = u32::from_be_bytes([self.input[1], self.input[2], self.input[3], self.input[4]]) as usize;
        if length < 4 || length > length_max {
            return Err(End::violation("invalid message length"));
        }
        if kind == b'd' && length > 4 {
            self.input.advance(5);
            self.copy_left_bytes = length - 4;
            return self.copy_piece().await;
        }
        self.fill_to(1 + length).await?;
        self.input.advance(5);
        Ok(Frame { kind, body: self.input.split_to(length - 4).freeze() })
    }

    async fn copy_piece(&mut self) -> Result<Frame, End> {
        self.fill_to(1).await?;
        let piece_bytes = self.copy_left_bytes.min(self.input.len()).min(COPY_PIECE_BYTES_MAX);
        self.copy_left_bytes -= piece_bytes;
        Ok(Frame { kind: b'd', body: self.input.split_to(piece_bytes).freeze() })
    }

    /// A packet of the start-up phase, which has a length but no kind; without its length.
    ///
    /// # Errors
    /// `Gone` when the length is impossible: PostgreSQL hangs up too, whatever is there does not speak the protocol.
    pub(super) async fn startup_packet(&mut self, bytes_max: usize) -> Result<Bytes, End> {
        self.fill_to(4).await?;
        let length = u32::from_be_bytes([self.input[0], self.input[1], self.input[2], self.input[3]]) as usize;
        if length < 8 || length > bytes_max {
            return Err(End::Gone);
        }
        self.fill_to(length).await?;
        self.input.advance(4);
        Ok(self.input.split_to(length - 4).freeze())
    }

    /// Reads ahead until the client goes away. Ends only then.
    pub(super) async fn watch(&mut self) -> End {
        while self.input.len() < READ_AHEAD_BYTES_MAX {
            if let Err(end) = self.fill().await {
                return end;
            }
        }
        std::future::pending().await
    }
}

pub(super) struct Outlet {
    socket: Box<dyn AsyncWrite + Send + Unpin>,
    output: Vec<u8>,
    /// Bytes of `output` that the socket has taken.
    written_bytes: usize,
    flushes_count: u64,
    /// Where pgwire encodes one message.
    message: BytesMut,
}

impl Outlet {
    pub(super) fn new(socket: impl AsyncWrite + Send + Unpin + 'static) -> Outlet {
        Outlet {
            socket: Box::new(socket),
            output: Vec::new(),
            written_bytes: 0,
            flushes_count: 0,
            message: BytesMut::new(),
        }
    }

    /// Appends a message.
    ///
    /// # Errors
    /// `54000` when it is larger than clients accept; nothing is appended.
    pub(super) fn feed(&mut self, message: &impl Message) -> Result<(), Error> {
        self.message.clear();
        message
            .encode(&mut self.message)
            .map_err(|error| Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("cannot send a message: {error}")))?;
        self.output.extend_from_slice(&self.message);
        Ok(())
    }

    /// Appends the one-byte answer of the start-up phase.
    pub(super) fn feed_byte(&mut self, byte: u8) {
        self.output.push(byte);
    }

    /// Where encoders of many small messages write. They leave whole messages only.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// The end of what was fed. Good until the next flush.
    pub(super) fn mark(&self) -> usize {
        self.output.len()
    }

    /// How often the output was flushed: a mark is good while this stays the same.
    pub(super) fn flushes_count(&self) -> u64 {
        self.flushes_count
    }

    /// Whether nothing behind a mark has gone out.
    pub(super) fn holds(&self, flushes_count: u64, mark: usize) -> bool {
        self.flushes_count == flushes_count && self.written_bytes <= mark
    }

    /// Takes back what was fed behind a mark.
    pub(super) fn take_back(&mut self, mark: usize) {
        assert!(self.written_bytes <= mark, "what is held back is not written");
        self.output.truncate(mark);
    }

    pub(super) fn is_full(&self) -> bool {
        self.output.len() - self.written_bytes >= OUTPUT_BYTES
    }

    pub(super) async fn flush(&mut self) -> Result<(), End> {
        while self.written_bytes < self.output.len() {
            match self.socket.write(&self.output[self.written_bytes..]).await {
                Ok(0) | Err(_) => return Err(End::Gone),
                Ok(bytes) => self.written_bytes += bytes,
            }
        }
        self.output.clear();
        self.written_bytes = 0;
        self.flushes_count += 1;
        self.socket.flush().await.map_err(|_| End::Gone)
    }

    /// Says good-bye to the transport.
    pub(super) async fn shutdown(&mut self) {
        // The client may be gone already; there is no one left to tell.
        let _ = self.socket.shutdown().await;
    }
}
