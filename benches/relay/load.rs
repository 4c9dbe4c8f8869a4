//! The load: one publisher and its subscribers, each a connection of its own, as published
//! clients are. HTTP/2 is spoken with `h2` itself and messages are encoded once, so that the
//! generator, which shares the machine with the node, costs little.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::Request;
use prost::Message as _;
use slim_compat_grpc::proto::d6;
use slim_compat_grpc::{D6, Dialect, MessageReader, prefix};
use slim_wire::hash_component;
use slim_wire::limits::GRPC_MESSAGE_BYTES;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::Failure;

/// A publisher and its subscribers at one node.
pub(crate) struct Load {
    publisher: SendStream<Bytes>,
    /// Keeps the stream open: dropping it would reset it.
    _answers: h2::client::ResponseFuture,
    subscribers: Vec<Rc<Subscriber>>,
    tasks: Vec<JoinHandle<()>>,
    frame: Bytes,
    sent: u64,
}

/// Closes the subscribers' connections. Otherwise the next load would share its messages with
/// them: upstream's node takes turns among all links of one name and id.
impl Drop for Load {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[derive(Default)]
struct Subscriber {
    received: Cell<u64>,
    ended: Cell<bool>,
    progress: Notify,
}

/// Windows as published clients announce them.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 5 * 1024 * 1024;

/// What a published client encodes into one buffer when messages are ready: tonic's threshold.
const BATCH_BYTES: usize = 32 * 1024;

const APP: [&str; 3] = ["bench", "relay", "subscriber"];

/// Without news for so long, messages are lost.
const STALL: Duration = Duration::from_secs(5);

impl Load {
    /// Connects everyone and waits until messages arrive.
    pub(crate) async fn connect(
        node: SocketAddr,
        size: usize,
        subscribers: u64,
    ) -> Result<Self, Failure> {
        let (mut everyone, mut tasks) = (Vec::new(), Vec::new());
        for id in 1..=subscribers {
            let (subscriber, task) = subscribe(node, id).await?;
            everyone.push(subscriber);
            tasks.push(task);
        }
        let (publisher, answers) = open(node).await?;
        let mut load = Self {
            publisher,
            _answers: answers,
            subscribers: everyone,
            tasks,
            frame: framed(&publish(size, subscribers)),
            sent: 0,
        };
        load.probe().await?;
        Ok(load)
    }

    /// This protocol has no acknowledgement of a subscription: send until all receive.
    async fn probe(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + STALL;
        while self.received() == 0 {
            if Instant::now() > deadline {
                return Err("no message arrives".into());
            }
            send(&mut self.publisher, self.frame.clone()).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.sent = 0;
        self.subscribers.iter().for_each(|s| s.received.set(0));
        Ok(())
    }

    /// What the slowest subscriber has.
    fn received(&self) -> u64 {
        let counts = self.subscribers.iter().map(|s| s.received.get());
        counts.min().unwrap_or(0)
    }

    /// Publishes `count` messages as fast as `window` messages under way allow, and waits for
    /// the last.
    pub(crate) async fn saturate(&mut self, count: u64, window: u64) -> Result<(), Failure> {
        let batch = (BATCH_BYTES / self.frame.len()).max(1);
        let frames = Bytes::from(self.frame.repeat(batch));
        let end = self.sent + count;
        while self.sent < end {
            let room = window.saturating_sub(self.sent - self.received());
            if room == 0 {
                self.progress().await?;
                continue;
            }
            let messages = room.min(batch as u64).min(end - self.sent);
            let bytes = frames.slice(..messages as usize * self.frame.len());
            send(&mut self.publisher, bytes).await?;
            self.sent += messages;
        }
        self.all_received().await
    }

    /// Publishes `count` messages, `rate` a second, whatever becomes of them, and waits for the
    /// last.
    pub(crate) async fn pace(&mut self, count: u64, rate: u64) -> Result<(), Failure> {
        let mut ticks = ticks(count, rate);
        while ticks.recv().await.is_some() {
            send(&mut self.publisher, self.frame.clone()).await?;
            self.sent += 1;
        }
        self.all_received().await
    }

    async fn all_received(&self) -> Result<(), Failure> {
        while self.received() < self.sent {
            self.progress().await?;
        }
        // Lets the node come to rest, so that its CPU time is up to date.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }

    async fn progress(&self) -> Result<(), Failure> {
        let slowest = self
            .subscribers
            .iter()
            .min_by_key(|subscriber| subscriber.received.get())
            .ok_or("no subscriber")?;
        let waited = tokio::time::timeout(STALL, slowest.progress.notified()).await;
        if waited.is_err() || slowest.ended.get() {
            let (sent, received) = (self.sent, self.received());
            return Err(format!("{} of {sent} messages lost", sent - received).into());
        }
        Ok(())
    }
}

/// Ticks from a thread of their own: the runtime's timer is as coarse as a millisecond, which
/// would make bunches of what is to be single messages.
fn ticks(count: u64, rate: u64) -> mpsc::UnboundedReceiver<()> {
    let (tick, ticks) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let start = Instant::now();
        for index in 0..count {
            let due = start + Duration::from_secs(1).mul_f64(index as f64 / rate as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if tick.send(()).is_err() {
                return;
            }
        }
    });
    ticks
}

/// Opens a channel on a connection of its own.
async fn open(
    node: SocketAddr,
) -> Result<(SendStream<Bytes>, h2::client::ResponseFuture), Failure> {
    let tcp = TcpStream::connect(node).await?;
    // Otherwise delayed acknowledgements would bunch what is paced.
    tcp.set_nodelay(true)?;
    let (mut requests, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(tcp)
        .await?;
    // Ends with the connection; what goes wrong shows in its stream.
    tokio::spawn(connection);
    let request = Request::post(format!("http://{node}{}", D6::PATH))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(())?;
    let (response, stream) = requests.send_request(request, false)?;
    Ok((stream, response))
}

async fn subscribe(node: SocketAddr, id: u64) -> Result<(Rc<Subscriber>, JoinHandle<()>), Failure> {
    let (mut stream, response) = open(node).await?;
    send(&mut stream, framed(&subscription(id))).await?;
    let mut body = response.await?.into_body();
    let subscriber = Rc::<Subscriber>::default();
    let seen = Rc::clone(&subscriber);
    let task = tokio::task::spawn_local(async move {
        let _stays_open = stream;
        // A stream that ends early shows as lost messages, with this as the reason.
        if let Err(error) = receive(&mut body, &seen).await {
            eprintln!("subscriber: {error}");
        }
        seen.ended.set(true);
        seen.progress.notify_one();
    });
    Ok((subscriber, task))
}

async fn receive(body: &mut RecvStream, subscriber: &Subscriber) -> Result<(), Failure> {
    let mut messages = MessageReader::new(GRPC_MESSAGE_BYTES);
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        messages.push(chunk);
        let mut count = 0;
        while messages.next()?.is_some() {
            count += 1;
        }
        subscriber.received.set(subscriber.received.get() + count);
        subscriber.progress.notify_one();
    }
    Ok(())
}

/// Sends all of `bytes` as flow control lets it.
async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), Failure> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let room = room.ok_or("the node closed the stream")??;
        stream.send_data(bytes.split_to(room.min(bytes.len())), false)?;
    }
    Ok(())
}

fn framed(message: &d6::Message) -> Bytes {
    let body = message.encode_to_vec();
    let mut frame = BytesMut::from(&prefix(body.len())[..]);
    frame.extend_from_slice(&body);
    frame.freeze()
}

fn name(id: u64) -> d6::Name {
    let [component_0, component_1, component_2] = APP.map(hash_component);
    d6::Name { component_0, component_1, component_2, component_3: id }
}

fn subscription(id: u64) -> d6::Message {
    let [component_0, component_1, component_2] = APP.map(String::from);
    message(d6::message::Type::Subscribe(d6::Subscribe {
        header: Some(header(id, id, 1)),
        component_0,
        component_1,
        component_2,
    }))
}

/// A point-to-point message as published clients send it; to all if there are several
/// subscribers.
fn publish(size: usize, subscribers: u64) -> d6::Message {
    const ALL: u32 = 50;
    let (target, fanout) = match subscribers {
        1 => (1, 1),
        _ => (u64::MAX, ALL),
    };
    message(d6::message::Type::Publish(d6::Publish {
        header: Some(header(0x1234_5678_9abc_def0, target, fanout)),
        session: Some(d6::SessionHeader {
            session_type: d6::SessionType::PointToPoint as i32,
            session_message_type: d6::SessionMessageType::P2pReliable as i32,
            session_id: 0x0bad_cafe,
            message_id: 1_000_000,
            source: None,
            destination: None,
        }),
        msg: Some(d6::Content { content_type: "msg".into(), blob: Bytes::from(vec![0x5A; size]) }),
    }))
}

fn header(source: u64, destination: u64, fanout: u32) -> d6::Header {
    d6::Header {
        source: Some(name(source)),
        destination: Some(name(destination)),
        fanout,
        incoming_conn: Some(0),
        ..d6::Header::default()
    }
}

/// With the identity that published clients put into every message.
fn message(kind: d6::message::Type) -> d6::Message {
    let identity = "an-identity-token-of-46-bytes-as-0.6.3-sends:x";
    d6::Message {
        r#type: Some(kind),
        metadata: [("SLIM_IDENTITY".to_owned(), identity.to_owned())].into(),
    }
}
