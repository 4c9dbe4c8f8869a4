mod convergence;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slim_compat_grpc::proto::southbound::{
    ConfigurationCommand, ConfigurationCommandAck, ConnectionStatus, SubscriptionStatus,
};

use super::*;
use crate::controller::store::{ConnectionRecord, NodeAddress, RouteTarget};

const GRACE: Duration = Duration::from_secs(30);

fn name(text: &str) -> RouteName {
    RouteName::four(text).or_else(|_| RouteName::three(text)).expect("a name")
}

fn record(number: usize, product: bool) -> NodeRecord {
    NodeRecord {
        id: format!("slim/{number}"),
        group: None,
        connections: vec![NodeAddress {
            endpoint: format!("127.0.0.1:{}", 1000 + number),
            mtls_required: false,
            external_endpoint: None,
            group: None,
        }],
        product: product.then(|| "slim-quic/0".to_owned()),
    }
}

fn endpoint(number: usize) -> String {
    format!("http://127.0.0.1:{}", 1000 + number)
}

/// A model with nodes of this kind, all connected, and the numbers of their streams.
fn network(products: &[bool], now: Instant) -> (Model, Vec<u64>) {
    let mut model = Model::new(State::default(), Limits::default(), now);
    let mut streams = Vec::new();
    for (number, product) in products.iter().enumerate() {
        let record = record(number, *product);
        let id = record.id.clone();
        model.apply(Change::PutNode(record), now);
        streams.push(model.register(&id).expect("known"));
    }
    (model, streams)
}

/// Has a node told everything, and acknowledges it. Returns what it was told.
fn told(model: &mut Model, number: usize, stream: u64, now: Instant) -> Vec<ConfigurationCommand> {
    let id = format!("slim/{number}");
    let mut commands = Vec::new();
    while let Some(command) = model.next_command(&id, stream, now) {
        commands.push(command);
        assert_eq!(model.next_command(&id, stream, now), None, "one at a time");
        model.answered(&id, stream, &Answer::Done, now);
    }
    commands
}

fn names(subscriptions: &[slim_compat_grpc::proto::southbound::Subscription]) -> Vec<String> {
    let names = subscriptions.iter().map(|subscription| {
        let name = RouteName::of(subscription).expect("a name");
        format!("{name} {}", subscription.connection_id)
    });
    names.collect()
}

#[test]
fn every_other_node_gets_a_route_to_the_node_of_a_client_and_loses_it_with_the_client() {
    let now = Instant::now();
    let (mut model, streams) = network(&[true, false, true], now);
    for (number, stream) in streams.iter().enumerate() {
        let first = told(&mut model, number, *stream, now);
        assert_eq!(first.len(), 1, "a first command, even if it is empty");
        assert_eq!(first[0], ConfigurationCommand { detailed: number != 1, ..Default::default() });
    }
    let client = name("org/ns/app/7");
    assert_eq!(model.report("slim/0", streams[0], &client), Reported::Kept);
    assert_eq!(model.report("slim/0", streams[0], &client), Reported::Kept);
    assert_eq!(told(&mut model, 0, streams[0], now), []);
    for number in [1, 2] {
        let commands = told(&mut model, number, streams[number], now);
        let [command] = &*commands else { panic!("{commands:?}") };
        let connection = &command.connections_to_create[0];
        assert_eq!(connection.connection_id, endpoint(0));
        let config = r#"{"endpoint":"http://127.0.0.1:1000","tls":{"insecure":true}}"#;
        assert_eq!(connection.config_data, config);
        let expected = [format!("org/ns/app/7 {}", endpoint(0))];
        assert_eq!(names(&command.subscriptions_to_set), expected);
    }
    model.withdraw("slim/0", streams[0], &client);
    let commands = told(&mut model, 2, streams[2], now);
    assert_eq!(names(&commands[0].subscriptions_to_delete).len(), 1);
    assert_eq!(commands[1].connections_to_delete, [endpoint(0)], "once nothing needs it");
    let commands = told(&mut model, 1, streams[1], now);
    assert_eq!(names(&commands[0].subscriptions_to_delete).len(), 1);
    assert_eq!(commands.len(), 1, "published nodes keep their connections");
}

#[test]
fn names_that_come_and_go_do_not_pile_up_for_a_node_that_is_away() {
    let now = Instant::now();
    let (mut model, streams) = network(&[true, true], now);
    model.lose("slim/1", streams[1], now);
    for number in 0..20_000 {
        let client = name(&format!("org/ns/app/{number}"));
        assert_eq!(model.report("slim/0", streams[0], &client), Reported::Kept);
        model.withdraw("slim/0", streams[0], &client);
    }
    let away = &model.nodes["slim/1"];
    assert!(away.marked.len() < 10_000, "{} names wait", away.marked.len());
    model.work_out("slim/1");
    assert_eq!(model.nodes["slim/1"].marked.len(), 0);
}

#[test]
fn the_controllers_own_name_is_no_route_and_streams_of_the_past_report_nothing() {
    let now = Instant::now();
    let (mut model, streams) = network(&[true, true], now);
    let own = name("controller/controller/controller/0");
    assert_eq!(model.report("slim/0", streams[0], &own), Reported::Ignored);
    let again = model.register("slim/0").expect("known");
    let client = name("org/ns/app/7");
    assert_eq!(model.report("slim/0", streams[0], &client), Reported::Ignored);
    assert_eq!(model.report("slim/0", again, &client), Reported::Kept);
    model.lose("slim/0", streams[0], now);
    assert_eq!(model.live("slim/0"), Some(again), "the end of an old stream is not that of a new");
}

#[test]
fn groups_reach_each_other_by_external_endpoints_only() {
    let now = Instant::now();
    let (mut model, streams) = network(&[true, true], now);
    let mut other = record(1, true);
    other.group = Some("east".into());
    model.apply(Change::PutNode(other.clone()), now);
    model.report("slim/1", streams[1], &name("org/ns/app/7"));
    told(&mut model, 0, streams[0], now);
    let [route] = &*model.routes("slim/0") else { panic!("one route") };
    let Progress::Failed { reason, .. } = &route.progress else { panic!("{route:?}") };
    assert_eq!(reason, "no external endpoint defined for node slim/1");
    other.connections[0].external_endpoint = Some("gate.example.org:443".into());
    other.connections[0].mtls_required = true;
    model.apply(Change::PutNode(other), now);
    let commands = told(&mut model, 0, streams[0], now);
    let connection = &commands[0].connections_to_create[0];
    assert_eq!(connection.connection_id, "https://gate.example.org:443");
    assert!(connection.config_data.contains(r#""insecure_skip_verify":false"#));
    assert_eq!(model.routes("slim/0")[0].progress, Progress::Applied);
}

fn operator_route(id: &str, app: &str, to: RouteTarget) -> RouteRecord {
    RouteRecord {
        id: id.to_owned(),
        node: "slim/0".to_owned(),
        components: ["org", "ns", app].map(str::to_owned),
        instance: None,
        to,
        deleted: false,
    }
}

fn to(endpoint: &str) -> RouteTarget {
    let config = format!(r#"{{"endpoint":"{endpoint}"}}"#);
    RouteTarget::Endpoint { endpoint: endpoint.to_owned(), config }
}

#[test]
fn a_deleted_route_is_kept_until_its_node_has_acknowledged_that_even_after_a_restart() {
    let now = Instant::now();
    let (mut model, streams) = network(&[false], now);
    let route = operator_route("r", "app", to("http://a:1"));
    model.apply(Change::PutRoute(route.clone()), now);
    told(&mut model, 0, streams[0], now);
    assert_eq!(model.progress("r"), Some(Progress::Applied));
    model.apply(Change::PutRoute(RouteRecord { deleted: true, ..route }), now);
    assert_eq!(model.progress("r"), Some(Progress::Deleted));
    assert_eq!(model.settled(), [], "the node does not know yet");

    let mut model = Model::new(model.state().clone(), Limits::default(), now);
    let stream = model.register("slim/0").expect("known");
    let commands = told(&mut model, 0, stream, now);
    assert_eq!(names(&commands[0].subscriptions_to_delete), ["org/ns/app http://a:1"]);
    let settled = model.settled();
    assert_eq!(settled, [Change::DeleteRoute("r".into())]);
    settled.into_iter().for_each(|change| model.apply(change, now));
    assert_eq!(model.progress("r"), None);
}

#[test]
fn a_deleted_route_that_others_want_too_is_not_taken_from_the_node() {
    let now = Instant::now();
    let (mut model, streams) = network(&[false, false], now);
    let route = operator_route("r", "app", RouteTarget::Node("slim/1".into()));
    model.apply(Change::PutRoute(route.clone()), now);
    model.report("slim/1", streams[1], &name("org/ns/app"));
    told(&mut model, 0, streams[0], now);
    model.apply(Change::PutRoute(RouteRecord { deleted: true, ..route }), now);
    assert_eq!(told(&mut model, 0, streams[0], now), []);
    assert_eq!(model.settled(), [Change::DeleteRoute("r".into())]);
}

/// As nodes of this project answer: they take routes over links that do not come up.
fn results(command: &ConfigurationCommand, bad: &str) -> Answer {
    let connections = command.connections_to_create.iter().map(|connection| {
        let good = connection.connection_id != bad;
        let error_msg = if good { String::new() } else { "connection refused".to_owned() };
        let connection_id = connection.connection_id.clone();
        ConnectionStatus { connection_id, success: good, error_msg }
    });
    let set = command.subscriptions_to_set.iter().chain(&command.subscriptions_to_delete);
    let routes = set.map(|route| SubscriptionStatus {
        subscription: Some(route.clone()),
        success: true,
        error_msg: String::new(),
    });
    Answer::Detailed(ConfigurationCommandAck {
        connections_status: connections.collect(),
        subscriptions_status: routes.collect(),
        ..Default::default()
    })
}

#[test]
fn a_connection_that_fails_stops_no_other_and_is_tried_again_ever_more_rarely() {
    let mut now = Instant::now();
    let (mut model, streams) = network(&[true], now);
    model.limits.grace = Duration::from_secs(60 * 60);
    for (app, endpoint) in [("good", "http://good:1"), ("bad", "http://bad:1")] {
        model.apply(Change::PutRoute(operator_route(app, app, to(endpoint))), now);
    }
    let command = model.next_command("slim/0", streams[0], now).expect("a first command");
    model.answered("slim/0", streams[0], &results(&command, "http://bad:1"), now);
    assert_eq!(model.progress("good"), Some(Progress::Applied));
    let failed = |attempts| Progress::Failed { reason: "connection refused".into(), attempts };
    assert_eq!(model.progress("bad"), Some(failed(1)));
    let mut last = Duration::ZERO;
    for attempt in 2..20 {
        assert_eq!(model.next_command("slim/0", streams[0], now), None, "not yet");
        let Some(Due::At(at)) = model.due("slim/0", streams[0], now) else { panic!("a time") };
        let wait = at - now;
        assert!(wait >= last && wait <= Duration::from_secs(30), "{wait:?} after {last:?}");
        (last, now) = (wait, at);
        let command = model.next_command("slim/0", streams[0], now).expect("again");
        assert_eq!(command.subscriptions_to_set.len(), 1, "by itself");
        model.answered("slim/0", streams[0], &results(&command, "http://bad:1"), now);
        assert_eq!(model.progress("bad"), Some(failed(attempt)));
    }
    assert_eq!(last, Duration::from_secs(30));
    now += last;
    let command = model.next_command("slim/0", streams[0], now).expect("again");
    model.answered("slim/0", streams[0], &results(&command, ""), now);
    assert_eq!(model.progress("bad"), Some(Progress::Applied));
    assert_eq!(model.due("slim/0", streams[0], now), None);
}

#[test]
fn a_route_is_deleted_although_the_link_it_leads_over_does_not_come_up() {
    let now = Instant::now();
    let (mut model, streams) = network(&[true], now);
    let [stays, goes] = ["stays", "goes"].map(|app| operator_route(app, app, to("http://bad:1")));
    model.apply(Change::PutRoute(stays), now);
    model.apply(Change::PutRoute(goes.clone()), now);
    let command = model.next_command("slim/0", streams[0], now).expect("a first command");
    model.answered("slim/0", streams[0], &results(&command, "http://bad:1"), now);
    let later = now + Duration::from_secs(1);
    model.apply(Change::PutRoute(RouteRecord { deleted: true, ..goes }), later);
    while let Some(command) = model.next_command("slim/0", streams[0], later) {
        model.answered("slim/0", streams[0], &results(&command, "http://bad:1"), later);
    }
    assert_eq!(model.settled(), [Change::DeleteRoute("goes".into())]);
    assert!(matches!(model.progress("stays"), Some(Progress::Failed { .. })));
}

#[test]
fn what_was_sent_with_a_silent_connection_is_told_apart_from_it() {
    let now = Instant::now();
    let (mut model, streams) = network(&[false], now);
    for (app, endpoint) in [("good", "http://good:1"), ("bad", "http://bad:1")] {
        model.apply(Change::PutRoute(operator_route(app, app, to(endpoint))), now);
    }
    model.next_command("slim/0", streams[0], now).expect("a first command");
    model.answered("slim/0", streams[0], &Answer::Silence, now);
    let later = now + Duration::from_secs(1);
    let one = model.next_command("slim/0", streams[0], later).expect("again");
    assert_eq!(one.subscriptions_to_set.len(), 1);
    let silent = one.subscriptions_to_set[0].connection_id == "http://bad:1";
    let answer = if silent { Answer::Silence } else { Answer::Done };
    model.answered("slim/0", streams[0], &answer, later);
    let other = model.next_command("slim/0", streams[0], later).expect("the other");
    assert_ne!(one.subscriptions_to_set, other.subscriptions_to_set);
}

#[test]
fn what_a_node_lacks_of_what_it_was_told_is_told_again() {
    let now = Instant::now();
    let (mut model, streams) = network(&[false], now);
    for app in ["one", "other"] {
        model.apply(Change::PutRoute(operator_route(app, app, to("http://a:1"))), now);
    }
    told(&mut model, 0, streams[0], now);
    let mark = model.mark_of("slim/0");
    model.apply(Change::PutRoute(operator_route("new", "new", to("http://a:1"))), now);
    told(&mut model, 0, streams[0], now);
    let has = BTreeSet::from([(name("org/ns/one"), "http://a:1".to_owned())]);
    assert_eq!(model.compare("slim/0", streams[0], &has, mark), 1, "not what came after the list");
    let commands = told(&mut model, 0, streams[0], now);
    assert_eq!(names(&commands[0].subscriptions_to_set), ["org/ns/other http://a:1"]);
}

#[test]
fn a_connection_of_an_operator_is_made_and_kept_for_itself() {
    let now = Instant::now();
    let (mut model, streams) = network(&[true], now);
    let connection = ConnectionRecord {
        node: "slim/0".into(),
        id: "link".into(),
        endpoint: "http://a:1".into(),
        config: r#"{"endpoint":"http://a:1"}"#.into(),
    };
    model.apply(Change::PutConnection(connection), now);
    let commands = told(&mut model, 0, streams[0], now);
    assert_eq!(commands[0].connections_to_create[0].connection_id, "http://a:1");
    assert_eq!(model.connection_progress("slim/0", "link"), Some(Progress::Applied));
    let over = operator_route("r", "app", RouteTarget::Connection("link".into()));
    model.apply(Change::PutRoute(over.clone()), now);
    let commands = told(&mut model, 0, streams[0], now);
    assert_eq!(names(&commands[0].subscriptions_to_set), ["org/ns/app http://a:1"]);
    model.apply(Change::PutRoute(RouteRecord { deleted: true, ..over }), now);
    let commands = told(&mut model, 0, streams[0], now);
    assert_eq!(commands.len(), 1, "the connection stays: {commands:?}");
    model.apply(Change::DeleteConnection("slim/0".into(), "link".into()), now);
    let commands = told(&mut model, 0, streams[0], now);
    assert_eq!(commands[0].connections_to_delete, ["http://a:1"]);
}

#[test]
fn a_node_that_is_removed_takes_along_what_it_was_to_do_and_what_led_to_it() {
    let now = Instant::now();
    let (mut model, streams) = network(&[true, true], now);
    let route = operator_route("r", "app", RouteTarget::Node("slim/1".into()));
    model.apply(Change::PutRoute(route), now);
    model.report("slim/1", streams[1], &name("org/ns/client/1"));
    told(&mut model, 0, streams[0], now);
    let changes = model.removal("slim/1");
    changes.into_iter().for_each(|change| model.apply(change, now));
    let commands = told(&mut model, 0, streams[0], now);
    assert_eq!(names(&commands[0].subscriptions_to_delete).len(), 2);
    assert!(model.routes("slim/0").is_empty() && model.state().routes.is_empty());
}

#[test]
fn the_list_of_a_published_node_is_right_but_for_what_came_after_it_was_asked_for() {
    let now = Instant::now();
    let (mut model, streams) = network(&[false, false], now);
    let [gone, stays, late] = ["gone", "stays", "late"].map(|app| name(&format!("o/n/{app}/1")));
    model.report("slim/0", streams[0], &gone);
    model.report("slim/0", streams[0], &stays);
    let asked = model.sequence();
    model.report("slim/0", streams[0], &late);
    model.listed("slim/0", streams[0], &BTreeSet::from([stays.clone()]), asked);
    let known = [&gone, &stays, &late].map(|name| model.host_of(name).is_some());
    assert_eq!(known, [false, true, true]);
}

#[test]
fn what_nodes_make_a_controller_keep_is_bounded() {
    let now = Instant::now();
    let limits = Limits { nodes: 1, reports: 2, ..Limits::default() };
    let mut model = Model::new(State::default(), limits, now);
    assert_eq!(model.admission("slim/0"), Admission::Free);
    model.apply(Change::PutNode(record(0, true)), now);
    assert_eq!(model.admission("slim/1"), Admission::Full);
    let stream = model.register("slim/0").expect("known");
    assert_eq!(model.admission("slim/0"), Admission::Taken(stream));
    let results: Vec<_> = (0..3)
        .map(|number| model.report("slim/0", stream, &name(&format!("o/n/a/{number}"))))
        .collect();
    assert_eq!(results, [Reported::Kept, Reported::Kept, Reported::Full]);
}

#[test]
fn a_node_is_told_once_what_is_all_it_needs_when_all_others_have_reported() {
    let start = Instant::now();
    let (model, _) = network(&[true, true], start);
    let mut model = Model::new(model.state().clone(), Limits::default(), start);
    let stream = model.register("slim/0").expect("known");
    model.complete("slim/0", stream);
    let later = start + GRACE;
    let first = told(&mut model, 0, stream, later);
    assert!(first.iter().all(|command| !command.complete), "the other is not heard of");
    let other = model.register("slim/1").expect("known");
    model.report("slim/1", other, &name("org/ns/app/7"));
    model.complete("slim/1", other);
    assert!(told(&mut model, 0, stream, start).iter().all(|command| !command.complete), "too soon");
    let [whole] = &*told(&mut model, 0, stream, later) else { panic!("once") };
    assert!(whole.complete);
    assert_eq!(names(&whole.subscriptions_to_set), [format!("org/ns/app/7 {}", endpoint(1))]);
    model.lose("slim/1", other, later);
    let again = model.register("slim/0").expect("known");
    let [whole] = &*told(&mut model, 0, again, later) else { panic!("once") };
    assert!(whole.complete && whole.subscriptions_to_set.len() == 1, "what was heard is kept");
}

#[test]
fn a_large_state_is_told_in_commands_that_every_node_can_take() {
    let now = Instant::now();
    let (mut model, streams) = network(&[false, false], now);
    for number in 0..20_000 {
        model.report("slim/1", streams[1], &name(&format!("org/ns/app/{number}")));
    }
    let commands = told(&mut model, 0, streams[0], now);
    assert!(commands.len() > 1);
    let sizes = commands.iter().map(prost::Message::encoded_len);
    assert!(sizes.max().is_some_and(|size| size < 2 * 1024 * 1024));
    let count: usize = commands.iter().map(|command| command.subscriptions_to_set.len()).sum();
    assert_eq!(count, 20_000);
}

#[test]
fn an_item_is_wanted_once_however_often_it_is_asked_for() {
    let now = Instant::now();
    let mut ledger = Ledger::default();
    let (item, config) = (Item::Link("http://a:1".into()), Arc::from("{}"));
    ledger.registered(true);
    ledger.want(item.clone(), &config);
    let command = ledger.next(now, false).expect("a first command");
    assert_eq!(command.connections_to_create.len(), 1);
    ledger.want(item.clone(), &config);
    ledger.answered(&Answer::Done, now, Retries::default());
    ledger.want(item.clone(), &config);
    assert_eq!(ledger.next(now, false), None);
    assert_eq!(ledger.progress(&item), Some(Progress::Applied));
    ledger.want(item, &Arc::from("{ }"));
    assert!(ledger.next(now, false).is_some(), "with another block it is told anew");
}
