//! COPY over the wire, in the simple and the extended protocol alike. What the bytes mean is the session's business.

use super::attention::Attention;
use super::backend::{CopyFormat, CopySink, CopyStream};
use super::connection::Connection;
use super::failure::{End, Failure};
use super::frontend::Frontend;
use bytes::BufMut;
use futures::StreamExt;
use pgwire::messages::copy::{CopyDone, CopyInResponse, CopyOutResponse};
use proto::{Error, SqlState};

fn code(format: CopyFormat) -> i16 {
    match format {
        CopyFormat::Text => 0,
        CopyFormat::Binary => 1,
    }
}

impl Connection {
    /// Takes in rows until CopyDone. Returns the command tag. On any other end the sink is dropped unfinished.
    pub(super) async fn copy_in(
        &mut self,
        mut sink: Box<dyn CopySink>,
        attention: &mut Attention,
    ) -> Result<String, Failure> {
        let (columns, format) = (sink.columns_count(), code(sink.format()));
        self.outlet.feed(&CopyInResponse::new(format as i8, columns as i16, vec![format; columns]))?;
        attention.watch(&mut self.inlet, self.outlet.flush()).await??;
        loop {
            let frame = self.read_frame(attention).await?;
            let kind = frame.kind;
            match Frontend::decode(frame)? {
                Frontend::CopyData(bytes) => attention.watch(&mut self.inlet, sink.write(bytes)).await??,
                Frontend::CopyDone => {
                    let rows_count = attention.watch(&mut self.inlet, sink.finish()).await??;
                    return Ok(format!("COPY {rows_count}"));
                }
                Frontend::CopyFail { message } => {
                    let message = format!("COPY from stdin failed: {message}");
                    return Err(Error::new(SqlState::QUERY_CANCELED, message).into());
                }
                // Clients of the extended protocol send them before they know that this is a COPY.
                Frontend::Flush | Frontend::Sync => {}
                Frontend::Terminate => return Err(End::Gone.into()),
                _ => {
                    let message = format!("unexpected message type 0x{kind:02X} during COPY from stdin");
                    return Err(Error::new(SqlState::PROTOCOL_VIOLATION, message).into());
                }
            }
        }
    }

    /// Sends rows. Returns the command tag.
    pub(super) async fn copy_out(
        &mut self,
        columns_count: usize,
        format: CopyFormat,
        mut stream: CopyStream,
        attention: &mut Attention,
    ) -> Result<String, Failure> {
        let format = code(format);
        self.outlet.feed(&CopyOutResponse::new(format as i8, columns_count as i16, vec![format; columns_count]))?;
        let mut rows_count = 0;
        while let Some(block) = attention.watch(&mut self.inlet, stream.next()).await? {
            let block = block?;
            rows_count += block.rows_count;
            let mut start = 0;
            for end in block.message_ends {
                let out = self.outlet.output();
                out.put_u8(b'd');
                out.put_u32((end - start) as u32 + 4);
                out.put_slice(&block.bytes[start..end]);
                start = end;
                if self.outlet.is_full() {
                    attention.watch(&mut self.inlet, self.outlet.flush()).await??;
                }
            }
            assert_eq!(start, block.bytes.len(), "a COPY block ends where its last message does");
        }
        self.outlet.feed(&CopyDone::new())?;
        Ok(format!("COPY {rows_count}"))
    }
}
