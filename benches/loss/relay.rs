//! What is between publishers and subscribers: a process of its own in the relay's namespace.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use slim_config::Congestion;

use crate::Failure;
use crate::namespace::{Namespaces, RELAY, Side};
use crate::worker::{self, Protocol};

/// A kind of relay, and how congestion is controlled on its links.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    pub(crate) protocol: Protocol,
    /// Of QUIC.
    pub(crate) quic: Congestion,
    /// Of TCP, as the kernel names it; `None` where there is only QUIC.
    pub(crate) tcp: Option<String>,
}

/// A relay at work; ends with its handle.
pub(crate) struct Running(Child);

/// In a namespace of its own nobody else has it.
const PORT: u16 = 46_357;

/// Where Debian has it, which is not on everybody's path.
pub(crate) const NATS: &str = "/usr/sbin/nats-server";

/// How long a relay may take to listen.
const START: Duration = Duration::from_secs(10);

impl Relay {
    pub(crate) fn label(&self) -> String {
        let name = match self.protocol {
            Protocol::Quic => "slim, QUIC",
            Protocol::Grpc => "slim, gRPC",
            Protocol::Nats => "NATS",
            Protocol::Tcp => "TCP pump",
        };
        let tcp = self.tcp.as_deref();
        format!("{name}, {}", tcp.unwrap_or_else(|| worker::quic_name(self.quic)))
    }

    /// Its address on a way.
    pub(crate) fn address(way: usize) -> SocketAddr {
        (RELAY[way], PORT).into()
    }

    /// Starts it, and waits until it listens.
    pub(crate) fn start(&self, namespaces: &Namespaces) -> Result<Running, Failure> {
        if let Some(algorithm) = &self.tcp {
            namespaces.set_tcp_congestion(algorithm)?;
        }
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let mut command = match self.protocol {
            Protocol::Quic | Protocol::Grpc => {
                let file = scratch.join(format!("loss-{}.yaml", std::process::id()));
                fs::write(&file, self.node_config())?;
                let mut command = namespaces.command(Side::Relay, env!("CARGO_BIN_EXE_slim"));
                command.arg("--config").arg(&file);
                command
            }
            Protocol::Nats => {
                let mut command = namespaces.command(Side::Relay, NATS);
                command.args(["-a", "0.0.0.0", "-p", &PORT.to_string()]);
                command.stderr(Stdio::null());
                command
            }
            Protocol::Tcp => {
                let mut command = namespaces.command(Side::Relay, env!("CARGO_BIN_EXE_slimctl"));
                let listen = format!("0.0.0.0:{PORT}");
                command.args(["bench", "pump", "tcp", "--listen", &listen]);
                command
            }
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut running = Running(child);
        running.wait_until_it_listens()?;
        Ok(running)
    }

    fn node_config(&self) -> String {
        format!(
            "admin: none\ntracing: {{log_level: error}}\nruntime: {{n_cores: 1}}\n\
             services:\n  slim/0:\n    dataplane:\n      servers:\n        \
             - endpoint: \"0.0.0.0:{PORT}\"\n          tls: {{insecure: true}}\n          \
             quic: {{mtu: 1452, congestion: {}}}\n",
            worker::quic_name(self.quic)
        )
    }
}

impl Running {
    fn wait_until_it_listens(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + START;
        while !listens(self.0.id()) {
            if let Some(status) = self.0.try_wait()? {
                return Err(format!("the relay ended at start, {status}").into());
            }
            if Instant::now() > deadline {
                return Err(format!("the relay does not listen on port {PORT}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // There is nothing to do for a child that cannot be ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether somebody listens on the port in the namespace of process `id`.
fn listens(id: u32) -> bool {
    const LISTEN: &str = "0A";
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{id}/net/{table}")));
    let port = format!(":{PORT:04X}");
    tables.iter().flatten().flat_map(|table| table.lines()).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port))
            && fields.nth(1).is_some_and(|state| state == LISTEN)
    })
}
