//! The authentication of D20's headers: one key per link, one code per message and link.

use aws_lc_rs::{hkdf, hmac};
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
        let mut secret = Zeroizing::new(shared.to_vec());
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
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &*key), link_id: link_id.into() }
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
                Some(mac) => match hmac::verify(&self.key, &self.authenticated(header), mac) {
                    Ok(()) => Authenticity::Authentic,
                    Err(_) => Authenticity::Forged,
                },
            };
        })?;
        Ok((inbound, authenticity))
    }

    /// Writes the head of a [prepared](crate::prepare) publish with the code for this link.
    pub fn sign(&self, head: &[u8], out: &mut BytesMut) {
        let signed = prepared_header(head).and_then(|header| {
            let header = read::header::<D20>(header).ok()?;
            Some(hmac::sign(&self.key, &self.authenticated(&header)))
        });
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
        let mac = hmac::sign(&self.key, &self.authenticated(&header));
        Ok(mac.as_ref().try_into().expect("the length of SHA-256"))
    }

    /// What is authenticated of a header on this link; all numbers are little endian.
    fn authenticated(&self, header: &ParsedHeader<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(USUAL_BYTES + header.identity.len());
        out.extend_from_slice(DOMAIN);
        put_text(&mut out, &self.link_id);
        put_name(&mut out, &header.source);
        put_name(&mut out, &header.destination);
        put_text(&mut out, header.identity);
        out.extend_from_slice(&header.fanout.to_le_bytes());
        for steering in [header.recv_from, header.forward_to] {
            out.push(steering.is_some().into());
            out.extend(steering.iter().flat_map(|number| number.to_le_bytes()));
        }
        out.push(header.error.is_some().into());
        out.extend(header.error.map(u8::from));
        out.extend_from_slice(&header.ttl.to_le_bytes());
        out
    }
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
    // The name is there, and so are its hashes: the reader refuses a header without.
    out.extend_from_slice(&[1, 1]);
    out.extend(prefix.0.iter().flat_map(|hash| hash.to_le_bytes()));
    out.push(name.has_id.into());
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
