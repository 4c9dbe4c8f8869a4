//! Frames over UDP to a pump, in segments, with the kernel's offloads in both directions.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::rc::Rc;

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::super::pump;
use super::Arrival;
use super::segment::{Reassembler, SEGMENT_BYTES, Segmenter};
use crate::ctl::Error;

/// What the kernel takes or gives in one call.
const DATAGRAMS_BYTES: usize = 64 * 1024;

/// Room for everything that a window has under way, also if each message lies in a buffer of the
/// kernel of its own.
const SOCKET_BUFFER_BYTES: usize = 8 * 1024 * 1024;

struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    pump: SocketAddr,
}

pub(crate) struct Sender {
    socket: Rc<Socket>,
    segmenter: Segmenter,
    segments: Vec<u8>,
}

pub(crate) struct Receiver {
    socket: Rc<Socket>,
    reassembler: Reassembler,
    buffer: Vec<u8>,
}

/// A socket in the role of a subscriber or of a publisher.
pub(super) async fn connect(
    pump: SocketAddr,
    subscriber: bool,
) -> Result<(Sender, Receiver), Error> {
    let socket = open(pump).await.map_err(|source| Error::connect(pump, source))?;
    if subscriber {
        let hello = socket.io.send_to(&[pump::SUBSCRIBER], pump).await;
        hello.map_err(|source| Error::connect(pump, source))?;
    }
    let socket = Rc::new(socket);
    let sender = Sender {
        socket: Rc::clone(&socket),
        segmenter: Segmenter::default(),
        segments: Vec::new(),
    };
    let reassembler = Reassembler::default();
    Ok((sender, Receiver { socket, reassembler, buffer: vec![0; DATAGRAMS_BYTES] }))
}

async fn open(pump: SocketAddr) -> io::Result<Socket> {
    let io = UdpSocket::bind((pump.ip(), 0)).await?;
    enlarge_buffers(&io)?;
    let state = UdpSocketState::new((&io).into())?;
    Ok(Socket { io, state, pump })
}

/// Gives a socket large buffers: beyond the machine's limit where the process may do so.
pub(crate) fn enlarge_buffers(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    use rustix::net::sockopt;
    if sockopt::set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER_BYTES).is_err() {
        sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER_BYTES)?;
    }
    sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER_BYTES)?;
    Ok(())
}

impl Sender {
    pub(super) async fn send(&mut self, frames: &[u8], len: usize) -> Result<(), Error> {
        self.segments.clear();
        self.segmenter.pack(frames, len, &mut self.segments);
        let Socket { io, state, pump } = &*self.socket;
        let most = (DATAGRAMS_BYTES - 1) / SEGMENT_BYTES;
        let batch = SEGMENT_BYTES * most.min(state.max_gso_segments());
        for contents in self.segments.chunks(batch) {
            let segment_size = (contents.len() > SEGMENT_BYTES).then_some(SEGMENT_BYTES);
            let transmit =
                Transmit { destination: *pump, ecn: None, contents, segment_size, src_ip: None };
            let sent =
                io.async_io(Interest::WRITABLE, || state.try_send(io.into(), &transmit)).await;
            sent.map_err(Error::link)?;
        }
        Ok(())
    }
}

impl Receiver {
    pub(super) async fn receive(&mut self, arrivals: &mut Vec<Arrival>) -> Result<bool, Error> {
        let Socket { io, state, .. } = &*self.socket;
        let mut meta = [RecvMeta::default()];
        let received = io.async_io(Interest::READABLE, || {
            state.recv(io.into(), &mut [IoSliceMut::new(&mut self.buffer)], &mut meta)
        });
        received.await.map_err(Error::link)?;
        let [RecvMeta { len, stride, .. }] = meta;
        for segment in self.buffer[..len].chunks(stride.max(1)) {
            self.reassembler.push(segment, arrivals)?;
        }
        Ok(true)
    }
}
