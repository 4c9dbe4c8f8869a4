use std::convert::Infallible;
use std::io::{self, BufReader, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{PUBLISHER, SUBSCRIBER};

/// What is read before it is sent on.
const BUFFER_BYTES: usize = 256 * 1024;

/// How long an end may take to say which it is.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Pairs of a publisher and a subscriber, one after the other.
pub(super) fn serve(
    listener: &TcpListener,
    tls: Option<&Arc<ServerConfig>>,
) -> io::Result<Infallible> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let (mut publisher, mut subscriber) = pair(listener, tls)?;
        // However it ends: the next pair is another one.
        let _ended = pump(&mut publisher, &mut subscriber, &mut buffer);
    }
}

fn pump(publisher: &mut End, subscriber: &mut End, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match publisher.drain(buffer)? {
            0 => return Ok(()),
            len => subscriber.write_all(&buffer[..len])?,
        }
    }
}

fn pair(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>) -> io::Result<(End, End)> {
    let (mut publisher, mut subscriber) = (None, None);
    loop {
        let (socket, _) = listener.accept()?;
        match greet(socket, tls) {
            Ok((PUBLISHER, end)) => publisher = Some(end),
            Ok((SUBSCRIBER, end)) => subscriber = Some(end),
            // Neither: it is closed.
            Ok(_) | Err(_) => {}
        }
        match (publisher.take(), subscriber.take()) {
            (Some(publisher), Some(subscriber)) => return Ok((publisher, subscriber)),
            one => (publisher, subscriber) = one,
        }
    }
}

fn greet(socket: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<(u8, End)> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(HANDSHAKE))?;
    let clock = socket.try_clone()?;
    let mut end = match tls {
        None => End::Plain(socket),
        Some(config) => {
            let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            let reader = BufReader::with_capacity(BUFFER_BYTES, socket);
            End::Tls(Box::new(StreamOwned::new(connection, Buffered(reader))))
        }
    };
    let mut role = [0];
    end.read_exact(&mut role)?;
    clock.set_read_timeout(None)?;
    Ok((role[0], end))
}

enum End {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, Buffered>>),
}

impl End {
    /// Reads all that is there, at least one byte; 0 at the end.
    fn drain(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => {
                let mut len = stream.read(buffer)?;
                // The rest of a record that has begun is on its way.
                while len > 0 && len < buffer.len() && !stream.sock.0.buffer().is_empty() {
                    len += stream.read(&mut buffer[len..])?;
                }
                Ok(len)
            }
        }
    }
}

impl Read for End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Reads ahead, as rustls itself asks for no more than 4 KiB at a time.
struct Buffered(BufReader<TcpStream>);

impl Read for Buffered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_mut().write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}
