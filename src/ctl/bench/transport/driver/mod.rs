//! The native protocol on the node's own loop instead of the library for apps: its packets leave in
//! larger batches and cost less, so that the generator is not what limits a run.

mod client;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::ClientConfig;
use slim_wire::{Id, TextName};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use self::client::Client;
use super::{Arrival, components};
use crate::client::link::LinkOptions;
use crate::client::link::tls;
use crate::ctl::Error;
use crate::datapath::CoreId;
use crate::link::quic::settings::{self, QuicSettings};
use crate::link::quic::socket::Socket;
use crate::link::quic::transport::Transport;

/// As the library for apps.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What waits for room on the lane before a sender waits.
const WAITING_BYTES: usize = 512 * 1024;

/// Receives in a turn before anything is sent, as in the node.
const RECEIVES: usize = 16;

pub(crate) struct Sender {
    shared: Rc<Shared>,
}

pub(crate) struct Receiver {
    shared: Rc<Shared>,
    /// Ends the loop, and with it the connection.
    _turns: Turns,
}

struct Turns(AbortHandle);

impl Drop for Turns {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the two halves and the loop have in common.
#[derive(Default)]
struct Shared {
    state: RefCell<State>,
    waker: RefCell<Option<Waker>>,
    /// Something has arrived, or the link has ended.
    arrived: Notify,
    /// Some of what waited has left, or the link has ended.
    left: Notify,
}

#[derive(Default)]
struct State {
    /// Subscribed, if that was asked for.
    ready: bool,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    arrivals: Vec<Arrival>,
    /// All was handed in: the streams are to be ended.
    finishing: bool,
    /// Why the link has ended.
    ended: Option<String>,
}

impl Shared {
    fn end(&self, reason: String) {
        self.state.borrow_mut().ended.get_or_insert(reason);
        self.arrived.notify_one();
        self.left.notify_one();
    }

    /// Has the loop take a turn.
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// A link of its own, subscribed to the id if there is one.
pub(super) async fn connect(
    server: &str,
    options: &LinkOptions,
    topic: &str,
    id: Option<u64>,
) -> Result<(Sender, Receiver), Error> {
    let name = id.map(|id| {
        let name = TextName::new(components(topic), Id::from_u64(id));
        name.expect("a plan has no topic that a name cannot hold")
    });
    let failed = |source: io::Error| Error::connect(server, source);
    let remote = tokio::net::lookup_host(server).await.map_err(failed)?.next();
    let remote = remote.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let shared = Rc::new(Shared::default());
    let ends = Ends::begin(server, remote, options, name, &shared)?;
    let turns = tokio::task::spawn_local(ends.run()).abort_handle();
    let receiver = Receiver { shared: Rc::clone(&shared), _turns: Turns(turns) };
    loop {
        {
            let state = shared.state.borrow();
            if let Some(reason) = &state.ended {
                return Err(Error::connect(server, io::Error::other(reason.clone())));
            }
            if state.ready {
                return Ok((Sender { shared: Rc::clone(&shared) }, receiver));
            }
        }
        shared.arrived.notified().await;
    }
}

impl Sender {
    pub(super) async fn send(&mut self, frames: Bytes) -> Result<(), Error> {
        loop {
            {
                let mut state = self.shared.state.borrow_mut();
                if let Some(reason) = &state.ended {
                    return Err(Error::link(reason));
                }
                if state.waiting_bytes < WAITING_BYTES {
                    state.waiting_bytes += frames.len();
                    state.waiting.push_back(frames);
                    break;
                }
            }
            self.shared.left.notified().await;
        }
        self.shared.wake();
        Ok(())
    }

    /// A node closes a connection whose streams have ended once it has read all of them.
    pub(super) async fn finish(self) -> Result<(), Error> {
        self.shared.state.borrow_mut().finishing = true;
        self.shared.wake();
        while self.shared.state.borrow().ended.is_none() {
            self.shared.left.notified().await;
        }
        Ok(())
    }
}

impl Receiver {
    pub(super) async fn receive(&mut self, arrivals: &mut Vec<Arrival>) -> Result<bool, Error> {
        loop {
            {
                let mut state = self.shared.state.borrow_mut();
                if !state.arrivals.is_empty() {
                    arrivals.append(&mut state.arrivals);
                    return Ok(true);
                }
                if let Some(reason) = &state.ended {
                    return Err(Error::link(reason));
                }
            }
            self.shared.arrived.notified().await;
        }
    }
}

/// A message leaves as the frame that it is.
pub(super) use super::native::template;

/// The connection and its socket.
struct Ends {
    socket: Socket,
    transport: Transport,
    client: Client,
    shared: Rc<Shared>,
}

impl Ends {
    fn begin(
        server: &str,
        remote: SocketAddr,
        options: &LinkOptions,
        name: Option<TextName>,
        shared: &Rc<Shared>,
    ) -> Result<Self, Error> {
        let any: SocketAddr = if remote.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let failed = |source| Error::Native { server: server.to_owned(), source };
        let socket = UdpSocket::bind(any).and_then(Socket::new);
        let socket = socket.map_err(|source| Error::connect(server, source))?;
        let quic = QuicSettings {
            mtu: options.mtu,
            idle_timeout: IDLE_TIMEOUT,
            congestion: options.congestion,
        };
        let mut config = ClientConfig::new(Arc::new(tls::quic(options).map_err(failed)?));
        config.transport_config(Arc::new(settings::transport(quic)));
        let mut transport = Transport::new(settings::endpoint(CoreId(0), quic), None);
        let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
        let host = options.server_name.as_deref().unwrap_or(host.trim_matches(['[', ']']));
        let connected = transport.connect(config, remote, host, Instant::now());
        connected.map_err(|error| Error::connect(server, io::Error::other(error)))?;
        let client = Client::new(name, Rc::clone(shared));
        Ok(Self { socket, transport, client, shared: Rc::clone(shared) })
    }

    async fn run(mut self) {
        let mut sleep = pin!(tokio::time::sleep_until(tokio::time::Instant::now()));
        loop {
            match self.turn(Instant::now()) {
                Ok(true) => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Ok(false) => {}
                Err(error) => return self.shared.end(error.to_string()),
            }
            let deadline = self.transport.deadline();
            if let Some(deadline) = deadline {
                sleep.as_mut().reset(deadline.into());
            }
            poll_fn(|cx| {
                let mut due = deadline.is_some() && sleep.as_mut().poll(cx).is_ready();
                due |= self.client.has_more();
                self.shared.waker.borrow_mut().replace(cx.waker().clone());
                if self.socket.poll_ready(cx).is_ready() || due {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
    }

    /// Everything that is to be done now; returns whether there is more.
    fn turn(&mut self, now: Instant) -> io::Result<bool> {
        let Self { socket, transport, client, .. } = self;
        let mut busy = false;
        for receives in 1..=RECEIVES {
            if !socket.receive(|datagram| client.batch.push(datagram))? {
                break;
            }
            busy = receives == RECEIVES;
            let mut batch = std::mem::take(&mut client.batch);
            for datagram in batch.drain(..) {
                transport.receive(datagram, client, socket, now);
            }
            client.batch = batch;
        }
        busy |= transport.read(client, now);
        client.touch(|id| transport.touch(id));
        if socket.has_room() {
            busy |= transport.write(client, socket, now);
        }
        Ok(busy)
    }
}

/// Tells the node, which would else wait for more.
impl Drop for Ends {
    fn drop(&mut self) {
        let Self { socket, transport, client, .. } = self;
        client.close(|id| transport.touch(id));
        transport.write(client, socket, Instant::now());
    }
}
