//! A SPIFFE workload, by an agent that stands in for SPIRE's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use h2::SendStream;
use http::{HeaderMap, Response};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prost::Message;
use rcgen::KeyPair;
use serde_json::json;
use slim_quic::client::identity::WorkloadOptions;
use slim_quic::identity::{Identity, IdentityError, Standing};
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::{jwks, key_pair, token};

const ALICE: &str = "spiffe://example.org/alice";

// The messages of the Workload API that are spoken here.

#[derive(Clone, PartialEq, Message)]
struct Svids {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
}

#[derive(Clone, PartialEq, Message)]
struct Svid {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    token: String,
}

#[derive(Clone, PartialEq, Message)]
struct Bundles {
    #[prost(map = "string, bytes", tag = "1")]
    bundles: HashMap<String, Vec<u8>>,
}

/// Answers at this socket: with a token for Alice, and with the keys of one domain as they change.
async fn serve(listener: UnixListener, pair: Arc<KeyPair>, keys: watch::Receiver<String>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (pair, keys) = (Arc::clone(&pair), keys.clone());
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!(request.headers()["workload.spiffe.io"], "true");
                let head = Response::builder().header("content-type", "application/grpc");
                let head = head.body(()).expect("a head");
                let body = respond.send_response(head, false).expect("sent");
                match request.uri().path() {
                    "/SpiffeWorkloadAPI/FetchJWTSVID" => {
                        let token = svid(&pair);
                        let svids = vec![Svid { id: ALICE.into(), token }];
                        finish(body, &Svids { svids });
                    }
                    "/SpiffeWorkloadAPI/FetchJWTBundles" => {
                        tokio::spawn(announce(body, keys.clone()));
                    }
                    other => panic!("{other}"),
                }
            }
        });
    }
}

/// As SPIRE makes them: with the key's name.
fn svid(pair: &KeyPair) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = json!({"sub": ALICE, "aud": ["slim-demo"], "exp": now + 300, "iat": now});
    let header = Header { kid: Some("a".into()), ..Header::new(Algorithm::ES256) };
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key");
    jsonwebtoken::encode(&header, &claims, &key).expect("signed")
}

async fn announce(mut body: SendStream<Bytes>, mut keys: watch::Receiver<String>) {
    loop {
        let set = keys.borrow_and_update().clone().into_bytes();
        let bundles = HashMap::from([("spiffe://example.org".to_owned(), set)]);
        body.send_data(framed(&Bundles { bundles }), false).expect("sent");
        if keys.changed().await.is_err() {
            return;
        }
    }
}

fn finish(mut body: SendStream<Bytes>, message: &impl Message) {
    body.send_data(framed(message), false).expect("sent");
    let status = ("grpc-status".parse().expect("a name"), "0".parse().expect("a value"));
    body.send_trailers(HeaderMap::from_iter([status])).expect("sent");
}

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    message.encode(&mut bytes).expect("there is room");
    bytes.freeze()
}

#[tokio::test]
async fn a_workload_has_the_token_and_the_keys_of_its_agent_and_follows_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("agent.sock");
    let (pair, other) = (Arc::new(key_pair()), key_pair());
    let (announced, keys) = watch::channel(jwks(&pair));
    let listener = UnixListener::bind(&socket).expect("a socket");
    tokio::spawn(serve(listener, Arc::clone(&pair), keys));

    let options = WorkloadOptions {
        endpoint: Some(format!("unix:{}", socket.display())),
        audience: vec!["slim-demo".into()],
        ..WorkloadOptions::default()
    };
    let workload = Identity::workload(options).await.expect("an identity");
    let now = SystemTime::now();
    let sent = workload.source.token(now).expect("a token");
    assert_eq!(&*workload.check.check(&sent, now).expect("good").subject, ALICE);
    let credential = workload.source.credential(&[7; 32], now).expect("a credential");
    assert!(workload.check.check_credential(&credential, &[7; 32], Standing::New, now).is_ok());
    let foreign = token(&other, None, "spiffe://example.org/mallory", now);
    assert_eq!(workload.check.check(&foreign, now), Err(IdentityError::Signature));

    announced.send(jwks(&other)).expect("the agent listens");
    let followed = async {
        while workload.check.check(&foreign, now).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), followed).await.expect("the new keys");
    assert_eq!(workload.check.check(&sent, now), Err(IdentityError::Signature));
}

#[tokio::test]
async fn without_an_agent_or_an_audience_there_is_no_identity() {
    let options = WorkloadOptions {
        endpoint: Some("unix:/nowhere/agent.sock".into()),
        audience: vec!["slim-demo".into()],
        timeout: Duration::from_millis(50),
    };
    let refused = Identity::workload(options.clone()).await.map(|_| ());
    assert!(matches!(refused, Err(IdentityError::Unavailable { .. })), "{refused:?}");
    let refused = Identity::workload(WorkloadOptions { audience: vec![], ..options }).await;
    assert!(matches!(refused, Err(IdentityError::Config { .. })));
}
