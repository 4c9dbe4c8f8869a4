//! The loop of one core's native side: sockets, timers, and what other cores hand over.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, Sender};
use futures_util::task::AtomicWaker;
use quinn_proto::{ClientConfig, ConnectionHandle, EndpointConfig, ServerConfig};
use slim_config::Secret;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::cid::core_of;
use super::door::{Door, Entrance, PeerId};
use super::peer::{LinkEnd, Origin};
use super::socket::Socket;
use super::transport::{Datagram, Transport};
use crate::datapath::{LinkId, NodeLink};
use crate::link::gate::Gate;
use crate::link::host::Host;
use crate::link::incident::Incident;

/// A datagram that the kernel handed to another core than the one its connection lives on.
struct Strayed {
    server: usize,
    datagram: Datagram,
}

/// One core's end of the channels by which datagrams find the core of their connection.
pub struct Crossing {
    core: usize,
    inbox: Receiver<Strayed>,
    outboxes: Arc<[(Sender<Strayed>, Arc<AtomicWaker>)]>,
}

/// Datagrams that wait for a core; more are lost, as on any path that is full.
const STRAYED: usize = 1024;

impl Crossing {
    /// The connected ends of all cores.
    pub fn connect(cores: usize) -> Vec<Self> {
        let channels: Vec<_> = (0..cores).map(|_| crossbeam::channel::bounded(STRAYED)).collect();
        let outboxes: Arc<[_]> =
            channels.iter().map(|(sender, _)| (sender.clone(), Arc::default())).collect();
        let ends = channels.into_iter().enumerate();
        ends.map(|(core, (_, inbox))| Self { core, inbox, outboxes: Arc::clone(&outboxes) })
            .collect()
    }

    /// Hands a datagram to the core that its connection id names, or back if it belongs here.
    fn redirect(&self, server: usize, datagram: Datagram) -> Option<Datagram> {
        let core = core_of(&datagram.bytes).map_or(self.core, |core| core.0.into());
        if core == self.core {
            return Some(datagram);
        }
        let Some((sender, waker)) = self.outboxes.get(core) else {
            return Some(datagram);
        };
        if sender.try_send(Strayed { server, datagram }).is_ok() {
            waker.wake();
        }
        None
    }

    fn poll_strayed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.outboxes[self.core].1.register(cx.waker());
        if self.inbox.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

/// A socket that this core listens on, with how its connections are served.
pub struct Listening {
    /// The core's own socket on the shared port.
    pub socket: UdpSocket,
    /// Its number among the node's native servers, the same on every core.
    pub server: usize,
    /// How QUIC is spoken there.
    pub endpoint: Arc<EndpointConfig>,
    /// What clients are shown, which may be replaced for those that come later.
    pub config: Arc<ArcSwap<ServerConfig>>,
    /// What clients have to show.
    pub gate: Arc<Gate>,
    /// Whether names are exchanged with nodes that ask for it.
    pub exchanges: bool,
}

/// A link to begin.
pub struct Dial {
    /// Where to.
    pub remote: SocketAddr,
    /// Whom the certificate has to be for.
    pub server_name: String,
    /// How.
    pub config: ClientConfig,
    /// What is to be agreed. If the other node does not exchange names, routes say what goes there
    /// ([`NodeLink::Transit`]); one that does not know of [`NodeLink::LastHop`] gets no link.
    pub kind: NodeLink,
    /// What the other node is shown, as the value of a header `authorization`.
    pub credentials: Option<Secret>,
    /// Told when the link is open, and what was agreed. If nobody waits for that any more, it is not
    /// opened.
    pub opened: oneshot::Sender<(LinkId, NodeLink)>,
    /// Told how it ended.
    pub ended: oneshot::Sender<LinkEnd>,
}

/// Links that wait to be begun by the core's loop.
#[derive(Default)]
pub struct Dials {
    waiting: RefCell<VecDeque<Dial>>,
    waker: AtomicWaker,
}

impl Dials {
    /// Has the loop begin a link.
    pub fn push(&self, dial: Dial) {
        self.waiting.borrow_mut().push_back(dial);
        self.waker.wake();
    }

    fn poll_waiting(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.waiting.borrow().is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

/// The native side of one core.
pub struct Driver {
    sockets: Vec<Bound>,
    door: Door,
    crossing: Crossing,
    dials: Rc<Dials>,
    /// How QUIC is spoken on sockets of this core's own.
    endpoint: Arc<EndpointConfig>,
    /// What one receive brought; kept, so that receiving allocates nothing.
    batch: Vec<Datagram>,
    finishing: bool,
    /// For so long after the last packet the next one is looked for instead of waited for.
    busy_poll: Duration,
    /// When the last packet came.
    active: Instant,
}

struct Bound {
    socket: Socket,
    transport: Transport,
    /// `None` for a socket of this core's own.
    server: Option<usize>,
}

/// Receives in a turn before the rest of the core has its own.
const RECEIVES: usize = 16;

impl Driver {
    /// A driver of `listening`; `node` is the number by which other nodes know this one.
    ///
    /// # Errors
    /// The system's, if a socket cannot be set up.
    pub fn new(
        host: Rc<Host>,
        node: u64,
        listening: Vec<Listening>,
        endpoint: Arc<EndpointConfig>,
        crossing: Crossing,
        dials: Rc<Dials>,
    ) -> io::Result<Self> {
        let mut door = Door::new(host, node);
        let bound = |(at, listening): (usize, Listening)| {
            let Listening { socket, server, endpoint, config, gate, exchanges } = listening;
            let socket = Socket::new(socket)?;
            let transport = Transport::new(endpoint, Some(config.load_full()));
            door.open(at, Entrance { config, gate, exchanges });
            Ok(Bound { socket, transport, server: Some(server) })
        };
        let sockets = listening.into_iter().enumerate().map(bound);
        let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            sockets,
            door,
            crossing,
            dials,
            endpoint,
            batch: Vec::new(),
            finishing: false,
            busy_poll: Duration::ZERO,
            active: Instant::now(),
        })
    }

    /// The same driver; for `time` after each packet it does not sleep.
    pub fn with_busy_poll(self, time: Duration) -> Self {
        Self { busy_poll: time, ..self }
    }

    /// Runs until the node has stopped and every connection is closed.
    pub async fn run(mut self) {
        let mut sleep = pin!(tokio::time::sleep_until(tokio::time::Instant::now()));
        loop {
            let now = Instant::now();
            let busy = self.turn(now) || now < self.active + self.busy_poll;
            if self.finishing && self.door.is_empty() {
                return;
            }
            if busy {
                tokio::task::yield_now().await;
            } else {
                self.sleep(sleep.as_mut()).await;
            }
        }
    }

    /// Everything that is to be done now; returns whether there is more.
    fn turn(&mut self, now: Instant) -> bool {
        self.mind_stop();
        self.dial(now);
        let mut busy = self.receive(now);
        let Self { sockets, door, .. } = self;
        let touch = |sockets: &mut Vec<Bound>, id: PeerId| {
            sockets[id.socket].transport.touch(ConnectionHandle(id.connection));
        };
        door.due(now, |id| touch(sockets, id));
        for (at, bound) in sockets.iter_mut().enumerate() {
            busy |= bound.transport.read(&mut door.at(at), now);
        }
        door.ready(|id| touch(sockets, id));
        for (at, bound) in sockets.iter_mut().enumerate() {
            bound.socket.retry();
            if bound.socket.has_room() {
                busy |= bound.transport.write(&mut door.at(at), &mut bound.socket, now);
            }
        }
        door.host.core.borrow_mut().flush();
        busy
    }

    /// Takes in what has arrived. Returns whether more may be there.
    fn receive(&mut self, now: Instant) -> bool {
        let Self { sockets, door, crossing, batch, active, .. } = self;
        let mut more = false;
        for (at, Bound { socket, transport, server }) in sockets.iter_mut().enumerate() {
            let mut receives = 0;
            let failed = loop {
                if receives == RECEIVES {
                    more = true;
                    break None;
                }
                receives += 1;
                let received = socket.receive(|datagram| {
                    let datagram = match server {
                        Some(server) => crossing.redirect(*server, datagram),
                        None => Some(datagram),
                    };
                    batch.extend(datagram);
                });
                match received {
                    Ok(true) => *active = now,
                    Ok(false) => break None,
                    Err(error) => break Some(error),
                }
                for datagram in batch.drain(..) {
                    transport.receive(datagram, &mut door.at(at), socket, now);
                }
            };
            if let Some(error) = failed {
                door.host.report(Incident::LinkFailed, &"socket", &error);
            }
        }
        while let Ok(Strayed { server, datagram }) = crossing.inbox.try_recv() {
            let bound = sockets.iter_mut().enumerate().find(|(_, b)| b.server == Some(server));
            if let Some((at, Bound { socket, transport, .. })) = bound {
                transport.receive(datagram, &mut door.at(at), socket, now);
            }
        }
        more
    }

    /// Begins the links that wait.
    fn dial(&mut self, now: Instant) {
        while let Some(dial) = self.next_dial() {
            let Dial { remote, server_name, config, kind, credentials, opened, ended } = dial;
            let at = match self.own_socket(remote.is_ipv6()) {
                Ok(at) => at,
                Err(error) => {
                    let _ = ended.send(LinkEnd { was_open: false, reason: error.to_string() });
                    continue;
                }
            };
            let transport = &mut self.sockets[at].transport;
            match transport.connect(config, remote, &server_name, now) {
                Ok(id) => {
                    let id = PeerId { socket: at, connection: id.0 };
                    let (opened, ended) = (Some(opened), Some(ended));
                    let origin = Origin::Dialed { kind, credentials, opened, ended };
                    self.door.dialed(id, remote, origin, now);
                }
                Err(error) => {
                    let _ = ended.send(LinkEnd { was_open: false, reason: error.to_string() });
                }
            }
        }
    }

    fn next_dial(&self) -> Option<Dial> {
        self.dials.waiting.borrow_mut().pop_front()
    }

    /// The socket from which this core begins links, one per family of addresses.
    fn own_socket(&mut self, v6: bool) -> io::Result<usize> {
        let of_family = |bound: &Bound| {
            bound.server.is_none()
                && bound.socket.local_addr().is_ok_and(|local| local.is_ipv6() == v6)
        };
        if let Some(at) = self.sockets.iter().position(of_family) {
            return Ok(at);
        }
        let any: SocketAddr =
            if v6 { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() };
        let socket = Socket::new(UdpSocket::bind(any)?)?;
        let transport = Transport::new(Arc::clone(&self.endpoint), None);
        self.sockets.push(Bound { socket, transport, server: None });
        self.door.at(self.sockets.len() - 1);
        Ok(self.sockets.len() - 1)
    }

    /// Once the node stops, every connection is looked at: links end when all is written, and
    /// those that have not said hello at once.
    fn mind_stop(&mut self) {
        if self.finishing || !self.door.host.finish.is_cancelled() {
            return;
        }
        self.finishing = true;
        let all: Vec<_> = self.door.all().collect();
        for id in all {
            self.sockets[id.socket].transport.touch(ConnectionHandle(id.connection));
        }
    }

    /// Waits for a datagram, a timer, or something that the rest of the core has for this side.
    async fn sleep(&mut self, mut sleep: Pin<&mut Sleep>) {
        let timers = self.sockets.iter().filter_map(|bound| bound.transport.deadline());
        let deadline = timers.chain(self.door.deadline()).min();
        if let Some(deadline) = deadline {
            sleep.as_mut().reset(deadline.into());
        }
        let host = Rc::clone(&self.door.host);
        let mut finish = pin!(host.finish.cancelled());
        poll_fn(|cx| {
            let mut ready = deadline.is_some() && sleep.as_mut().poll(cx).is_ready();
            ready |= !self.finishing && finish.as_mut().poll(cx).is_ready();
            ready |= self.dials.poll_waiting(cx).is_ready();
            ready |= self.crossing.poll_strayed(cx).is_ready();
            for bound in &mut self.sockets {
                ready |= bound.socket.poll_ready(cx).is_ready();
            }
            ready |= host.core.borrow_mut().poll_ready(cx).is_ready();
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
