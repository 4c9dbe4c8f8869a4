use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::Request;
use slim_compat_grpc::service::{self, Refusal};
use tonic::Status;

use super::reader::Reader;
use super::{Gateway, writer};
use crate::datapath::{Framing, LinkId};
use crate::link::incident::Incident;

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
    peer: SocketAddr,
    gateway: Rc<Gateway>,
) {
    if let Err(refusal) = service::open_channel(&request) {
        return refuse(&gateway, respond, peer, Incident::StreamRefused, refusal);
    }
    let Some(permit) = gateway.places.take_link() else {
        let status = Status::resource_exhausted("this node serves no more links (limits.links)");
        return refuse(&gateway, respond, peer, Incident::LinkLimit, Refusal::Status(status));
    };
    // Clients wait for the response headers before they send anything.
    let Ok(mut send) = respond.send_response(service::channel_response(()), false) else {
        return;
    };
    let link = gateway.core.borrow_mut().open_link(&peer.to_string(), Framing::Grpc);
    let mut reader = Reader::new(Rc::clone(&gateway), link, peer);
    let mut body = request.into_body();
    let ended = tokio::select! {
        biased;
        ended = reader.run(&mut body) => ended,
        ended = writer::run(&gateway, link, &mut send) => ended,
    };
    close_link(&gateway, link);
    drop(permit);
    end(&gateway, send, peer, ended);
}

fn close_link(gateway: &Gateway, link: LinkId) {
    let mut core = gateway.core.borrow_mut();
    core.close_link(link);
    core.flush();
}

fn refuse(
    gateway: &Gateway,
    mut respond: SendResponse<Bytes>,
    peer: SocketAddr,
    incident: Incident,
    refusal: Refusal,
) {
    gateway.report(incident, &peer, &refusal);
    // A client that has gone needs no answer.
    let _ = respond.send_response(refusal.into_response(), true);
}

/// Tells the client how its stream ended. A client that has gone is not told: sending fails then.
fn end(gateway: &Gateway, mut send: SendStream<Bytes>, peer: SocketAddr, ended: Ended) {
    match ended {
        Ended::ByClient | Ended::Finished => {
            let _ = send.send_trailers(service::trailers(&Status::ok("")));
        }
        Ended::Refused(incident, status) => {
            gateway.report(incident, &peer, &status.message());
            let _ = send.send_trailers(service::trailers(&status));
        }
        // The slow consumer is logged by name where it is cut off.
        Ended::TooSlow => send.send_reset(Reason::ENHANCE_YOUR_CALM),
        // Clients that end properly cancel their stream, so only a lost connection is news.
        Ended::Broken(error) => {
            if error.is_io() {
                gateway.report(Incident::ConnectionLost, &peer, &error);
            }
        }
    }
}
