//! Groups that the control plane has apps moderate.

#[path = "../support/exchange.rs"]
#[allow(dead_code, reason = "each topic uses its part of this module")]
mod exchange;
mod messages;
#[path = "../support/model_mls.rs"]
mod model_mls;
mod requests;
mod stories;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
mod unhappy;
