use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::link::host::Host;

/// A transport whose shutdown, when the node stops, waits until the other end has closed too.
///
/// A socket that is closed while its peer still sends (window updates, say) is reset by the
/// system, and what was written last never arrives. So after the last byte only the writing half
/// is closed, and what still comes is read and dropped. Who drives the connection bounds the time.
/// At other times it is the client that closes first, or one that is not waited for.
pub(super) struct Lingering<Io> {
    io: Io,
    host: Rc<Host>,
    write_closed: bool,
}

/// Reads of one poll: a peer that never stops sending does not keep the thread.
const READS: usize = 16;

impl<Io> Lingering<Io> {
    pub(super) fn new(io: Io, host: Rc<Host>) -> Self {
        Self { io, host, write_closed: false }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Lingering<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.write_closed {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.write_closed = true;
        }
        if !self.host.stop_reading.get() {
            return Poll::Ready(Ok(()));
        }
        let mut bytes = [0; 4096];
        for _ in 0..READS {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
