//! What the two ends of a native link tell each other first.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::DecodeError;
use crate::limits::{FRAME_BYTES, HEADER_BYTES};

/// The application protocol that a native link negotiates in TLS.
pub const ALPN: &[u8] = b"slim/1";

/// Who a native link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An app: it gets messages in the native encoding only.
    App,
    /// Another node: messages travel to it as they came, with one hop less to go.
    Node,
}

/// What a node wants, or agrees to, beside passing messages on; none of it for apps.
///
/// Who begins a link says what it wants, and who is begun with answers with what of it is in force.
/// Bits that have no meaning yet are left aside, so a later version may ask for more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HelloFlags(u8);

impl HelloFlags {
    /// Tell me the names of your own clients, and I tell you mine. What goes over the link goes no
    /// further than to the clients of the node at its other end.
    pub const EXCHANGE: Self = Self(0b01);

    /// What goes over the link goes no further than to the clients of the node at its other end.
    pub const LAST_HOP: Self = Self(0b10);

    /// All flags that have a meaning.
    const KNOWN: Self = Self(0b11);

    /// No flags.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// Whether all flags of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The first frame's payload, in each direction: who is there and what it takes.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 2 | lowest version of the protocol that the sender speaks |
/// | 2 | 2 | highest version |
/// | 4 | 1 | role: 0 app, 1 node |
/// | 5 | 1 | of a node: bit 0 exchange, bit 1 last hop, others 0; see [`HelloFlags`] |
/// | 6 | 2 | 0 |
/// | 8 | 8 | of a node, the number by which others know it; not 0 |
/// | 16 | 4 | longest frame that the sender takes, in bytes |
/// | 20 | 2 | optional: length of the credentials |
/// | 22 | | the credentials, as the value of an HTTP header `authorization` |
///
/// What follows is of a later version, and skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who says it.
    pub role: Role,
    /// Of a node: a number chosen when it started, by which a message is kept from going back to
    /// where it came from. 0 for apps.
    pub node: u64,
    /// Of a node: what it wants of the link, or agrees to. None for apps.
    pub flags: HelloFlags,
    /// Longest frame that the sender takes, in bytes.
    pub frame_bytes: u32,
}

/// The one version of the protocol inside [`ALPN`] so far.
const VERSION: u16 = 1;

/// Why a native link was closed, as QUIC application error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseCode {
    /// Done; nothing is wrong.
    Done = 0,
    /// The peer broke the protocol; the reason names field, expected and got.
    Protocol = 1,
    /// The peer did not take what was sent to it in time.
    TooSlow = 2,
    /// The node stops.
    Stopping = 3,
    /// A limit of the node is reached.
    Limit = 4,
    /// The peer did not complete its hello, or a message, in time.
    Timeout = 5,
    /// The node asks for credentials, and the hello had none, or none that are good.
    Unauthenticated = 6,
}

impl CloseCode {
    /// The code with this number, if there is one.
    pub fn from_number(number: u64) -> Option<Self> {
        let all = [
            Self::Done,
            Self::Protocol,
            Self::TooSlow,
            Self::Stopping,
            Self::Limit,
            Self::Timeout,
            Self::Unauthenticated,
        ];
        all.into_iter().find(|code| *code as u64 == number)
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHello {
    lowest: U16,
    highest: U16,
    role: u8,
    flags: u8,
    reserved: [u8; 2],
    node: U64,
    frame_bytes: U32,
}

const _: () = assert!(size_of::<RawHello>() == Hello::BYTES && align_of::<RawHello>() == 1);

impl Hello {
    /// Length in bytes, without credentials.
    pub const BYTES: usize = 20;

    /// Longest credentials in bytes.
    pub const CREDENTIALS_BYTES: usize = 7 * 1024;

    /// The hello as a frame's payload.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let raw = RawHello {
            lowest: VERSION.into(),
            highest: VERSION.into(),
            role: match self.role {
                Role::App => 0,
                Role::Node => 1,
            },
            flags: self.flags.0,
            reserved: [0; 2],
            node: self.node.into(),
            frame_bytes: self.frame_bytes.into(),
        };
        zerocopy::transmute!(raw)
    }

    /// The hello with credentials, as a frame's payload.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`] above [`Hello::CREDENTIALS_BYTES`].
    pub fn encode_with(&self, credentials: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let length = checked_length(credentials.len())?;
        Ok([&self.encode()[..], &length.to_le_bytes(), credentials].concat())
    }

    /// The credentials in a frame's payload that is a hello; `None` if it has none.
    ///
    /// # Errors
    /// [`DecodeError`] if they are cut or too long.
    pub fn credentials(payload: &[u8]) -> Result<Option<&[u8]>, DecodeError> {
        let field = "credentials of a hello";
        let truncated = |expected, got| DecodeError::Truncated { field, expected, got };
        let Some((length, rest)) =
            payload.get(Self::BYTES..).and_then(|rest| rest.split_first_chunk())
        else {
            return Ok(None);
        };
        let length = usize::from(u16::from_le_bytes(*length));
        checked_length(length)?;
        let missing = length.saturating_sub(rest.len());
        let credentials = rest.get(..length).ok_or(truncated(missing, rest.len()))?;
        Ok((length > 0).then_some(credentials))
    }

    /// Reads a frame's payload, but for the credentials.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field that is wrong, or that no version is common.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let Ok((raw, _)) = RawHello::ref_from_prefix(payload) else {
            let (expected, got) = (Self::BYTES - payload.len(), payload.len());
            return Err(DecodeError::Truncated { field: "hello", expected, got });
        };
        let unexpected = |field, expected, got| DecodeError::Unexpected { field, expected, got };
        let (lowest, highest) = (raw.lowest.get(), raw.highest.get());
        if lowest > VERSION {
            return Err(unexpected("version", "1 among those of the peer", lowest.into()));
        }
        if highest < VERSION {
            return Err(unexpected("version", "1 among those of the peer", highest.into()));
        }
        let node = raw.node.get();
        let flags = HelloFlags(raw.flags & HelloFlags::KNOWN.0);
        let role = match (raw.role, node) {
            (0, 0) if flags == HelloFlags::empty() => Role::App,
            (0, 0) => return Err(unexpected("flags of an app", "0", flags.0.into())),
            (0, _) => return Err(unexpected("node of an app", "0", node)),
            (1, 0) => return Err(unexpected("node", "a number above 0", 0)),
            (1, _) => Role::Node,
            (other, _) => return Err(unexpected("role", "0 or 1", other.into())),
        };
        let frame_bytes = raw.frame_bytes.get();
        if (frame_bytes as usize) < HEADER_BYTES {
            return Err(unexpected("frame bytes", "at least 104", frame_bytes.into()));
        }
        if frame_bytes as usize > FRAME_BYTES {
            let (limit, got) = (FRAME_BYTES as u64, frame_bytes.into());
            return Err(DecodeError::TooLarge { field: "frame bytes", limit, got });
        }
        Ok(Self { role, node, flags, frame_bytes })
    }
}

fn checked_length(got: usize) -> Result<u16, DecodeError> {
    let (field, limit) = ("credential bytes", Hello::CREDENTIALS_BYTES);
    match u16::try_from(got) {
        Ok(length) if got <= limit => Ok(length),
        _ => Err(DecodeError::TooLarge { field, limit: limit as u64, got: got as u64 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Hello = Hello {
        role: Role::Node,
        node: 0x0102_0304,
        flags: HelloFlags::empty(),
        frame_bytes: 4 << 20,
    };

    #[test]
    fn a_hello_has_these_bytes() {
        let golden = [1, 0, 1, 0, 1, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0x40, 0];
        assert_eq!(HELLO.encode(), golden);
        assert_eq!(Hello::decode(&golden), Ok(HELLO));
    }

    #[test]
    fn what_a_node_wants_of_a_link_is_in_the_sixth_byte() {
        let both = HelloFlags::EXCHANGE.union(HelloFlags::LAST_HOP);
        for (flags, byte) in [(HelloFlags::EXCHANGE, 1), (HelloFlags::LAST_HOP, 2), (both, 3)] {
            let hello = Hello { flags, ..HELLO };
            let golden = [1, 0, 1, 0, 1, byte, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0x40, 0];
            assert_eq!(hello.encode(), golden);
            assert_eq!(Hello::decode(&golden), Ok(hello));
        }
        assert!(both.contains(HelloFlags::LAST_HOP));
        assert!(!HelloFlags::EXCHANGE.contains(HelloFlags::LAST_HOP));
    }

    proptest::proptest! {
        #[test]
        fn flags_of_a_later_version_are_left_aside(flags: u8, reserved: [u8; 2]) {
            let mut bytes = HELLO.encode();
            bytes[5] = flags;
            bytes[6..8].copy_from_slice(&reserved);
            let known = HelloFlags(flags & 0b11);
            proptest::prop_assert_eq!(Hello::decode(&bytes), Ok(Hello { flags: known, ..HELLO }));
        }

        #[test]
        fn what_is_a_hello_says_the_same_when_it_is_written_again(bytes: [u8; Hello::BYTES]) {
            if let Ok(hello) = Hello::decode(&bytes) {
                proptest::prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
            }
        }
    }

    #[test]
    fn what_a_later_version_adds_is_skipped() {
        let mut later = HELLO.encode().to_vec();
        later[2] = 9;
        later.extend([0; 2]);
        later.extend([7; 30]);
        assert_eq!(Hello::decode(&later), Ok(HELLO));
        assert_eq!(Hello::credentials(&later), Ok(None));
    }

    #[test]
    fn credentials_come_after_a_hello_whole_or_not_at_all() {
        let mut bytes = HELLO.encode_with(b"Bearer x").expect("short");
        assert_eq!(&bytes[..Hello::BYTES], HELLO.encode());
        assert_eq!(&bytes[Hello::BYTES..], b"\x08\0Bearer x");
        assert_eq!(Hello::decode(&bytes), Ok(HELLO));
        for cut in Hello::BYTES + 2..bytes.len() {
            assert!(Hello::credentials(&bytes[..cut]).is_err(), "{cut}");
        }
        for none in 0..Hello::BYTES + 2 {
            assert_eq!(Hello::credentials(&bytes[..none]), Ok(None), "{none}");
        }
        bytes.push(7);
        assert_eq!(Hello::credentials(&bytes), Ok(Some(&b"Bearer x"[..])));
        let long = vec![b'x'; Hello::CREDENTIALS_BYTES + 1];
        assert!(HELLO.encode_with(&long).is_err());
        let longest = HELLO.encode_with(&long[1..]).expect("just short enough");
        assert_eq!(Hello::credentials(&longest), Ok(Some(&long[1..])));
        bytes[Hello::BYTES..][..2].copy_from_slice(&[0xff, 0xff]);
        let error = Hello::credentials(&bytes).expect_err("too long").to_string();
        assert_eq!(error, "credential bytes: expected at most 7168, got 65535");
    }

    #[test]
    fn a_wrong_hello_names_its_field() {
        let wrong = |at: usize, byte: u8| {
            let mut bytes = HELLO.encode();
            bytes[at] = byte;
            Hello::decode(&bytes).expect_err("it is wrong").to_string()
        };
        assert_eq!(wrong(0, 2), "version: expected 1 among those of the peer, got 2");
        assert_eq!(wrong(2, 0), "version: expected 1 among those of the peer, got 0");
        assert_eq!(wrong(4, 3), "role: expected 0 or 1, got 3");
        assert_eq!(wrong(4, 0), "node of an app: expected 0, got 16909060");
        let mut app = Hello { role: Role::App, node: 0, ..HELLO }.encode();
        app[5] = 2;
        let error = Hello::decode(&app).expect_err("it is wrong").to_string();
        assert_eq!(error, "flags of an app: expected 0, got 2");
        assert_eq!(wrong(19, 9), "frame bytes: expected at most 16777216, got 155189248");
        let cut = Hello::decode(&HELLO.encode()[..19]).expect_err("it is cut");
        assert_eq!(cut.to_string(), "hello: expected 1 more bytes, got 19");
    }
}
