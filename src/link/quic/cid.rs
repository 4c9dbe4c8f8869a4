use quinn_proto::{ConnectionId, ConnectionIdGenerator, RandomConnectionIdGenerator};

use crate::datapath::CoreId;

/// Makes connection ids that begin with the number of the core that owns the connection, so that
/// a packet which the kernel hands to another core, after a migration say, finds its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct CoreConnectionIds(pub(super) CoreId);

/// Two bytes of the core, six of chance.
const CID_BYTES: usize = 8;
const CORE_BYTES: usize = 2;

impl ConnectionIdGenerator for CoreConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let chance = RandomConnectionIdGenerator::new(CID_BYTES - CORE_BYTES).generate_cid();
        ConnectionId::new(&[&self.0.0.to_be_bytes(), &chance[..]].concat())
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

/// The core that a packet of an established connection belongs to; `None` for packets with a long
/// header, whose connection id the client may have chosen.
pub(super) fn core_of(datagram: &[u8]) -> Option<CoreId> {
    const LONG_HEADER: u8 = 0x80;
    match datagram {
        [first, high, low, ..] if first & LONG_HEADER == 0 => {
            Some(CoreId(u16::from_be_bytes([*high, *low])))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_packet_names_the_core_of_its_connection() {
        let id = CoreConnectionIds(CoreId(0x0102)).generate_cid();
        let short = [&[0x40], &id[..], b"rest"].concat();
        assert_eq!(core_of(&short), Some(CoreId(0x0102)));
        let long = [&[0xC0], &id[..], b"rest"].concat();
        assert_eq!(core_of(&long), None);
        assert_eq!(core_of(&[0x40, 1]), None);
    }
}
