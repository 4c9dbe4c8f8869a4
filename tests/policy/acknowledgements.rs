//! What clients of releases with acknowledgements are told.

use slim_compat_grpc::proto::d20::NameId;

use crate::modern::{Modern, mixed, name, publish, subscribe, subscribe_d7, unsubscribe};
use crate::{enforcing, until_refused};

const RULES: [&str; 1] = ["principal: nobody, subscribe: [org/ns/me, org/ns/single/7]"];
const ME: &str = "org/ns/me/1";
const OTHER: &str = "org/ns/other/2";
const TOLD: &str = "policy: this name is not allowed to nobody";

#[tokio::test]
async fn a_failed_acknowledgement_says_that_the_policy_does_not_allow_the_name() {
    let node = enforcing(&RULES).await;
    let mut d7 = Modern::connect(&node, "1.4.0").await;
    let refused = Some(TOLD.to_owned());
    assert_eq!(d7.ask(subscribe_d7(ME, OTHER, OTHER, 5)).await, (5, refused.clone()));
    assert_eq!(d7.ask(subscribe_d7(ME, ME, ME, 6)).await, (6, None));
    let mut d20 = Modern::connect(&node, "2.3.0").await;
    assert_eq!(d20.ask(subscribe(ME, name(OTHER), 5)).await, (5, refused));
    assert_eq!(d20.ask(subscribe(ME, name(ME), 6)).await, (6, None));
    // Its stream goes on, without what it may not say.
    let mut sender = Modern::connect(&node, "2.3.0").await;
    sender.say(publish(name(OTHER), ME, "forged")).await;
    sender.say(publish(name("org/ns/me/9"), ME, "in its own name")).await;
    assert_eq!(d20.payload().await, "in its own name");
    assert_eq!(until_refused(&node, 3).await.sum("slim_subscriptions"), 2);
}

#[tokio::test]
async fn a_number_of_a_subscription_does_not_open_another_name() {
    let node = enforcing(&RULES).await;
    let mut client = Modern::connect(&node, "2.3.0").await;
    let refused = Some(TOLD.to_owned());
    assert_eq!(client.ask(subscribe(ME, name(OTHER), 5)).await, (5, refused.clone()));
    // Under this number nothing was subscribed to.
    let unknown = client.ask(unsubscribe(ME, name(OTHER), 5)).await;
    assert_eq!(unknown, (5, Some("id not found: 00000000-0000-0000-0000-000000000002".to_owned())));
    assert_eq!(client.ask(subscribe(ME, name(ME), 5)).await, (5, None));
    for number in [5, 6, u64::MAX] {
        let asked = client.ask(subscribe(ME, name(OTHER), number)).await;
        assert_eq!(asked, (number, refused.clone()));
    }
    // Number 0 asks for no acknowledgement, and gets no name either.
    client.say(subscribe(ME, name(OTHER), 0)).await;
    until_refused(&node, 5).await;
    let mut sender = Modern::connect(&node, "2.3.0").await;
    sender.say(publish(name("org/ns/me/9"), OTHER, "for the other")).await;
    sender.say(publish(name("org/ns/me/9"), ME, "for me")).await;
    assert_eq!(client.payload().await, "for me");
    assert_eq!(until_refused(&node, 5).await.sum("slim_subscriptions"), 1);
}

#[tokio::test]
async fn a_rule_about_one_id_does_not_stretch_to_ids_that_look_like_it() {
    let node = enforcing(&RULES).await;
    let mut client = Modern::connect(&node, "2.3.0").await;
    let with_id = |id_0, id_1| {
        let mut name = name("org/ns/single");
        name.name.as_mut().expect("numbers").name_id = Some(NameId { id_0, id_1 });
        name
    };
    let others = [
        name("org/ns/single"),
        name("org/ns/single/8"),
        with_id(1, 7),
        with_id(7, 0),
        with_id(u64::MAX, u64::MAX),
        with_id(0, u64::MAX),
        with_id(0, 0),
    ];
    let count = others.len() as u64;
    for (number, other) in (1..).zip(others.clone()) {
        let asked = client.ask(subscribe(ME, other.clone(), number)).await;
        assert_eq!(asked, (number, Some(TOLD.to_owned())), "{other:?}");
    }
    let single = name("org/ns/single/7");
    assert_eq!(client.ask(subscribe(ME, single, 9)).await, (9, None));
    for source in others {
        client.say(publish(source, ME, "forged")).await;
    }
    until_refused(&node, 2 * count).await;
}

#[tokio::test]
async fn hashes_are_judged_whatever_the_texts_beside_them_say() {
    let node = enforcing(&RULES).await;
    let refused = Some(TOLD.to_owned());
    let mut d7 = Modern::connect(&node, "1.4.0").await;
    assert_eq!(d7.ask(subscribe_d7(ME, OTHER, ME, 1)).await, (1, refused.clone()));
    let mut client = Modern::connect(&node, "2.3.0").await;
    assert_eq!(client.ask(subscribe(ME, mixed(OTHER, ME), 1)).await, (1, refused));
    // The other way round it has what it may have, and no more.
    assert_eq!(client.ask(subscribe(ME, mixed(ME, OTHER), 2)).await, (2, None));
    let mut sender = Modern::connect(&node, "2.3.0").await;
    sender.say(publish(mixed(OTHER, ME), ME, "forged")).await;
    sender.say(publish(name(ME), OTHER, "for the other")).await;
    sender.say(publish(mixed(ME, OTHER), ME, "for me")).await;
    assert_eq!(client.payload().await, "for me");
    assert_eq!(until_refused(&node, 3).await.sum("slim_messages_unmatched_total"), 1);
}
