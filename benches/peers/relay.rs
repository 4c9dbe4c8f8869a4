//! The relays: ours, floors and peers, each in processes of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use slim_quic::client::link::{LinkOptions, Trust};
use slim_quic::ctl::bench::{Floor, Pump, Server};
use slim_quic::ctl::cpu_time;

use crate::case::{Case, Load};
use crate::node::{self, Node};
use crate::zenoh::{self, Router};
use crate::{Args, Failure, machine};

/// A relay under measurement, by one of its ways in.
pub(crate) struct Relay {
    pub(crate) name: String,
    pub(crate) way: Way,
    process: Process,
}

/// How load gets there.
pub(crate) enum Way {
    /// From this process.
    Session(Server),
    /// From a program that is built for zenoh.
    Zenoh(Router),
}

enum Process {
    Node(Rc<Node>),
    Pump(Box<Pump>),
}

/// Largest datagrams, of an Ethernet and between programs on one machine.
const MTUS: [u16; 2] = [node::MTU, 65_000];

impl Relay {
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        match &self.process {
            Process::Node(node) => Ok(cpu_time(node.pid())?),
            Process::Pump(pump) => Ok(pump.cpu_time()?),
        }
    }

    /// Whether it can do what is asked: pumps serve a publisher and a subscriber, and only that
    /// over UDP carries anything back.
    pub(crate) fn serves(&self, case: &Case) -> bool {
        let pump = matches!(self.process, Process::Pump(_));
        let returns = self.name == "floor-udp" || case.load != Load::RoundTrip;
        !pump || case.subscribers == 1 && returns
    }
}

/// All relays that run, and what there is to say about those that do not.
pub(crate) struct Relays {
    pub(crate) all: Vec<Relay>,
    /// Programs of others, and their versions.
    pub(crate) versions: Vec<String>,
    pub(crate) missing: Vec<String>,
    wanted: Vec<String>,
}

impl Relays {
    /// Starts all whose name begins with one of those that `args` name.
    pub(crate) fn start(args: &Args) -> Result<Self, Failure> {
        let wanted = args.relay.clone();
        let mut relays =
            Self { all: Vec::new(), versions: Vec::new(), missing: Vec::new(), wanted };
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let certificate = Certificate::make(scratch)?;
        relays.start_ours(&args.node, scratch)?;
        relays.start_floors()?;
        relays.start_nats(&args.nats_server, &certificate);
        relays.start_zenoh(args, scratch, &certificate);
        relays.start_upstream(&args.upstream, scratch);
        Ok(relays)
    }

    fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|part| name.starts_with(part.as_str()))
    }

    fn add(&mut self, name: String, way: Way, process: Process) {
        self.all.push(Relay { name, way, process });
    }

    fn start_ours(&mut self, program: &Path, scratch: &Path) -> Result<(), Failure> {
        for mtu in MTUS {
            let native = format!("slim-quic-{mtu}");
            // What gRPC costs does not depend on the size of datagrams.
            let grpc = (mtu == node::MTU).then(|| "slim-grpc".to_owned());
            let grpc = grpc.filter(|name| self.wants(name));
            if !self.wants(&native) && grpc.is_none() {
                continue;
            }
            let node = Rc::new(Node::ours("slim".into(), program, 1, mtu, scratch)?);
            let address = node.address;
            if let Some(name) = grpc {
                let server = format!("grpc://{address}").parse()?;
                self.add(name, Way::Session(server), Process::Node(Rc::clone(&node)));
            }
            if self.wants(&native) {
                let trust = Trust::DangerAcceptAnyCertificate;
                let options = Box::new(LinkOptions { trust, mtu, ..LinkOptions::default() });
                let server = Server::Driver { authority: address.to_string(), options };
                self.add(native, Way::Session(server), Process::Node(node));
            }
        }
        Ok(())
    }

    fn start_floors(&mut self) -> Result<(), Failure> {
        let slimctl = Path::new(env!("CARGO_BIN_EXE_slimctl"));
        let quic = MTUS.map(|mtu| (Floor::Quic, mtu, format!("floor-quic-{mtu}")));
        let others = [Floor::Udp, Floor::Tcp, Floor::Tls];
        let others = others.map(|floor| (floor, node::MTU, format!("floor-{floor}")));
        for (floor, mtu, name) in others.into_iter().chain(quic) {
            if self.wants(&name) {
                let pump = Pump::start(slimctl, floor, mtu)?;
                let server = match pump.server().clone() {
                    // As the node is spoken to.
                    Server::Quic { authority, options } => Server::Driver { authority, options },
                    other => other,
                };
                self.add(name, Way::Session(server), Process::Pump(Box::new(pump)));
            }
        }
        Ok(())
    }

    fn start_nats(&mut self, program: &Path, certificate: &Certificate) {
        for (name, tls) in [("nats-tcp", false), ("nats-tls", true)] {
            if !self.wants(name) {
                continue;
            }
            match nats(name, program, tls.then_some(certificate)) {
                Ok((node, server)) => {
                    self.add(name.into(), Way::Session(server), Process::Node(Rc::new(node)));
                }
                Err(error) => self.miss(name, &error, "apt-get install nats-server"),
            }
        }
        if self.all.iter().any(|relay| relay.name.starts_with("nats")) {
            self.versions.push(machine::output(program, ["--version"]));
        }
    }

    fn start_zenoh(&mut self, args: &Args, scratch: &Path, certificate: &Certificate) {
        let transports = ["tcp", "tls", "quic"].map(|name| (name, format!("zenoh-{name}")));
        if !transports.iter().any(|(_, name)| self.wants(name)) {
            return;
        }
        let version = machine::output(&args.zenohd, ["--version"]);
        if version == "unknown" {
            let how = format!("cargo install zenohd --version {} --locked", zenoh::VERSION);
            return self.miss("zenoh", &"there is no zenohd", &how);
        }
        let load = args.zenoh_load.clone().map_or_else(|| zenoh::build(scratch), Ok);
        let load = match load {
            Ok(load) => Rc::<Path>::from(load),
            Err(error) => return self.miss("zenoh", &error, "see what cargo says"),
        };
        self.versions.push(version);
        for (transport, name) in transports {
            if !self.wants(&name) {
                continue;
            }
            match zenoh::start(args, transport, certificate, &load) {
                Ok((node, router)) => {
                    self.add(name, Way::Zenoh(router), Process::Node(Rc::new(node)));
                }
                Err(error) => self.miss(&name, &error, "see what zenohd says"),
            }
        }
    }

    fn start_upstream(&mut self, release: &str, scratch: &Path) {
        const INSTALL: &str = "it takes python3 with venv, and the package registry";
        for (name, forced) in [("upstream", false), ("upstream-nodelay", true)] {
            if !self.wants(name) {
                continue;
            }
            let shim = if forced { nodelay(scratch).map(Some) } else { Ok(None) };
            let shim = match shim {
                Ok(shim) => shim,
                Err(error) => {
                    self.miss(name, &error, "it takes a C compiler, cc");
                    continue;
                }
            };
            let started = Node::upstream(release, scratch, shim.as_deref());
            let started = started.and_then(|node| {
                let server = format!("grpc://{}", node.address).parse()?;
                Ok((node, server))
            });
            match started {
                Ok((node, server)) => {
                    self.add(name.into(), Way::Session(server), Process::Node(Rc::new(node)));
                    self.versions.push(format!("{name} {release}"));
                }
                Err(error) => self.miss(name, &error, INSTALL),
            }
        }
    }

    fn miss(&mut self, name: &str, error: &dyn std::fmt::Display, how: &str) {
        self.missing.push(format!("*** NOT MEASURED: {name}: {error}. To have it: {how} ***"));
    }
}

/// By which peers are known, and its key, in files.
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    fn make(scratch: &Path) -> Result<Self, Failure> {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names)?;
        let this = Self { certificate: scratch.join("peers.pem"), key: scratch.join("peers.key") };
        std::fs::write(&this.certificate, made.cert.pem())?;
        std::fs::write(&this.key, made.signing_key.serialize_pem())?;
        Ok(this)
    }
}

fn nats(name: &str, program: &Path, tls: Option<&Certificate>) -> Result<(Node, Server), Failure> {
    let address = node::free_address()?;
    let mut command = Command::new(program);
    command.args(["--log", "/dev/null", "--addr", "127.0.0.1"]);
    command.args(["--port", &address.port().to_string()]);
    let server = match tls {
        None => Server::Nats { authority: address.to_string(), tls: None },
        Some(Certificate { certificate, key }) => {
            command.arg("--tls").arg("--tlscert").arg(certificate).arg("--tlskey").arg(key);
            let tls = Some(Trust::File(certificate.clone()));
            Server::Nats { authority: address.to_string(), tls }
        }
    };
    Ok((Node::start(name.into(), address, &mut command)?, server))
}

/// Compiles what sets TCP_NODELAY in a program that does not.
fn nodelay(scratch: &Path) -> Result<PathBuf, Failure> {
    let library = scratch.join("nodelay.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/nodelay.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-Wall", "-shared", "-fPIC", "-o"]).arg(&library).arg(source);
    match compiler.arg("-ldl").status()? {
        status if status.success() => Ok(library),
        status => Err(format!("cc: {status}").into()),
    }
}
