//! The published SLIM gRPC data plane, read and rewritten on the bytes.
//!
//! A gateway hands the chunks of a request body to a [`MessageReader`], which cuts out the gRPC
//! messages; [`detect`] proves from the first one which [`Dialect`] the client speaks; the
//! dialect then reads each message's routing header in place. Bodies are neither decoded nor
//! encoded again, unless a message goes between published and native apps: then [`transcode`]
//! does it. [`service`] holds what the endpoint says in HTTP: paths, refusals, trailers.
//!
//! Routing, sessions and sockets are elsewhere.

mod detect;
mod dialect;
mod framing;
mod group;
mod layout;
mod link;
mod mac;
mod message_id;
mod read;
mod request;
mod rewrite;
mod scan;
mod schema;
pub mod service;
pub mod transcode;

pub use detect::{Detected, detect, detect_pubsub};
pub use dialect::{Dialect, Inbound, Routed, SubscriptionAck, is_refusal_only};
pub use framing::{FramingError, MessageReader, PREFIX_BYTES, prefix};
pub use group::{CONTROLLER, GroupRequest, group_request, session_id};
pub use layout::{D6, D7, D20, P};
pub use link::{KeyShare, Negotiation, NegotiationError, answer_d7, subscription_ack};
pub use mac::{Authenticity, LinkKey};
pub use message_id::new_message_id;
pub use request::{Subscription, d6_subscription, d20_subscription};
pub use rewrite::prepare;

/// Generated types of the published schemas, for clients, tests and transcoding.
pub mod proto {
    macro_rules! schema {
        ($(#[$doc:meta])* $name:ident, $file:literal) => {
            $(#[$doc])*
            #[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
            pub mod $name {
                include!(concat!(env!("OUT_DIR"), $file));
            }
        };
    }

    schema!(
        /// Releases 0.4 and 0.5 (dialect P).
        p,
        "/p/pubsub.proto.v1.rs"
    );
    schema!(
        /// Release 0.6 (dialect D6).
        d6,
        "/d6/dataplane.proto.v1.rs"
    );
    schema!(
        /// Releases 0.7 to 1.4 (dialect D7).
        d7,
        "/d7/dataplane.proto.v1.rs"
    );
    schema!(
        /// Releases from 2.0 (dialect D20).
        d20,
        "/d20/dataplane.proto.v1.rs"
    );

    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
    mod control {
        include!(concat!(env!("OUT_DIR"), "/control/mod.rs"));
    }

    /// Between a controller and its nodes (all releases up to 1.4, see the schema).
    pub use control::controller::proto::v1 as southbound;
    /// Between operators and a controller (0.4 to 0.6).
    pub use control::controlplane::proto::v1 as northbound;
}
