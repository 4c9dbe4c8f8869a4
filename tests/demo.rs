//! `slim demo` shows messages on their way and says what became of them.

mod support;

use support::node::{Program, slim};

#[tokio::test]
async fn the_demo_delivers_everything_and_says_so() {
    let mut demo = Program::spawn(slim(&["demo"]));
    assert_eq!(demo.exit().await, Some(0), "{:#?}", demo.stderr.all());
    let lines = demo.stdout.all();
    let shape = [
        "One node and three apps, connected to it by QUIC over loopback:",
        "",
        "  node   127.0.0.1:",
        "  alice  demo/apps/alice/1",
        "  bob    demo/apps/bob/2",
        "  carol  demo/apps/carol/3",
        "",
        "  unicast  1000 messages to demo/apps/bob/2: bob got all, in order",
        "  anycast  1000 messages to demo/apps/worker: bob got ",
        "  group    1000 messages to demo/apps/group: bob and carol got all, in order",
        "  large    1 message of 3 MiB to demo/apps/carol/3: carol got every byte",
        "  latency  5000 round trips alice, node, bob, node, alice, one at a time, of 64 bytes:",
        "           p50 ",
        "",
        "Everything arrived.",
    ];
    assert_eq!(lines.len(), shape.len(), "{lines:#?}");
    for (line, start) in lines.iter().zip(shape) {
        assert!(line.starts_with(start), "{line:?} does not start with {start:?}");
    }
    let times = lines[12].split([' ', ',']).filter_map(|word| word.parse::<f64>().ok());
    let times: Vec<f64> = times.collect();
    assert!(times.len() == 5 && times.is_sorted() && times[0] > 0.0, "{times:?}");
    assert_eq!(demo.stderr.all(), [""; 0]);
}
