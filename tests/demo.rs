//! `slim demo` shows an encrypted group at work and says what became of every message.

mod support;

use support::node::{Program, slim};

#[tokio::test]
async fn the_demo_delivers_everything_and_says_so() {
    let mut demo = Program::spawn(slim(&["demo"]));
    assert_eq!(demo.exit().await, Some(0), "{:#?}", demo.stderr.all());
    let lines = demo.stdout.all();
    let shape = [
        "A node and three apps in one process, over loopback:",
        "",
        "  node     127.0.0.1:",
        "  alice    demo/chat/alice, over QUIC",
        "  bob      demo/chat/bob, over QUIC",
        "  carol    demo/chat/carol, over gRPC",
        "  mallory  listens on demo/chat/room, but nobody invites her",
        "",
        "Alice creates the group demo/chat/room, encrypted end to end (MLS):",
        "",
        "  invited  bob, in ",
        "  invited  carol, in ",
        "  alice    \"hello, you two\": heard by bob and carol",
        "  bob      \"hello, alice\": heard by alice and carol",
        "  carol    \"hello from another protocol\": heard by alice and bob",
        "  alice    1000 messages in a row: bob and carol got all, in order",
        "  removed  bob, in ",
        "  alice    \"is bob gone?\": heard by carol",
        "  bob      was told, and heard nothing more",
        "  mallory  saw ",
        "",
        "1000 round trips of 64 bytes each, encrypted and acknowledged, one at a time:",
        "",
        "  QUIC to QUIC  p50 ",
        "  QUIC to gRPC  p50 ",
        "",
        "Everything arrived.",
    ];
    assert_eq!(lines.len(), shape.len(), "{lines:#?}");
    for (line, start) in lines.iter().zip(shape) {
        assert!(line.starts_with(start), "{line:?} does not start with {start:?}");
    }
    assert!(lines[11].ends_with("; members are alice, bob, carol"), "{}", lines[11]);
    assert!(lines[16].ends_with("; members are alice, carol, with new keys"), "{}", lines[16]);
    for line in &lines[23..25] {
        let times = line.split([' ', ',']).filter_map(|word| word.parse::<f64>().ok());
        let times: Vec<f64> = times.collect();
        assert!(times.len() == 4 && times.is_sorted() && times[0] > 0.0, "{line}");
    }
    assert_eq!(demo.stderr.all(), [""; 0]);
}
