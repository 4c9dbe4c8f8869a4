//! Our node under a controller that behaves as that of release 0.6.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::programs::{Member, Operator, node};
use crate::support::node::Program;
use crate::support::published::{caller_python, conformance_script, published_release};

/// The model of that controller, and its two ports.
async fn controller(python: &Path, script: &Path) -> (Program, [SocketAddr; 2]) {
    let mut command = Command::new(python);
    command.arg(script).args(["--north", "127.0.0.1:0", "--south", "127.0.0.1:0"]);
    let program = Program::spawn(command);
    let line = program.line("Southbound port ").await;
    let ports = ["northbound port ", "Southbound port "].map(|what| {
        let (_, rest) = line.split_once(what).expect("a port");
        let port = rest.split(',').next().expect("a port").parse().expect("a number");
        SocketAddr::from(([127, 0, 0, 1], port))
    });
    (program, ports)
}

#[tokio::test]
async fn a_node_is_managed_by_a_controller_of_release_0_6() {
    let test = "a_node_is_managed_by_a_controller_of_release_0_6";
    let Some(python) = published_release(test, "0.6.3") else { return };
    let Some(script) = conformance_script(test, "stub_controller.py") else { return };
    let Some(caller) = caller_python(test) else { return };
    let (controller, [north, south]) = controller(&caller, &script).await;
    let node = node("slim/0", south).await;
    controller.line("Sending routes completed successfully slim/0 True").await;
    let mut moderator = Member::start(&python, &node, "agntcy/ns/client-1").await;
    let mut one = Member::start(&python, &node, "agntcy/ns/client-2").await;
    let mut two = Member::start(&python, &node, "agntcy/ns/client-3").await;
    controller.line("subscribes agntcy ns client-1").await;

    let operator = Operator::of(north);
    let channel = operator.create(&moderator.full_name()).await;
    operator.add(&channel, "agntcy/ns/client-2").await.ok();
    // That controller sends it on to the node, which knows better, and waits for its answer only
    // for so long.
    let refused = operator.add(&channel, "agntcy/ns/nobody").await;
    refused.refused("participant agntcy/ns/nobody not found");
    operator.add(&channel, "agntcy/ns/client-3").await.ok();
    moderator.types("to both");
    one.hears("to both").await;
    two.hears("to both").await;

    operator.remove(&channel, "agntcy/ns/client-3").await.ok();
    two.ends().await;
    one.types("to the other");
    moderator.hears("to the other").await;
    operator.delete(&channel).await.ok();
    one.ends().await;
    moderator.ends().await;
    // The node takes its clients' names back.
    controller.line("unsubscribes agntcy ns client-1").await;
}
