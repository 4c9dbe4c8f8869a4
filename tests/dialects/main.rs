//! Clients of every published dialect at one node, honest ones and forgers.

mod acknowledgements;
mod families;
mod first_messages;
#[allow(dead_code, reason = "shared with the tests of the readers")]
#[path = "../../compat-grpc/tests/support/keyed.rs"]
mod keyed;
#[allow(dead_code, reason = "shared with the tests of the readers")]
#[path = "../../compat-grpc/tests/dialects/made.rs"]
mod made;
mod nodes;
mod peer;
#[allow(dead_code, reason = "shared with the tests of the readers")]
#[path = "../../compat-grpc/tests/support/published.rs"]
mod published;
mod signing;
mod steering;
#[path = "../support/mod.rs"]
mod support;
mod uplinks;
