//! Messages do not depend on how the bytes of a body are cut into chunks, and memory follows
//! what has arrived.

#![no_main]

use allocation_counter::measure;
use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use slim_compat_grpc::{FramingError, MessageReader, PREFIX_BYTES};

#[derive(Arbitrary, Debug)]
struct Body<'a> {
    limit: u32,
    /// Lengths of chunks, over and over.
    cuts: Vec<u8>,
    bytes: &'a [u8],
}

/// What reading a body came to.
type Outcome = (Vec<Bytes>, Result<(), FramingError>);

fuzz_target!(|body: Body<'_>| {
    let whole = read(&body, [body.bytes]);
    assert_eq!(read(&body, chunks(&body)), whole);
    let (messages, _) = &whole;
    let mut rest = body.bytes;
    for message in messages {
        assert_eq!(rest[..PREFIX_BYTES], slim_compat_grpc::prefix(message.len()));
        assert_eq!(rest[PREFIX_BYTES..][..message.len()], message[..]);
        rest = &rest[PREFIX_BYTES + message.len()..];
    }
});

fn chunks<'a>(body: &Body<'a>) -> Vec<&'a [u8]> {
    let mut rest = body.bytes;
    let mut chunks = Vec::new();
    for cut in body.cuts.iter().cycle() {
        // Without progress an endless list of empty chunks would follow.
        if rest.is_empty() || chunks.len() > body.bytes.len() + body.cuts.len() {
            break;
        }
        let (chunk, tail) = rest.split_at(rest.len().min(usize::from(*cut)));
        chunks.push(chunk);
        rest = tail;
    }
    chunks.push(rest);
    chunks
}

fn read<'a>(body: &Body<'_>, chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut reader = MessageReader::new(body.limit as usize);
    let (mut messages, mut received) = (Vec::new(), 0);
    for chunk in chunks {
        received += chunk.len();
        reader.push(Bytes::copy_from_slice(chunk));
        loop {
            let mut next = Ok(None);
            let memory = measure(|| next = reader.next());
            assert!(
                memory.bytes_max <= (FIRST_ALLOCATION_BYTES + 2 * received) as u64,
                "{memory:?} for {received} bytes"
            );
            match next {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
        }
    }
    let end = reader.finish();
    assert_eq!(reader.is_mid_message(), end.is_err());
    (messages, end)
}

/// What a message may take before any of it has arrived, and the bookkeeping of shared bytes.
const FIRST_ALLOCATION_BYTES: usize = 64 * 1024 + 256;
