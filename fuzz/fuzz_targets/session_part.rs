//! A session part that is accepted can be written again, and is then the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slim_wire::session::access;

fuzz_target!(|part: &[u8]| {
    let Ok(archived) = access(part) else { return };
    let session = archived.to_session().expect("what is valid can be had in own memory");
    let written = session.encode().expect("what is valid can be written");
    assert!(written.len() <= part.len(), "{session:?}");
    let reread = access(&written).expect("what was written is valid");
    assert_eq!(reread.to_session(), Ok(session));
    let metadata: Vec<_> = archived.metadata().collect();
    assert_eq!(reread.metadata().collect::<Vec<_>>(), metadata);
});
