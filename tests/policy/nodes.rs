//! Links whose other end says that it is a node.

use bytes::Bytes;
use prost::Message as _;
use slim_wire::{Encoding, FrameKind, Header, Hello, Role, SessionIds, frame};

use crate::modern::{self, Modern};
use crate::support::client::Client;
use crate::support::message::{self, subscribe as subscribe_d6};
use crate::support::native::{HELLO, Raw, header, join, publish, receive, subscribe};
use crate::support::node::{Node, PLAIN, config};
use crate::{enforcing, policy, until_refused};

const RULES: [&str; 1] = ["principal: nobody, subscribe: [org/ns/me]"];
const ME: &str = "org/ns/me/1";
const OTHER: &str = "org/ns/other/2";

const NODE: Hello = Hello { role: Role::Node, node: 77, ..HELLO };

/// A message of a published release as nodes hand it on, in a frame of its own.
fn carried(encoding: Encoding, source: &str, message: &[u8]) -> Bytes {
    let header = Header { encoding, ..header(source, ME) };
    frame(FrameKind::Publish, &header, SessionIds::default(), &[], message).expect("it fits")
}

#[tokio::test]
async fn who_says_it_is_a_node_is_judged_as_whom_it_has_proved_to_be() {
    let node = enforcing(&RULES).await;
    let receiver = join(&node, &[ME]).await;
    let (raw, mut control) = Raw::greeted_as(&node, NODE).await;
    let told = "policy: this name is not allowed to nobody";
    for (number, name) in [(1, OTHER), (2, "org/ns/other")] {
        control.say(&subscribe(number, name)).await;
        assert_eq!(control.answer().await, (number, Some(told.to_owned())));
    }
    control.subscribe(3, "org/ns/me/9").await;
    let mut lane = raw.lane().await;
    let frames = [publish(OTHER, ME, b"forged"), publish("org/ns/me/9", ME, b"own")].concat();
    lane.write_all(&frames).await.expect("the link is open");
    assert_eq!(receive(&receiver).await.payload, "own");
    until_refused(&node, 3).await;
}

#[tokio::test]
async fn what_a_node_carries_for_clients_is_judged_by_the_source_inside() {
    let node = enforcing(&RULES).await;
    let mut d6 = Client::join(&node, ME).await;
    let mut d20 = Modern::connect(&node, "2.3.0").await;
    let made = d20.ask(modern::subscribe(ME, modern::name(ME), 1)).await;
    assert_eq!(made, (1, None));
    let (raw, _control) = Raw::greeted_as(&node, NODE).await;
    let mut lane = raw.lane().await;
    let own = "org/ns/me/9";
    let of_d6 = |source, text: &'static str| message::publish(source, ME, text).encode_to_vec();
    let of_d20 = |source, text| modern::publish(modern::name(source), ME, text);
    let frames = [
        // The frame says another source than the message.
        carried(Encoding::D6, own, &of_d6(OTHER, "forged")),
        carried(Encoding::D20, own, &of_d20(OTHER, "forged")),
        // It is not asked whom the frame says.
        carried(Encoding::D6, OTHER, &of_d6(own, "own")),
        carried(Encoding::D20, OTHER, &of_d20(own, "own")),
        // Of a subscription a node wants to hear nothing here.
        carried(Encoding::D6, own, &subscribe_d6(own, OTHER).encode_to_vec()),
    ];
    lane.write_all(&frames.concat()).await.expect("the link is open");
    assert_eq!(d6.payload().await, "own");
    assert_eq!(d20.payload().await, "own");
    assert_eq!(until_refused(&node, 2).await.refused("invalid"), 1);
}

#[tokio::test]
async fn a_node_that_this_one_has_chosen_may_do_everything() {
    let there = Node::start("").await;
    let endpoint = format!("quic://{}", there.address);
    let rules = policy("enforce", &["principal: nobody, subscribe: [org/ns/me]"]);
    let here = config(&rules, PLAIN)
        + &format!(
            "      clients: [{{ endpoint: \"{endpoint}\", tls: {{ insecure: true }} }}]\n      \
             routes: [{{ name: org/ns/other, via: \"{endpoint}\" }}]\n"
        );
    let here = Node::launch(&here).await;
    there.until("the nodes are linked", |metrics| metrics.sum("slim_links") == 1).await;
    let other = join(&there, &[OTHER]).await;
    let me = join(&here, &[ME]).await;
    let sent = crate::support::native::message(ME, OTHER, "over two nodes");
    crate::support::native::send(&me, &sent).await;
    assert_eq!(receive(&other).await.payload, "over two nodes");
    assert_eq!(until_refused(&here, 0).await.sum("slim_subscriptions"), 5);
}
