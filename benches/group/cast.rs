//! A node and the members of a group, each in a process of its own, and what they cost.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::{Args, Failure};

/// Whose members they are.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Of this library, over this scheme.
    Native(String),
    /// Of release 0.6.3, run by this interpreter.
    Published(PathBuf),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native(scheme) => write!(f, "slim, {scheme}"),
            Self::Published(_) => f.write_str("upstream 0.6.3"),
        }
    }
}

/// What one delivery cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// CPU time of all members, in microseconds: of publishing too.
    pub(crate) members_us: f64,
    /// Of the node.
    pub(crate) node_us: f64,
    /// Resident memory of a member at the end, on average.
    pub(crate) resident_mib: f64,
}

/// A process that ends with its handle.
struct Process(Child);

/// All processes of one group.
pub(crate) struct Cast {
    node: Process,
    members: Vec<Process>,
    /// What members say: which, and the line.
    said: Receiver<(usize, String)>,
    tell: Sender<(usize, String)>,
}

/// How long members may take to get ready, and to hear everything after the last is published.
const PATIENCE: Duration = Duration::from_secs(120);

impl Cast {
    /// Starts all, and returns once everybody hears the moderator.
    pub(crate) fn gather(kind: &Kind, args: &Args) -> Result<Self, Failure> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let node = node(address)?;
        let (tell, said) = channel();
        let mut cast = Self { node, members: Vec::new(), said, tell };
        let name = |number: u32| format!("org/bench/member-{number}");
        for number in 1..args.members {
            cast.enter(kind.member(address, &name(number), &[])?)?;
        }
        cast.hear("ready", args.members - 1, PATIENCE, |_| Ok(()))?;
        let mut moderate = vec![if args.plain { "plain" } else { "mls" }.to_owned()];
        moderate.extend((1..args.members).map(name));
        cast.enter(kind.member(address, &name(0), &moderate)?)?;
        cast.hear("in session", args.members, PATIENCE, |_| Ok(()))?;
        // Published members are not told when the others are ready.
        let moderator = cast.members.len() - 1;
        cast.hear("warm", args.members - 1, PATIENCE, |cast| cast.order(moderator, "warm"))?;
        Ok(cast)
    }

    fn enter(&mut self, mut command: Command) -> Result<(), Failure> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("no pipe")?;
        let (number, tell) = (self.members.len(), self.tell.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if tell.send((number, line)).is_err() {
                    return;
                }
            }
            // It has ended; who waits for it is to know.
            let _ = tell.send((number, "ended".to_owned()));
        });
        self.members.push(Process(child));
        Ok(())
    }

    fn order(&mut self, member: usize, order: &str) -> Result<(), Failure> {
        let input = self.members[member].0.stdin.as_mut().ok_or("no pipe")?;
        Ok(writeln!(input, "{order}").and_then(|()| input.flush())?)
    }

    /// Waits until so many have said `line`; every second, does something about it.
    fn hear(
        &mut self,
        line: &str,
        count: u32,
        limit: Duration,
        mut nudge: impl FnMut(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + limit;
        let mut heard = 0;
        while heard < count {
            match self.said.recv_timeout(Duration::from_secs(1)) {
                Ok((_, said)) if said == line => heard += 1,
                Ok((member, said)) if said == "ended" => {
                    return Err(format!("member {member} ended before it was {line:?}").into());
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => nudge(self)?,
                Err(error) => return Err(format!("{heard} of {count} {line:?}: {error}").into()),
            }
        }
        Ok(())
    }

    /// All publish, and hear all others.
    pub(crate) fn play(mut self, args: &Args) -> Result<Sample, Failure> {
        // What greeting has left behind.
        std::thread::sleep(Duration::from_secs(1));
        let others = u64::from(args.messages) * u64::from(args.members - 1);
        let before = (self.members_ns()?, self.node.ns()?);
        for member in 0..self.members.len() {
            let order = format!("go {} {} {} {others}", args.messages, args.rate, args.size);
            self.order(member, &order)?;
        }
        let publishing = Duration::from_secs_f64(f64::from(args.messages) / args.rate);
        self.hear("done", args.members, publishing + PATIENCE, |_| Ok(()))?;
        let after = (self.members_ns()?, self.node.ns()?);
        let deliveries = (others * u64::from(args.members)) as f64;
        let us = |before: u64, after: u64| (after - before) as f64 / 1000.0 / deliveries;
        let mut resident = 0;
        for member in &self.members {
            resident += member.resident_kib()?;
        }
        Ok(Sample {
            members_us: us(before.0, after.0),
            node_us: us(before.1, after.1),
            resident_mib: resident as f64 / 1024.0 / self.members.len() as f64,
        })
    }

    fn members_ns(&self) -> Result<u64, Failure> {
        self.members.iter().map(Process::ns).sum()
    }
}

impl Kind {
    fn member(
        &self,
        node: SocketAddr,
        name: &str,
        moderate: &[String],
    ) -> Result<Command, Failure> {
        let mut command = match self {
            Self::Native(scheme) => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["member", &format!("{scheme}://{node}")]);
                command
            }
            Self::Published(python) => {
                let mut command = Command::new(python);
                let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
                command.arg(clients.join("group_member.py")).arg(format!("http://{node}"));
                command
            }
        };
        command.arg(name).args(moderate);
        Ok(command)
    }
}

fn node(address: SocketAddr) -> Result<Process, Failure> {
    let file =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("group-{}.yaml", address.port()));
    fs::write(
        &file,
        format!(
            "admin: none\ntracing: {{log_level: error}}\nservices:\n  slim/0:\n    dataplane:\n      \
             servers:\n        - endpoint: \"{address}\"\n          tls: {{insecure: true}}\n"
        ),
    )?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_slim"));
    command.arg("--config").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
    let process = Process(command.spawn()?);
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        if Instant::now() > deadline {
            return Err(format!("the node does not listen on {address}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::remove_file(&file)?;
    Ok(process)
}

impl Process {
    /// CPU time so far, user and system, of its threads.
    fn ns(&self) -> Result<u64, Failure> {
        let mut ns = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split_whitespace().next().ok_or("schedstat: expected a number")?;
            ns += first.parse::<u64>()?;
        }
        Ok(ns)
    }

    fn resident_kib(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let amount = line.ok_or("status: expected VmRSS")?.trim().trim_end_matches(" kB");
        Ok(amount.parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // There is nothing to do for a child that cannot be ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
