//! What one message of a stream means, by its dialect.

use std::sync::Arc;

use bytes::Bytes;
use slim_compat_grpc::service::Service;
use slim_compat_grpc::{
    Authenticity, D6, D7, D20, Detected, Dialect, Inbound, KeyShare, Negotiation, NegotiationError,
    P, Routed, SubscriptionAck, answer_d7, detect, detect_pubsub, prepare, subscription_ack,
};
use slim_wire::{DecodeError, Encoding, Envelope, Header, Kind};
use tonic::Status;

use super::numbers::{Release, unknown_name};
use super::reader::Reader;
use super::stream::Ended;
use crate::datapath::RefuseReason;
use crate::link::incident::Incident;

impl Reader {
    pub(super) async fn read_message(&mut self, message: Bytes) -> Result<(), Ended> {
        let dialect = match self.dialect {
            Some(dialect) => dialect,
            None => match self.detect(&message)? {
                Some(dialect) => dialect,
                None => return Ok(()),
            },
        };
        match dialect {
            Detected::P => self.read_as::<P>(message).await,
            Detected::D6 => self.read_as::<D6>(message).await,
            Detected::D7 | Detected::D7L => self.read_as::<D7>(message).await,
            Detected::D20 => self.read_as::<D20>(message).await,
        }
    }

    /// The dialect that the first message proves; `None` if the message is merely dropped.
    fn detect(&mut self, first: &[u8]) -> Result<Option<Detected>, Ended> {
        let detected = match self.service {
            Service::DataPlane => detect(first),
            Service::PubSub => detect_pubsub(first),
        };
        match (detected, self.service) {
            (Ok(dialect), _) => Ok(Some(*self.dialect.insert(dialect))),
            // Only what a message of release 0.3 lacks tells it from garbage.
            (Err(error @ DecodeError::Missing { .. }), Service::PubSub) => {
                let status = Status::failed_precondition(format!(
                    "clients of release 0.3 are too old for this node; use 0.4 or later ({error})"
                ));
                self.host.core.borrow().counters().refuse(RefuseReason::Undecodable);
                Err(Ended::Refused(Incident::StreamRefused, status))
            }
            (Err(error), _) => self.refuse_message(&error).map(|()| None),
        }
    }

    async fn read_as<D: Dialect>(&mut self, message: Bytes) -> Result<(), Ended> {
        let inbound = match self.decode::<D>(&message) {
            Ok(Some(inbound)) => inbound,
            Ok(None) => return Ok(()),
            Err(error) => return self.refuse_message(&error),
        };
        match inbound {
            Inbound::Routed(routed) => match routed.header.kind {
                Kind::Publish => {
                    let Routed { header, steers, .. } = routed;
                    self.publish::<D>(header, steers, message).await
                }
                Kind::Subscribe => {
                    self.subscribe(&routed);
                    Ok(())
                }
                Kind::Unsubscribe => {
                    self.unsubscribe(&routed);
                    Ok(())
                }
            },
            Inbound::Link(link) => self.negotiate::<D>(link),
            Inbound::SubscriptionAck(ack) => {
                self.acknowledged(&ack);
                Ok(())
            }
        }
    }

    /// The other end has answered what this node asked it for.
    fn acknowledged(&self, ack: &SubscriptionAck<'_>) {
        let asked = self.asked.as_ref();
        let asked = asked.and_then(|asked| asked.borrow_mut().remove(&ack.subscription));
        let Some(announcement) = asked else {
            return;
        };
        if !ack.success {
            let detail = format_args!("{announcement}: {}", ack.error);
            self.host.report(Incident::AnnouncementRefused, &self.peer, &detail);
        }
        let mut core = self.host.core.borrow_mut();
        core.announcement_answered(self.link, &announcement, ack.success);
    }

    /// Reads a message; `None` if its header is not authentic, so that it is dropped.
    fn decode<'a, D: Dialect>(
        &self,
        message: &'a [u8],
    ) -> Result<Option<Inbound<'a>>, DecodeError> {
        let (inbound, authenticity) = match &self.key {
            Some(key) => key.read(message)?,
            None => {
                let inbound = D::read(message)?;
                // Until the node that this one begins a link with has shown its key.
                let early = self.begun_link.is_some() && !matches!(inbound, Inbound::Link(_));
                (inbound, if early { Authenticity::Unsigned } else { Authenticity::Authentic })
            }
        };
        let detail = match authenticity {
            Authenticity::Authentic => return Ok(Some(inbound)),
            Authenticity::Unsigned => "header_mac: expected to be present, got nothing",
            Authenticity::Forged => "header_mac: expected that of the header, got another",
        };
        self.host.core.borrow().counters().refuse(RefuseReason::Unauthentic);
        self.host.report(Incident::MessageRefused, &self.peer, &detail);
        Ok(None)
    }

    async fn publish<D: Dialect>(
        &mut self,
        header: Header,
        steers: bool,
        message: Bytes,
    ) -> Result<(), Ended> {
        // What the client subscribed to just now may be where the answer goes.
        self.submitted().await;
        let envelope = match D::ENCODING {
            Encoding::D20 => match self.next_hop(header, &message)? {
                Some(envelope) => envelope,
                None => return Ok(()),
            },
            _ if steers => {
                let cleared = D::clear_steering(&message).map_err(|e| self.undecodable(&e))?;
                Envelope::single(header, cleared)
            }
            _ => Envelope::single(header, message),
        };
        self.forward(&envelope).await;
        Ok(())
    }

    /// A publish of D20 with one hop less to go; `None` if it has gone its last.
    fn next_hop(&self, header: Header, message: &Bytes) -> Result<Option<Envelope>, Ended> {
        let ttl = header.ttl.saturating_sub(1);
        if ttl == 0 {
            self.host.core.borrow().counters().refuse(RefuseReason::Expired);
            return Ok(None);
        }
        let body = match prepare(message, ttl) {
            Ok(body) => body,
            Err(error) => return self.refuse_message(&error).map(|()| None),
        };
        Ok(Some(Envelope { header: Header { ttl, ..header }, messages: 1, body }))
    }

    fn subscribe(&mut self, routed: &Routed<'_>) {
        let Header { encoding, destination, .. } = routed.header;
        let made =
            self.host.core.borrow_mut().subscribe(self.link, encoding, destination, routed.texts);
        let numbered = matches!(encoding, Encoding::D7 | Encoding::D20);
        let mut reason = RefuseReason::SubscriptionLimit;
        let result = match made {
            Ok(()) if numbered && !self.numbers.add(destination, routed.subscription) => {
                Err("one name: expected fewer subscriptions of it on one link".to_owned())
            }
            Ok(()) => Ok(()),
            Err(error) => {
                reason = error.refuse_reason();
                Err(error.to_string())
            }
        };
        self.changed = true;
        if let Err(error) = &result {
            self.host.core.borrow().counters().refuse(reason);
            self.host.report(Incident::MessageRefused, &self.peer, error);
        }
        self.acknowledge(routed.subscription, &result);
    }

    fn unsubscribe(&mut self, routed: &Routed<'_>) {
        let Header { encoding, destination, .. } = routed.header;
        let release = match encoding {
            Encoding::D7 | Encoding::D20 => self.numbers.release(&destination, routed.subscription),
            _ => Release::Name,
        };
        if release == Release::Name {
            self.changed = true;
            self.host.core.borrow_mut().unsubscribe(self.link, encoding, destination);
        }
        let result = match release {
            Release::Name | Release::Number => Ok(()),
            Release::Unknown => Err(unknown_name(encoding, destination.id)),
        };
        self.acknowledge(routed.subscription, &result);
    }

    /// Acknowledges a subscription once all cores know of it; number 0 asks for none.
    fn acknowledge(&mut self, subscription: u64, result: &Result<(), String>) {
        if subscription != 0 {
            let result = result.as_ref().map_err(String::as_str).copied();
            self.acks.push(subscription_ack(subscription, result));
        }
    }

    /// An answer where a client has to introduce its link. Without one a link of D20 cannot go on;
    /// clients of D7 do without.
    fn unasked_answer<D: Dialect>(&self) -> Result<(), Ended> {
        match D::ENCODING {
            Encoding::D20 => Err(self.undecodable(&DecodeError::Unexpected {
                field: "is_reply",
                expected: "false in what begins a link",
                got: 1,
            })),
            _ => Ok(()),
        }
    }

    /// Answers a client that introduces its link. It does so once; later ones are ignored.
    fn negotiate<D: Dialect>(&mut self, link: &[u8]) -> Result<(), Ended> {
        let request = match Negotiation::read(link) {
            Ok(request) => request,
            Err(error) => return Err(self.undecodable(&error)),
        };
        if let Some(begun) = &self.begun_link {
            let key = begun.complete(&request).map_err(|error| negotiation_failed(&error))?;
            self.begun_link = None;
            self.introduced = true;
            self.host.core.borrow_mut().authenticate(self.link, Arc::clone(&key));
            self.key = Some(key);
            return Ok(());
        }
        if self.introduced {
            return Ok(());
        }
        if D::ENCODING == Encoding::D20 && *request.node_id == *self.host.node_id {
            let status = Status::failed_precondition("node_id: expected another than this node's");
            return Err(Ended::Refused(Incident::LinkFailed, status));
        }
        if request.is_reply {
            return self.unasked_answer::<D>();
        }
        self.introduced = true;
        let answer = match D::ENCODING {
            Encoding::D20 => {
                let answer = KeyShare::generate()
                    .and_then(|share| share.answer(&request, &self.host.node_id));
                let (answer, key) = answer.map_err(|error| negotiation_failed(&error))?;
                self.key = key.map(Arc::new);
                answer
            }
            _ => answer_d7(&request),
        };
        let mut core = self.host.core.borrow_mut();
        if let Some(key) = &self.key {
            core.authenticate(self.link, Arc::clone(key));
        }
        core.answer(self.link, D::ENCODING, answer, self.now);
        Ok(())
    }
}

fn negotiation_failed(error: &NegotiationError) -> Ended {
    let status = Status::invalid_argument(format!("{error}; {}", error.hint()));
    Ended::Refused(Incident::StreamRefused, status)
}
