//! The published SLIM gRPC data plane, read and rewritten on the bytes.
//!
//! A gateway hands the chunks of a request body to a [`MessageReader`], which cuts out the gRPC
//! messages; [`detect`] proves from the first one which [`Dialect`] the client speaks; the
//! dialect then reads each message's routing header in place. Bodies are neither decoded nor
//! encoded again, unless a message goes between published and native apps: then [`transcode`]
//! does it. [`service`] holds what the endpoint says in HTTP: paths, refusals, trailers.
//!
//! Routing, sessions and sockets are elsewhere.

mod d6;
mod detect;
mod dialect;
mod framing;
mod scan;
mod schema;
pub mod service;
pub mod transcode;

pub use d6::D6;
pub use detect::{Detected, detect};
pub use dialect::{Dialect, Inbound, is_refusal_only};
pub use framing::{FramingError, MessageReader, PREFIX_BYTES, prefix};

/// Generated types of the published schemas, for clients, tests and transcoding.
pub mod proto {
    /// Release 0.6 (dialect D6).
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
    pub mod d6 {
        tonic::include_proto!("dataplane.proto.v1");
    }
}
