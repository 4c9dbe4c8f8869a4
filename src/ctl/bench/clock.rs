//! The clock that all processes of a machine share, and waiting for a moment of it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of the machine's monotonic clock.
pub(super) fn now() -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    // Counts from the start of the machine: neither part is ever negative.
    tv_sec.unsigned_abs() * SECOND + tv_nsec.unsigned_abs()
}

/// Waits for moments. The runtime's own timer is as coarse as a millisecond, which would make
/// bunches of what is to be single messages.
pub(super) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe to call, for types that may close their descriptor \
                  early; an `OwnedFd` does not"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
    }

    /// Returns once the clock shows `at`.
    pub(super) async fn until(&self, at: u64) -> io::Result<()> {
        let at = at.max(1); // zero would switch the timer off
        let value = Timespec {
            tv_sec: i64::try_from(at / SECOND).unwrap_or(i64::MAX),
            tv_nsec: (at % SECOND) as i64,
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let mut expirations = [0; 8];
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut expirations)?));
            match read {
                Ok(read) => return read.map(drop),
                Err(_would_block) => continue,
            }
        }
    }
}
