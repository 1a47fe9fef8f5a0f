//! Bytes on disk: log, delta, segments, manifest, recovery. Synchronous; no SQL, no DataFusion, no sockets, no tokio.
