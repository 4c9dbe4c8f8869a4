//! Who is let in at a server, and who is told that it is not.

#[path = "../support/mod.rs"]
mod support;

mod certificates;
mod nodes;
mod passwords;
mod published;
mod tokens;

use std::time::Duration;

use slim_config::Secret;
use slim_quic::client::link::{Credentials, Link, LinkError, LinkOptions, Trust};
use slim_wire::CloseCode;

use support::in_time;
use support::native::{message, text};
use support::node::Node;

/// Both ways to a server without TLS.
const WAYS: [&str; 2] = ["http", "quic"];

/// After so long a message is sent again.
const SOON: Duration = Duration::from_millis(200);

fn basic(username: &str, password: &str) -> Credentials {
    Credentials::Basic { username: username.into(), password: Secret::new(password) }
}

fn bearer(token: &str) -> Credentials {
    Credentials::Bearer(Secret::new(token))
}

/// A client that takes any certificate.
fn blind(credentials: Credentials) -> LinkOptions {
    let trust = Trust::DangerAcceptAnyCertificate;
    LinkOptions { trust, credentials, ..LinkOptions::default() }
}

async fn connect(node: &Node, way: &str, options: &LinkOptions) -> Result<Link, LinkError> {
    let options = LinkOptions { name: Some(text("org/ns/me/1")), ..options.clone() };
    let address = format!("{way}://{}", node.address);
    in_time("a link or a refusal", Link::connect(&address, &options)).await
}

/// Why there is no link; that it is for want of credentials is checked here.
async fn refused(node: &Node, way: &str, options: &LinkOptions) -> String {
    const UNAUTHENTICATED: i32 = 16;
    match connect(node, way, options).await.expect_err("nothing that is good was shown") {
        LinkError::Status { status: UNAUTHENTICATED, reason } => reason,
        LinkError::Closed { code: CloseCode::Unauthenticated, reason } => reason,
        other => panic!("expected to be asked for credentials, got {other:?}"),
    }
}

/// What one link publishes another receives.
async fn assert_passes(from: &Link, to: &Link) {
    let here = "org/ns/here/2";
    to.subscribe(&text(here)).await.expect("subscribed");
    let sent = message("org/ns/me/1", here, "let in");
    let received = in_time("a message", async {
        loop {
            from.publish(&sent).await.expect("published");
            // Over gRPC nobody says when a subscription is known.
            if let Ok(received) = tokio::time::timeout(SOON, to.receive()).await {
                return received.expect("a message");
            }
        }
    });
    assert_eq!(received.await.payload, "let in");
}
