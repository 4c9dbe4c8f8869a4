//! Two network namespaces, of the relay and of the load, and a device in each.

use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::Failure;
use crate::wire::Ends;

/// Addresses of the relay: a way each.
pub(crate) const RELAY: [Ipv4Addr; 2] =
    [Ipv4Addr::new(198, 18, 7, 1), Ipv4Addr::new(198, 18, 7, 2)];
const LOAD: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 100);

/// Of all of these.
const NETWORK: &str = "198.18.7.0/24";

/// As on an Ethernet.
const MTU: u16 = 1500;

/// Packets that a device holds until the wire has read them: more than any load here has under
/// way, so that only the wire loses packets.
const DEVICE_QUEUE: u32 = 16_384;

/// Which end of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Relay,
    Load,
}

const SIDES: [Side; 2] = [Side::Relay, Side::Load];

/// Namespaces of ours carry the id of the process that made them.
const PREFIX: &str = "slim-loss-";

/// The namespaces; gone with their handle, and all that runs in them.
pub(crate) struct Namespaces {
    id: u32,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Relay { "relay" } else { "load" })
    }
}

impl Namespaces {
    /// Makes both, with their devices.
    ///
    /// # Errors
    /// If that takes rights or programs that are not there.
    pub(crate) fn make() -> Result<(Self, Arc<Ends>), Failure> {
        sweep()?;
        // From here on they are removed again, however this goes.
        let namespaces = Self { id: std::process::id() };
        let ends = Ends {
            relay: namespaces.make_side(Side::Relay, &RELAY)?,
            load: namespaces.make_side(Side::Load, &[LOAD])?,
        };
        Ok((namespaces, Arc::new(ends)))
    }

    fn make_side(&self, side: Side, addresses: &[Ipv4Addr]) -> Result<SyncDevice, Failure> {
        let name = self.name(side);
        ip(&["netns", "add", &name])?;
        let device = self.device(side);
        // Without offloads the kernel cuts what it sends into packets before the device has them.
        let tun = DeviceBuilder::new()
            .name(&device)
            .layer(Layer::L3)
            .offload(false)
            .mtu(MTU)
            .tx_queue_len(DEVICE_QUEUE)
            .enable(false)
            .build_sync()
            .map_err(|error| {
                format!("TUN device {device} (needs root and /dev/net/tun): {error}")
            })?;
        tun.set_nonblocking(true)?;
        // The descriptor stays with this process, in whichever namespace the device is.
        ip(&["link", "set", &device, "netns", &name])?;
        for address in addresses {
            ip(&["-n", &name, "addr", "add", &format!("{address}/24"), "dev", &device])?;
        }
        self.set(side, "net/ipv6/conf/all/disable_ipv6", "1")?;
        // A connection is not to know what an earlier one had learned about the way.
        self.set(side, "net/ipv4/tcp_no_metrics_save", "1")?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        ip(&["-n", &name, "link", "set", &device, "up"])?;
        Ok(tun)
    }

    fn name(&self, side: Side) -> String {
        format!("{PREFIX}{}-{side}", self.id)
    }

    fn device(&self, side: Side) -> String {
        format!("sl{}{}", self.id, if side == Side::Relay { "r" } else { "l" })
    }

    /// Sets a kernel parameter inside.
    fn set(&self, side: Side, parameter: &str, value: &str) -> Result<(), Failure> {
        let script = format!("echo {value} > /proc/sys/{parameter}");
        run(Command::new("ip").args(["netns", "exec", &self.name(side), "sh", "-c", &script]))?;
        Ok(())
    }

    /// What new TCP connections control congestion with, on both sides. It is said of the route:
    /// what the kernel takes as a default in a namespace may be restricted.
    pub(crate) fn set_tcp_congestion(&self, algorithm: &str) -> Result<(), Failure> {
        for (side, address) in [(Side::Relay, RELAY[0]), (Side::Load, LOAD)] {
            let (name, device) = (self.name(side), self.device(side));
            let source = address.to_string();
            let route = ["-n", &name, "route", "replace", NETWORK, "dev", &device, "src", &source];
            ip(&[&route[..], &["congctl", algorithm]].concat())?;
        }
        Ok(())
    }

    /// A program that is to run inside.
    pub(crate) fn command(&self, side: Side, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(side)]).arg(program);
        command
    }

    /// Packets that the devices themselves have dropped so far: the wire was too slow for them.
    pub(crate) fn dropped(&self) -> Result<u64, Failure> {
        let mut dropped = 0;
        for side in SIDES {
            let script = "cat /sys/class/net/sl*/statistics/tx_dropped";
            let text = run(Command::new("ip").args([
                "netns",
                "exec",
                &self.name(side),
                "sh",
                "-c",
                script,
            ]))?;
            dropped += text.trim().parse::<u64>()?;
        }
        Ok(dropped)
    }

    /// What removes them when this process is told to end.
    pub(crate) fn remover(&self) -> impl FnOnce() + Send + 'static {
        let id = self.id;
        move || remove(id)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        remove(self.id);
    }
}

/// Ends what runs in the namespaces of process `id`, and removes them.
#[expect(clippy::print_stderr, reason = "a program for people to run")]
fn remove(id: u32) {
    for side in SIDES {
        let name = format!("{PREFIX}{id}-{side}");
        let Ok(pids) = ip(&["netns", "pids", &name]) else {
            // It was not made.
            continue;
        };
        for pid in pids.lines().filter_map(|pid| Pid::from_raw(pid.trim().parse().ok()?)) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
        if let Err(error) = ip(&["netns", "del", &name]) {
            eprintln!("{name} stays: {error}");
        }
    }
}

/// Removes what runs left that were killed.
fn sweep() -> Result<(), Failure> {
    for line in ip(&["netns", "list"])?.lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let id = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(id) = id.and_then(|id| id.parse::<u32>().ok()) else { continue };
        if fs::metadata(format!("/proc/{id}")).is_err() {
            remove(id);
        }
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<String, Failure> {
    run(Command::new("ip").args(arguments))
}

/// What a program prints.
fn run(command: &mut Command) -> Result<String, Failure> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{command:?} (needs iproute2): {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} (needs root): {}, {}", output.status, said.trim()).into())
}
