//! Whoever reads the log has no say in what the node does.

mod support;

use std::io::{BufRead, BufReader, Write, pipe};
use std::net::SocketAddr;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use support::client::Client;
use support::eventually;
use support::node::slim;
use support::raw::{Connection, status};

/// A child that does not outlive the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself, as it should.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_reader_of_the_log_that_stalls_stops_nothing() {
    const PIPE_BYTES: usize = 64 * 1024;
    let (reader, mut writer) = pipe().expect("a pipe");
    let mut command = slim(&["--listen", "127.0.0.1:0"]);
    let child = command.stdout(writer.try_clone().expect("a second handle")).spawn();
    let mut child = Ended(child.expect("the program starts"));
    drop(command);
    let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
    let address = lines.find_map(|line| {
        let (_, rest) = line.split_once("gRPC on ")?;
        rest.split(',').next().map(str::to_owned)
    });
    let address: SocketAddr = address.expect("says where it listens").parse().expect("an address");

    // From here on nobody reads, and the pipe is full.
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    std::thread::spawn(move || {
        while writer.write_all(b"x").is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut before = 0;
    eventually("the pipe is full", async || {
        let now = written.load(Ordering::Relaxed);
        let stalled = now == before && now > PIPE_BYTES / 2;
        before = now;
        stalled.then_some(())
    })
    .await;

    let mut connection = Connection::open(address).await;
    for _ in 0..3 {
        // Each is an incident; the first has its line in the log.
        let (response, _body) = connection.request("/no.such/Method").await;
        assert_eq!(status(response.headers()).code(), tonic::Code::Unimplemented);
    }
    let mut receiver = Client::connect_to(address, "org/ns/receiver/1").await;
    receiver.subscribe("org/ns/receiver/1").await;
    // To itself a client sends nothing; this one asks another until that is subscribed.
    let sender = Client::connect_to(address, "org/ns/sender/2").await;
    let payload = tokio::select! {
        payload = receiver.payload() => payload,
        () = async { loop {
            sender.publish("org/ns/receiver/1", "delivered").await;
            tokio::task::yield_now().await;
        } } => unreachable!("sends without end"),
    };
    assert_eq!(payload, "delivered");
    drop((receiver, sender, connection));

    kill_process(Pid::from_child(&child.0), Signal::TERM).expect("it runs");
    let exit = eventually("it stops", async || child.0.try_wait().expect("a child")).await;
    assert!(exit.code().is_some(), "by itself: {exit}");
    drop(lines);
}
