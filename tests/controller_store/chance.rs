//! What happens by chance, repeatably.

use std::ops::Range;

use rand::RngExt;
use rand::rngs::StdRng;
use slim_quic::controller::store::{
    Change, ChannelRecord, ConnectionRecord, NodeAddress, NodeRecord, RouteRecord, RouteTarget,
};

/// The seeds to run: `default` unless the environment says otherwise.
pub(crate) fn seeds(default: Range<u64>) -> Range<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    if let Ok(seed) = std::env::var("STORE_SEED") {
        let seed = number(&seed);
        return seed..seed + 1;
    }
    match std::env::var("STORE_SEEDS") {
        Ok(seeds) => {
            let (start, end) = seeds.split_once("..").expect("a range: 0..2000");
            number(start)..number(end)
        }
        Err(_) => default,
    }
}

/// The changes of one commit, of keys that meet often.
pub(crate) fn changes(rng: &mut StdRng) -> Vec<Change> {
    (0..rng.random_range(1..6)).map(|_| change(rng)).collect()
}

fn change(rng: &mut StdRng) -> Change {
    let key = |rng: &mut StdRng| format!("k{}", rng.random_range(0..8));
    match rng.random_range(0..8) {
        0 => Change::DeleteNode(key(rng)),
        1 => Change::DeleteConnection(key(rng), key(rng)),
        2 => Change::DeleteRoute(key(rng)),
        3 => Change::DeleteChannel(key(rng)),
        4 => Change::PutNode(NodeRecord {
            id: key(rng),
            group: rng.random_bool(0.5).then(|| text(rng)),
            connections: (0..rng.random_range(0..3)).map(|_| address(rng)).collect(),
            product: rng.random_bool(0.5).then(|| text(rng)),
        }),
        5 => Change::PutConnection(ConnectionRecord {
            node: key(rng),
            id: key(rng),
            endpoint: text(rng),
            config: text(rng),
        }),
        6 => Change::PutRoute(RouteRecord {
            id: key(rng),
            node: key(rng),
            components: std::array::from_fn(|_| text(rng)),
            instance: rng.random_bool(0.5).then(|| rng.random()),
            to: target(rng),
            deleted: rng.random_bool(0.5),
        }),
        _ => Change::PutChannel(ChannelRecord {
            name: key(rng),
            moderators: vec![text(rng)],
            participants: (0..rng.random_range(0..40)).map(|_| text(rng)).collect(),
            pending: rng.random_bool(0.5),
            invited: (0..rng.random_range(0..4)).map(|_| text(rng)).collect(),
        }),
    }
}

fn address(rng: &mut StdRng) -> NodeAddress {
    NodeAddress {
        endpoint: text(rng),
        mtls_required: rng.random_bool(0.5),
        external_endpoint: rng.random_bool(0.5).then(|| text(rng)),
        group: None,
    }
}

fn target(rng: &mut StdRng) -> RouteTarget {
    match rng.random_range(0..3) {
        0 => RouteTarget::Node(text(rng)),
        1 => RouteTarget::Connection(text(rng)),
        _ => RouteTarget::Endpoint { endpoint: text(rng), config: text(rng) },
    }
}

/// A text, now and then one of several pages.
fn text(rng: &mut StdRng) -> String {
    let times = if rng.random_bool(0.01) { 2_000 } else { rng.random_range(0..4) };
    format!("{:010x}\"", rng.random::<u32>()).repeat(times)
}
