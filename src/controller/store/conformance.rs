//! What every [`Store`] has to do, as checks that a test of one can call.
//!
//! ```
//! use slim_quic::controller::store::{MemoryStore, conformance};
//!
//! conformance::check(&|| {
//!     let store = MemoryStore::default();
//!     Box::new(move || Box::new(store.clone()))
//! });
//! ```

use std::sync::Barrier;
use std::thread;

use super::{
    Change, ChannelRecord, ConnectionRecord, NodeAddress, NodeRecord, RouteRecord, RouteTarget,
    State, Store,
};

/// Opens the same medium each time. What it opened before was dropped.
pub type Opener = Box<dyn FnMut() -> Box<dyn Store>>;

/// Runs every check, each on a medium of its own: what `fresh` gives opens an empty one.
///
/// Whether commits outlast a crash, and what a medium of something else does, depends on the
/// medium and is not checked here.
///
/// # Panics
/// At the first thing that the store does wrong, with words that say what it should have done.
pub fn check(fresh: &dyn Fn() -> Opener) {
    an_empty_medium_is_an_empty_state(fresh());
    what_was_committed_is_loaded_now_and_later(fresh());
    a_put_replaces_and_a_delete_removes(fresh());
    changes_of_one_commit_are_made_in_order(fresh());
    keys_and_texts_may_be_anything(fresh());
    a_large_state_is_kept_as_it_is(fresh());
    commits_of_several_threads_are_all_kept(fresh());
    a_commit_is_seen_as_a_whole(fresh());
}

fn an_empty_medium_is_an_empty_state(mut open: Opener) {
    assert_eq!(load(&*open()), State::default(), "a new medium holds nothing");
    assert_eq!(load(&*open()), State::default(), "opening it adds nothing");
    commit(&*open(), &[]);
    assert_eq!(load(&*open()), State::default(), "no changes change nothing");
}

fn what_was_committed_is_loaded_now_and_later(mut open: Opener) {
    let changes =
        [put_node("slim/0"), put_connection("slim/0", "c"), put_route("r"), put_channel("a/b/c")];
    let expected = state_of(&changes);
    let store = open();
    commit(&*store, &changes);
    assert_eq!(load(&*store), expected, "what was committed is loaded");
    assert_eq!(load(&*store), expected, "loading changes nothing");
    drop(store);
    assert_eq!(load(&*open()), expected, "what was committed is there when it is opened again");
}

fn a_put_replaces_and_a_delete_removes(mut open: Opener) {
    let store = open();
    commit(&*store, &[put_channel("a/b/c"), put_channel("a/b/d"), put_node("x"), put_route("r")]);
    let mut channel = channel("a/b/c");
    channel.participants = vec!["a/b/new".into()];
    let changes = [
        Change::PutChannel(channel.clone()),
        Change::DeleteChannel("a/b/d".into()),
        Change::DeleteNode("x".into()),
        Change::DeleteRoute("r".into()),
        Change::DeleteNode("unknown".into()),
    ];
    commit(&*store, &changes);
    let mut expected = State::default();
    expected.channels.insert("a/b/c".into(), channel);
    assert_eq!(load(&*store), expected, "puts replace, deletes remove, unknown keys do nothing");

    commit(
        &*store,
        &[put_connection("n", "a"), put_connection("n", "b"), put_connection("m", "a")],
    );
    commit(&*store, &[Change::DeleteConnection("n".into(), "a".into())]);
    let left: Vec<_> = load(&*store).connections.into_keys().collect();
    let expected = [("m", "a"), ("n", "b")].map(|(node, id)| (node.to_owned(), id.to_owned()));
    assert_eq!(left, expected, "a connection is known by node and id");
}

fn changes_of_one_commit_are_made_in_order(mut open: Opener) {
    let store = open();
    let delete = |name: &str| Change::DeleteChannel(name.into());
    let mut last = channel("a/b/3");
    last.participants.push("a/b/late".into());
    commit(
        &*store,
        &[
            put_channel("a/b/1"),
            delete("a/b/1"),
            delete("a/b/2"),
            put_channel("a/b/2"),
            put_channel("a/b/3"),
            Change::PutChannel(last.clone()),
        ],
    );
    let state = load(&*store);
    assert!(!state.channels.contains_key("a/b/1"), "a delete after a put removes");
    assert!(state.channels.contains_key("a/b/2"), "a put after a delete stays");
    assert_eq!(state.channels.get("a/b/3"), Some(&last), "the last of two puts stays");
}

fn keys_and_texts_may_be_anything(mut open: Opener) {
    let long = "x".repeat(100_000);
    let texts = ["", " ", "\0", "a\0b", "\"\\\n", "\u{10ffff}", "ä/ö/ü", long.as_str()];
    let mut changes = Vec::new();
    for text in texts {
        changes.extend([put_node(text), put_route(text), put_channel(text)]);
        changes.extend([put_connection(text, "b"), put_connection("b", text)]);
    }
    // Two pairs whose texts are the same when they are put together.
    changes.extend([put_connection("a", "bc"), put_connection("ab", "c")]);
    commit(&*open(), &changes);
    assert_eq!(load(&*open()), state_of(&changes), "any text is kept as it is");
}

fn a_large_state_is_kept_as_it_is(mut open: Opener) {
    let mut changes: Vec<_> = (0..5_000).map(|number| put_route(&format!("r{number}"))).collect();
    let mut channel = channel("large");
    channel.participants = (0..50_000).map(|number| format!("org/ns/p{number}")).collect();
    changes.push(Change::PutChannel(channel));
    let store = open();
    commit(&*store, &changes);
    drop(store);
    assert_eq!(load(&*open()), state_of(&changes), "thousands of records are kept");
    let deletes: Vec<_> =
        (0..5_000).map(|number| Change::DeleteRoute(format!("r{number}"))).collect();
    commit(&*open(), &deletes);
    let state = load(&*open());
    assert!(state.routes.is_empty(), "and removed");
    assert_eq!(state.channels.len(), 1, "but no others");
}

fn commits_of_several_threads_are_all_kept(mut open: Opener) {
    const THREADS: usize = 4;
    const COMMITS: usize = 8;
    let store = open();
    let begin = Barrier::new(THREADS);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, begin) = (&*store, &begin);
            scope.spawn(move || {
                begin.wait();
                for number in 0..COMMITS {
                    commit(store, &[put_node(&format!("{thread}/{number}")), put_node("shared")]);
                }
            });
        }
    });
    drop(store);
    let nodes = load(&*open()).nodes;
    assert_eq!(nodes.len(), THREADS * COMMITS + 1, "no commit undoes another");
}

fn a_commit_is_seen_as_a_whole(mut open: Opener) {
    const COMMITS: usize = 16;
    let store = open();
    thread::scope(|scope| {
        let store = &*store;
        let writer = scope.spawn(move || {
            for number in 0..COMMITS {
                commit(store, &[put_node(&number.to_string()), put_route(&number.to_string())]);
            }
        });
        let mut seen = 0;
        while seen < COMMITS {
            let state = load(store);
            let (nodes, routes) = (state.nodes.keys(), state.routes.keys());
            assert!(nodes.eq(routes), "a commit is seen whole or not at all");
            assert!(state.nodes.len() >= seen, "what was seen does not go away");
            seen = state.nodes.len();
            assert!(seen == COMMITS || !writer.is_finished() || load(store).nodes.len() == COMMITS);
        }
    });
}

fn load(store: &dyn Store) -> State {
    store.load().unwrap_or_else(|error| panic!("a store that works loads: {error}"))
}

fn commit(store: &dyn Store, changes: &[Change]) {
    store.commit(changes).unwrap_or_else(|error| panic!("a store that works commits: {error}"));
}

/// What an empty store holds after `changes`.
fn state_of(changes: &[Change]) -> State {
    let mut state = State::default();
    changes.iter().for_each(|change| state.apply(change));
    state
}

fn put_node(id: &str) -> Change {
    Change::PutNode(NodeRecord {
        id: id.into(),
        group: Some("group".into()),
        connections: vec![NodeAddress {
            endpoint: "127.0.0.1:46357".into(),
            mtls_required: true,
            external_endpoint: None,
            group: Some(String::new()),
        }],
        product: None,
    })
}

fn put_connection(node: &str, id: &str) -> Change {
    Change::PutConnection(ConnectionRecord {
        node: node.into(),
        id: id.into(),
        endpoint: "http://127.0.0.1:46357".into(),
        config: "{\"endpoint\": \"http://127.0.0.1:46357\"}".into(),
    })
}

fn put_route(id: &str) -> Change {
    Change::PutRoute(RouteRecord {
        id: id.into(),
        node: "slim/0".into(),
        components: ["org", "ns", "app"].map(str::to_owned),
        instance: Some(u64::MAX),
        to: RouteTarget::Endpoint { endpoint: "http://h:1".into(), config: "{}".into() },
        deleted: true,
    })
}

fn channel(name: &str) -> ChannelRecord {
    ChannelRecord {
        name: name.into(),
        moderators: vec!["org/ns/moderator/1".into()],
        participants: vec!["org/ns/b".into(), "org/ns/a".into(), "org/ns/b".into()],
        pending: true,
        invited: vec!["org/ns/d".into(), "org/ns/c".into()],
    }
}

fn put_channel(name: &str) -> Change {
    Change::PutChannel(channel(name))
}
