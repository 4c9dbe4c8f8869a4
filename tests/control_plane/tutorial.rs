//! The second half of the group tutorial of release 0.6, step by step, and what it shows.

use slim_wire::{TextName, hash_component};

use crate::programs::{Controller, Ended, Member, Operator, node};
use crate::support::eventually;
use crate::support::node::{Lines, Node};
use crate::support::published::published_release;

/// What the documents show, with the values of the run that they were written in.
mod shown {
    pub(super) const CONTROLLER: [&str; 6] = [
        "INF Starting route reconcilers",
        "INF Starting Route Reconciler thread_name=reconciler-1",
        "INF Starting Route Reconciler thread_name=reconciler-0",
        "INF Starting Route Reconciler thread_name=reconciler-2",
        "INF Southbound API Service is Listening on [::]:50052",
        "INF Northbound API Service is listening on [::]:50051",
    ];

    pub(super) const NODE: [&str; 4] = [
        "INFO main ThreadId(01) application_lifecycle: slim: Runtime started",
        "INFO main ThreadId(01) application_lifecycle: slim: Starting service: slim/0",
        "INFO main ThreadId(01) application_lifecycle: slim_service::service: starting service",
        "INFO main ThreadId(01) application_lifecycle: slim_service::service: starting server \
         0.0.0.0:46357",
    ];

    pub(super) const REGISTRATION: [&str; 6] = [
        "INF Registering node with ID: slim/0 svc=southbound",
        "INF Connection details: [endpoint: 127.0.0.1:46357] svc=southbound",
        "INF Create generic routes for node node_id=slim/0 service=RouteService",
        "INF Sending routes to registered node slim/0 node_id=slim/0",
        "INF Sending configuration command to registered node connections_count=0 \
         message_id=8e9d311a-0012-4fb2-93dc-cda2cb0dd2ef node_id=slim/0 subscriptions_count=0 \
         subscriptions_to_delete_count=0",
        "INF Sending routes completed successfully ack_messages=[] node_id=slim/0 \
         original_message_id=8e9d311a-0012-4fb2-93dc-cda2cb0dd2ef",
    ];

    pub(super) const STARTED: [&str; 4] = [
        "Warning: Falling back to shared-secret authentication. Don't use this in production!",
        "Agntcy/ns/client-1/9494657801285491688 Created app",
        "Agntcy/ns/client-1/9494657801285491688 Connected to http://localhost:46357",
        "Waiting for session...",
    ];

    pub(super) const CREATED: &str = "Received response: agntcy/ns/xyIGhc2igNGmkeBDlZ\n";

    pub(super) const WELCOME: [&str; 3] = [
        "Welcome to the group 169ca82eb17d6bc2/eef9769a4c6990d1/e8ab33f6d6111780/ffffffffffffffff \
         (agntcy/ns/xyIGhc2igNGmkeBDlZ/ffffffffffffffff)!",
        "Send a message to the group, or type 'exit' or 'quit' to quit.",
        "169ca82eb17d6bc2/eef9769a4c6990d1/58ec40d7c837e0b9/83c3ccf725835be8 \
         (agntcy/ns/client-1/83c3ccf725835be8) >",
    ];

    pub(super) const ADDED: &str = "Adding participant to channel ID agntcy/ns/xyIGhc2igNGmkeBDlZ: agntcy/ns/client-2\n\
         Participant added successfully to channel ID agntcy/ns/xyIGhc2igNGmkeBDlZ: \
         agntcy/ns/client-2\n";

    pub(super) const REMOVED: &str = "Deleting participant from channel ID agntcy/ns/xyIGhc2igNGmkeBDlZ: agntcy/ns/client-3\n\
         Participant deleted successfully from channel ID agntcy/ns/xyIGhc2igNGmkeBDlZ: \
         agntcy/ns/client-3\n";

    pub(super) const DELETED: &str =
        "Channel deleted successfully with ID: agntcy/ns/xyIGhc2igNGmkeBDlZ\n";
}

/// What the documents show, with the values of this run.
fn here(text: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
}

/// Waits until these lines are there, whatever their times and order.
async fn logs(lines: &Lines, expected: &[&str], values: &[(&str, &str)]) {
    for line in expected.iter().map(|line| here(line, values)) {
        eventually(&line, async || {
            lines.all().iter().any(|logged| logged.trim_end().ends_with(&line)).then_some(())
        })
        .await;
    }
}

/// What a member prints from its start on.
async fn prints(member: &Member, node: &Node, channel: Option<&str>) {
    let instance = member.instance;
    let (_, app) = member.name.rsplit_once('/').expect("three parts");
    let [decimal, hex, hash] =
        [instance.to_string(), format!("{instance:x}"), format!("{:x}", hash_component(app))];
    let port = node.address.port().to_string();
    let channel_app = channel.and_then(|channel| channel.rsplit('/').next());
    let channel_hash = channel_app.map(|app| format!("{:x}", hash_component(app)));
    // The port first: instances have many digits.
    let values = [
        ("46357", port.as_str()),
        ("9494657801285491688", &decimal),
        ("83c3ccf725835be8", &hex),
        ("58ec40d7c837e0b9", &hash),
        ("client-1", app),
        ("xyIGhc2igNGmkeBDlZ", channel_app.unwrap_or_default()),
        ("e8ab33f6d6111780", channel_hash.as_deref().unwrap_or_default()),
    ];
    let mut expected: Vec<_> = shown::STARTED.iter().map(|line| here(line, &values)).collect();
    if channel.is_some() {
        expected.extend(shown::WELCOME.iter().map(|line| here(line, &values)));
    }
    let printed = eventually("the lines of the tutorial", async || {
        let lines = member.program.stdout.all();
        (lines.len() >= expected.len()).then_some(lines)
    })
    .await;
    let printed: Vec<_> = printed[..expected.len()].iter().map(|line| line.trim_end()).collect();
    assert_eq!(printed, expected);
}

/// The documented words about a channel and a participant.
#[track_caller]
fn said(ended: Ended, expected: &str, channel: &str, participant: &str) {
    let values = [("agntcy/ns/xyIGhc2igNGmkeBDlZ", channel), ("agntcy/ns/client-2", participant)];
    assert_eq!(ended.ok(), here(expected, &values));
}

async fn follow_management(operator: &Operator, node: &Node, members: &mut [Member; 3]) {
    let create = format!("moderators={}", members[0].full_name());
    let told = operator.slimctl(&["channel", "create", &create]).await.ok();
    let channel = told.trim_end().rsplit(' ').next().expect("a name").to_owned();
    assert_eq!(told, here(shown::CREATED, &[("agntcy/ns/xyIGhc2igNGmkeBDlZ", &channel)]));
    let name: TextName = channel.parse().expect("a name");
    let [organisation, namespace, drawn] = name.components();
    assert_eq!((organisation, namespace, drawn.len()), ("agntcy", "ns", 18));
    prints(&members[0], node, Some(&channel)).await;

    for member in &members[1..] {
        let added = operator.add(&channel, &member.name).await;
        said(added, shown::ADDED, &channel, &member.name);
        prints(member, node, Some(&channel)).await;
    }
    for speaker in 0..members.len() {
        let text = format!("hello from {}", members[speaker].name);
        members[speaker].types(&text);
        for listener in (0..members.len()).filter(|listener| *listener != speaker) {
            members[listener].hears(&text).await;
            assert_eq!(members[listener].heard(&text).len(), 1);
        }
    }
    let participants = operator.participants(&channel).await;
    assert_eq!(participants, "[agntcy/ns/client-2 agntcy/ns/client-3]");

    let removed = operator.remove(&channel, "agntcy/ns/client-3").await;
    said(removed, shown::REMOVED, &channel, "");
    members[2].ends().await;
    let refused = operator.remove(&channel, "agntcy/ns/client-1").await;
    refused.refused("participant agntcy/ns/client-1 not found in channel");
    members[0].types("two are left");
    members[1].hears("two are left").await;
    assert_eq!(members[2].heard("two are left"), Vec::<String>::new());

    let deleted = operator.delete(&channel).await;
    said(deleted, shown::DELETED, &channel, "");
    members[0].ends().await;
    members[1].ends().await;
    assert_eq!(operator.channels().await, "[]");
}

#[tokio::test]
async fn the_tutorial_with_a_controller_goes_as_its_document_shows() {
    let test = "the_tutorial_with_a_controller_goes_as_its_document_shows";
    let Some(python) = published_release(test, "0.6.3") else { return };
    let controller = Controller::start().await;
    let [north, south] = [controller.north, controller.south].map(|at| at.port().to_string());
    let ports = [("50051", north.as_str()), ("50052", &south)];
    logs(&controller.program.stdout, &shown::CONTROLLER, &ports).await;

    let node = node("slim/0", controller.south).await;
    logs(&node.program.stdout, &shown::NODE, &[("0.0.0.0:46357", "0.0.0.0:0")]).await;
    let sending = "Sending configuration command to registered node";
    let sent = controller.program.line(sending).await;
    let (_, id) = sent.split_once(" message_id=").expect("an id");
    let (id, _) = id.split_once(' ').expect("more after it");
    let port = node.address.port().to_string();
    let values = [("46357", port.as_str()), ("8e9d311a-0012-4fb2-93dc-cda2cb0dd2ef", id)];
    logs(&controller.program.stdout, &shown::REGISTRATION, &values).await;

    let mut members = [
        Member::start(&python, &node, "agntcy/ns/client-1").await,
        Member::start(&python, &node, "agntcy/ns/client-2").await,
        Member::start(&python, &node, "agntcy/ns/client-3").await,
    ];
    for member in &members {
        prints(member, &node, None).await;
    }
    follow_management(&controller.operator(), &node, &mut members).await;
}
