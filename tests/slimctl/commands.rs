//! Commands that a controller carries out: the documented output, other forms, failures.

use slim_compat_grpc::proto::northbound::{NodeEntry, RouteState, StoredRoute};
use slim_compat_grpc::proto::southbound::{
    Ack, ConnectionDetails, ConnectionEntry, Subscription, SubscriptionEntry,
};
use tonic::{Code, Status};

use crate::Home;
use crate::controller::{Controller, Script};

const REMOTE: i32 = 1;

fn connection(id: u64, connection_type: i32, config: &str) -> ConnectionEntry {
    ConnectionEntry { id, connection_type, config_data: config.into() }
}

fn entry(app: &str, id: Option<u64>) -> SubscriptionEntry {
    SubscriptionEntry {
        component_0: "org".into(),
        component_1: "ns".into(),
        component_2: app.into(),
        id,
        local_connections: vec![connection(0, 0, "{}")],
        remote_connections: vec![connection(3, REMOTE, r#"{"endpoint":"http://b:1"}"#)],
    }
}

fn stored(node: &str, destination: &str, state: RouteState, reason: &str) -> StoredRoute {
    let name = |text: &str| text.to_owned();
    StoredRoute {
        route_id: format!("{node}:org/ns/app/value:7->{destination}"),
        node_id: name(node),
        subscription: Some(Subscription {
            component_0: name("org"),
            component_1: name("ns"),
            component_2: name("app"),
            id: Some(7),
            ..Subscription::default()
        }),
        destination: name(destination),
        state: state.into(),
        reason: name(reason),
    }
}

/// A small network.
fn script() -> Script {
    let details = ConnectionDetails {
        endpoint: "127.0.0.1:46357".into(),
        external_endpoint: Some("node.example.org:46357".into()),
        group_name: Some("east".into()),
        ..ConnectionDetails::default()
    };
    let node = |id: &str, status, connections| NodeEntry { id: id.into(), connections, status };
    let route = entry("alone", None);
    let route =
        SubscriptionEntry { local_connections: vec![], remote_connections: vec![], ..route };
    Script {
        nodes: vec![node("slim/0", 1, vec![details]), node("east/slim/1", 2, vec![])],
        connections: vec![connection(3, REMOTE, "{}"), connection(0, 0, "not JSON")],
        routes: vec![entry("app", Some(7)), entry("zero", Some(0)), route],
        stored: vec![
            stored("slim/0", "slim/1", RouteState::Applied, ""),
            stored("slim/0", "http://b:1", RouteState::Failed, "connection refused"),
        ],
        names: vec!["agntcy/ns/one".into(), "agntcy/ns/two".into()],
        ..Script::default()
    }
}

const CHANNEL: &str = "agntcy/ns/xyIGhc2igNGmkeBDlZ";

/// Every command that reads, with the documented output.
const LISTS: [(&[&str], &str); 7] = [
    (
        &["node", "list"],
        "Node ID: slim/0 status: CONNECTED\n\
         \x20 Connection details:\n\
         \x20 - Endpoint: 127.0.0.1:46357\n\
         \x20   MtlsRequired: false\n\
         \x20   ExternalEndpoint: node.example.org:46357\n\
         \x20   GroupName: east\n\
         Node ID: east/slim/1 status: NOT_CONNECTED\n\
         No connection details available\n",
    ),
    (
        &["connection", "list", "-n", "slim/0"],
        "Listing connections for node ID: slim/0\n\
         Received connection list response: 2\n\
         Connection ID: 3, Connection type: CONNECTION_TYPE_REMOTE, ConfigData {}\n\
         Connection ID: 0, Connection type: CONNECTION_TYPE_LOCAL, ConfigData not JSON\n",
    ),
    (
        &["route", "list", "--node-id", "slim/0"],
        "Listing routes for node ID: slim/0\n\
         Received connection list response: 3\n\
         org/ns/app id=value:7 local=[local:0] \
         remote=[remote:CONNECTION_TYPE_REMOTE:{\"endpoint\":\"http://b:1\"}:3]\n\
         org/ns/zero id= local=[local:0] \
         remote=[remote:CONNECTION_TYPE_REMOTE:{\"endpoint\":\"http://b:1\"}:3]\n\
         org/ns/alone id=<nil> local=[] remote=[]\n",
    ),
    (
        &["route", "outline"],
        "NODE    NAME        ID  DESTINATION  STATE    REASON\n\
         slim/0  org/ns/app  7   slim/1       APPLIED\n\
         slim/0  org/ns/app  7   http://b:1   FAILED   connection refused\n\
         2 routes\n",
    ),
    (&["channel", "list"], "Following channels found: [agntcy/ns/one agntcy/ns/two]\n"),
    (
        &["participant", "list", "-c", CHANNEL],
        "Listing participants for channel ID: agntcy/ns/xyIGhc2igNGmkeBDlZ\n\
         Following participants found for channel ID agntcy/ns/xyIGhc2igNGmkeBDlZ: \
         [agntcy/ns/one agntcy/ns/two]\n",
    ),
    (
        &["channel", "create", "moderators=agntcy/ns/client-1/9494657801285491688"],
        "Received response: agntcy/ns/oneagntcy/ns/two\n",
    ),
];

/// Every command that changes something, with what it asks for and the documented output.
const CHANGES: [(&[&str], &str, &str); 9] = [
    (
        &["channel", "delete", CHANNEL],
        r#"DeleteChannelRequest { channel_id: "agntcy/ns/xyIGhc2igNGmkeBDlZ" }"#,
        "Channel deleted successfully with ID: agntcy/ns/xyIGhc2igNGmkeBDlZ\n",
    ),
    (
        &["participant", "add", "-c", CHANNEL, "agntcy/ns/client-2"],
        r#"AddParticipantRequest { channel_id: "agntcy/ns/xyIGhc2igNGmkeBDlZ", participant_id: "agntcy/ns/client-2" }"#,
        "Adding participant to channel ID agntcy/ns/xyIGhc2igNGmkeBDlZ: agntcy/ns/client-2\n\
         Participant added successfully to channel ID agntcy/ns/xyIGhc2igNGmkeBDlZ: \
         agntcy/ns/client-2\n",
    ),
    (
        // Options may come after what they are about.
        &["participant", "delete", "agntcy/ns/client-3", "--channel-id", CHANNEL],
        r#"DeleteParticipantRequest { channel_id: "agntcy/ns/xyIGhc2igNGmkeBDlZ", participant_id: "agntcy/ns/client-3" }"#,
        "Deleting participant from channel ID agntcy/ns/xyIGhc2igNGmkeBDlZ: agntcy/ns/client-3\n\
         Participant deleted successfully from channel ID agntcy/ns/xyIGhc2igNGmkeBDlZ: \
         agntcy/ns/client-3\n",
    ),
    (
        &["route", "add", "org/ns/app/7", "via", "slim/1", "-n", "slim/0"],
        r#"AddRouteRequest { connection: None, subscription: Some(Subscription { component_0: "org", component_1: "ns", component_2: "app", id: Some(7), connection_id: "", node_id: None }), node_id: "slim/0", dest_node_id: "slim/1" }"#,
        "Add route for node ID: slim/0\n\
         Route created successfully with ID: agntcy/ns/oneagntcy/ns/two\n",
    ),
    (
        &["route", "add", "org/ns/app/7", "VIA", "b.json", "-n", "slim/0"],
        r#"AddRouteRequest { connection: Some(Connection { connection_id: "http://b:1", config_data: "{\"endpoint\": \"http://b:1\"}" }), subscription: Some(Subscription { component_0: "org", component_1: "ns", component_2: "app", id: Some(7), connection_id: "http://b:1", node_id: None }), node_id: "slim/0", dest_node_id: "" }"#,
        "Add route for node ID: slim/0\n\
         Route created successfully with ID: agntcy/ns/oneagntcy/ns/two\n",
    ),
    (
        &["route", "del", "org/ns/app/7", "Via", "http://b:1", "-n", "slim/0"],
        r#"DeleteRouteRequest { subscription: Some(Subscription { component_0: "org", component_1: "ns", component_2: "app", id: Some(7), connection_id: "http://b:1", node_id: None }), node_id: "slim/0", dest_node_id: "" }"#,
        "Delete route for node ID: slim/0\nACK received success=true\n",
    ),
    (
        &["route", "delete", "org/ns/app/7", "via", "slim/1", "-n", "slim/0"],
        r#"DeleteRouteRequest { subscription: Some(Subscription { component_0: "org", component_1: "ns", component_2: "app", id: Some(7), connection_id: "", node_id: None }), node_id: "slim/0", dest_node_id: "slim/1" }"#,
        "Delete route for node ID: slim/0\nACK received success=true\n",
    ),
    (
        &["node", "deregister", "slim/0"],
        r#"Node { id: "slim/0", dest_node_id: "" }"#,
        "Node deregistered successfully with ID: slim/0\n",
    ),
    (
        &["channel", "create", "moderators=a/b/c/1,a/b/d/2"],
        r#"CreateChannelRequest { moderators: ["a/b/c/1", "a/b/d/2"] }"#,
        "Received response: agntcy/ns/oneagntcy/ns/two\n",
    ),
];

fn home() -> Home {
    let home = Home::new();
    home.write("b.json", r#"{"endpoint": "http://b:1"}"#);
    home
}

#[tokio::test]
async fn every_command_prints_the_documented_lines() {
    let (home, controller) = (home(), Controller::start(script()).await);
    let server = controller.server();
    for (command, expected) in LISTS {
        let arguments = [&["-s", &server], command].concat();
        assert_eq!(home.run(&arguments).await.ok(), expected, "{command:?}");
    }
    for (command, request, expected) in CHANGES {
        let arguments = [command, &["--server", &server]].concat();
        assert_eq!(home.run(&arguments).await.ok(), expected, "{command:?}");
        assert_eq!(controller.last().0, request, "{command:?}");
    }
}

#[tokio::test]
async fn tables_and_objects_for_programs_keep_their_shape() {
    let (home, controller) = (home(), Controller::start(script()).await);
    let server = controller.server();
    let mut all = String::new();
    let commands = LISTS.map(|(command, _)| command).into_iter();
    for command in commands.chain(CHANGES.map(|(command, ..)| command)) {
        for form in ["table", "json", "yaml"] {
            let arguments = [command, &["-s", &server, "--output", form]].concat();
            let output = home.run(&arguments).await.ok();
            if form == "json" {
                serde_json::from_str::<serde_json::Value>(&output).expect("JSON");
            }
            all += &format!("$ slimctl {} --output {form}\n{output}\n", command.join(" "));
        }
    }
    insta::assert_snapshot!("forms", all);
}

#[tokio::test]
async fn aliases_and_groups_are_the_same_commands() {
    let (home, controller) = (home(), Controller::start(script()).await);
    let server = controller.server();
    let families: [&[&[&str]]; 6] = [
        &[
            &["node", "list"],
            &["node", "ls"],
            &["n", "list"],
            &["instance", "ls"],
            &["i", "ls"],
            &["controller", "node", "list"],
            &["c", "node", "ls"],
            &["ctrl", "node", "list"],
        ],
        &[
            &["connection", "list", "-n", "x"],
            &["conn", "ls", "--node-id=x"],
            &["c", "connection", "list", "-n", "x"],
            &["c", "conn", "ls", "-nx"],
        ],
        &[
            &["route", "list", "-n", "x"],
            &["route", "ls", "-n", "x"],
            &["controller", "route", "ls", "-n", "x"],
        ],
        &[&["route", "outline"], &["c", "route", "outline"]],
        &[&["channel", "list"], &["channel", "ls"], &["c", "channel", "list"]],
        &[
            &["participant", "list", "-c", "x"],
            &["participant", "ls", "-c", "x"],
            &["c", "participant", "list", "-c", "x"],
        ],
    ];
    for family in families {
        let mut outputs = Vec::new();
        for command in family {
            outputs.push(home.run(&[command, &["-s", &server][..]].concat()).await.ok());
        }
        assert!(outputs.windows(2).all(|two| two[0] == two[1]), "{family:?}: {outputs:#?}");
    }
}

#[tokio::test]
async fn the_outline_is_filtered_by_origin_and_target() {
    let (home, controller) = (home(), Controller::start(script()).await);
    let server = controller.server();
    let outline = ["-s", &server, "route", "outline", "-o", "slim/0", "-t", "slim/1"];
    let output = home.run(&[&outline[..], &["--output", "json"]].concat()).await.ok();
    assert_eq!(controller.last().0, r#"StoredRouteListRequest { node_id: "slim/0" }"#);
    let output: serde_json::Value = serde_json::from_str(&output).expect("JSON");
    assert_eq!(output["routes"].as_array().map(Vec::len), Some(1));
    assert_eq!(output["routes"][0]["destination"], "slim/1");
}

#[tokio::test]
async fn what_a_controller_refuses_is_said_in_the_words_of_release_0_6() {
    let home = home();
    let failure = Status::new(Code::NotFound, "channel with ID a/b/c not found");
    let script = Script { failure: Some(failure), ..Script::default() };
    let controller = Controller::start(script).await;
    let server = controller.server();
    let reason = "rpc error: code = NotFound desc = channel with ID a/b/c not found";
    for (command, words, printed) in [
        (&["node", "list"][..], "failed to list nodes", ""),
        (&["channel", "create", "moderators=a/b/c/1"], "failed to create channel", ""),
        (&["channel", "delete", "a/b/c"], "failed to delete channel", ""),
        (&["channel", "list"], "failed to list channels", ""),
        (
            &["participant", "add", "-c", "a/b/c", "a/b/d"],
            "failed to add participants",
            "Adding participant to channel ID a/b/c: a/b/d\n",
        ),
        (
            &["participant", "delete", "-c", "a/b/c", "a/b/d"],
            "failed to delete participant",
            "Deleting participant from channel ID a/b/c: a/b/d\n",
        ),
        (
            &["participant", "list", "-c", "a/b/c"],
            "failed to list participants",
            "Listing participants for channel ID: a/b/c\n",
        ),
        (&["route", "list", "-n", "x"], "failed to list routes", "Listing routes for node ID: x\n"),
        (
            &["connection", "list", "-n", "x"],
            "failed to list connections",
            "Listing connections for node ID: x\n",
        ),
        (&["node", "deregister", "x"], "failed to deregister node", ""),
    ] {
        let ended = home.run(&[command, &["-s", &server]].concat()).await;
        assert_eq!(ended.error(4), format!("{words}: {reason}"), "{command:?}");
        // What was printed before stays.
        assert_eq!(ended.stdout, printed, "{command:?}");
        let ended = home.run(&[command, &["-s", &server, "--output", "json"]].concat()).await;
        assert_eq!((ended.error(4).contains(reason), ended.stdout.as_str()), (true, ""));
    }
}

#[tokio::test]
async fn an_acknowledgement_without_success_is_a_failure() {
    let home = home();
    for (code, expected) in [
        (9, "failed to delete channel: rpc error: code = FailedPrecondition desc = moderator gone"),
        (0, "failed to delete channel: moderator gone"),
    ] {
        let messages = vec!["moderator gone".to_owned()];
        let refusal = Ack { code, messages, ..Ack::default() };
        let script = Script { refusal: Some(refusal), ..Script::default() };
        let server = Controller::start(script).await.server();
        let ended = home.run(&["-s", &server, "channel", "delete", "a/b/c"]).await;
        assert_eq!((ended.error(4), ended.stdout.as_str()), (expected, ""));
        let route = ["route", "add", "a/b/c/1", "via", "x", "-n", "y", "-s", &server];
        let ended = home.run(&route).await;
        let expected = "failed to create route: the controller did not say why";
        assert_eq!(ended.error(4), expected);
    }
}

#[tokio::test]
async fn a_controller_that_is_away_or_silent_is_told_apart_from_one_that_refuses() {
    let home = home();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = closed.local_addr().expect("bound").to_string();
    drop(closed);
    let ended = home.run(&["node", "list", "-s", &nobody]).await;
    let start = "failed to list nodes: rpc error: code = Unavailable desc = connection error: ";
    assert!(ended.error(1).starts_with(start), "{ended:?}");
    assert!(ended.error(1).contains("Connection refused"), "{ended:?}");

    let script = Script { silent: true, ..Script::default() };
    let server = Controller::start(script).await.server();
    let ended = home.run(&["node", "list", "-s", &server, "--timeout", "300ms"]).await;
    let late = "failed to list nodes: rpc error: code = DeadlineExceeded desc = context deadline \
                exceeded";
    assert_eq!(ended.error(6), late);
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_is_sent() {
    let home = home();
    home.write("plain.yaml", "endpoint: http://b:1");
    home.write("empty.json", "{}");
    let four = "invalid name format, expected 4 components separated by '/'";
    let three = "invalid name format, expected 3 components separated by '/'";
    let route = "expected 'company/namespace/appname/appinstance'";
    for (command, expected) in [
        (&["route", "list"][..], r#"required flag(s) "node-id" not set"#.to_owned()),
        (&["participant", "list"], r#"required flag(s) "channel-id" not set"#.into()),
        (&["participant", "add", "-c", "x"], "accepts 1 arg(s), received 0".into()),
        (&["participant", "add"], "accepts 1 arg(s), received 0".into()),
        (&["channel", "create"], "accepts 1 arg(s), received 0".into()),
        (&["-s", "channel", "channel", "delete"], "accepts 1 arg(s), received 0".into()),
        (&["route", "add", "-n", "x", "a/b/c/1", "via"], "accepts 3 arg(s), received 2".into()),
        (
            &["route", "add", "-n", "x", "a/b/c/1", "by", "y"],
            "invalid syntax: expected 'via' keyword, got 'by'".into(),
        ),
        (
            &["route", "add", "-n", "x", "a/b/c", "via", "y"],
            format!("invalid route format 'a/b/c', {route}"),
        ),
        (
            &["channel", "create", "moderators=a/b/c"],
            format!("failed to parse moderators: invalid moderator name 'a/b/c': {four}"),
        ),
        (&["channel", "delete", "a/b"], format!("invalid channel name 'a/b': {three}")),
        (
            &["route", "add", "-n", "x", "a/b/c/1", "via", "plain.yaml"],
            "plain.yaml: expected a file whose name ends in .json".into(),
        ),
        (
            &["route", "add", "-n", "x", "a/b/c/1", "via", "empty.json"],
            "empty.json: expected the text `endpoint`, got none".into(),
        ),
        (
            &["route", "del", "-n", "x", "a/b/c/1", "via", "b:1"],
            "invalid endpoint format 'b:1', expected 'http[s]://host:port'".into(),
        ),
    ] {
        let ended = home.run(command).await;
        assert_eq!(ended.error(2), expected, "{command:?}");
        assert_eq!(ended.stdout, "", "{command:?}");
    }
}

#[tokio::test]
async fn nothing_that_a_controller_says_reaches_the_terminal_as_a_command() {
    const EVIL: &str = "a\u{1b}]0;owned\u{7}/b\u{9b}2J/c\u{202e}\r\nd";
    let home = home();
    let evil = || EVIL.to_owned();
    let details = ConnectionDetails {
        endpoint: evil(),
        external_endpoint: Some(evil()),
        group_name: Some(evil()),
        ..ConnectionDetails::default()
    };
    let subscription = Subscription { component_2: evil(), ..Subscription::default() };
    let route = StoredRoute {
        route_id: evil(),
        node_id: evil(),
        subscription: Some(subscription),
        destination: evil(),
        state: 77,
        reason: evil(),
    };
    let script = Script {
        nodes: vec![NodeEntry { id: evil(), connections: vec![details], status: 99 }],
        connections: vec![connection(1, 42, EVIL)],
        routes: vec![SubscriptionEntry {
            component_1: evil(),
            remote_connections: vec![connection(1, 42, EVIL)],
            ..entry(EVIL, None)
        }],
        stored: vec![route],
        names: vec![evil()],
        ..Script::default()
    };
    let server = Controller::start(script).await.server();
    let refusal = Ack { messages: vec![evil()], ..Ack::default() };
    let failing = Script { refusal: Some(refusal), ..Script::default() };
    let failing = Controller::start(failing).await.server();
    let status = Script { failure: Some(Status::internal(EVIL)), ..Script::default() };
    let status = Controller::start(status).await.server();
    let harmless = |text: &str| {
        let obeyed = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!text.contains(obeyed), "{text:?}");
    };
    let commands = LISTS.map(|(command, _)| command).into_iter();
    for command in commands.chain(CHANGES.map(|(command, ..)| command)) {
        for form in ["text", "table", "json", "yaml"] {
            if LISTS.iter().any(|(list, _)| *list == command) {
                let arguments = [command, &["-s", &server, "--output", form]].concat();
                assert!(home.run(&arguments).await.ok().contains("owned"), "{arguments:?}");
            }
            for server in [&server, &failing, &status] {
                let arguments = [command, &["-s", server, "--output", form]].concat();
                let ended = home.run(&arguments).await;
                harmless(&ended.stdout);
                harmless(&ended.stderr);
            }
        }
    }
    let json = home.run(&["channel", "list", "-s", &server, "-o", "json"]).await.ok();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["channels"][0], EVIL);
}
