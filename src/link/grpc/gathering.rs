use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A transport that lets what HTTP/2 writes in one turn leave in one write: HTTP/2 flushes after
/// every frame, clients take frames of no more than 16 KiB, and a write costs as much as what it
/// takes to copy several of them.
pub(super) struct Gathering<Io>(Rc<RefCell<Gathered<Io>>>);

/// By which the one who drives the connection ends a turn.
pub(super) struct Outlet<Io>(Rc<RefCell<Gathered<Io>>>);

struct Gathered<Io> {
    io: Io,
    waiting: BytesMut,
    /// The transport has taken something that it may hold itself, as TLS does.
    unflushed: bool,
    /// Why the last turn could not be written; told with the next call.
    failed: Option<io::Error>,
    /// Whether somebody ends turns.
    by_turns: bool,
}

/// More than this leaves before the turn ends.
const TURN_BYTES: usize = 64 * 1024;

impl<Io> Gathering<Io> {
    pub(super) fn new(io: Io) -> (Self, Outlet<Io>) {
        let waiting = BytesMut::new();
        let gathered = Gathered { io, waiting, unflushed: false, failed: None, by_turns: false };
        let gathered = Rc::new(RefCell::new(gathered));
        (Self(Rc::clone(&gathered)), Outlet(gathered))
    }
}

impl<Io: AsyncWrite + Unpin> Outlet<Io> {
    /// From now on what is written waits for [`Outlet::poll_turn_end`].
    pub(super) fn begin_turns(&self) {
        self.0.borrow_mut().by_turns = true;
    }

    /// Writes what waits as far as the transport takes it; the task of `cx` is woken when it takes
    /// more.
    pub(super) fn poll_turn_end(&self, cx: &mut Context<'_>) {
        let mut gathered = self.0.borrow_mut();
        if let Poll::Ready(Err(error)) = gathered.poll_leave(cx) {
            gathered.failed = Some(error);
            // HTTP/2 hears of it when it reads or writes.
            cx.waker().wake_by_ref();
        }
    }
}

impl<Io: AsyncWrite + Unpin> Gathered<Io> {
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        while !self.waiting.is_empty() {
            self.unflushed = true;
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        // An idle connection keeps no buffer.
        self.waiting = BytesMut::new();
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.waiting.len() >= TURN_BYTES || self.failed.is_some() {
            ready!(self.poll_leave(cx))?;
        }
        let room = TURN_BYTES - self.waiting.len();
        let length: usize = bytes.iter().map(|bytes| bytes.len()).sum();
        let mut left = length.min(room);
        if self.waiting.capacity() - self.waiting.len() < left {
            // The first small write of a turn is mostly its only one.
            let alone = self.waiting.is_empty() && length < SMALL_BYTES;
            self.waiting.reserve(if alone { length } else { room });
        }
        for bytes in bytes {
            let part = left.min(bytes.len());
            self.waiting.extend_from_slice(&bytes[..part]);
            left -= part;
        }
        Poll::Ready(Ok(length.min(room)))
    }
}

/// A write that is probably the only one of its turn.
const SMALL_BYTES: usize = 4 * 1024;

impl<Io: AsyncRead + Unpin> AsyncRead for Gathering<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut gathered = self.0.borrow_mut();
        if let Some(error) = gathered.failed.take() {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut gathered.io).poll_read(cx, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Gathering<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.0.borrow_mut();
        if gathered.by_turns && gathered.waiting.len() < TURN_BYTES {
            return Poll::Ready(Ok(()));
        }
        gathered.poll_leave(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.0.borrow_mut();
        ready!(gathered.poll_leave(cx))?;
        Pin::new(&mut gathered.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// What has arrived at the other end of the pipe without waiting.
    fn arrived(cx: &mut Context<'_>, io: &mut tokio::io::DuplexStream) -> usize {
        let mut bytes = [0; 1 << 20];
        let mut buffer = ReadBuf::new(&mut bytes);
        let _ = Pin::new(io).poll_read(cx, &mut buffer);
        buffer.filled().len()
    }

    #[tokio::test]
    async fn what_is_written_in_a_turn_leaves_at_its_end() {
        let (near, mut far) = duplex(1 << 20);
        let (mut gathering, outlet) = Gathering::new(near);
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        gathering.write_all(b"preface").await.expect("a pipe");
        gathering.flush().await.expect("a pipe");
        assert_eq!(arrived(&mut cx, &mut far), 7, "no turns yet");
        outlet.begin_turns();
        for _ in 0..3 {
            gathering.write_all(&[1; 16_393]).await.expect("a pipe");
            gathering.flush().await.expect("a pipe");
        }
        assert_eq!(arrived(&mut cx, &mut far), 0);
        outlet.poll_turn_end(&mut cx);
        assert_eq!(arrived(&mut cx, &mut far), 3 * 16_393);
        assert_eq!(outlet.0.borrow().waiting.capacity(), 0, "an idle connection keeps no buffer");
    }

    #[tokio::test]
    async fn no_more_than_a_turns_bytes_wait_for_a_transport_that_takes_nothing() {
        let (near, mut far) = duplex(10);
        let (mut gathering, outlet) = Gathering::new(near);
        outlet.begin_turns();
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let frame = [7; 16_393];
        let mut taken = 0;
        while let Poll::Ready(Ok(length)) = Pin::new(&mut gathering).poll_write(&mut cx, &frame) {
            taken += length;
        }
        assert_eq!(taken, TURN_BYTES);
        let read = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.map(|_| all)
        });
        gathering.shutdown().await.expect("a pipe");
        drop((gathering, outlet));
        let all = read.await.expect("a task").expect("a pipe");
        assert_eq!(all, vec![7; taken], "all that was taken arrives");
    }

    /// Takes all at once, and passes it on only when it is flushed, which takes `polls`.
    struct Holding {
        held: Vec<u8>,
        passed: Rc<RefCell<Vec<u8>>>,
        polls: usize,
    }

    impl AsyncWrite for Holding {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.held.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.polls > 0 {
                self.polls -= 1;
                return Poll::Pending;
            }
            let held = std::mem::take(&mut self.held);
            self.passed.borrow_mut().extend(held);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_flush(cx)
        }
    }

    #[tokio::test]
    async fn what_a_transport_holds_itself_is_flushed_however_long_that_takes() {
        let passed = Rc::new(RefCell::new(Vec::new()));
        let io = Holding { held: Vec::new(), passed: Rc::clone(&passed), polls: 2 };
        let (mut gathering, outlet) = Gathering::new(io);
        outlet.begin_turns();
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let written = Pin::new(&mut gathering).poll_write(&mut cx, b"all of it");
        assert!(matches!(written, Poll::Ready(Ok(9))));
        for left in [0, 0, 9] {
            outlet.poll_turn_end(&mut cx);
            assert_eq!(passed.borrow().len(), left);
        }
    }

    #[tokio::test]
    async fn a_transport_that_broke_is_told_with_the_next_call() {
        let (near, far) = duplex(10);
        let (mut gathering, outlet) = Gathering::new(near);
        outlet.begin_turns();
        drop(far);
        gathering.write_all(b"lost").await.expect("it waits");
        let waker = noop_waker();
        outlet.poll_turn_end(&mut Context::from_waker(&waker));
        let error = gathering.read(&mut [0; 10]).await.expect_err("broken");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
