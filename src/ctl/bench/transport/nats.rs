//! The protocol of NATS, so that its servers can be measured under the same load: a line of text
//! for each message, then its payload.
//!
//! A subscriber takes two subjects, `slimctl.bench.TOPIC.ID` for messages to itself, and
//! `slimctl.bench.TOPIC` for those to all.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, split};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::super::pump;
use super::{Arrival, Route, Target, Template, components};
use crate::client::link::{LinkOptions, Trust, tls};
use crate::ctl::Error;

/// What a read may bring at most.
const READ_BYTES: usize = 256 * 1024;

/// Longest line, and longest payload, that a server is believed to mean.
const LINE_BYTES: usize = 64 * 1024;
const PAYLOAD_BYTES: usize = 64 * 1024 * 1024;

const END_OF_LINE: &[u8] = b"\r\n";

type Writer = Rc<Mutex<Box<dyn AsyncWrite + Unpin>>>;

pub(crate) struct Sender {
    writer: Writer,
    /// Of a link that only sends: what the server says is read in between.
    control: Option<Reader>,
}

pub(crate) struct Receiver {
    writer: Writer,
    /// `None` on a link that only sends.
    reader: Option<Reader>,
}

struct Reader {
    io: Box<dyn AsyncRead + Unpin>,
    buffer: BytesMut,
    /// Whether the server has asked since it was last answered.
    pinged: bool,
    /// Whether the server has answered.
    ponged: bool,
}

/// What the server says about itself first.
#[derive(Debug, Default, Deserialize)]
struct Info {
    #[serde(default)]
    tls_required: bool,
}

/// A connection of its own, subscribed to the id if there is one; with TLS if there is a way to
/// know the server.
pub(super) async fn connect(
    authority: &str,
    trust: Option<&Trust>,
    topic: &str,
    id: Option<u64>,
) -> Result<(Sender, Receiver), Error> {
    if topic.contains(|c: char| c.is_whitespace() || c.is_control() || "*>".contains(c)) {
        let expected = "no spaces, `*` or `>` where messages go through NATS";
        return Err(Error::argument("--topic", expected, topic));
    }
    let failed = |source| Error::connect(authority, source);
    let (mut reader, writer) = open(authority, trust).await.map_err(failed)?;
    let mut hello = format!(
        "CONNECT {{\"verbose\":false,\"pedantic\":false,\"protocol\":1,\"lang\":\"rust\",\
         \"name\":\"slimctl\",\"version\":\"{}\",\"tls_required\":{}}}\r\n",
        env!("CARGO_PKG_VERSION"),
        trust.is_some(),
    );
    if let Some(id) = id {
        let (one, all) = (subject(topic, Target::Id(id)), subject(topic, Target::All(0)));
        hello += &format!("SUB {one} 1\r\nSUB {all} 2\r\n");
    }
    write(&writer, hello.as_bytes()).await?;
    round_trip(&mut reader, &writer).await?;
    let (reader, control) = if id.is_some() { (Some(reader), None) } else { (None, Some(reader)) };
    Ok((Sender { writer: Rc::clone(&writer), control }, Receiver { writer, reader }))
}

async fn open(
    authority: &str,
    trust: Option<&Trust>,
) -> Result<(Reader, Writer), Box<dyn std::error::Error + Send + Sync>> {
    let mut tcp = TcpStream::connect(authority).await?;
    tcp.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    while operation(&buffer)?.is_none() {
        if tcp.read_buf(&mut buffer).await? == 0 {
            return Err("expected INFO of a NATS server, got the end of the stream".into());
        }
    }
    let Some((Operation::Info(text), len)) = operation(&buffer)? else {
        return Err("expected INFO of a NATS server, got something else".into());
    };
    let info: Info = serde_json::from_slice(text)?;
    buffer.advance(len);
    match trust {
        Some(trust) => {
            let options = LinkOptions { trust: trust.clone(), ..LinkOptions::default() };
            let provider = pump::tls_provider();
            let config = tls::config(&options, provider, &[&rustls::version::TLS13])?;
            let connector = TlsConnector::from(Arc::new(config));
            let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
            // rustls itself asks for no more than 4 KiB at a time.
            let tcp = BufReader::with_capacity(READ_BYTES, tcp);
            Ok(halves(connector.connect(name, tcp).await?, buffer))
        }
        None if info.tls_required => Err("the server wants TLS: expected tls://".into()),
        None => Ok(halves(tcp, buffer)),
    }
}

fn halves(io: impl AsyncRead + AsyncWrite + 'static, buffer: BytesMut) -> (Reader, Writer) {
    let (read, write) = split(io);
    let reader = Reader { io: Box::new(read), buffer, pinged: false, ponged: false };
    (reader, Rc::new(Mutex::new(Box::new(write))))
}

async fn write(writer: &Writer, bytes: &[u8]) -> Result<(), Error> {
    let mut writer = writer.lock().await;
    writer.write_all(bytes).await.map_err(Error::link)?;
    writer.flush().await.map_err(Error::link)
}

/// Returns once the server has read all that was sent before.
async fn round_trip(reader: &mut Reader, writer: &Writer) -> Result<(), Error> {
    reader.ponged = false;
    write(writer, b"PING\r\n").await?;
    while !reader.ponged {
        if !reader.read(&mut Vec::new()).await? {
            return Err(Error::link("its end"));
        }
        reader.answer(writer).await?;
    }
    Ok(())
}

fn subject(topic: &str, target: Target) -> String {
    let topic = components(topic).join(".");
    match target {
        Target::Id(id) => format!("{topic}.{id}"),
        Target::All(_) => topic,
    }
}

pub(super) fn template(route: &Route<'_>, size: usize) -> Template {
    let mut bytes = format!("PUB {} {size}\r\n", subject(route.topic, route.target)).into_bytes();
    let stamp_at = bytes.len();
    bytes.resize(stamp_at + size, 0x5A);
    bytes.extend_from_slice(END_OF_LINE);
    Template { bytes, stamp_at, address: route.address() }
}

impl Sender {
    pub(super) async fn send(&mut self, messages: Bytes) -> Result<(), Error> {
        write(&self.writer, &messages).await?;
        let Some(control) = &mut self.control else { return Ok(()) };
        let mut ignored = Vec::new();
        while let Some(open) = control.read(&mut ignored).now_or_never() {
            if !open? {
                return Err(Error::link("its end"));
            }
        }
        control.answer(&self.writer).await
    }

    /// Returns once the server has all.
    pub(super) async fn finish(self) -> Result<(), Error> {
        match self.control {
            Some(mut control) => round_trip(&mut control, &self.writer).await,
            None => Ok(()),
        }
    }
}

impl Receiver {
    pub(super) async fn receive(&mut self, arrivals: &mut Vec<Arrival>) -> Result<bool, Error> {
        let Some(reader) = &mut self.reader else {
            return std::future::pending().await;
        };
        let open = reader.read(arrivals).await?;
        reader.answer(&self.writer).await?;
        Ok(open)
    }
}

impl Reader {
    /// Reads once, and adds the messages that are whole; false at the end. Nothing is lost if it
    /// is dropped before it is done.
    async fn read(&mut self, arrivals: &mut Vec<Arrival>) -> Result<bool, Error> {
        self.buffer.reserve(READ_BYTES / 2);
        if self.io.read_buf(&mut self.buffer).await.map_err(Error::link)? == 0 {
            return Ok(false);
        }
        let mut at = 0;
        while let Some((operation, len)) = operation(&self.buffer[at..])? {
            match operation {
                Operation::Message(payload) => arrivals.extend(Arrival::of(payload)),
                Operation::Ping => self.pinged = true,
                Operation::Pong => self.ponged = true,
                Operation::Info(_) | Operation::Accepted => {}
            }
            at += len;
        }
        self.buffer.advance(at);
        Ok(true)
    }

    async fn answer(&mut self, writer: &Writer) -> Result<(), Error> {
        if std::mem::take(&mut self.pinged) {
            write(writer, b"PONG\r\n").await?;
        }
        Ok(())
    }
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
enum Operation<'a> {
    /// The payload of a message.
    Message(&'a [u8]),
    Info(&'a [u8]),
    Ping,
    Pong,
    Accepted,
}

/// What is at the start of `bytes`, and its length; `None` if too little of it is there.
fn operation(bytes: &[u8]) -> Result<Option<(Operation<'_>, usize)>, Error> {
    let wrong = |got: &[u8]| {
        Error::link(format!("what is no message of NATS: {:?}", String::from_utf8_lossy(got)))
    };
    let Some(end) = bytes.iter().take(LINE_BYTES).position(|&byte| byte == b'\n') else {
        let first = &bytes[..bytes.len().min(64)];
        return if bytes.len() < LINE_BYTES { Ok(None) } else { Err(wrong(first)) };
    };
    let line = bytes[..end].trim_ascii_end();
    let body = end + 1;
    let plain = |operation| Ok(Some((operation, body)));
    match line.iter().position(|&byte| byte == b' ').map_or(line, |at| &line[..at]) {
        b"MSG" => {
            let len = line.rsplit(|&byte| byte == b' ').next().and_then(number);
            let len = len.filter(|&len| len <= PAYLOAD_BYTES).ok_or_else(|| wrong(line))?;
            let after = body + len + END_OF_LINE.len();
            let Some(rest) = bytes.get(body..after) else { return Ok(None) };
            match rest.split_at(len) {
                (payload, END_OF_LINE) => Ok(Some((Operation::Message(payload), after))),
                _ => Err(wrong(line)),
            }
        }
        b"PING" => plain(Operation::Ping),
        b"PONG" => plain(Operation::Pong),
        b"+OK" => plain(Operation::Accepted),
        b"INFO" => plain(Operation::Info(&line[b"INFO".len()..])),
        b"-ERR" => Err(Error::link(String::from_utf8_lossy(line))),
        _ => Err(wrong(line)),
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use indicatif::ProgressBar;
    use tokio::io::{AsyncBufReadExt, BufStream};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio::task::{LocalSet, spawn_local};

    use super::super::super::stamp::{Mark, Stamp};
    use super::super::super::{Mode, Plan, Server, Session};
    use super::*;

    /// Its subject, its number, and where its messages go.
    type Subscription = (String, String, UnboundedSender<Vec<u8>>);

    /// As much of a NATS server as a run needs.
    #[derive(Default)]
    struct Broker {
        subscriptions: RefCell<Vec<Subscription>>,
        answers: Cell<usize>,
    }

    impl Broker {
        async fn start(self: &Rc<Self>) -> String {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound").to_string();
            let broker = Rc::clone(self);
            spawn_local(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    spawn_local(Rc::clone(&broker).serve(BufStream::new(socket)));
                }
            });
            address
        }

        async fn serve(self: Rc<Self>, socket: BufStream<TcpStream>) -> std::io::Result<()> {
            let (mut reader, mut writer) = split(socket);
            let (output, mut outputs) = unbounded_channel::<Vec<u8>>();
            spawn_local(async move {
                while let Some(bytes) = outputs.recv().await {
                    let _gone = writer.write_all(&bytes).await;
                    let _gone = writer.flush().await;
                }
            });
            let say = |text: &str| output.send(text.into()).expect("the writer runs");
            say("INFO {\"server_id\":\"test\",\"max_payload\":1048576}\r\nPING\r\n");
            let mut reader = BufReader::new(&mut reader);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).await? == 0 {
                    return Ok(());
                }
                match line.split_whitespace().collect::<Vec<_>>()[..] {
                    ["PING"] => say("PONG\r\n"),
                    ["PONG"] => self.answers.set(self.answers.get() + 1),
                    ["SUB", subject, id] => {
                        let subscription = (subject.to_owned(), id.to_owned(), output.clone());
                        self.subscriptions.borrow_mut().push(subscription);
                    }
                    ["PUB", subject, len] => {
                        let mut payload = vec![0; len.parse::<usize>().expect("a length") + 2];
                        reader.read_exact(&mut payload).await?;
                        for (_, id, output) in
                            self.subscriptions.borrow().iter().filter(|(to, ..)| to == subject)
                        {
                            let line = format!("MSG {subject} {id} {len}\r\n");
                            let _gone = output.send([line.as_bytes(), &payload].concat());
                        }
                    }
                    _ => assert!(line.starts_with("CONNECT {"), "{line}"),
                }
            }
        }
    }

    #[test]
    fn messages_go_through_a_broker_to_one_to_all_and_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        LocalSet::new().block_on(&runtime.expect("a runtime"), async {
            let broker = Rc::new(Broker::default());
            let authority = broker.start().await;
            let server = Server::Nats { authority, tls: None };
            let plan = || Plan { count: Some(500), size: 1_000, ..Plan::default() };
            for (topic, plan, copies) in [
                ("one", plan(), 500),
                ("all", Plan { subscribers: 3, ..plan() }, 1_500),
                ("back", Plan { mode: Mode::RoundTrip, ..plan() }, 500),
            ] {
                let plan = Plan { topic: topic.into(), ..plan };
                let session = Session::connect(&server, plan).await.expect("a session");
                let report = session.run(&ProgressBar::hidden()).await.expect("a report");
                assert_eq!((report.messages, report.lost), (copies, Some(0)), "{topic}");
            }
            // Whoever does not answer is taken for dead in the end.
            assert_eq!(broker.answers.get(), 2 + 4 + 2);
        });
    }

    #[test]
    fn a_topic_that_no_subject_can_hold_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let refused = async { connect("127.0.0.1:1", None, "a b", None).await.err() };
        let error = runtime.expect("a runtime").block_on(refused).expect("an error");
        assert!(error.to_string().starts_with("--topic: expected no spaces"), "{error}");
    }

    #[test]
    fn a_message_is_published_to_its_subject_and_read_as_it_was_written() {
        let route = Route { topic: "t", source: 7, target: Target::Id(1) };
        let stamp = Stamp { due: 1, sender: 2, mark: Mark::Data, sequence: 3 };
        let mut sent = BytesMut::new();
        template(&route, 64).append(stamp, &mut sent);
        assert!(sent.starts_with(b"PUB slimctl.bench.t.1 64\r\n") && sent.ends_with(b"\r\n"));

        // A server puts the number of the subscription in between.
        let payload = &sent[sent.len() - 66..];
        let received = [b"MSG slimctl.bench.t.1 1 64\r\n", payload, b"PING\r\n"].concat();
        let (message, len) = operation(&received).expect("valid").expect("whole");
        let Operation::Message(payload) = message else { panic!("{message:?}") };
        let arrival = Arrival::of(payload).expect("a stamp");
        assert_eq!((arrival.stamp, arrival.bytes), (stamp, 64));
        let next = operation(&received[len..]).expect("valid");
        assert_eq!(next, Some((Operation::Ping, 6)));
    }

    #[test]
    fn what_is_cut_is_waited_for() {
        let whole = b"MSG a.b 1 reply 3\r\nxyz\r\n";
        for len in 0..whole.len() {
            assert_eq!(operation(&whole[..len]).expect("valid so far"), None, "{len}");
        }
        let read = operation(whole).expect("valid");
        assert_eq!(read, Some((Operation::Message(b"xyz"), whole.len())));
    }

    #[test]
    fn what_no_server_of_nats_says_is_refused() {
        let long = [b'x'; LINE_BYTES];
        let wrong: [&[u8]; 6] = [
            b"HTTP/1.1 200 OK\r\n",
            b"-ERR 'Maximum Payload Violation'\r\n",
            b"MSG a 1 x\r\n",
            b"MSG a 1 99999999999\r\n",
            b"MSG a 1 3\r\nxyz..",
            &long,
        ];
        for bytes in wrong {
            assert!(operation(bytes).is_err(), "{:?}", bytes.get(..20));
        }
    }
}
