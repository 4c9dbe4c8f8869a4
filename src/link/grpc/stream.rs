use std::fmt::Display;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, Request};
use slim_compat_grpc::service::{self, Refusal, Service};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::reader::Reader;
use super::uplink::{NODE_HEADER, number_of};
use super::{OpenStream, writer};
use crate::datapath::{Framing, LinkId};
use crate::link::gate::{Known, Visitor};
use crate::link::host::Host;
use crate::link::incident::Incident;
use crate::policy::Principal;

/// How a stream ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The client closed its side.
    ByClient,
    /// The stream or its connection broke.
    Broken(h2::Error),
    /// What the client sent cannot be accepted; it is told why.
    Refused(Incident, Status),
    /// The client did not take what it was sent.
    TooSlow,
    /// The node is stopping, and all is written.
    Finished,
}

/// Serves one request: refuses it, or makes it a link for as long as it lasts.
pub(super) async fn serve_stream(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    visitor: Rc<Visitor>,
    host: Rc<Host>,
    open: OpenStream,
) {
    let Admitted { service, principal, framing, place } =
        match admit(&request, &visitor, &host).await {
            Ok(admitted) => admitted,
            Err(refused) => return refuse(&host, respond, &visitor, refused),
        };
    // Clients wait for the response headers before they send anything.
    let mut response = service::channel_response(());
    if framing != Framing::Grpc {
        let own = HeaderValue::from_str(&host.node_id).expect("a node's id is plain text");
        response.headers_mut().insert(NODE_HEADER, own);
    }
    let Ok(mut send) = respond.send_response(response, false) else {
        return;
    };
    open.is_link();
    let peer = visitor.peer;
    let link = OpenLink::new(&host, peer, framing, principal.clone());
    if is_of_this_library(&request)
        && let Some(port) = host.core.borrow().port(link.id)
    {
        port.note_library();
    }
    let mut reader = Reader::new(Rc::clone(&host), link.id, peer, service);
    let mut body = request.into_body();
    let ended = tokio::select! {
        biased;
        ended = reader.run(&mut body) => ended,
        ended = writer::run(&host, link.id, &mut send) => ended,
    };
    let says_goodbye = matches!(ended, Ended::ByClient | Ended::Refused(..));
    end(&host, &mut send, &Known(peer, &principal), ended);
    // After its incident, so that who sees the link gone sees why.
    drop(link);
    if says_goodbye {
        // What the transport still holds for a client that does not read is given up with its
        // place.
        drop(open);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(LINGER).await;
            send.send_reset(Reason::CANCEL);
            drop(place);
        });
    }
}

/// What a request becomes a link with.
struct Admitted {
    service: Service,
    principal: Principal,
    framing: Framing,
    place: OwnedSemaphorePermit,
}

/// Why a request becomes none.
struct Refused {
    incident: Incident,
    refusal: Refusal,
}

/// Decides whether a request becomes a link; who has shown no good credentials waits for the answer.
async fn admit(
    request: &Request<RecvStream>,
    visitor: &Visitor,
    host: &Host,
) -> Result<Admitted, Refused> {
    let refused = |incident, refusal| Refused { incident, refusal };
    let service = service::open_channel(request)
        .map_err(|refusal| refused(Incident::StreamRefused, refusal))?;
    let Visitor { peer, certificate, gate } = visitor;
    let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let principal = gate.admit_or_delay(certificate, authorization, peer.ip(), host).await;
    let principal = principal.map_err(|error| {
        let status = Status::unauthenticated(error.to_string());
        refused(Incident::Unauthenticated, Refusal::Status(status))
    })?;
    let node = request.headers().get(NODE_HEADER);
    if node.is_some_and(|node| node.as_bytes() == host.node_id.as_bytes()) {
        let status = Status::failed_precondition("node: expected another than this one");
        return Err(refused(Incident::LinkFailed, Refusal::Status(status)));
    }
    let framing = match node {
        Some(id) => Framing::PublishedNode { node: number_of(id), ends_here: true },
        None => Framing::Grpc,
    };
    let place = host.places.take_link().ok_or_else(|| {
        let status = Status::resource_exhausted("this node serves no more links (limits.links)");
        refused(Incident::LinkLimit, Refusal::Status(status))
    })?;
    Ok(Admitted { service, principal, framing, place })
}

/// Whether the client says that it is made with this library.
fn is_of_this_library(request: &Request<RecvStream>) -> bool {
    let agent = request.headers().get(USER_AGENT).map(HeaderValue::as_bytes);
    agent.is_some_and(|agent| agent.starts_with(b"slim-quic/"))
}

/// How long the last bytes of a stream may take to leave.
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);

/// A link of the core until it is dropped, even by a panic.
pub(super) struct OpenLink {
    host: Rc<Host>,
    pub(super) id: LinkId,
}

impl OpenLink {
    pub(super) fn new(
        host: &Rc<Host>,
        peer: SocketAddr,
        framing: Framing,
        principal: Principal,
    ) -> Self {
        let id = host.core.borrow_mut().open_link(&peer.to_string(), framing, principal);
        Self { host: Rc::clone(host), id }
    }
}

impl Drop for OpenLink {
    fn drop(&mut self) {
        // A panic in the core itself may have left it borrowed; then the node is lost anyway.
        if let Ok(mut core) = self.host.core.try_borrow_mut() {
            core.close_link(self.id);
            core.flush();
        }
    }
}

fn refuse(host: &Host, mut respond: SendResponse<Bytes>, visitor: &Visitor, refused: Refused) {
    let Refused { incident, refusal } = refused;
    let Visitor { peer, certificate, .. } = visitor;
    match incident {
        // Whose certificate it was is news where it did not do.
        Incident::Unauthenticated => host.report(incident, &Known(*peer, certificate), &refusal),
        _ => host.report(incident, peer, &refusal),
    }
    // A client that has gone needs no answer.
    let _ = respond.send_response(refusal.into_response(), true);
}

/// Tells the client how its stream ended. A client that has gone is not told: sending fails then.
fn end(host: &Host, send: &mut SendStream<Bytes>, peer: &dyn Display, ended: Ended) {
    match ended {
        Ended::ByClient | Ended::Finished => {
            let _ = send.send_trailers(service::trailers(&Status::ok("")));
        }
        Ended::Refused(incident, status) => {
            host.report(incident, peer, &status.message());
            let _ = send.send_trailers(service::trailers(&status));
        }
        // The slow consumer is logged by name where it is cut off.
        Ended::TooSlow => send.send_reset(Reason::ENHANCE_YOUR_CALM),
        // Clients that end properly cancel their stream, so only a lost connection is news.
        Ended::Broken(error) => {
            if error.is_io() {
                host.report(Incident::ConnectionLost, peer, &error);
            }
        }
    }
}
