//! How two ends of a link introduce themselves (D7 from 1.3, D20), and acknowledgements.

use aws_lc_rs::{agreement, kem};
use bytes::Bytes;
use slim_wire::{DecodeError, Fault};
use thiserror::Error;

use crate::mac::LinkKey;
use crate::proto::{d7, d20};
use crate::scan::{Fields, set_once};

/// What the end that connects, or the one that answers, says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Negotiation<'a> {
    /// Names the link; the answer repeats it.
    pub link_id: &'a str,
    /// Version of the library; not that of the release.
    pub slim_version: &'a str,
    /// Whether this answers a negotiation.
    pub is_reply: bool,
    /// X25519 public key (D20).
    pub public_key: &'a [u8],
    /// 0 remote, 1 peer, 2 edge (D20).
    pub connection_type: u32,
    /// The node that speaks (D20).
    pub node_id: &'a str,
    /// ML-KEM-768: the public key of who connects, or the ciphertext for it (D20).
    pub encapsulation: Option<&'a [u8]>,
}

/// Longest text in a negotiation in bytes. Published ones have at most 36.
const TEXT_BYTES: usize = 256;

impl<'a> Negotiation<'a> {
    /// Reads the body of a [link message](crate::Inbound::Link).
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn read(link: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new("link", link);
        let mut found = None;
        while let Some((number, value)) = fields.next()? {
            if number == 1 {
                set_once(&mut found, value.bytes("link_negotiation")?, "link_negotiation")?;
            }
        }
        let found = found.ok_or(DecodeError::Missing { field: "link_negotiation" })?;
        let mut read = Self::default();
        let mut fields = Fields::new("link_negotiation", found);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => read.link_id = short(value.text("link_id")?, "link_id")?,
                2 => read.slim_version = short(value.text("slim_version")?, "slim_version")?,
                3 => read.is_reply = value.varint("is_reply")? != 0,
                4 => read.public_key = value.bytes("link_ecdh_public_key")?,
                5 => read.connection_type = value.varint("connection_type")? as u32,
                6 => read.node_id = short(value.text("node_id")?, "node_id")?,
                7 => _ = value.text("deployment_name")?,
                8 => read.encapsulation = Some(value.bytes("link_kem_payload")?),
                _ => {}
            }
        }
        if read.link_id.is_empty() {
            return Err(DecodeError::Missing { field: "link_id" });
        }
        Ok(read)
    }
}

fn short<'a>(text: &'a str, field: &'static str) -> Result<&'a str, DecodeError> {
    if text.len() <= TEXT_BYTES {
        return Ok(text);
    }
    let (limit, got) = (TEXT_BYTES as u64, text.len() as u64);
    Err(DecodeError::TooLarge { field, limit, got })
}

/// Why two ends cannot agree on a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NegotiationError {
    /// The other end's key is none.
    #[error("{field}: expected {expected}, got {got} bytes that are none")]
    Key {
        /// The field that holds it.
        field: &'static str,
        /// What it has to be.
        expected: &'static str,
        /// Its length.
        got: usize,
    },
    /// The answer is for another link, or no answer.
    #[error("link negotiation: expected an answer for this link, got another message")]
    NotAnAnswer,
    /// The system's cryptography failed.
    #[error("link key: the system could not make one")]
    Crypto,
}

impl NegotiationError {
    /// Who has to act on it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Key { .. } | Self::NotAnAnswer => Fault::Peer,
            Self::Crypto => Fault::Internal,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Key { .. } | Self::NotAnAnswer => {
                "check that the other end is a published SLIM release that this node serves"
            }
            Self::Crypto => "the system may be out of entropy or memory",
        }
    }
}

/// The half of a key that one end makes for one link. The secret is wiped when it is dropped.
pub struct KeyShare {
    secret: agreement::PrivateKey,
    public: agreement::PublicKey,
}

impl KeyShare {
    /// A new one.
    ///
    /// # Errors
    /// [`NegotiationError::Crypto`].
    pub fn generate() -> Result<Self, NegotiationError> {
        agreement::PrivateKey::generate(&agreement::X25519)
            .map_err(|_| NegotiationError::Crypto)
            .and_then(Self::of)
    }

    /// The one with this secret, for tests against recorded keys.
    ///
    /// # Errors
    /// [`NegotiationError::Crypto`] if it is not 32 bytes long.
    pub fn from_secret(secret: &[u8]) -> Result<Self, NegotiationError> {
        agreement::PrivateKey::from_private_key(&agreement::X25519, secret)
            .map_err(|_| NegotiationError::Crypto)
            .and_then(Self::of)
    }

    fn of(secret: agreement::PrivateKey) -> Result<Self, NegotiationError> {
        let public = secret.compute_public_key().map_err(|_| NegotiationError::Crypto)?;
        Ok(Self { secret, public })
    }

    fn agree(
        &self,
        link_id: &str,
        theirs: &[u8],
        encapsulated: Option<&[u8]>,
    ) -> Result<LinkKey, NegotiationError> {
        let wrong = NegotiationError::Key {
            field: "link_ecdh_public_key",
            expected: "an X25519 key of 32 bytes",
            got: theirs.len(),
        };
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, theirs);
        agreement::agree(&self.secret, peer, wrong, |shared| {
            Ok(LinkKey::derive(link_id, shared, encapsulated))
        })
    }

    /// The first message on a link to a node of release 2.0 or later.
    pub fn request(&self, link_id: &str, node_id: &str) -> Bytes {
        d20_link(d20::LinkNegotiation {
            link_id: link_id.to_owned(),
            slim_version: VERSION.to_owned(),
            link_ecdh_public_key: Bytes::copy_from_slice(self.public.as_ref()),
            node_id: node_id.to_owned(),
            ..Default::default()
        })
    }

    /// The key of the link whose other end answered [`KeyShare::request`].
    ///
    /// # Errors
    /// [`NegotiationError`].
    pub fn complete(
        &self,
        link_id: &str,
        answer: &Negotiation<'_>,
    ) -> Result<LinkKey, NegotiationError> {
        if !answer.is_reply || answer.link_id != link_id {
            return Err(NegotiationError::NotAnAnswer);
        }
        self.agree(link_id, answer.public_key, None)
    }

    /// Answers a negotiation of D20: the message to send, and the key of the link. There is none
    /// if the other end brought no key: then headers have no codes.
    ///
    /// # Errors
    /// [`NegotiationError`].
    pub fn answer(
        &self,
        request: &Negotiation<'_>,
        node_id: &str,
    ) -> Result<(Bytes, Option<LinkKey>), NegotiationError> {
        let (ciphertext, encapsulated) =
            request.encapsulation.map(encapsulate).transpose()?.unzip();
        let key = match request.public_key {
            [] => None,
            theirs => {
                let encapsulated = encapsulated.as_ref().map(AsRef::as_ref);
                Some(self.agree(request.link_id, theirs, encapsulated)?)
            }
        };
        let message = d20_link(d20::LinkNegotiation {
            link_id: request.link_id.to_owned(),
            slim_version: request.slim_version.to_owned(),
            is_reply: true,
            link_ecdh_public_key: Bytes::copy_from_slice(self.public.as_ref()),
            connection_type: request.connection_type,
            node_id: node_id.to_owned(),
            deployment_name: String::new(),
            link_kem_payload: ciphertext,
        });
        Ok((message, key))
    }
}

/// The version that this node claims where it has to name one: that of release 2.3.
const VERSION: &str = "2.3.0";

/// A secret for the owner of this ML-KEM-768 key, and its ciphertext.
fn encapsulate(key: &[u8]) -> Result<(Bytes, kem::SharedSecret), NegotiationError> {
    let wrong = |_| NegotiationError::Key {
        field: "link_kem_payload",
        expected: "an ML-KEM-768 key of 1184 bytes",
        got: key.len(),
    };
    let key = kem::EncapsulationKey::new(&kem::ML_KEM_768, key).map_err(wrong)?;
    let (ciphertext, secret) = key.encapsulate().map_err(|_| NegotiationError::Crypto)?;
    Ok((Bytes::copy_from_slice(ciphertext.as_ref()), secret))
}

fn d20_link(negotiation: d20::LinkNegotiation) -> Bytes {
    let link = d20::Link { link_type: Some(d20::link::LinkType::LinkNegotiation(negotiation)) };
    encoded(&d20::Message { r#type: Some(d20::message::Type::Link(link)), ..Default::default() })
}

/// Answers a negotiation of D7. From then on the client waits for acknowledgements.
pub fn answer_d7(request: &Negotiation<'_>) -> Bytes {
    let negotiation = d7::LinkNegotiation {
        link_id: request.link_id.to_owned(),
        slim_version: request.slim_version.to_owned(),
        is_reply: true,
    };
    let link = d7::Link { link_type: Some(d7::link::LinkType::LinkNegotiation(negotiation)) };
    encoded(&d7::Message { r#type: Some(d7::message::Type::Link(link)), ..Default::default() })
}

/// The acknowledgement of a subscription (D7, D20), with the reason if it was not made.
pub fn subscription_ack(subscription: u64, result: Result<(), &str>) -> Bytes {
    let ack = d7::SubscriptionAck {
        subscription_id: subscription,
        success: result.is_ok(),
        error: result.err().unwrap_or_default().to_owned(),
    };
    let message = d7::message::Type::SubscriptionAck(ack);
    encoded(&d7::Message { r#type: Some(message), ..Default::default() })
}

fn encoded(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}
