//! What is a hello says the same when it is written again, and bits that have no meaning say nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slim_wire::{Hello, HelloFlags, Role};

/// Where flags and reserved bytes lie.
const FLAGS: usize = 5;
const KNOWN_FLAGS: u8 = 0b11;

fuzz_target!(|bytes: &[u8]| {
    let credentials = Hello::credentials(bytes);
    let Ok(hello) = Hello::decode(bytes) else { return };
    let written = hello.encode();
    assert_eq!(Hello::decode(&written), Ok(hello));
    assert_eq!(written[FLAGS], bytes[FLAGS] & KNOWN_FLAGS);
    assert!(hello.role == Role::Node || hello.flags == HelloFlags::empty());
    let mut later = bytes.to_vec();
    later[FLAGS] ^= !KNOWN_FLAGS;
    later[FLAGS + 1] = !later[FLAGS + 1];
    assert_eq!(Hello::decode(&later), Ok(hello));
    if let Ok(Some(credentials)) = credentials {
        let again = hello.encode_with(credentials).expect("not longer than it was");
        assert_eq!(Hello::credentials(&again), Ok(Some(credentials)));
        assert!(bytes.len() >= again.len());
    }
});
