//! Releases 0.4 and 0.5: what the node reads in place, and forwards, is what a receiver's
//! generated decoder reads.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slim_compat_grpc::{P, detect_pubsub};

#[path = "../../compat-grpc/tests/support/keyed.rs"]
mod keyed;
#[path = "../../compat-grpc/tests/support/published.rs"]
mod published;

fuzz_target!(|bytes: &[u8]| {
    let _ = detect_pubsub(bytes);
    published::check::<P>(bytes);
});
