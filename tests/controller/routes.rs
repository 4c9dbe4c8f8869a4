use slim_compat_grpc::proto::northbound::{
    AddRouteRequest, CreateConnectionRequest, CreateSubscriptionRequest, DeleteRouteRequest,
    DeleteSubscriptionRequest, Node, RouteState,
};
use slim_compat_grpc::proto::southbound::Connection;
use slim_compat_grpc::proto::southbound::control_message::Payload;
use tonic::Code;

use crate::fake_node::FakeNode;
use crate::program::{Controller, subscription};

const ANY: u64 = u64::MAX;
const ELSEWHERE: &str = "http://127.0.0.1:9";

fn deletion(app: &str) -> DeleteRouteRequest {
    DeleteRouteRequest {
        subscription: Some(subscription(app, ELSEWHERE)),
        node_id: "slim/0".into(),
        dest_node_id: String::new(),
    }
}

#[tokio::test]
async fn nodes_get_routes_to_the_clients_of_each_other_whatever_their_kind() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let ours = FakeNode::complete(controller.south, "slim/a", 1000).await;
    let published = FakeNode::published(controller.south, "slim/b", 2000).await;
    operator.until_connected("slim/b", true).await;
    ours.join("org/ns/here", 1).await;
    published.join("org/ns/there", 2).await;
    published.join("org/ns/channel", ANY).await;
    published.until_routes(&[("org/ns/here", 1, "http://127.0.0.1:1000")]).await;
    let to_b = "http://127.0.0.1:2000";
    let routes = [("org/ns/channel", ANY, to_b), ("org/ns/there", 2, to_b)];
    ours.until_routes(&routes).await;
    let applied = [("channel", RouteState::Applied), ("there", RouteState::Applied)];
    operator.until_routes("slim/a", &applied).await;
    let stored = operator.stored("slim/a").await;
    assert_eq!(stored[1].route_id, "slim/a:org/ns/there/value:2->slim/b");
    assert_eq!(stored[1].destination, "slim/b");

    // The first of two members leaves: the published node says that all have.
    published.report_gone("org/ns/channel", ANY).await;
    published.report_gone("org/ns/there", 2).await;
    published.script().clients.remove(&("org/ns/there".to_owned(), 2));
    published.report_gone("org/ns/there", 2).await;
    ours.until_routes(&routes[..1]).await;
    ours.report_gone("org/ns/here", 1).await;
    published.until_routes(&[]).await;

    // A third one comes late, and what its clients have is known after it comes back.
    let late = FakeNode::complete(controller.south, "slim/c", 3000).await;
    late.until_routes(&routes[..1]).await;
    late.join("org/ns/late", 3).await;
    let all = [routes[0], ("org/ns/late", 3, "http://127.0.0.1:3000")];
    ours.until_routes(&all).await;
    late.stop();
    let again = FakeNode::complete(controller.south, "slim/c", 3000).await;
    ours.until_routes(&routes[..1]).await;
    again.until_routes(&routes[..1]).await;
}

#[tokio::test]
async fn what_operators_want_outlasts_the_controller_and_what_they_deleted_stays_away() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let node = FakeNode::published(controller.south, "slim/0", 1).await;
    operator.until_connected("slim/0", true).await;
    let kept = operator.add_route("slim/0", "kept", ELSEWHERE).await;
    assert_eq!(kept, format!("slim/0:org/ns/kept/<nil>->{ELSEWHERE}"));
    operator.add_route("slim/0", "deleted", ELSEWHERE).await;
    let routes = [("org/ns/deleted", ANY, ELSEWHERE), ("org/ns/kept", ANY, ELSEWHERE)];
    node.until_routes(&routes).await;
    node.script().silent = true;
    operator.0.delete_route(deletion("deleted")).await.expect("marked");
    let states = [("kept", RouteState::Applied), ("deleted", RouteState::Deleted)];
    operator.until_routes("slim/0", &states).await;
    let deleted = operator.stored("slim/0").await.remove(1);
    assert_eq!(deleted.route_id, format!("slim/0:org/ns/deleted/<nil>->{ELSEWHERE}"));
    node.stop();

    let controller = controller.restart().await;
    let mut operator = controller.operator().await;
    assert_eq!(operator.is_connected("slim/0").await, Some(false), "it is known");
    let node = FakeNode::published(controller.south, "slim/0", 1).await;
    node.until_routes(&[routes[1]]).await;
    let first = node.commands().remove(0);
    let apps = |list: &[_]| {
        let apps = list.iter();
        let name =
            |entry: &slim_compat_grpc::proto::southbound::Subscription| entry.component_2.clone();
        apps.map(name).collect::<Vec<_>>()
    };
    assert_eq!(apps(&first.subscriptions_to_set), ["kept"]);
    assert_eq!(apps(&first.subscriptions_to_delete), ["deleted"]);
    operator.until_routes("slim/0", &states[..1]).await;
    let error = operator.0.delete_route(deletion("deleted")).await.expect_err("gone");
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn a_connection_that_fails_is_shown_with_its_reason_and_holds_up_nothing() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let node = FakeNode::complete(controller.south, "slim/0", 1).await;
    operator.until_connected("slim/0", true).await;
    node.script().unreachable = Some(ELSEWHERE.to_owned());
    operator.add_route("slim/0", "bad", ELSEWHERE).await;
    operator.add_route("slim/0", "good", "http://127.0.0.1:10").await;
    let states = [("bad", RouteState::Failed), ("good", RouteState::Applied)];
    operator.until_routes("slim/0", &states).await;
    let stored = operator.stored("slim/0").await;
    assert!(stored[0].reason.starts_with("connection refused (attempt "), "{stored:?}");
    let connection = Connection {
        connection_id: "link".into(),
        config_data: r#"{"endpoint":"http://127.0.0.1:9"}"#.into(),
    };
    let request =
        CreateConnectionRequest { connection: Some(connection), node_id: "slim/0".into() };
    let error = operator.0.create_connection(request.clone()).await.expect_err("it fails");
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("connection refused"), "{error}");
    let over = CreateSubscriptionRequest {
        subscription: Some(subscription("over", "link")),
        node_id: "slim/0".into(),
    };
    let error = operator.0.create_subscription(over.clone()).await.expect_err("no connection");
    assert_eq!(error.code(), Code::NotFound, "what failed is not kept");

    node.script().unreachable = None;
    operator.0.create_connection(request).await.expect("made");
    let made = operator.0.create_subscription(over).await.expect("made").into_inner();
    assert_eq!(made.subscription_id, "org/ns/over/<nil>->link");
    let names = ["bad", "good", "over"].map(|name| (name, RouteState::Applied));
    operator.until_routes("slim/0", &names).await;
    let delete = DeleteSubscriptionRequest {
        subscription_id: made.subscription_id,
        node_id: "slim/0".into(),
    };
    operator.0.delete_subscription(delete.clone()).await.expect("deleted");
    operator.until_routes("slim/0", &names[..2]).await;
    let error = operator.0.delete_subscription(delete).await.expect_err("gone");
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn a_connection_that_nothing_needs_any_more_is_given_up() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let node = FakeNode::complete(controller.south, "slim/0", 1).await;
    operator.until_connected("slim/0", true).await;
    operator.add_route("slim/0", "app", ELSEWHERE).await;
    node.until_routes(&[("org/ns/app", ANY, ELSEWHERE)]).await;
    operator.0.delete_route(deletion("app")).await.expect("marked");
    let given_up = node.until("a connection to be given up", |seen| match seen {
        Payload::ConfigCommand(command) => command.connections_to_delete.first().cloned(),
        _ => None,
    });
    assert_eq!(given_up.await, ELSEWHERE);
    node.until_routes(&[]).await;
}

#[tokio::test]
async fn a_node_that_is_deregistered_is_gone_with_its_routes() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let stays = FakeNode::complete(controller.south, "slim/0", 1).await;
    let goes = FakeNode::complete(controller.south, "slim/1", 2).await;
    operator.until_connected("slim/1", true).await;
    goes.join("org/ns/app", 7).await;
    let request = AddRouteRequest {
        connection: None,
        subscription: Some(subscription("other", "")),
        node_id: "slim/0".into(),
        dest_node_id: "slim/1".into(),
    };
    operator.0.add_route(request).await.expect("stored");
    let to = "http://127.0.0.1:2";
    stays.until_routes(&[("org/ns/app", 7, to), ("org/ns/other", ANY, to)]).await;
    let id = Node { id: "slim/1".into(), dest_node_id: String::new() };
    let answer = operator.0.deregister_node(id.clone()).await.expect("known").into_inner();
    assert!(answer.success);
    goes.ended().await.expect("no error");
    stays.until_routes(&[]).await;
    assert_eq!(operator.is_connected("slim/1").await, None);
    assert_eq!(operator.stored("").await, []);
    let error = operator.0.deregister_node(id).await.expect_err("unknown");
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_with_the_fitting_code() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let _node = FakeNode::complete(controller.south, "slim/0", 1).await;
    operator.until_connected("slim/0", true).await;
    let later = [("slim/0", "slim/1"), ("", "slim/1"), ("", "")];
    for (id, dest_node_id) in later.map(|(id, to)| (id.to_owned(), to.to_owned())) {
        let error = operator.0.list_routes(Node { id, dest_node_id }).await.expect_err("of 0.7");
        assert_eq!(error.code(), Code::Unimplemented);
        assert!(error.message().contains("as in release 0.6"), "{error}");
    }
    let connection = |id: &str, config: &str| {
        let (connection_id, config_data) = (id.to_owned(), config.to_owned());
        Some(Connection { connection_id, config_data })
    };
    let cases = [
        (None, None, "slim/0", "", Code::InvalidArgument, "subscription must be provided"),
        (Some("a"), None, "slim/x", "", Code::NotFound, "invalid source nodeID"),
        (Some("a"), None, "slim/0", "slim/x", Code::NotFound, "invalid destination nodeID"),
        (Some("a"), None, "slim/0", "slim/0", Code::InvalidArgument, "cannot be the same"),
        (Some("a"), None, "slim/0", "", Code::InvalidArgument, "must be provided"),
        (Some("a"), connection("x", "{}"), "slim/0", "", Code::InvalidArgument, "not found in"),
        (Some("a"), connection("x", "{"), "slim/0", "", Code::InvalidArgument, "not JSON"),
        (Some(""), connection("x", "{}"), "slim/0", "", Code::InvalidArgument, "components of"),
    ];
    for (app, connection, node_id, dest_node_id, code, text) in cases {
        let request = AddRouteRequest {
            connection,
            subscription: app.map(|app| subscription(app, "x")),
            node_id: node_id.into(),
            dest_node_id: dest_node_id.into(),
        };
        let error = operator.0.add_route(request).await.expect_err(text);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(text), "{error}");
    }
}
