//! Groups that do not go as the tutorial does.

use crate::programs::{Controller, Member, Operator, node};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::published::published_release;

/// The last of a member's messages that another one has to show.
async fn hears_all(listener: &Member, what: &str, count: usize) {
    listener.hears(&format!("{what} {count}")).await;
    let expected: Vec<_> = (1..=count).map(|number| format!("{what} {number}")).collect();
    assert_eq!(listener.heard(&format!("{what} ")), expected, "{}", listener.name);
}

fn types_all(speaker: &mut Member, what: &str, count: usize) {
    for number in 1..=count {
        speaker.types(&format!("{what} {number}"));
    }
}

/// Whether clients of these names are known to be at a node.
async fn is_routed(operator: &Operator, node: &str, name: &str) -> bool {
    let listed = operator.slimctl(&["route", "list", "-n", node]).await.ok();
    listed.lines().any(|line| line.starts_with(&format!("{name} ")))
}

#[tokio::test]
async fn a_participant_that_nobody_is_does_not_keep_out_those_who_come_after() {
    let test = "a_participant_that_nobody_is_does_not_keep_out_those_who_come_after";
    let Some(python) = published_release(test, "0.6.3") else { return };
    let controller = Controller::start().await;
    let node = node("slim/0", controller.south).await;
    let mut moderator = Member::start(&python, &node, "agntcy/ns/client-1").await;
    let participant = Member::start(&python, &node, "agntcy/ns/client-2").await;
    let operator = controller.operator();
    let channel = operator.create(&moderator.full_name()).await;
    operator.add(&channel, "agntcy/ns/nobody").await.refused("agntcy/ns/nobody not found");
    assert_eq!(operator.participants(&channel).await, "[]");
    operator.add(&channel, "agntcy/ns/client-2").await.ok();
    moderator.types("hello");
    participant.hears("hello").await;
    let twice = operator.add(&channel, "agntcy/ns/client-2").await;
    twice.refused("participant agntcy/ns/client-2 already exists in channel");
    assert_eq!(operator.participants(&channel).await, "[agntcy/ns/client-2]");
    operator.remove(&channel, "agntcy/ns/client-2").await.ok();
    operator.remove(&channel, "agntcy/ns/client-2").await.refused("not found in channel");
}

/// A channel whose moderator is at the first node, with two more members there and two at the
/// second.
async fn across(python: &std::path::Path, operator: &Operator, nodes: &[Node; 2]) -> Across {
    let [here, there] = nodes;
    let moderator = Member::start(python, here, "agntcy/ns/moderator").await;
    let leaver = Member::start(python, here, "agntcy/ns/leaver").await;
    let stayer = Member::start(python, here, "agntcy/ns/stayer").await;
    let far = Member::start(python, there, "agntcy/ns/far").await;
    let farther = Member::start(python, there, "agntcy/ns/farther").await;
    let channel = operator.create(&moderator.full_name()).await;
    for member in [&leaver, &stayer, &far, &farther] {
        operator.add(&channel, &member.name).await.ok();
        member.program.line("Welcome to the group").await;
    }
    Across { channel, moderator, leaver, stayer, far, farther }
}

struct Across {
    channel: String,
    moderator: Member,
    leaver: Member,
    stayer: Member,
    far: Member,
    farther: Member,
}

#[tokio::test]
async fn those_who_stay_on_a_node_lose_nothing_when_somebody_leaves_there() {
    let test = "those_who_stay_on_a_node_lose_nothing_when_somebody_leaves_there";
    let Some(python) = published_release(test, "0.6.3") else { return };
    let controller = Controller::start().await;
    let operator = controller.operator();
    let nodes = [node("slim/0", controller.south).await, node("slim/1", controller.south).await];
    let mut group = across(&python, &operator, &nodes).await;
    types_all(&mut group.far, "before", 5);
    for listener in [&group.moderator, &group.leaver, &group.stayer, &group.farther] {
        hears_all(listener, "before", 5).await;
    }

    operator.remove(&group.channel, "agntcy/ns/leaver").await.ok();
    group.leaver.ends().await;
    types_all(&mut group.far, "inwards", 10);
    types_all(&mut group.stayer, "outwards", 10);
    for listener in [&group.moderator, &group.stayer, &group.farther] {
        hears_all(listener, "inwards", 10).await;
    }
    for listener in [&group.moderator, &group.far, &group.farther] {
        hears_all(listener, "outwards", 10).await;
    }
    assert_eq!(group.leaver.heard("inwards"), Vec::<String>::new());

    // A process that dies takes only its own subscriptions along.
    group.stayer.program.signal(rustix::process::Signal::KILL);
    eventually("the name is taken back", async || {
        (!is_routed(&operator, "slim/1", "agntcy/ns/stayer").await).then_some(())
    })
    .await;
    group.far.types("still here");
    group.moderator.hears("still here").await;
    group.farther.hears("still here").await;
}

#[tokio::test]
async fn a_channel_whose_moderator_is_gone_can_be_deleted() {
    let test = "a_channel_whose_moderator_is_gone_can_be_deleted";
    let Some(python) = published_release(test, "0.6.3") else { return };
    let controller = Controller::start().await;
    let node = node("slim/0", controller.south).await;
    let moderator = Member::start(&python, &node, "agntcy/ns/client-1").await;
    let _participant = Member::start(&python, &node, "agntcy/ns/client-2").await;
    let operator = controller.operator();
    let channel = operator.create(&moderator.full_name()).await;
    operator.add(&channel, "agntcy/ns/client-2").await.ok();

    moderator.program.signal(rustix::process::Signal::KILL);
    eventually("the moderator is gone", async || {
        (!is_routed(&operator, "slim/0", "agntcy/ns/client-1").await).then_some(())
    })
    .await;
    let gone = format!("moderator {} not found", moderator.full_name());
    operator.remove(&channel, "agntcy/ns/client-2").await.refused(&gone);
    assert_eq!(operator.participants(&channel).await, "[agntcy/ns/client-2]");
    let deleted =
        operator.delete(&channel).await.ok_with("only the record of the channel was removed");
    assert_eq!(deleted, format!("Channel deleted successfully with ID: {channel}\n"));
    assert_eq!(operator.channels().await, "[]");
    controller.program.line("only the record of the channel was removed").await;
    operator.delete(&channel).await.refused("not found");

    // Its application starts again, and moderates a new one.
    let again = Member::start(&python, &node, "agntcy/ns/client-1").await;
    operator.create(&again.full_name()).await;
    again.program.line("Welcome to the group").await;
}
