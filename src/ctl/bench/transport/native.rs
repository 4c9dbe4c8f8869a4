//! Messages in the form of the native frame, so that floors move as many bytes as a native link.

use slim_wire::limits::{FRAME_BYTES, HEADER_BYTES};
use slim_wire::{Class, Encoding, Flags, FrameHeader, FrameKind, Header, Kind, SessionIds};

use super::{Address, Arrival, Route, Template};
use crate::ctl::Error;

pub(super) fn template(route: &Route<'_>, size: usize) -> Template {
    let address = route.address();
    let Address { source, destination, fanout } = address;
    let ids = SessionIds::default();
    let header = Header {
        kind: Kind::Publish,
        class: Class::Reliable,
        encoding: Encoding::Native,
        flags: Flags::empty(),
        ttl: Header::DEFAULT_TTL,
        fanout,
        destination,
        source,
        lane: slim_wire::lane(ids.session, &source),
    };
    let frame = slim_wire::frame(FrameKind::Publish, &header, ids, &[], &vec![0x5A; size]);
    let frame = frame.expect("a plan has no size that a frame cannot hold");
    Template { bytes: frame.into(), stamp_at: HEADER_BYTES, address }
}

/// Length of the frame at the start of `bytes`; `None` if too little of it is there.
pub(super) fn frame_len(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some(header) = FrameHeader::prefix_of(bytes) else {
        return Ok(None);
    };
    header.check_lengths(FRAME_BYTES).map_err(Error::link)?;
    Ok(Some(header.length()))
}

/// What a whole frame carries.
pub(super) fn arrival(frame: &[u8]) -> Option<Arrival> {
    let session = FrameHeader::prefix_of(frame)?.session_length();
    Arrival::of(frame.get(HEADER_BYTES + session..)?)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::super::stamp::{Mark, Stamp};
    use super::super::Target;
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
        assert!(frame_len(&[0; HEADER_BYTES]).is_err());
        assert!(frame_len(&[0xFF; HEADER_BYTES]).is_err());
        assert!(matches!(frame_len(&[0xFF; HEADER_BYTES - 1]), Ok(None)));
    }
}
