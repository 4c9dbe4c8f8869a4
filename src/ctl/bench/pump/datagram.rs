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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_message_goes_to_the_subscriber_and_its_answer_to_the_publisher() {
        let socket = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            socket
        };
        let (pump, subscriber, publisher) = (socket(), socket(), socket());
        let address = pump.local_addr().expect("bound");
        // It ends with the process.
        std::thread::spawn(move || serve(&pump));
        let send = |from: &UdpSocket, bytes| from.send_to(bytes, address).expect("sent");
        let receive = |at: &UdpSocket| {
            let mut buffer = [0; 64];
            let (len, from) = at.recv_from(&mut buffer).expect("an answer");
            assert_eq!(from, address);
            buffer[..len].to_vec()
        };
        send(&subscriber, &[SUBSCRIBER]);
        for _ in 0..2 {
            send(&publisher, b"there");
            assert_eq!(receive(&subscriber), b"there");
            send(&subscriber, b"and back");
            assert_eq!(receive(&publisher), b"and back");
        }
    }
}
