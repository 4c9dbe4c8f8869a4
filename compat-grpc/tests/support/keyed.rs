//! Links of D20 whose keys are derived a second time here, as the reference has it, with nothing
//! but primitives.

use std::sync::LazyLock;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::{hkdf, hmac};
use bytes::Bytes;
use slim_compat_grpc::proto::d20;
use slim_compat_grpc::{KeyShare, LinkKey, Negotiation};

/// A link: the node's key for it, and the same by the reference.
pub(crate) struct Keyed {
    pub(crate) key: LinkKey,
    link_id: String,
    bytes: [u8; 32],
}

const INFO: &[u8] = b"SLIM-DP-inter-node-hmac-v1";
const INFO_POST_QUANTUM: &[u8] = b"SLIM-DP-inter-node-hmac-v1-pq";

/// The key of a link from the secrets that its ends share.
pub(crate) fn derived(link_id: &str, shared: &[u8], encapsulated: Option<&[u8]>) -> [u8; 32] {
    struct Length;
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            32
        }
    }
    let info = if encapsulated.is_some() { INFO_POST_QUANTUM } else { INFO };
    let secret = [shared, encapsulated.unwrap_or_default()].concat();
    let mut key = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, link_id.as_bytes())
        .extract(&secret)
        .expand(&[info], Length)
        .and_then(|expanded| expanded.fill(&mut key))
        .expect("a length that can be expanded");
    key
}

/// The shared secret of a private key and the other end's public one.
pub(crate) fn shared(private: &PrivateKey, public: &[u8]) -> Vec<u8> {
    let public = UnparsedPublicKey::new(&X25519, public);
    agree(private, public, (), |shared| Ok(shared.to_vec())).expect("valid keys")
}

impl Keyed {
    /// Two links that are always the same.
    pub(crate) fn pair() -> &'static [Self; 2] {
        static PAIR: LazyLock<[Keyed; 2]> = LazyLock::new(|| {
            [Keyed::new("link-one", [1; 32], [2; 32]), Keyed::new("link-two", [3; 32], [4; 32])]
        });
        &PAIR
    }

    /// The link of a node and a client with these secrets.
    pub(crate) fn new(link_id: &str, node: [u8; 32], client: [u8; 32]) -> Self {
        let private = |secret: &[u8]| PrivateKey::from_private_key(&X25519, secret).expect("a key");
        let public = |secret| private(secret).compute_public_key().expect("a key");
        let share = KeyShare::from_secret(&node).expect("a key");
        let client_public = public(&client);
        let public_key = client_public.as_ref();
        let request = Negotiation { link_id, public_key, ..Negotiation::default() };
        let (_, key) = share.answer(&request, "node").expect("a valid request");
        let bytes = derived(link_id, &shared(&private(&client), public(&node).as_ref()), None);
        Self::of(link_id, key.expect("the client brought a key"), bytes)
    }

    /// A link whose key is known otherwise.
    pub(crate) fn of(link_id: &str, key: LinkKey, bytes: [u8; 32]) -> Self {
        Self { key, link_id: link_id.to_owned(), bytes }
    }

    /// The authentication code of a header.
    pub(crate) fn code(&self, header: &d20::Header) -> Bytes {
        let mut out = b"SLIM-DP-HDR-v1\0".to_vec();
        put_text(&mut out, &self.link_id);
        put_name(&mut out, header.source.as_ref());
        put_name(&mut out, header.destination.as_ref());
        put_text(&mut out, &header.identity);
        out.extend(header.fanout.to_le_bytes());
        for steering in [header.recv_from, header.forward_to] {
            put_option(&mut out, steering.map(u64::to_le_bytes));
        }
        put_option(&mut out, header.error.map(|error| [u8::from(error)]));
        out.extend(header.ttl.to_le_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.bytes);
        Bytes::copy_from_slice(hmac::sign(&key, &out).as_ref())
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_option(out: &mut Vec<u8>, value: Option<impl AsRef<[u8]>>) {
    out.push(value.is_some().into());
    out.extend(value.iter().flat_map(AsRef::as_ref));
}

fn put_name(out: &mut Vec<u8>, name: Option<&d20::Name>) {
    out.push(name.is_some().into());
    let Some(d20::Name { name, str_name }) = name else { return };
    out.push(name.is_some().into());
    if let Some(name) = name {
        for hash in [name.component_0, name.component_1, name.component_2] {
            out.extend(hash.to_le_bytes());
        }
        let id = name.name_id.as_ref();
        put_option(out, id.map(|id| [id.id_0.to_le_bytes(), id.id_1.to_le_bytes()].concat()));
    }
    out.push(str_name.is_some().into());
    if let Some(texts) = str_name {
        for text in [&texts.component_0, &texts.component_1, &texts.component_2] {
            put_text(out, text);
        }
    }
}
