//! Messages in the form of the native frame, so that floors move as many bytes as a native link.

use slim_wire::hash_component;

use super::{Arrival, Route, Target, Template};
use crate::ctl::Error;

/// Length of a frame's header.
pub(super) const HEADER_BYTES: usize = 104;

/// Where the header says how long the session part is, which lies between header and payload.
const SESSION_LENGTH_AT: usize = 12;

/// Longest frame that a receiver takes.
const FRAME_BYTES: usize = 16 * 1024 * 1024;

pub(super) fn template(route: &Route<'_>, size: usize) -> Template {
    let (target, fanout) = match route.target {
        Target::Id(id) => (u128::from(id), 1),
        Target::All(fanout) => (u128::MAX, fanout),
    };
    let length = u32::try_from(HEADER_BYTES + size).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(HEADER_BYTES + size);
    frame.extend(length.to_le_bytes());
    frame.extend([1, 1, 16, 0]); // publish, reliable, ttl, encoding
    frame.extend(fanout.to_le_bytes());
    frame.extend([0; 4]); // no session part
    for id in [target, route.source.into()] {
        for component in route.components() {
            frame.extend(hash_component(component).to_le_bytes());
        }
        frame.extend(id.to_le_bytes());
    }
    frame.resize(HEADER_BYTES, 0);
    frame.resize(HEADER_BYTES + size, 0x5A);
    Template { frame, stamp_at: HEADER_BYTES }
}

/// Length of the frame at the start of `bytes`; `None` if too little of it is there.
pub(super) fn frame_len(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some(length) = bytes.first_chunk() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    match length {
        HEADER_BYTES..=FRAME_BYTES => Ok(Some(length)),
        _ => Err(Error::link(format!(
            "frame length: expected {HEADER_BYTES} to {FRAME_BYTES}, got {length}"
        ))),
    }
}

/// What a whole frame carries.
pub(super) fn arrival(frame: &[u8]) -> Option<Arrival> {
    let session = u32::from_le_bytes(*frame.get(SESSION_LENGTH_AT..)?.first_chunk()?);
    Arrival::of(frame.get(HEADER_BYTES.checked_add(session as usize)?..)?)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::super::stamp::{Mark, Stamp};
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let route = Route { topic: "t", source: 7, target: Target::Id(1) };
        let template = template(&route, 64);
        let stamp = Stamp { due: 1, sender: 2, mark: Mark::Data, sequence: 3 };
        let mut batch = BytesMut::new();
        template.append(stamp, &mut batch);
        assert_eq!(batch.len(), 168);
        assert_eq!(frame_len(&batch).expect("valid"), Some(168));
        let arrival = arrival(&batch).expect("a stamp");
        assert_eq!((arrival.stamp, arrival.bytes), (stamp, 64));
    }

    #[test]
    fn a_length_that_no_frame_has_is_refused() {
        assert!(frame_len(&[0; 8]).is_err());
        assert!(frame_len(&[0xFF; 8]).is_err());
        assert!(matches!(frame_len(&[104, 0, 0]), Ok(None)));
    }
}
