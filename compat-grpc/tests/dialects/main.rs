//! The readers and writers of every published dialect against captured messages and against the
//! generated decoders of the same schemas.

mod captured;
mod detection;
mod hostile;
#[path = "../support/keyed.rs"]
mod keyed;
mod made;
mod negotiation;
#[path = "../support/published.rs"]
mod published;
mod reading;
mod refusals;
