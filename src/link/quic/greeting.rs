use std::time::{Instant, SystemTime};

use quinn_proto::Connection;
use rustls::pki_types::CertificateDer;
use slim_config::Secret;
use slim_wire::{CloseCode, DecodeError, Hello, HelloFlags, Role};

use super::exchange::Telling;
use super::peer::{Fault, Origin, Peer, State, Turn};
use super::settings;
use crate::datapath::{Framing, NodeLink};
use crate::link::certificate::principal_of;
use crate::link::gate::Unauthenticated;
use crate::link::host::Delay;
use crate::link::incident::Incident;
use crate::policy::Principal;

/// Somebody whose credentials are not good, and who is to wait before it is told.
pub(super) struct Refused {
    pub(super) until: Instant,
    hello: Hello,
    certificate: Principal,
    credentials: Option<Box<[u8]>>,
    why: Unauthenticated,
    _delay: Delay,
}

impl Peer {
    /// The peer has said hello. It becomes a link, unless it does not show what is asked of it.
    pub(super) fn greet(
        &mut self,
        payload: &[u8],
        connection: &mut Connection,
        turn: &Turn<'_>,
    ) -> Result<(), Fault> {
        let (hello, credentials) = (Hello::decode(payload)?, Hello::credentials(payload)?);
        // Whom this node began a connection with it has chosen itself.
        let Some(gate) = turn.gate else {
            return self.open(hello, Principal::Configured, connection, turn);
        };
        let certificate = certificate_of(connection);
        if gate.asks() && turn.host.is_guessing(self.remote.ip()) {
            return Err(Unauthenticated::Guessing.into());
        }
        match gate.admit(&certificate, credentials, SystemTime::now()) {
            Ok(principal) => self.open(hello, principal, connection, turn),
            Err(why) => {
                let Some(delay) = turn.host.take_delay(self.remote.ip()) else {
                    return Err(why.into());
                };
                self.state = State::Refused(Box::new(Refused {
                    until: turn.now + turn.host.refusal_delay(),
                    hello,
                    certificate,
                    credentials: credentials.map(Box::from),
                    why,
                    _delay: delay,
                }));
                Ok(())
            }
        }
    }

    /// Whoever was kept waiting is refused, or let in after all.
    pub(super) fn decide(
        &mut self,
        connection: &mut Connection,
        turn: &Turn<'_>,
    ) -> Result<(), Fault> {
        let State::Refused(refused) = &mut self.state else {
            return Ok(());
        };
        let Refused { hello, certificate, credentials, why, .. } = &mut **refused;
        let hello = *hello;
        let late = match turn.gate {
            Some(gate) => gate.admit_late(why.clone(), certificate, credentials.as_deref()),
            None => Err(why.clone()),
        };
        self.open(hello, late?, connection, turn)
    }

    /// From now on the peer is a link.
    fn open(
        &mut self,
        theirs: Hello,
        principal: Principal,
        connection: &mut Connection,
        turn: &Turn<'_>,
    ) -> Result<(), Fault> {
        let Turn { host, .. } = turn;
        let least = host.limits.message_bytes;
        if (theirs.frame_bytes as usize) < least {
            let reason = format!(
                "frame bytes: expected at least {least} (limits.message_bytes), got {}",
                theirs.frame_bytes
            );
            return Err(Fault::new(Incident::ProtocolBroken, CloseCode::Protocol, reason));
        }
        if theirs.role == Role::App && matches!(self.origin, Origin::Dialed { .. }) {
            let reason = "role: expected a node (1) where this node links to, got an app (0)";
            return Err(Fault::new(Incident::LinkFailed, CloseCode::Protocol, reason));
        }
        if theirs.role == Role::Node && theirs.node == turn.node {
            let reason = "node: expected another than this one, got a link to itself";
            return Err(Fault::new(Incident::LinkFailed, CloseCode::Protocol, reason));
        }
        let wanted = match &self.origin {
            Origin::Accepted => None,
            Origin::Dialed { kind, .. } => Some(*kind),
        };
        let Some(kind) = agreed(wanted, theirs.flags, turn.exchanges) else {
            let reason = "flags of a hello: expected last hop (bit 1), got none";
            return Err(Fault::new(Incident::LinkFailed, CloseCode::Protocol, reason));
        };
        let Some(place) = host.places.take_link() else {
            let reason = "links: all of limits.links are taken";
            return Err(Fault::new(Incident::LinkLimit, CloseCode::Limit, reason));
        };
        self.places.push(place);
        let framing = match theirs.role {
            Role::App => Framing::Native,
            Role::Node => Framing::Node(theirs.node, kind),
        };
        let mut core = host.core.borrow_mut();
        let link = core.open_link(&self.remote.to_string(), framing, principal);
        self.state = State::Open(link);
        if framing == Framing::Node(theirs.node, NodeLink::Exchange) {
            core.exchange(link);
            self.telling = Some(Telling::default());
        }
        match &mut self.origin {
            Origin::Accepted => self.control.send_hello(&own_hello(flags_of(kind), None, turn)?),
            Origin::Dialed { opened, .. } => {
                if opened.take().is_some_and(|opened| opened.send((link, kind)).is_err()) {
                    let reason = "given up before it was open".to_owned();
                    return Err(Fault { incident: None, code: CloseCode::Done, reason });
                }
            }
        }
        settings::allow_lanes(connection);
        Ok(())
    }
}

/// What both ends want of a link between nodes. `wanted` is what this node has asked for if it began
/// the link, and `said` the other's hello, which asks or answers; `exchanges` says whether this node
/// agrees to exchange names. `None` if the other would pass on what may go no further.
fn agreed(wanted: Option<NodeLink>, said: HelloFlags, exchanges: bool) -> Option<NodeLink> {
    let exchange = said.contains(HelloFlags::EXCHANGE);
    let last_hop = said.contains(HelloFlags::LAST_HOP);
    match wanted {
        None if exchange && exchanges => Some(NodeLink::Exchange),
        None if last_hop => Some(NodeLink::LastHop),
        Some(NodeLink::Exchange) if exchange => Some(NodeLink::Exchange),
        Some(NodeLink::LastHop) => last_hop.then_some(NodeLink::LastHop),
        None | Some(NodeLink::Exchange | NodeLink::Transit) => Some(NodeLink::Transit),
    }
}

/// What a node says of a link of this kind, that it wants it or that it is in force.
pub(super) fn flags_of(kind: NodeLink) -> HelloFlags {
    match kind {
        NodeLink::Transit => HelloFlags::empty(),
        NodeLink::LastHop => HelloFlags::LAST_HOP,
        NodeLink::Exchange => HelloFlags::EXCHANGE,
    }
}

impl From<Unauthenticated> for Fault {
    fn from(error: Unauthenticated) -> Self {
        Self::new(Incident::Unauthenticated, CloseCode::Unauthenticated, error)
    }
}

/// Who the peer is by the certificate that it has shown, which TLS has verified.
fn certificate_of(connection: &Connection) -> Principal {
    let identity = connection.crypto_session().peer_identity();
    let chain = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    principal_of(chain.as_deref().map(Vec::as_slice))
}

/// What this node says first.
pub(super) fn own_hello(
    flags: HelloFlags,
    credentials: Option<&Secret>,
    turn: &Turn<'_>,
) -> Result<Vec<u8>, DecodeError> {
    let frame_bytes = u32::try_from(turn.host.limits.message_bytes).unwrap_or(u32::MAX);
    let hello = Hello { role: Role::Node, node: turn.node, flags, frame_bytes };
    match credentials {
        Some(credentials) => hello.encode_with(credentials.expose().as_bytes()),
        None => Ok(hello.encode().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_what_both_ends_agree_to_and_both_know_it() {
        use NodeLink::{Exchange, LastHop, Transit};
        let cases = [
            (Transit, true, Some(Transit)),
            (Exchange, true, Some(Exchange)),
            (Exchange, false, Some(Transit)),
            (LastHop, true, Some(LastHop)),
            (LastHop, false, Some(LastHop)),
        ];
        for (wanted, exchanges, expected) in cases {
            let there = agreed(None, flags_of(wanted), exchanges);
            assert_eq!(there, expected);
            let answer = flags_of(there.expect("whoever accepts refuses none"));
            assert_eq!(agreed(Some(wanted), answer, false), expected);
        }
    }

    #[test]
    fn a_node_that_answers_what_nobody_asked_for_changes_nothing() {
        let (none, exchange) = (HelloFlags::empty(), HelloFlags::EXCHANGE);
        let both = exchange.union(HelloFlags::LAST_HOP);
        assert_eq!(agreed(Some(NodeLink::Transit), both, true), Some(NodeLink::Transit));
        assert_eq!(agreed(Some(NodeLink::LastHop), both, true), Some(NodeLink::LastHop));
        // One that does not know of the last hop would pass on what it gets.
        assert_eq!(agreed(Some(NodeLink::LastHop), none, true), None);
        assert_eq!(agreed(Some(NodeLink::LastHop), exchange, true), None);
        // Whoever asks for both gets the exchange, or at least the last hop.
        assert_eq!(agreed(None, both, true), Some(NodeLink::Exchange));
        assert_eq!(agreed(None, both, false), Some(NodeLink::LastHop));
    }
}
