//! What the published documents call a controller with, from Python.

use std::path::Path;
use std::process::Command;

use crate::programs::{Controller, Ended, Member, node, run};
use crate::support::node::Node;
use crate::support::published::{caller_python, conformance_script, program, published_release};

/// Runs a fragment of the guide to groups against this controller, with other names in it.
async fn fragment(
    python: &Path,
    controller: &Controller,
    heading: &str,
    names: &[(&str, &str)],
) -> String {
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-grpc/proto");
    let mut command = program(python, "fragment.py");
    command.arg(schemas).arg(heading);
    command.arg(format!("localhost:50051={}", controller.north));
    command.args(names.iter().map(|(old, new)| format!("{old}={new}")));
    run(command).await.ok()
}

const CREATING: &str = "Creating a SLIM Channel";
const ADDING: &str = "Adding Participants to a SLIM Group";
const ROUTING: &str = "Setting Routes Between SLIM Nodes";

#[tokio::test]
async fn the_guide_s_fragments_make_a_group() {
    let test = "the_guide_s_fragments_make_a_group";
    let Some(python) = published_release(test, "0.6.3") else { return };
    let Some(caller) = caller_python(test) else { return };
    let controller = Controller::start().await;
    let node = node("slim/0", controller.south).await;
    let mut moderator = Member::start(&python, &node, "agntcy/namespace/moderator").await;
    let participant = Member::start(&python, &node, "agntcy/namespace/participant_1").await;

    // The moderator has three parts there, and is the only one of its name.
    let told = fragment(&caller, &controller, CREATING, &[]).await;
    let channel = told.strip_prefix("Channel created with ID: ").expect(&told).trim_end();
    moderator.program.line("Welcome to the group").await;
    let names = [("agntcy/namespace/group_channel", channel)];
    let told = fragment(&caller, &controller, ADDING, &names).await;
    assert_eq!(told, "ACK received for : success=True\n");
    moderator.types("hello");
    participant.hears("hello").await;

    let told = fragment(&caller, &controller, ADDING, &names).await;
    assert!(told.starts_with("Request failed: "), "{told}");
    assert!(told.contains("StatusCode.ALREADY_EXISTS"), "{told}");
}

#[tokio::test]
async fn a_moderator_without_an_instance_is_refused_with_the_names_of_all_it_may_be() {
    let test = "a_moderator_without_an_instance_is_refused_with_the_names_of_all_it_may_be";
    let Some(python) = published_release(test, "0.6.3") else { return };
    let Some(caller) = caller_python(test) else { return };
    let controller = Controller::start().await;
    let nodes = [node("slim/0", controller.south).await, node("slim/1", controller.south).await];
    let told = fragment(&caller, &controller, CREATING, &[]).await;
    assert!(told.contains("moderator agntcy/namespace/moderator not found"), "{told}");

    let name = "agntcy/namespace/moderator";
    let candidates = [
        Member::start(&python, &nodes[0], name).await,
        Member::start(&python, &nodes[1], name).await,
    ];
    let told = fragment(&caller, &controller, CREATING, &[]).await;
    for candidate in &candidates {
        assert!(told.contains(&candidate.full_name()), "{told}");
    }
    let operator = controller.operator();
    assert_eq!(operator.channels().await, "[]");
    operator.create(&candidates[1].full_name()).await;
    candidates[1].program.line("Welcome to the group").await;
    assert_eq!(candidates[0].program.stdout.count("Welcome"), 0);
}

#[tokio::test]
async fn the_guide_s_routes_lead_to_another_node() {
    let test = "the_guide_s_routes_lead_to_another_node";
    let Some(caller) = caller_python(test) else { return };
    let controller = Controller::start().await;
    let _node = node("slim/0", controller.south).await;
    let other = Node::start("").await;
    let other = other.address.to_string();
    let told = fragment(&caller, &controller, ROUTING, &[("127.0.0.1:46357", &other)]).await;
    let lines: Vec<_> = told.lines().collect();
    let made = format!("Connection created successfully with ID: http://{other}");
    let [connection, subscription] = lines[..] else { panic!("{told}") };
    assert_eq!(connection, made);
    let made = "Subscription created successfully with ID: ";
    assert!(subscription.starts_with(made), "{told}");
    let operator = controller.operator();
    let listed = operator.slimctl(&["route", "list", "-n", "slim/0"]).await.ok();
    let route = "agntcy/namespace/group_channel id=value:18446744073709551615 local=[] \
                 remote=[remote:CONNECTION_TYPE_REMOTE:";
    let line = listed.lines().find(|line| line.starts_with(route)).expect(&listed);
    assert!(line.contains(&other), "{listed}");
}

/// The calls of the documents, one after the other, each with its verdict.
async fn calls(python: &Path, script: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new(python);
    command.arg(script).args(arguments);
    run(command).await
}

#[tokio::test]
async fn every_call_of_the_documents_is_answered_as_documented() {
    let test = "every_call_of_the_documents_is_answered_as_documented";
    let Some(script) = conformance_script(test, "northbound_seed.py") else { return };
    let Some(caller) = caller_python(test) else { return };
    let controller = Controller::start().await;
    let (north, south) = (controller.north.to_string(), controller.south.to_string());
    let arguments = [&north, "--fake-node", &south, "--negative"];
    let told = calls(&caller, &script, &arguments).await.ok();
    assert!(told.ends_with("35 passed, 0 failed, 0 skipped\n"), "{told}");
}

#[tokio::test]
async fn every_call_of_the_documents_is_carried_out_by_nodes_and_applications() {
    let test = "every_call_of_the_documents_is_carried_out_by_nodes_and_applications";
    let Some(python) = published_release(test, "0.6.3") else { return };
    let Some(script) = conformance_script(test, "northbound_seed.py") else { return };
    let Some(caller) = caller_python(test) else { return };
    let controller = Controller::start().await;
    let node = node("slim/0", controller.south).await;
    let other = Node::start("").await;
    let mut moderator = Member::start(&python, &node, "agntcy/ns/client-1").await;
    let mut participant = Member::start(&python, &node, "agntcy/ns/client-2").await;
    let (north, name) = (controller.north.to_string(), moderator.full_name());
    let endpoint = format!("http://{}", other.address);
    let apps = ["--moderator", &name, "--participant", "agntcy/ns/client-2"];
    let arguments = [&[north.as_str()], &apps[..], &["--endpoint", &endpoint, "--negative"]];
    let told = calls(&caller, &script, &arguments.concat()).await.ok();
    assert!(told.ends_with("28 passed, 0 failed, 0 skipped\n"), "{told}");
    // The participant was removed, then the channel was deleted.
    participant.ends().await;
    moderator.ends().await;
}
