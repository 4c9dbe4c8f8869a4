//! Who is talked to, and what is said first.

use std::time::Duration;

use slim_quic::client::link::{Link, LinkError, LinkOptions, Trust};
use slim_wire::{CloseCode, Fault, Flags, FrameKind, Hello, HelloFlags, Role};

use crate::fake_node::{FakeNode, control_frame};
use crate::support::{eventually, in_time};

async fn refused(address: &str, options: &LinkOptions) -> LinkError {
    in_time("a refusal", Link::connect(address, options)).await.expect_err("no link")
}

#[tokio::test]
async fn a_client_says_hello_and_waits_for_the_nodes() {
    let node = FakeNode::start();
    let (address, options) = (node.address.to_string(), node.options());
    let link = tokio::spawn(async move { Link::connect(&address, &options).await });
    let mut peer = in_time("a connection", node.accept()).await;
    let hello = peer.heard_hello().await;
    let flags = HelloFlags::empty();
    assert_eq!(hello, Hello { role: Role::App, node: 0, flags, frame_bytes: 4 << 20 });
    assert!(!link.is_finished());
    peer.say_hello().await;
    let link = in_time("a link", link).await.expect("no panic").expect("a link");
    assert_eq!(link.frame_bytes(), 4 << 20);
}

#[tokio::test]
async fn a_node_is_trusted_by_file_by_text_or_blindly_and_otherwise_not() {
    let node = FakeNode::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, &node.pem).expect("written");
    let blind = Trust::DangerAcceptAnyCertificate;
    for trust in [Trust::File(file), Trust::Pem(node.pem.clone()), blind] {
        node.link_with(&LinkOptions { trust, ..LinkOptions::default() }).await;
    }

    let other = FakeNode::start();
    let (address, options) = (node.address.to_string(), other.options());
    let (error, ()) = tokio::join!(refused(&address, &options), node.accept_failure());
    assert!(matches!(error, LinkError::Untrusted { .. }), "{error:?}");
    assert_eq!(error.fault(), Fault::Config);
    let text = error.to_string();
    assert!(text.contains("is not trusted: invalid peer certificate"), "{text}");
}

#[tokio::test]
async fn a_name_that_the_certificate_does_not_carry_is_not_trusted() {
    let node = FakeNode::start();
    let options = LinkOptions { server_name: Some("elsewhere".into()), ..node.options() };
    let address = node.address.to_string();
    let (error, ()) = tokio::join!(refused(&address, &options), node.accept_failure());
    assert!(matches!(error, LinkError::Untrusted { .. }), "{error:?}");
    let options = LinkOptions { server_name: Some("not a name".into()), ..node.options() };
    let error = refused(&node.address.to_string(), &options).await;
    assert!(matches!(error, LinkError::ServerName { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_of_another_protocol_fails_the_handshake() {
    let node = FakeNode::speaking(b"h3");
    let address = node.address.to_string();
    let options = node.options();
    let (error, ()) = tokio::join!(refused(&address, &options), node.accept_failure());
    assert!(matches!(error, LinkError::Handshake { .. }), "{error:?}");
    assert_eq!(error.fault(), Fault::Peer);
    assert!(error.hint().contains("slim/1"));
}

#[tokio::test]
async fn where_nobody_listens_connecting_ends_in_time() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let connect_timeout = Duration::from_millis(50);
    let options = LinkOptions { connect_timeout, ..LinkOptions::default() };
    let error = refused(&address, &options).await;
    let expected = format!("connecting to the node at {address}: not done after 50ms");
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.fault(), Fault::Peer);
}

#[tokio::test]
async fn a_node_that_says_no_hello_is_given_up() {
    let node = FakeNode::start();
    let connect_timeout = Duration::from_millis(200);
    let options = LinkOptions { connect_timeout, ..node.options() };
    let address = node.address.to_string();
    let (error, _peer) = tokio::join!(refused(&address, &options), node.accept());
    assert!(matches!(error, LinkError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn wrong_addresses_and_options_name_what_they_expect() {
    let options = LinkOptions::default();
    for address in ["nowhere", "127.0.0.1", "127.0.0.1:99999", "no.such.host.invalid:1"] {
        let error = refused(address, &options).await;
        assert!(matches!(error, LinkError::Address { .. }), "{error:?}");
        assert!(error.to_string().starts_with(&format!("address {address:?}: ")), "{error}");
        assert!(error.hint().contains("HOST:PORT"));
    }
    let error = refused("127.0.0.1:1", &LinkOptions { mtu: 500, ..options.clone() }).await;
    assert_eq!(error.to_string(), "option mtu: expected 1200 to 65000, got 500");
    let error = refused("127.0.0.1:1", &LinkOptions { frame_bytes: 9, ..options }).await;
    assert_eq!(error.to_string(), "option frame_bytes: expected 104 to 16777216, got 9");
}

#[tokio::test]
async fn a_wrong_hello_ends_the_link_with_the_reason_at_both_ends() {
    let flags = HelloFlags::empty();
    let app = Hello { role: Role::App, node: 0, flags, frame_bytes: 4096 }.encode();
    let cases = [
        (control_frame(FrameKind::Hello, 0, Flags::empty(), &app), "role of a node: expected 1"),
        (control_frame(FrameKind::Hello, 0, Flags::empty(), &app[..9]), "hello: expected 11 more"),
        (control_frame(FrameKind::Ack, 0, Flags::empty(), &[]), "kind of the first frame: expec"),
        (bytes::Bytes::from_static(&[0; 104]), "frame length: expected at least 104, got 0"),
    ];
    for (bytes, expected) in cases {
        let node = FakeNode::start();
        let (address, options) = (node.address.to_string(), node.options());
        let wrong = async {
            let mut peer = node.accept().await;
            peer.answers.write_all(&bytes).await.expect("the link is open");
            peer.close_reason().await
        };
        let (error, (code, reason)) = tokio::join!(refused(&address, &options), wrong);
        assert_eq!(code, Some(CloseCode::Protocol));
        assert_eq!(reason, error.to_string());
        assert!(reason.starts_with(&format!("control stream of the node: {expected}")), "{reason}");
    }
}

#[tokio::test]
async fn a_node_that_is_full_says_so() {
    let node = FakeNode::start();
    let (address, options) = (node.address.to_string(), node.options());
    let full = async { node.accept().await.close(CloseCode::Limit, "limits.links is 5") };
    let (error, ()) = tokio::join!(refused(&address, &options), full);
    assert_eq!(error.to_string(), "the node closed the link (limit reached): limits.links is 5");
    assert_eq!(error.fault(), Fault::Config);
}

#[tokio::test]
async fn packets_grow_to_what_the_option_allows() {
    let node = FakeNode::start();
    let (wide, peer) = node.link_with(&LinkOptions { mtu: 65_000, ..node.options() }).await;
    peer.echo();
    let (narrow, peer) = node.link_with(&LinkOptions { mtu: 1300, ..node.options() }).await;
    peer.echo();
    for link in [&wide, &narrow] {
        eventually("the path is known", async || {
            // Probes go out with traffic.
            let message = crate::fake_node::message(1, 1, vec![0; 100_000]);
            link.publish(&message).await.expect("published");
            link.receive().await.expect("echoed");
            let enough = if std::ptr::eq(link, &wide) { 60_000 } else { 1250 };
            (link.stats().mtu >= enough).then_some(())
        })
        .await;
    }
    assert!(narrow.stats().mtu <= 1300);
}
