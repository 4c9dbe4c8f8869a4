//! A node and three apps in one process, who chat in an encrypted group over real sockets and say
//! what happened: to see whether everything works here, and how fast.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use slim_wire::{NameError, TextName};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::link::{Link, LinkError};
use crate::client::{
    App, AppError, CloseReason, Config, Event, Identity, LinkOptions, Session, SessionError, Trust,
};
use crate::node::{Drained, Node, StartError};

/// Messages in a row.
const BURST: u32 = 1_000;

const PAYLOAD_BYTES: usize = 64;

/// Round trips to measure, after some that warm up.
const ROUND_TRIPS: u32 = 1_000;
const WARM_UP: u32 = 100;

/// Far more than any step needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// When what has not been acknowledged is sent again, and how often.
const TIMEOUT: Duration = Duration::from_secs(1);
const MAX_RETRIES: u32 = 10;

const SECRET: &str = "a secret that stays in this process";

/// Why a demonstration failed.
#[derive(Debug, Error)]
pub enum DemoError {
    /// The node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system has no runtime for the apps.
    #[error("runtime of the apps: {0}")]
    Runtime(io::Error),
    /// A name of an app is none: a defect.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An app, or a session of it, failed.
    #[error(transparent)]
    App(Box<AppError>),
    /// A link failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Not everything arrived, or not where and how it should.
    #[error("{step}: expected {expected}, got {got}")]
    Missing {
        /// What was shown.
        step: &'static str,
        /// What should have arrived.
        expected: String,
        /// What did.
        got: String,
    },
    /// What happened cannot be printed.
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

impl From<AppError> for DemoError {
    fn from(error: AppError) -> Self {
        Self::App(Box::new(error))
    }
}

impl From<SessionError> for DemoError {
    fn from(error: SessionError) -> Self {
        AppError::from(error).into()
    }
}

/// Runs the demonstration and tells its course to `out`, a line each.
///
/// # Errors
/// [`DemoError`] as soon as something is not as it should be.
pub fn run(out: &mut dyn Write) -> Result<(), DemoError> {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = slim_config::Config { admin: None, ..slim_config::Config::embedded(any_port) };
    let node = Node::start(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DemoError::Runtime)?;
    runtime.block_on(async {
        play(out, node.servers()[0]).await?;
        match node.drain(std::future::pending()).await {
            Drained::Clean => writeln!(out, "\nEverything arrived.")?,
            other => return Err(missing("stop", "everything to be written", &other)),
        }
        Ok(())
    })
}

fn missing(
    step: &'static str,
    expected: impl Into<String>,
    got: &dyn std::fmt::Debug,
) -> DemoError {
    DemoError::Missing { step, expected: expected.into(), got: format!("{got:?}") }
}

/// What `future` resolves to, unless that takes far too long.
async fn in_time<T, E: Into<DemoError>>(
    step: &'static str,
    expected: &str,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, DemoError> {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(missing(step, expected, &PATIENCE)),
    }
}

async fn play(out: &mut dyn Write, node: SocketAddr) -> Result<(), DemoError> {
    writeln!(out, "A node and three apps in one process, over loopback:\n")?;
    writeln!(out, "  node     {node}, QUIC and gRPC")?;
    let alice = connect(out, node, "quic", "alice").await?;
    let bob = connect(out, node, "quic", "bob").await?;
    let carol = connect(out, node, "http", "carol").await?;
    let room = name("room")?;
    let mallory = Eavesdropper::start(node, &room).await?;
    writeln!(out, "  mallory  listens on {}, but nobody invites her", path(&room))?;

    writeln!(out, "\nAlice creates the group {}, encrypted end to end (MLS):\n", path(&room))?;
    chat(out, &room, [&alice, &bob, &carol], mallory).await?;

    writeln!(
        out,
        "\n{ROUND_TRIPS} round trips of {PAYLOAD_BYTES} bytes each, encrypted and acknowledged, \
         one at a time:\n"
    )?;
    latency(out, "QUIC to QUIC", &alice, &bob).await?;
    latency(out, "QUIC to gRPC", &alice, &carol).await?;
    for app in [alice, bob, carol] {
        app.close().await;
    }
    Ok(())
}

fn name(last: &str) -> Result<TextName, NameError> {
    format!("demo/chat/{last}").parse()
}

/// A name as applications write it, without its id.
fn path(name: &TextName) -> String {
    name.components().join("/")
}

fn last(app: &App) -> &str {
    app.name().components()[2]
}

/// The node has just made its certificate, and does not leave this process.
fn link_options() -> LinkOptions {
    LinkOptions { trust: Trust::DangerAcceptAnyCertificate, ..LinkOptions::default() }
}

async fn connect(
    out: &mut dyn Write,
    node: SocketAddr,
    scheme: &str,
    app: &str,
) -> Result<App, DemoError> {
    let name = name(app)?;
    let identity = Identity::shared_secret(app, SECRET).map_err(AppError::from)?;
    let connected = App::new(&name, identity)?;
    connected.connect(&format!("{scheme}://{node}"), link_options()).await?;
    let protocol = if scheme == "quic" { "QUIC" } else { "gRPC" };
    writeln!(out, "  {app:<7}  {}, over {protocol}", path(&name))?;
    Ok(connected)
}

fn reliable(config: Config) -> Config {
    config.reliable(TIMEOUT, Some(MAX_RETRIES)).encrypted()
}

/// The life of a group.
async fn chat(
    out: &mut dyn Write,
    room: &TextName,
    apps: [&App; 3],
    mallory: Eavesdropper,
) -> Result<(), DemoError> {
    let [alice, bob, carol] = apps;
    let moderating = alice.create_session(reliable(Config::group(room)))?;
    let of_bob = invite(out, &moderating, bob).await?;
    let of_carol = invite(out, &moderating, carol).await?;
    let [a, b, c] = [(alice, &moderating), (bob, &of_bob), (carol, &of_carol)];
    say(out, "hello, you two", a, &[b, c]).await?;
    say(out, "hello, alice", b, &[a, c]).await?;
    say(out, "hello from another protocol", c, &[a, b]).await?;
    burst(out, &moderating, &[&of_bob, &of_carol]).await?;

    let begun = Instant::now();
    in_time("remove", "bob to go", moderating.remove(&name("bob")?)?.done()).await?;
    let (after, left) = (millis(begun), members(&moderating)?);
    writeln!(out, "  removed  bob, in {after}; members are {left}, with new keys")?;
    say(out, "is bob gone?", a, &[c]).await?;
    until_removed(&of_bob).await?;
    writeln!(out, "  bob      was told, and heard nothing more")?;
    let seen = mallory.stop().await?;
    writeln!(out, "  mallory  saw {seen} messages pass, and none of the words")?;
    alice.delete_session(moderating);
    until_removed(&of_carol).await?;
    Ok(())
}

async fn invite(
    out: &mut dyn Write,
    moderating: &Session,
    app: &App,
) -> Result<Session, DemoError> {
    let begun = Instant::now();
    let joining = moderating.invite(&name(last(app))?)?.done();
    in_time("invite", "the invited to join", joining).await?;
    let (who, after, all) = (last(app), millis(begun), members(moderating)?);
    let session = in_time("invite", "a session", app.listen_for_session(None)).await?;
    writeln!(out, "  invited  {who}, in {after}; members are {all}")?;
    Ok(session)
}

/// One says something, and the others hear it.
async fn say(
    out: &mut dyn Write,
    text: &str,
    (speaker, from): (&App, &Session),
    listeners: &[(&App, &Session)],
) -> Result<(), DemoError> {
    from.publish(text.to_owned()).await?;
    for (_, session) in listeners {
        let (context, payload) = in_time("say", text, session.get_message()).await?;
        if context.source.name != speaker.name().to_name() || payload != text {
            let expected = format!("{text:?} of {}", speaker.name());
            return Err(missing("say", expected, &(context.source, payload)));
        }
    }
    let heard: Vec<&str> = listeners.iter().map(|(app, _)| last(app)).collect();
    writeln!(out, "  {:<7}  {text:?}: heard by {}", last(speaker), heard.join(" and "))?;
    Ok(())
}

/// One says much in a row, and each of the others gets all of it in order.
async fn burst(out: &mut dyn Write, from: &Session, to: &[&Session; 2]) -> Result<(), DemoError> {
    let publish = async {
        for number in 0..BURST {
            from.publish(numbered(number)).await?;
        }
        Ok::<_, DemoError>(())
    };
    let all = async {
        let [first, second] = to.map(in_order);
        tokio::try_join!(publish, first, second)
    };
    in_time("burst", "all messages for both", all).await?;
    writeln!(out, "  alice    {BURST} messages in a row: bob and carol got all, in order")?;
    Ok(())
}

fn numbered(number: u32) -> Vec<u8> {
    let mut payload = vec![0; PAYLOAD_BYTES];
    payload[..4].copy_from_slice(&number.to_le_bytes());
    payload
}

async fn in_order(session: &Session) -> Result<(), DemoError> {
    for number in 0..BURST {
        let (_, payload) = session.get_message().await?;
        if payload != numbered(number) {
            return Err(missing("burst", format!("message {number}"), &payload));
        }
    }
    Ok(())
}

/// Nothing but the end comes of a session.
async fn until_removed(session: &Session) -> Result<(), DemoError> {
    loop {
        match in_time("remove", "the end of a session", session.next_event()).await? {
            Event::Closed(CloseReason::Removed) => return Ok(()),
            Event::Joined(_) | Event::Left(_) => {}
            other => return Err(missing("remove", "nothing but the end", &other)),
        }
    }
}

fn members(session: &Session) -> Result<String, DemoError> {
    let names = session.participants()?.into_iter().map(|member| match member.name.texts() {
        Some([_, _, app]) => app.to_owned(),
        None => member.name.to_string(),
    });
    Ok(names.collect::<Vec<_>>().join(", "))
}

/// Somebody who subscribes to a channel without being a member: any app that the node lets in can.
struct Eavesdropper {
    stop: oneshot::Sender<()>,
    listening: JoinHandle<Result<u32, DemoError>>,
}

impl Eavesdropper {
    async fn start(node: SocketAddr, channel: &TextName) -> Result<Self, DemoError> {
        let link = Link::connect(&node.to_string(), &link_options()).await?;
        link.subscribe(channel).await?;
        let (stop, stopped) = oneshot::channel();
        let listening = tokio::spawn(Self::listen(link, stopped));
        Ok(Self { stop, listening })
    }

    async fn listen(link: Link, mut stopped: oneshot::Receiver<()>) -> Result<u32, DemoError> {
        let mut seen = 0;
        loop {
            let message = tokio::select! {
                message = link.receive() => message?,
                _ = &mut stopped => break,
            };
            seen += 1;
            let words = [&b"hello"[..], b"bob gone"];
            let reads = |word: &[u8]| message.payload.windows(word.len()).any(|part| part == word);
            if words.into_iter().any(reads) {
                return Err(missing("encryption", "no word in clear", &message.payload));
            }
        }
        link.close().await?;
        Ok(seen)
    }

    /// How many messages it saw.
    async fn stop(self) -> Result<u32, DemoError> {
        // If it has ended already, it says why.
        let _ = self.stop.send(());
        let seen = self.listening.await;
        let seen = seen.map_err(|error| missing("encryption", "somebody to listen", &error))??;
        if seen == 0 {
            return Err(missing("encryption", "messages on the channel", &seen));
        }
        Ok(seen)
    }
}

/// One asks, the other answers.
async fn latency(
    out: &mut dyn Write,
    route: &str,
    asking: &App,
    answering: &App,
) -> Result<(), DemoError> {
    let config = reliable(Config::point_to_point(&name(last(answering))?));
    let session = asking.create_session(config)?;
    let longest = PATIENCE.as_nanos() as u64;
    let mut times = Histogram::new_with_max(longest, 3).expect("three digits are supported");
    let both = async { tokio::try_join!(ask(&session, &mut times), answer(answering)) };
    // What the answering side has sent last is on its way until the asking side has it.
    let ((), answered) = in_time("latency", "all round trips", both).await?;
    answering.delete_session(answered);
    let at = |quantile| micros(times.value_at_quantile(quantile));
    let (p50, p90, p99) = (at(0.5), at(0.9), at(0.99));
    let max = micros(times.max());
    writeln!(out, "  {route}  p50 {p50}, p90 {p90}, p99 {p99}, max {max}")?;
    asking.delete_session(session);
    Ok(())
}

/// Sends one message after the other and notes when each is back, in nanoseconds.
async fn ask(session: &Session, times: &mut Histogram<u64>) -> Result<(), DemoError> {
    for number in 0..WARM_UP + ROUND_TRIPS {
        let (payload, sent) = (numbered(number), Instant::now());
        session.publish(payload.clone()).await?;
        let (_, back) = session.get_message().await?;
        if back != payload {
            return Err(missing("latency", format!("message {number}"), &back));
        }
        if number >= WARM_UP {
            let nanoseconds = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
            times.saturating_record(nanoseconds);
        }
    }
    Ok(())
}

/// Sends each message back.
async fn answer(app: &App) -> Result<Session, DemoError> {
    let session = app.listen_for_session(None).await?;
    for _ in 0..WARM_UP + ROUND_TRIPS {
        let (context, payload) = session.get_message().await?;
        session.publish_to(&context, payload).await?;
    }
    Ok(session)
}

fn millis(begun: Instant) -> String {
    format!("{:.1} ms", begun.elapsed().as_secs_f64() * 1_000.0)
}

fn micros(nanoseconds: u64) -> String {
    format!("{:.1} µs", nanoseconds as f64 / 1_000.0)
}
