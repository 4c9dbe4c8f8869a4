//! The wire: a thread that takes IP packets from the device of one namespace, and after what the
//! impairment does to them gives them to that of the other.

use std::io;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::setpriority_process;
use tun_rs::SyncDevice;

use crate::Failure;
use crate::impair::{Counts, Impairment, Pipe};

/// The devices at the two ends of a wire.
pub(crate) struct Ends {
    /// Of the relay's namespace.
    pub(crate) relay: SyncDevice,
    /// Of that of the publishers and subscribers.
    pub(crate) load: SyncDevice,
}

/// A link of its own over the devices: the packets from and to one address of the relay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) relay: Ipv4Addr,
    /// Of both directions.
    pub(crate) how: Impairment,
}

/// A wire at work; ends with its handle.
pub(crate) struct Wire {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Seen, Failure>>>,
}

/// What the wire has seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// To the relay and from it, for each way.
    pub(crate) ways: Vec<[Counts; 2]>,
    /// How much later than due packets left, at most but for one in a thousand: what the machine
    /// added.
    pub(crate) late: Duration,
}

/// More than a device lets through (its MTU is 1500), so that a longer packet would show.
const PACKET_BYTES: usize = 65_536;

/// Before all that has the usual one, 0.
const PRIORITY: i32 = -10;

/// How long the thread waits at most until it looks whether it is to end.
const NAP: Duration = Duration::from_millis(20);

/// Packets that are read from one side before the other has its turn.
const BURST: usize = 64;

impl Wire {
    /// Joins the devices; `seed` decides which packets get lost.
    pub(crate) fn start(ends: Arc<Ends>, ways: &[Way], seed: u64) -> io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let seeds = (0..).map(|number| seed.wrapping_mul(1_000_003).wrapping_add(number));
        let both = |(way, seed): (&Way, u64)| Joined {
            relay: way.relay.octets(),
            pipes: [Pipe::new(way.how, seed * 2), Pipe::new(way.how, seed * 2 + 1)],
        };
        let joined = ways.iter().zip(seeds).map(both).collect();
        let state = State { ends, joined, start: Instant::now(), late: Lateness::default() };
        let thread = {
            let ended = Arc::clone(&ended);
            std::thread::Builder::new().name("wire".into()).spawn(move || state.run(&ended))?
        };
        Ok(Self { ended, thread: Some(thread) })
    }

    /// Ends it; what is on its way is gone.
    pub(crate) fn end(mut self) -> Result<Seen, Failure> {
        self.ended.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or("the wire has ended before")?;
        thread.join().map_err(|_| "the wire's thread panicked")?
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whoever drops it has another failure to tell of.
            let _ = thread.join();
        }
    }
}

/// A way, with what is on it.
struct Joined {
    relay: [u8; 4],
    /// To the relay and from it.
    pipes: [Pipe; 2],
}

struct State {
    ends: Arc<Ends>,
    joined: Vec<Joined>,
    start: Instant,
    late: Lateness,
}

/// Where the relay's address is in an IPv4 packet to the relay, and in one from it.
const RELAY_ADDRESS: [Range<usize>; 2] = [16..20, 12..16];

impl State {
    fn run(mut self, ended: &AtomicBool) -> Result<Seen, Failure> {
        // Of this thread alone: a wire does not wait until a processor has time for it.
        setpriority_process(None, PRIORITY)?;
        let mut buffer = vec![0; PACKET_BYTES];
        while !ended.load(Ordering::Relaxed) {
            let mut more = false;
            for direction in [0, 1] {
                more |= self.take(direction, &mut buffer)?;
            }
            self.give()?;
            if !more {
                self.wait()?;
            }
        }
        let ways = self.joined.iter().map(|way| [way.pipes[0].counts(), way.pipes[1].counts()]);
        Ok(Seen { ways: ways.collect(), late: self.late.most() })
    }

    /// The devices that a direction leads from and to.
    fn devices(&self, direction: usize) -> (&SyncDevice, &SyncDevice) {
        let Ends { relay, load } = &*self.ends;
        if direction == 0 { (load, relay) } else { (relay, load) }
    }

    /// Reads a burst; true if there may be more.
    fn take(&mut self, direction: usize, buffer: &mut [u8]) -> io::Result<bool> {
        for _ in 0..BURST {
            let len = match self.devices(direction).0.recv(buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let packet = &buffer[..len];
            let address = packet.get(RELAY_ADDRESS[direction].clone());
            let now = self.start.elapsed();
            // What has another address is the kernel's own, such as groups that it joins.
            if let Some(way) = self.joined.iter_mut().find(|way| address == Some(&way.relay)) {
                way.pipes[direction].push(now, packet.to_vec());
            }
        }
        Ok(true)
    }

    /// Writes what is due.
    fn give(&mut self) -> io::Result<()> {
        let now = self.start.elapsed();
        for at in 0..self.joined.len() {
            for direction in [0, 1] {
                while let Some(packet) = self.joined[at].pipes[direction].pop(now) {
                    self.late.note(self.start.elapsed().saturating_sub(packet.due));
                    self.devices(direction).1.send(&packet.bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Until there is something to read, or something is due.
    fn wait(&self) -> io::Result<()> {
        let pipes = self.joined.iter().flat_map(|way| &way.pipes);
        let due = pipes.filter_map(Pipe::next_due).min();
        let rest = due.map_or(NAP, |due| due.saturating_sub(self.start.elapsed()).min(NAP));
        let timeout = Timespec { tv_sec: 0, tv_nsec: rest.subsec_nanos().into() };
        let mut devices =
            [&self.ends.relay, &self.ends.load].map(|end| PollFd::new(end, PollFlags::IN));
        match poll(&mut devices, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// How late packets left, in steps that double.
#[derive(Debug, Default)]
struct Lateness {
    /// Packets that were late by less than 2 to the power of the index, in microseconds.
    steps: [u64; 32],
}

impl Lateness {
    fn note(&mut self, late: Duration) {
        let micros = u32::try_from(late.as_micros()).unwrap_or(u32::MAX);
        let step = (u32::BITS - micros.leading_zeros()).min(31);
        self.steps[step as usize] += 1;
    }

    /// A bound that 99.9 % keep.
    fn most(&self) -> Duration {
        let total: u64 = self.steps.iter().sum();
        let mut beyond = total;
        for (step, count) in self.steps.iter().enumerate() {
            beyond -= count;
            if beyond * 1_000 <= total {
                return Duration::from_micros(1 << step);
            }
        }
        Duration::MAX
    }
}
