//! A UDP socket: batches of datagrams in and out, and the memory that they come in.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::task::{Context, Poll, ready};

use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::slab::{RECEIVE_BYTES, Slabs};
use super::transport::{Datagram, Outgoing};

/// A socket of one core.
///
/// The core is woken by what arrives alone: the kernel tells that there is room after every datagram that
/// another end has taken, which at low rates would wake a core once more for each message.
pub struct Socket {
    io: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    slabs: Slabs,
    unsent: Option<Unsent>,
}

/// Datagrams that the socket had no room for.
struct Unsent {
    transmit: Transmit,
    contents: Vec<u8>,
    /// Tells when there is room.
    room: AsyncFd<UdpSocket>,
}

/// The most that one send may hold, with room for the headers of IP and UDP.
const SEND_BYTES: usize = 65_000;

/// What the kernel may hold for a socket in each direction: bursts of many connections.
const KERNEL_BYTES: usize = 4 * 1024 * 1024;

impl Socket {
    /// Takes a bound socket over.
    ///
    /// # Errors
    /// The system's, if the socket cannot be set up.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // The system may allow less, which costs packets under load and nothing else.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), KERNEL_BYTES);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), KERNEL_BYTES);
        let io = watched(socket, Interest::READABLE)?;
        Ok(Self { io, state, slabs: Slabs::default(), unsent: None })
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    /// Receives what is there, up to 64 KiB, and hands it to `take` datagram by
    /// datagram. Returns whether anything was there.
    ///
    /// # Errors
    /// The system's.
    #[inline]
    pub fn receive(&mut self, mut take: impl FnMut(Datagram)) -> io::Result<bool> {
        let Self { io, state, slabs, .. } = self;
        let slab = slabs.current();
        let mut meta = [RecvMeta::default()];
        let received = io.try_io(Interest::READABLE, |socket| {
            let mut buffers = [IoSliceMut::new(&mut slab[..RECEIVE_BYTES])];
            state.recv(UdpSockRef::from(socket), &mut buffers, &mut meta)
        });
        match received {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        let [meta] = meta;
        let mut batch = slab.split_to(meta.len);
        while !batch.is_empty() {
            let bytes = batch.split_to(meta.stride.min(batch.len()));
            take(Datagram {
                remote: meta.addr,
                local: meta.dst_ip,
                ecn: meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
                bytes,
            });
        }
        Ok(true)
    }

    /// Ready when datagrams have come, or when those that found no room have left.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.poll_unsent(cx);
        let come = self.io.poll_read_ready(cx).map(|_| ());
        if left.is_ready() { left } else { come }
    }

    /// Ready when datagrams that had found no room have left.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { io, state, unsent, .. } = self;
        // Whether there is room shows in trying; without it the next wait is for the next room.
        while let Some(Unsent { transmit, contents, room }) = unsent {
            let ready = ready!(room.poll_write_ready(cx));
            match (ready, would_block(&try_send(state, io, transmit, contents))) {
                (Ok(mut ready), true) => ready.clear_ready(),
                (Ok(_) | Err(_), _) => {
                    *unsent = None;
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }

    /// Tries again what had found no room, for a core that does not sleep.
    pub fn retry(&mut self) {
        let Self { io, state, unsent, .. } = self;
        unsent.take_if(|Unsent { transmit, contents, .. }| {
            !would_block(&try_send(state, io, transmit, contents))
        });
    }

    /// Whether there is room to send.
    pub fn has_room(&self) -> bool {
        self.unsent.is_none()
    }
}

impl Outgoing for Socket {
    fn most_segments(&self, mtu: usize) -> usize {
        (SEND_BYTES / mtu).clamp(1, self.state.max_gso_segments())
    }

    #[inline]
    fn send(&mut self, transmit: &Transmit, contents: &[u8]) -> bool {
        if self.unsent.is_some() {
            return false;
        }
        let Self { io, state, unsent, .. } = self;
        if !would_block(&try_send(state, io, transmit, contents)) {
            // Anything but a lack of room is a loss on the way, which the connection mends or gives up
            // on.
            return true;
        }
        let room = io.get_ref().try_clone();
        let room = room.and_then(|socket| watched(socket, Interest::WRITABLE));
        let Ok(room) = room else {
            // What cannot be waited for is lost on the way as well.
            return true;
        };
        let transmit = Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn,
            size: transmit.size,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        *unsent = Some(Unsent { transmit, contents: contents.to_vec(), room });
        false
    }
}

/// The socket as one whose readiness of one kind the runtime tells.
#[expect(
    deprecated,
    reason = "unsound for types that close their descriptor early; a socket does not"
)]
fn watched(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, interest)
}

fn try_send(
    state: &UdpSocketState,
    io: &AsyncFd<UdpSocket>,
    transmit: &Transmit,
    contents: &[u8],
) -> io::Result<()> {
    let transmit = quinn_udp::Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
        contents,
        segment_size: transmit.segment_size,
        src_ip: transmit.src_ip,
    };
    state.try_send(UdpSockRef::from(io.get_ref()), &transmit)
}

fn would_block(sent: &io::Result<()>) -> bool {
    sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
