use std::array;
use std::convert::Infallible;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags, poll};

use super::super::transport::enlarge_buffers;
use super::SUBSCRIBER;

/// Receives in one call, each of as much as the kernel puts together.
const BATCH: usize = 8;
const DATAGRAMS_BYTES: usize = 64 * 1024;

/// Sends everything on to the subscriber that said so last; what that sends goes back to whoever
/// else sent last.
pub(super) fn serve(socket: &UdpSocket) -> io::Result<Infallible> {
    enlarge_buffers(socket)?;
    let state = UdpSocketState::new(socket.into())?;
    let mut storage = vec![0; BATCH * DATAGRAMS_BYTES];
    let (mut subscriber, mut publisher) = (None, None);
    loop {
        wait(socket, PollFlags::IN)?;
        let mut metas = [RecvMeta::default(); BATCH];
        let mut chunks = storage.chunks_mut(DATAGRAMS_BYTES);
        let mut buffers: [_; BATCH] =
            array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let received = match state.recv(socket.into(), &mut buffers, &mut metas) {
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            // A subscriber that is gone: an ICMP message about what was sent to it.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        for (meta, buffer) in metas.iter().zip(&buffers).take(received) {
            match &buffer[..meta.len] {
                [SUBSCRIBER] => subscriber = Some(meta.addr),
                contents => {
                    let back = subscriber == Some(meta.addr);
                    let destination = if back { publisher } else { subscriber };
                    if !back {
                        publisher = Some(meta.addr);
                    }
                    if let Some(destination) = destination {
                        send(socket, &state, destination, contents, meta.stride)?;
                    }
                }
            }
        }
    }
}

fn send(
    socket: &UdpSocket,
    state: &UdpSocketState,
    destination: SocketAddr,
    contents: &[u8],
    stride: usize,
) -> io::Result<()> {
    let segment_size = (contents.len() > stride).then_some(stride);
    let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
    loop {
        match state.try_send(socket.into(), &transmit) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(socket, PollFlags::OUT)?,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(()),
            sent => return sent,
        }
    }
}

fn wait(socket: &UdpSocket, event: PollFlags) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(socket, event)], None) {
            Err(rustix::io::Errno::INTR) => continue,
            polled => return Ok(polled.map(drop)?),
        }
    }
}
