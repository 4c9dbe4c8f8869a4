//! Releases 0.7 to 1.4: what the node reads in place, and forwards, is what a receiver's
//! generated decoder reads.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slim_compat_grpc::{D7, detect};

#[path = "../../compat-grpc/tests/support/keyed.rs"]
mod keyed;
#[path = "../../compat-grpc/tests/support/published.rs"]
mod published;

fuzz_target!(|bytes: &[u8]| {
    let _ = detect(bytes);
    published::check::<D7>(bytes);
});
