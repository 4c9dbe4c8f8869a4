use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::super::transport::Server;
use super::{Floor, LISTENING, TLS_NAME};
use crate::client::link::{LinkOptions, Trust};
use crate::ctl::{Error, cpu_time};

/// A pump in a process of its own; ends with its handle.
#[derive(Debug)]
pub struct Pump {
    child: Child,
    server: Server,
}

impl Pump {
    /// Starts `program`, which is `slimctl`, as a pump on the loopback. `mtu` is the largest
    /// datagram in bytes of one that speaks QUIC, and of its clients.
    ///
    /// # Errors
    /// [`Error::Machine`] if it does not start, [`Error::Pump`] if it does not listen.
    pub fn start(program: &Path, floor: Floor, mtu: u16) -> Result<Self, Error> {
        let child = Command::new(program)
            .args(["bench", "pump", floor.name(), "--listen", "127.0.0.1:0"])
            .args(["--mtu", &mtu.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::machine("pump process"))?;
        let address = std::net::SocketAddr::from(([0; 4], 0));
        let mut pump = Self { child, server: Server::Pump { floor, address, certificate: None } };
        pump.server = pump.greeting(floor, mtu)?;
        Ok(pump)
    }

    fn greeting(&mut self, floor: Floor, mtu: u16) -> Result<Server, Error> {
        let output = self.child.stdout.take();
        let mut lines = output.into_iter().flat_map(|output| BufReader::new(output).lines());
        let mut line = || lines.next().and_then(Result::ok);
        let first = line().unwrap_or_default();
        let address = first.strip_prefix(LISTENING).and_then(|address| address.parse().ok());
        let expected = "\"listening on ADDR\"";
        let address = address.ok_or(Error::Pump { expected, got: first })?;
        let mut certificate = || {
            let mut pem = String::new();
            while !pem.contains("-----END")
                && let Some(line) = line()
            {
                pem.push_str(&line);
                pem.push('\n');
            }
            let expected = "a certificate in PEM form";
            match CertificateDer::from_pem_slice(pem.as_bytes()) {
                Ok(certificate) => Ok((certificate, pem)),
                Err(_) => Err(Error::Pump { expected, got: pem }),
            }
        };
        Ok(match floor {
            Floor::Udp | Floor::Tcp => Server::Pump { floor, address, certificate: None },
            Floor::Tls => {
                let certificate = Some(certificate()?.0);
                Server::Pump { floor, address, certificate }
            }
            Floor::Quic => {
                let trust = Trust::Pem(certificate()?.1);
                let server_name = Some(TLS_NAME.to_owned());
                let options = LinkOptions { trust, server_name, mtu, ..LinkOptions::default() };
                Server::Quic { authority: address.to_string(), options: Box::new(options) }
            }
        })
    }

    /// What a run sends its messages through.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// CPU time of the process so far.
    ///
    /// # Errors
    /// [`Error::Machine`] if the process has ended.
    pub fn cpu_time(&self) -> Result<Duration, Error> {
        cpu_time(self.child.id()).map_err(Error::machine("CPU time of the pump"))
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        // There is nothing to do for a child that cannot be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
