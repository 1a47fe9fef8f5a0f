//! Record batches as Arrow IPC stream bytes: whole bodies for writes, a growing stream for results.

use crate::{Error, SqlState};
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use bytes::Bytes;

fn damaged(error: ArrowError) -> Error {
    Error::new(SqlState::DATA_CORRUPTED, format!("damaged Arrow IPC bytes: {error}"))
}

/// One batch as a complete IPC stream (schema, batch, end).
///
/// # Errors
/// When Arrow cannot encode the batch; never for the types Seriatim stores.
pub fn encode_body(batch: &RecordBatch) -> Result<Bytes, Error> {
    let mut encoder = BatchEncoder::new(&batch.schema())?;
    let mut bytes = encoder.encode(batch)?.to_vec();
    bytes.extend_from_slice(&encoder.finish()?);
    Ok(bytes.into())
}

/// The batch of [`encode_body`]. The arrays point into `body`, nothing is copied.
///
/// # Errors
/// `DATA_CORRUPTED` unless the bytes hold exactly one batch.
pub fn decode_body(body: Bytes) -> Result<RecordBatch, Error> {
    let mut decoder = BatchDecoder::default();
    let mut batches = decoder.decode(body)?;
    match (batches.pop(), batches.is_empty()) {
        (Some(batch), true) => Ok(batch),
        _ => Err(Error::new(SqlState::DATA_CORRUPTED, "an IPC body must hold exactly one batch")),
    }
}

/// Turns batches of one schema into successive pieces of one IPC stream.
pub struct BatchEncoder {
    writer: StreamWriter<Vec<u8>>,
}

impl BatchEncoder {
    pub fn new(schema: &SchemaRef) -> Result<Self, Error> {
        let writer = StreamWriter::try_new_with_options(Vec::new(), schema, IpcWriteOptions::default());
        Ok(BatchEncoder { writer: writer.map_err(|e| Error::internal(e.to_string()))? })
    }

    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Bytes, Error> {
        self.writer.write(batch).map_err(|e| Error::internal(e.to_string()))?;
        Ok(std::mem::take(self.writer.get_mut()).into())
    }

    /// The end-of-stream marker, with the schema in front when no batch was written.
    pub fn finish(&mut self) -> Result<Bytes, Error> {
        self.writer.finish().map_err(|e| Error::internal(e.to_string()))?;
        Ok(std::mem::take(self.writer.get_mut()).into())
    }
}

/// The other end of [`BatchEncoder`]. A batch without columns has no body, and comes out with the piece behind it only:
/// the end of the stream must be decoded too.
#[derive(Default)]
pub struct BatchDecoder {
    decoder: StreamDecoder,
}

impl BatchDecoder {
    pub fn decode(&mut self, piece: Bytes) -> Result<Vec<RecordBatch>, Error> {
        let mut buffer = Buffer::from(piece);
        let mut batches = Vec::new();
        while !buffer.is_empty() {
            batches.extend(self.decoder.decode(&mut buffer).map_err(damaged)?);
        }
        Ok(batches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatchOptions, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    fn batch(values: &[i64]) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]);
        let text = values.iter().map(|v| format!("v{v}")).collect::<Vec<_>>();
        RecordBatch::try_new(
            Arc::new(schema),
            vec![Arc::new(Int64Array::from(values.to_vec())), Arc::new(StringArray::from(text))],
        )
        .unwrap()
    }

    #[test]
    fn a_body_comes_back_as_it_was() {
        let original = batch(&[1, 2, 3]);
        assert_eq!(decode_body(encode_body(&original).unwrap()).unwrap(), original);
    }

    #[test]
    fn a_stream_comes_back_batch_by_batch() {
        let (first, second) = (batch(&[1]), batch(&[2, 3]));
        let mut encoder = BatchEncoder::new(&first.schema()).unwrap();
        let mut decoder = BatchDecoder::default();
        assert_eq!(decoder.decode(encoder.encode(&first).unwrap()).unwrap(), vec![first]);
        assert_eq!(decoder.decode(encoder.encode(&second).unwrap()).unwrap(), vec![second]);
        assert!(decoder.decode(encoder.finish().unwrap()).unwrap().is_empty());
    }

    /// `count(*)` scans ship such batches; the last one of a stream was once lost.
    #[test]
    fn rows_without_columns_are_counted_to_the_last() {
        let rows = |count| {
            let options = RecordBatchOptions::new().with_row_count(Some(count));
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap()
        };
        let mut encoder = BatchEncoder::new(&rows(0).schema()).unwrap();
        let mut decoder = BatchDecoder::default();
        let pieces = [encoder.encode(&rows(5)).unwrap(), encoder.encode(&rows(7)).unwrap(), encoder.finish().unwrap()];
        let batches = pieces.into_iter().flat_map(|piece| decoder.decode(piece).unwrap());
        assert_eq!(batches.map(|batch| batch.num_rows()).sum::<usize>(), 12);
    }

    #[test]
    fn a_cut_body_is_refused() {
        let body = encode_body(&batch(&[1, 2, 3])).unwrap();
        assert!(decode_body(body.slice(..body.len() / 2)).is_err());
    }
}
