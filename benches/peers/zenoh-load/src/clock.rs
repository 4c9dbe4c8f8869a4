//! The machine's monotonic clock, and waiting for a moment of it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds.
pub(crate) fn now() -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    tv_sec.unsigned_abs() * SECOND + tv_nsec.unsigned_abs()
}

/// As exact as that of the other relays' load; sleeping would be late by the scheduler's slack.
pub(crate) struct Timer(OwnedFd);

impl Timer {
    #[expect(deprecated, reason = "what replaces it is unsafe to call")]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?))
    }

    /// Returns once the clock shows `at`.
    pub(crate) fn until(&self, at: u64) -> io::Result<()> {
        let value = Timespec { tv_sec: (at / SECOND) as i64, tv_nsec: (at % SECOND) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &once)?;
        rustix::io::read(&self.0, &mut [0; 8])?;
        Ok(())
    }
}
