//! Neighbours that say what they should not, or nothing at all.

use slim_config::Secret;
use slim_quic::client::link::{Link, LinkOptions, Trust};
use slim_quic::trust::Credentials;
use slim_wire::{
    CloseCode, Encoding, Flags, FrameKind, Header, Hello, HelloFlags, Id, Name, Role, SessionIds,
    frame,
};

use crate::knows;
use crate::support::native::{
    Control, HELLO, Raw, header, hello, join, message, name, publish, receive, send, text,
};
use crate::support::node::{Node, PLAIN, config};
use crate::support::pair::{BYSTANDERS, Bystanders};

const NODE: Hello = Hello { role: Role::Node, node: 77, flags: HelloFlags::EXCHANGE, ..HELLO };

/// A control frame of a node.
fn says(kind: FrameKind, encoding: Encoding, to: Name, ids: SessionIds, flags: Flags) -> Vec<u8> {
    let header = Header { destination: to, encoding, flags, ..header("org/ns/x", "org/ns/x") };
    frame(kind, &header, ids, &[], b"").expect("it fits").to_vec()
}

fn tells(kind: FrameKind, encoding: Encoding, to: Name, message: u32) -> Vec<u8> {
    says(kind, encoding, to, SessionIds { session: 1, message }, Flags::empty())
}

fn answers(message: u32, flags: Flags) -> Vec<u8> {
    says(
        FrameKind::Ack,
        Encoding::Native,
        name("org/ns/x"),
        SessionIds { session: 0, message },
        flags,
    )
}

/// A neighbour that does as it likes, and whether the node agreed to exchange names.
async fn neighbour(node: &Node, flags: HelloFlags) -> (Raw, Control, HelloFlags) {
    let raw = Raw::connect(node).await;
    let mut control = raw.control().await;
    control.say(&hello(&Hello { flags, ..NODE }.encode())).await;
    let (_, payload) = control.hear().await;
    let agreed = Hello::decode(&payload).expect("a hello").flags;
    (raw, control, agreed)
}

#[tokio::test]
async fn a_node_says_what_of_a_neighbours_wishes_is_in_force() {
    let server = "endpoint: \"127.0.0.1:0\", tls: { insecure: true }, quic: { exchange: false }";
    let both = HelloFlags::EXCHANGE.union(HelloFlags::LAST_HOP);
    let [none, exchange, last] = [HelloFlags::empty(), HelloFlags::EXCHANGE, HelloFlags::LAST_HOP];
    let [willing, unwilling] = [Node::start("").await, Node::launch(&config("", server)).await];
    let said = [
        (none, none, none),
        (exchange, exchange, none),
        (last, last, last),
        (both, exchange, last),
    ];
    for (wanted, by_willing, by_unwilling) in said {
        assert_eq!(neighbour(&willing, wanted).await.2, by_willing);
        assert_eq!(neighbour(&unwilling, wanted).await.2, by_unwilling);
    }
}

#[tokio::test]
async fn a_neighbour_is_told_of_clients_names_with_their_texts_and_when_they_go() {
    let node = Node::start("").await;
    let (_raw, mut control, _) = neighbour(&node, HelloFlags::EXCHANGE).await;
    let client = join(&node, &["org/ns/app/7"]).await;
    let (head, payload) = control.hear().await;
    assert_eq!((head.kind(), head.destination()), (Ok(FrameKind::Subscribe), name("org/ns/app/7")));
    assert_eq!((&payload[..], head.ids().session), (&b"org/ns/app"[..], 1));
    client.unsubscribe(&text("org/ns/app/7")).await.expect("a neighbour delays nobody");
    let (head, _) = control.hear().await;
    assert_eq!(
        (head.kind(), head.destination()),
        (Ok(FrameKind::Unsubscribe), name("org/ns/app/7"))
    );
    // Names of another neighbour are not told.
    let (_other_raw, mut other, _) = neighbour(&node, HelloFlags::EXCHANGE).await;
    other.say(&tells(FrameKind::Subscribe, Encoding::Native, name("org/ns/far/1"), 1)).await;
    assert_eq!(other.answer().await, (1, None));
    let _client = join(&node, &["org/ns/app/8"]).await;
    assert_eq!(control.hear().await.0.destination(), name("org/ns/app/8"));
}

#[tokio::test]
async fn a_neighbour_that_never_answers_is_told_a_bounded_part_and_delays_nobody() {
    const NAMES: usize = 500;
    let node = Node::start("").await;
    let bystanders = Bystanders::start(&node).await;
    let (raw, mut control, _) = neighbour(&node, HelloFlags::EXCHANGE).await;
    let names: Vec<_> = (0..NAMES).map(|id| format!("org/ns/app/{id}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let client = join(&node, &names).await;
    let mut told = Vec::new();
    for _ in 0..128 {
        told.push(control.hear().await.0.ids().message);
    }
    // It is reached all the same, so it hears of a message before it hears of another name.
    control.say(&tells(FrameKind::Subscribe, Encoding::Native, name("org/ns/raw/1"), 9)).await;
    assert_eq!(control.answer().await, (9, None));
    send(&client, &message("org/ns/app/1", "org/ns/raw/1", "you")).await;
    let mut lane = raw.accept("org/ns/app/1").await;
    assert_eq!(crate::support::native::read_frame(&mut lane).await.1, b"you");
    // Once it answers it is told the rest.
    for _ in 128..NAMES + BYSTANDERS as usize {
        control.say(&answers(told.remove(0), Flags::empty())).await;
        told.push(control.hear().await.0.ids().message);
    }
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn what_a_neighbour_refuses_is_counted_and_not_told_again_at_once() {
    let node = Node::start("").await;
    let (_raw, mut control, _) = neighbour(&node, HelloFlags::EXCHANGE).await;
    let client = join(&node, &["org/ns/app/1"]).await;
    let (first, _) = control.hear().await;
    control.say(&answers(first.ids().message, Flags::ERROR)).await;
    node.until("it is counted", |m| m.incidents("announcement_refused") == 1).await;
    client.subscribe(&text("org/ns/app/2")).await.expect("open");
    let (second, _) = control.hear().await;
    assert_eq!(second.destination(), name("org/ns/app/2"), "not the first again");
    control.say(&answers(second.ids().message, Flags::empty())).await;
    client.unsubscribe(&text("org/ns/app/2")).await.expect("open");
    let (gone, _) = control.hear().await;
    assert_eq!(gone.kind(), Ok(FrameKind::Unsubscribe));
    control.say(&answers(gone.ids().message, Flags::empty())).await;
    let (again, _) = control.hear().await;
    assert_eq!(
        (again.kind(), again.destination()),
        (Ok(FrameKind::Subscribe), name("org/ns/app/1"))
    );
}

#[tokio::test]
async fn control_frames_that_a_neighbour_may_not_send_end_its_link() {
    let node = Node::start("").await;
    let bystanders = Bystanders::start(&node).await;
    let to = name("org/ns/x/1");
    let space = "encoding of a control frame: expected 0 (native), of a name 1 (P), 3 (D7) or 4 (D20) too, got";
    let wrong = [
        (
            answers(4_000_000, Flags::empty()),
            "message id of an ack: expected that of a request".to_owned(),
        ),
        (tells(FrameKind::Subscribe, Encoding::D6, to, 1), format!("{space} 2")),
        (tells(FrameKind::Ack, Encoding::P, to, 1), format!("{space} 1")),
        (
            hello(&NODE.encode()).to_vec(),
            "kind on the control stream: expected one hello".to_owned(),
        ),
    ];
    for (bytes, expected) in wrong {
        let (raw, mut control, _) = neighbour(&node, HelloFlags::EXCHANGE).await;
        control.say(&bytes).await;
        let (code, reason) = raw.closed().await;
        assert_eq!(code, CloseCode::Protocol);
        assert!(reason.starts_with(&expected), "{reason}");
    }
    // Of who does not exchange names neither answers nor other spaces are expected.
    for bytes in [answers(1, Flags::empty()), tells(FrameKind::Subscribe, Encoding::P, to, 1)] {
        let (raw, mut control, _) = neighbour(&node, HelloFlags::empty()).await;
        control.say(&bytes).await;
        assert_eq!(raw.closed().await.0, CloseCode::Protocol);
    }
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn a_flood_of_names_is_bounded_by_its_own_limit_and_goes_with_its_link() {
    const LIMIT: u32 = 100;
    let node =
        Node::start("limits: { subscriptions_per_node: 100, subscriptions_per_link: 3 }").await;
    let bystanders = Bystanders::start(&node).await;
    let (raw, mut control, _) = neighbour(&node, HelloFlags::EXCHANGE).await;
    let mut asked = Vec::new();
    for round in 0..1500_u32 {
        let spaces = [Encoding::Native, Encoding::P, Encoding::D7, Encoding::D20];
        let encoding = spaces[round as usize % 4];
        let to = Name { id: Id::new((round % 300).into()), ..name("org/ns/flood") };
        let kind = if round % 7 == 6 { FrameKind::Unsubscribe } else { FrameKind::Subscribe };
        asked.extend(tells(kind, encoding, to, round));
    }
    let writing = tokio::spawn(async move {
        control.send.write_all(&asked).await.expect("the link goes on");
        control.send
    });
    let (mut answered, mut refused) = (0, 0);
    while answered < 1500 {
        let (head, payload) = crate::support::native::read_frame(&mut control.receive).await;
        if head.kind() != Ok(FrameKind::Ack) {
            continue;
        }
        answered += 1;
        if head.is_error() {
            refused += 1;
            assert_eq!(
                payload,
                format!("subscriptions of one link: expected at most {LIMIT}").as_bytes()
            );
        }
    }
    assert!(refused > 0);
    let open = writing.await.expect("all is sent");
    let most = BYSTANDERS + u64::from(LIMIT);
    assert!(node.metrics().await.sum("slim_subscriptions") <= most);
    drop((raw, open, control.receive));
    bystanders.assert_unharmed(&node).await;
    knows(&node, 0).await;
}

#[tokio::test]
async fn what_a_neighbour_sends_reaches_clients_only() {
    let node = Node::start("").await;
    for flags in [HelloFlags::EXCHANGE, HelloFlags::LAST_HOP] {
        let client = join(&node, &["org/ns/team/1"]).await;
        let (_other, mut other, _) = neighbour(&node, HelloFlags::empty()).await;
        other.say(&tells(FrameKind::Subscribe, Encoding::Native, name("org/ns/team"), 1)).await;
        assert_eq!(other.answer().await, (1, None));
        let hello = Hello { flags, node: 78, ..NODE };
        let (raw, _control) = Raw::greeted_as(&node, hello).await;
        let before = node.metrics().await.sum("slim_deliveries_total");
        let mut lane = raw.lane().await;
        lane.write_all(&publish("org/ns/far/1", "org/ns/team/1", b"one")).await.expect("open");
        let header = Header { fanout: 9, ..header("org/ns/far/1", "org/ns/team") };
        let all = frame(FrameKind::Publish, &header, SessionIds::default(), &[], b"all");
        lane.write_all(&all.expect("it fits")).await.expect("open");
        for text in ["one", "all"] {
            assert_eq!(receive(&client).await.payload, text);
        }
        let after = node.balanced().await.sum("slim_deliveries_total");
        assert_eq!(after - before, 2, "nothing for the other node");
    }
}

#[tokio::test]
async fn a_neighbour_is_told_only_of_names_that_the_policy_allows_it() {
    let guarded = format!("{PLAIN}, auth: {{ basic: {{ username: app, password: p }} }}");
    let rules = "{ principal: nobody, subscribe: [org/open/*] }, \
                 { principal: \"basic:app\", subscribe: [org/open/*, org/closed/*] }";
    let policy = format!("policy: {{ mode: enforce, rules: [{rules}] }}");
    let node = Node::launch(&config(&policy, &format!("{PLAIN} }}, {{ {guarded}"))).await;
    let (_raw, mut control, _) = neighbour(&node, HelloFlags::EXCHANGE).await;
    let credentials = Credentials::Basic { username: "app".into(), password: Secret::new("p") };
    let trust = Trust::DangerAcceptAnyCertificate;
    let options = LinkOptions { trust, credentials, ..LinkOptions::default() };
    let address = node.addresses()[1].to_string();
    let client = Link::connect(&address, &options).await.expect("it is let in");
    for app in ["org/closed/app/1", "org/open/app/1"] {
        client.subscribe(&text(app)).await.expect("it is allowed");
    }
    assert_eq!(control.hear().await.0.destination(), name("org/open/app/1"));
    client.unsubscribe(&text("org/closed/app/1")).await.expect("open");
    client.subscribe(&text("org/open/app/2")).await.expect("it is allowed");
    assert_eq!(control.hear().await.0.destination(), name("org/open/app/2"));
    let told = tells(FrameKind::Subscribe, Encoding::Native, name("org/closed/app/2"), 1);
    control.say(&told).await;
    let refused = "policy: this name is not allowed to nobody".to_owned();
    assert_eq!(control.answer().await, (1, Some(refused)));
}
