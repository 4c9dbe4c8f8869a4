//! The authentication of D20's headers: one key per link, one code per message and link.

use std::cell::RefCell;

use aws_lc_rs::{constant_time, hkdf, hmac};
use bytes::BytesMut;
use slim_wire::{DecodeError, Name};
use zeroize::Zeroizing;

use crate::dialect::Inbound;
use crate::layout::D20;
use crate::read::{self, ParsedHeader, ParsedName};
use crate::rewrite::{MAC_BYTES, prepared_header};

/// The key by which both ends of a link authenticate the headers that they send each other.
/// Wiped when it is dropped, and never shown.
pub struct LinkKey {
    key: hmac::Key,
    link_id: Box<str>,
    /// What is authenticated before the header.
    preamble: Box<[u8]>,
}

impl std::fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkKey").field("link_id", &self.link_id).finish_non_exhaustive()
    }
}

/// What the authentication code of a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authenticity {
    /// The header is what the other end of the link sent.
    Authentic,
    /// It has no code.
    Unsigned,
    /// Its code belongs to another header or link.
    Forged,
}

const INFO: &[u8] = b"SLIM-DP-inter-node-hmac-v1";
const INFO_POST_QUANTUM: &[u8] = b"SLIM-DP-inter-node-hmac-v1-pq";

/// Begins what is authenticated, and tells it from any other use of a key.
const DOMAIN: &[u8] = b"SLIM-DP-HDR-v1\0";

struct KeyBytes;

impl hkdf::KeyType for KeyBytes {
    fn len(&self) -> usize {
        MAC_BYTES
    }
}

impl LinkKey {
    /// The key of the link `link_id`, whose ends agreed on `shared`; together with the secret of
    /// a key encapsulation, if they used one.
    pub(crate) fn derive(link_id: &str, shared: &[u8], encapsulated: Option<&[u8]>) -> Self {
        // Room for both, so that nothing is left behind where it was.
        let more = encapsulated.map_or(0, <[u8]>::len);
        let mut secret = Zeroizing::new(Vec::with_capacity(shared.len() + more));
        secret.extend_from_slice(shared);
        let info = match encapsulated {
            Some(more) => {
                secret.extend_from_slice(more);
                INFO_POST_QUANTUM
            }
            None => INFO,
        };
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, link_id.as_bytes());
        let mut key = Zeroizing::new([0; MAC_BYTES]);
        salt.extract(&secret)
            .expand(&[info], KeyBytes)
            .and_then(|expanded| expanded.fill(&mut *key))
            .expect("a digest's length can always be expanded");
        let mut preamble = DOMAIN.to_vec();
        put_text(&mut preamble, link_id);
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &*key),
            link_id: link_id.into(),
            preamble: preamble.into(),
        }
    }

    /// Reads a message from the other end of the link, with what its authentication code says.
    /// Messages that carry none by their type are authentic.
    ///
    /// # Errors
    /// Those of [`Dialect::read`](crate::Dialect::read).
    pub fn read<'a>(&self, message: &'a [u8]) -> Result<(Inbound<'a>, Authenticity), DecodeError> {
        let mut authenticity = Authenticity::Authentic;
        let inbound = read::message_with::<D20>(message, |header| {
            authenticity = match header.mac {
                None => Authenticity::Unsigned,
                Some(mac) => {
                    let expected = self.tag(&authenticated(header));
                    match constant_time::verify_slices_are_equal(expected.as_ref(), mac) {
                        Ok(()) => Authenticity::Authentic,
                        Err(_) => Authenticity::Forged,
                    }
                }
            };
        })?;
        Ok((inbound, authenticity))
    }

    /// Writes the head of a [prepared](crate::prepare) publish with the code for this link.
    pub fn sign(&self, head: &[u8], out: &mut BytesMut) {
        let signed = match head.len() {
            ..=KEPT_BYTES => LAST.with_borrow_mut(|last| Some(self.tag(last.authenticated(head)?))),
            _ => prepared(head).map(|header| self.tag(&authenticated(&header))),
        };
        debug_assert!(signed.is_some(), "only prepared publishes are forwarded");
        let unsigned = head.len().saturating_sub(MAC_BYTES);
        out.extend_from_slice(&head[..unsigned]);
        match &signed {
            Some(mac) => out.extend_from_slice(mac.as_ref()),
            None => out.extend_from_slice(&head[unsigned..]),
        }
    }

    /// The authentication code of a header, for messages that this node makes itself.
    pub(crate) fn code(&self, header: &[u8]) -> Result<[u8; MAC_BYTES], DecodeError> {
        let header = read::header::<D20>(header)?;
        let mac = self.tag(&authenticated(&header));
        Ok(mac.as_ref().try_into().expect("the length of SHA-256"))
    }

    /// The code for a header of which this is authenticated.
    fn tag(&self, authenticated: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&self.preamble);
        context.update(authenticated);
        context.sign()
    }
}

/// The head that was signed last: the copies of a message in a fan-out differ by their links only, so
/// its header is read once for all of them.
#[derive(Default)]
struct Last {
    head: Vec<u8>,
    authenticated: Vec<u8>,
}

thread_local! {
    static LAST: RefCell<Last> = RefCell::default();
}

/// A longer head is read for each target, so that what is kept stays small.
const KEPT_BYTES: usize = 4096;

impl Last {
    /// What is authenticated of the header in the head of a prepared publish.
    fn authenticated(&mut self, head: &[u8]) -> Option<&[u8]> {
        // Nothing is kept at first: an empty head is not found either, and then refused.
        if self.head.is_empty() || self.head != head {
            self.head.clear();
            self.authenticated.clear();
            put_header(&mut self.authenticated, &prepared(head)?);
            self.head.extend_from_slice(head);
        }
        Some(&self.authenticated)
    }
}

/// The header in the head of a prepared publish.
fn prepared(head: &[u8]) -> Option<ParsedHeader<'_>> {
    read::header::<D20>(prepared_header(head)?).ok()
}

fn authenticated(header: &ParsedHeader<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(USUAL_BYTES + header.identity.len());
    put_header(&mut out, header);
    out
}

/// What is authenticated of a header on every link; all numbers are little endian.
fn put_header(out: &mut Vec<u8>, header: &ParsedHeader<'_>) {
    put_name(out, &header.source);
    put_name(out, &header.destination);
    put_text(out, header.identity);
    out.extend_from_slice(&header.fanout.to_le_bytes());
    for steering in [header.recv_from, header.forward_to] {
        out.push(steering.is_some().into());
        if let Some(number) = steering {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    out.push(header.error.is_some().into());
    out.extend(header.error.map(u8::from));
    out.extend_from_slice(&header.ttl.to_le_bytes());
}

/// The code covers texts of names, which are short, and the identity.
const USUAL_BYTES: usize = 384;

fn put_text(out: &mut Vec<u8>, text: &str) {
    // Longer texts do not come: a message has at most 4 MiB.
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_name(out: &mut Vec<u8>, name: &ParsedName<'_>) {
    let Name { prefix, id } = name.name;
    let [org, namespace, app] = prefix.0.map(u64::to_le_bytes);
    // The name is there, and so are its hashes: the reader refuses a header without.
    for bytes in [&[1, 1][..], &org, &namespace, &app, &[name.has_id.into()]] {
        out.extend_from_slice(bytes);
    }
    if name.has_id {
        let id = id.as_u128();
        out.extend_from_slice(&((id >> 64) as u64).to_le_bytes());
        out.extend_from_slice(&(id as u64).to_le_bytes());
    }
    out.push(name.texts.is_some().into());
    for text in name.texts.iter().flatten() {
        put_text(out, text);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;
    use slim_wire::{Id, TextName};

    use super::*;
    use crate::proto::d20;
    use crate::request::{Subscription, d20_subscription};
    use crate::rewrite::prepare;

    /// A publish from an identity of so many bytes.
    fn publish(identity: usize) -> Bytes {
        let name = TextName::new(["org", "ns", "app"], Id::new(1)).expect("a name");
        let subscription = d20_subscription(Subscription::Made, &name, 1, None);
        let made = d20::Message::decode(subscription).expect("valid").r#type;
        let Some(d20::message::Type::Subscribe(d20::Subscribe { header: Some(header), .. })) = made
        else {
            panic!("a subscription with a header")
        };
        let header = Some(d20::Header { identity: "i".repeat(identity), ..header });
        let session = Some(d20::SessionHeader::default());
        let publish = d20::Publish { header, session, ..Default::default() };
        let publish = d20::message::Type::Publish(publish);
        d20::Message { r#type: Some(publish), ..Default::default() }.encode_to_vec().into()
    }

    #[test]
    fn messages_in_turn_get_their_own_codes_on_each_link_however_long_their_headers_are() {
        let links = ["a", "b"].map(|link_id| LinkKey::derive(link_id, b"a shared secret", None));
        for identity in [10, 11, KEPT_BYTES, 10, 2 * KEPT_BYTES, 10, 11] {
            let pieces = prepare(&publish(identity), 7).expect("a publish");
            for key in &links {
                let mut signed = BytesMut::new();
                key.sign(&pieces[0], &mut signed);
                signed.extend_from_slice(&pieces[1]);
                let authentic = |key: &LinkKey| key.read(&signed).expect("valid").1;
                let authentic: Vec<_> = links.iter().map(authentic).collect();
                let of_this = |other: &LinkKey| match std::ptr::eq(key, other) {
                    true => Authenticity::Authentic,
                    false => Authenticity::Forged,
                };
                assert_eq!(authentic, links.iter().map(of_this).collect::<Vec<_>>());
            }
        }
    }
}
