//! The relay over QUIC: the state machines, sockets and settings of the node's native side, and
//! none of its routing.

mod control;
mod pairs;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::UdpSocket;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use rustls::ServerConfig;

use self::pairs::Pairs;
use crate::datapath::CoreId;
use crate::link::quic::settings::{self, QuicSettings};
use crate::link::quic::socket::Socket;
use crate::link::quic::transport::Transport;

/// Receives in a turn before anything is sent, as in the node.
const RECEIVES: usize = 16;

/// Moves bytes between pairs of connections, see [`Pairs`].
pub(super) fn serve(socket: UdpSocket, tls: ServerConfig, mtu: u16) -> io::Result<Infallible> {
    let settings = QuicSettings { mtu, ..QuicSettings::default() };
    let server = settings::server(Arc::new(tls), settings).map_err(io::Error::other)?;
    let transport = Transport::new(settings::endpoint(CoreId(0), settings), Some(server));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let relay = Relay { socket: Socket::new(socket)?, transport, pairs: Pairs::default() };
        relay.run().await
    })
}

struct Relay {
    socket: Socket,
    transport: Transport,
    pairs: Pairs,
}

impl Relay {
    async fn run(mut self) -> io::Result<Infallible> {
        let mut sleep = pin!(tokio::time::sleep_until(tokio::time::Instant::now()));
        loop {
            if self.turn(Instant::now())? {
                tokio::task::yield_now().await;
                continue;
            }
            let deadline = self.transport.deadline();
            if let Some(deadline) = deadline {
                sleep.as_mut().reset(deadline.into());
            }
            poll_fn(|cx| {
                let due = deadline.is_some() && sleep.as_mut().poll(cx).is_ready();
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
        let mut busy = self.receive(now)?;
        let Self { socket, transport, pairs } = self;
        busy |= transport.read(pairs, now);
        pairs.take_ready(|id| transport.touch(id));
        if socket.has_room() {
            busy |= transport.write(pairs, socket, now);
        }
        busy |= pairs.take_ready(|id| transport.touch(id));
        Ok(busy)
    }

    fn receive(&mut self, now: Instant) -> io::Result<bool> {
        let Self { socket, transport, pairs } = self;
        let mut batch = Vec::new();
        for _ in 0..RECEIVES {
            if !socket.receive(|datagram| batch.push(datagram))? {
                return Ok(false);
            }
            for datagram in batch.drain(..) {
                transport.receive(datagram, pairs, socket, now);
            }
        }
        Ok(true)
    }
}
