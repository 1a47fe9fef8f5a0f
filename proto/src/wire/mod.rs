//! `DataNode`, `Publisher` and `Peer` over gRPC. The only module of the workspace that knows tonic and prost.
//!
//! Errors travel as a tonic status whose details hold SQLSTATE, texts and reaction; a broken connection becomes
//! `CONNECTION_FAILURE` with `Reaction::Resolve` for calls that change something, `Retry` for the others.

mod client;
mod convert;
mod error;
mod peers;
mod server;

pub use client::{GrpcNode, GrpcPublisher};
pub use peers::{serve_peer, share};
pub use server::serve_node;

/// What `build.rs` made of `seriatim.proto`.
#[allow(clippy::unwrap_used, clippy::doc_markdown)]
pub(crate) mod v1 {
    tonic::include_proto!("seriatim.v1");
}
