//! Subscriptions of the releases up to 0.6, whose texts say which name is meant.

use prost::Message as _;
use slim_compat_grpc::proto::d6::message::Type;
use slim_compat_grpc::proto::p;
use slim_compat_grpc::{Dialect, P};

use crate::support::client::{Client, UNMATCHED};
use crate::support::message::{framed_bytes, header_of, name, subscribe};
use crate::support::raw::{Channel, Connection};
use crate::{enforcing, until_refused};

const RULES: [&str; 1] = ["principal: nobody, subscribe: [org/ns/me]"];
const ME: &str = "org/ns/me/1";
const OTHER: &str = "org/ns/other/1";

#[tokio::test]
async fn texts_and_hashes_of_release_0_6_that_differ_give_no_more_than_the_texts_alone() {
    let node = enforcing(&RULES).await;
    let mut me = Client::connect(&node, ME).await;
    let mut other_by_texts = subscribe(ME, OTHER);
    header_of(&mut other_by_texts).destination = Some(name(ME));
    me.send(other_by_texts).await;
    until_refused(&node, 1).await;
    let mut other_by_hashes = subscribe(ME, ME);
    header_of(&mut other_by_hashes).destination = Some(name(OTHER));
    me.send(other_by_hashes).await;
    // Without any texts the hashes are all there is.
    let mut no_texts = subscribe(ME, OTHER);
    if let Some(Type::Subscribe(body)) = &mut no_texts.r#type {
        (body.component_0, body.component_1, body.component_2) = Default::default();
    }
    me.send(no_texts).await;
    until_refused(&node, 2).await;
    me.settle(&node).await;
    let sender = Client::connect(&node, "org/ns/me/9").await;
    sender.publish(OTHER, "for the other").await;
    sender.publish(ME, "for me").await;
    assert_eq!(me.payload().await, "for me");
    assert_eq!(node.balanced().await.sum("slim_subscriptions"), 1);
}

fn name_p(text: &str) -> Option<p::Name> {
    let [component_0, component_1, component_2, component_3] = {
        let name = name(text);
        [name.component_0, name.component_1, name.component_2, name.component_3]
    };
    Some(p::Name { component_0, component_1, component_2, component_3 })
}

fn header_p(source: &str, destination: &str) -> Option<p::Header> {
    Some(p::Header {
        source: name_p(source),
        destination: name_p(destination),
        fanout: 1,
        ..Default::default()
    })
}

/// A subscription of release 0.4 or 0.5 whose hashes are of one name and whose texts of another.
fn subscribe_p(hashes: &str, texts: &str) -> p::Message {
    let texts = crate::support::native::text(texts);
    let [component_0, component_1, component_2] = texts.components().map(str::to_owned);
    let header = header_p(ME, hashes);
    let body = p::Subscribe { header, component_0, component_1, component_2 };
    p::Message { r#type: Some(p::message::Type::Subscribe(body)), ..Default::default() }
}

fn publish_p(source: &str, destination: &str, payload: &'static str) -> p::Message {
    let body = p::Publish {
        header: header_p(source, destination),
        session: Some(p::SessionHeader { session_id: 7, ..Default::default() }),
        msg: Some(p::Content { content_type: "msg".into(), blob: payload.into() }),
    };
    p::Message { r#type: Some(p::message::Type::Publish(body)), ..Default::default() }
}

async fn say(channel: &mut Channel, message: &p::Message) {
    let framed = framed_bytes(&message.encode_to_vec());
    channel.send_bytes(framed).await.expect("the stream is open");
}

#[tokio::test]
async fn the_same_holds_for_releases_0_4_and_0_5() {
    let node = enforcing(&RULES).await;
    let mut connection = Connection::open(node.address).await;
    let mut channel = connection.channel_at(P::PATH).await;
    // Release 0.3 is told from later ones by the hashes in a first message.
    say(&mut channel, &publish_p(ME, OTHER, "first")).await;
    say(&mut channel, &subscribe_p(ME, OTHER)).await;
    until_refused(&node, 1).await;
    say(&mut channel, &subscribe_p(OTHER, ME)).await;
    // Its subscription is made before its next message is looked at.
    say(&mut channel, &publish_p(ME, OTHER, "settle")).await;
    node.until("settled", |metrics| metrics.sum(UNMATCHED) == 2).await;
    let mut sender = connection.channel_at(P::PATH).await;
    for (source, destination, payload) in
        [(OTHER, ME, "forged"), (ME, OTHER, "for the other"), (ME, ME, "for me")]
    {
        say(&mut sender, &publish_p(source, destination, payload)).await;
    }
    let message = channel.receive().await.expect("the stream is open");
    let message = p::Message::decode(message).expect("a message");
    match message.r#type {
        Some(p::message::Type::Publish(body)) => {
            assert_eq!(body.msg.expect("content").blob, "for me");
        }
        other => panic!("expected a publish, got {other:?}"),
    }
    assert_eq!(until_refused(&node, 2).await.sum("slim_subscriptions"), 1);
}
