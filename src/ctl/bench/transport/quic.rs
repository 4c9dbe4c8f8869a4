//! The native protocol, as apps speak it: what is measured includes the library for apps.

use bytes::Bytes;
use slim_wire::{Id, TextName};

use super::{Address, Arrival, Route, Template, components};
use crate::client::link::{Link, LinkError, LinkOptions, Message};
use crate::ctl::Error;

pub(crate) struct Sender {
    link: Link,
}

pub(crate) struct Receiver {
    link: Link,
    messages: Vec<Message>,
}

/// A link of its own, subscribed to the id if there is one.
pub(super) async fn connect(
    server: &str,
    options: &LinkOptions,
    topic: &str,
    id: Option<u64>,
) -> Result<(Sender, Receiver), Error> {
    let failed = |source: LinkError| Error::Native { server: server.to_owned(), source };
    let link = Link::connect(server, options).await.map_err(failed)?;
    if let Some(id) = id {
        let name = TextName::new(components(topic), Id::from_u64(id));
        let name = name.expect("a plan has no topic that a name cannot hold");
        link.subscribe(&name).await.map_err(failed)?;
    }
    Ok((Sender { link: link.clone() }, Receiver { link, messages: Vec::new() }))
}

/// The library writes the frame.
pub(super) fn template(route: &Route<'_>, size: usize) -> Template {
    Template { bytes: vec![0x5A; size], stamp_at: 0, address: route.address() }
}

impl Sender {
    pub(super) async fn send(
        &mut self,
        mut payloads: Bytes,
        template: &Template,
    ) -> Result<(), Error> {
        let Address { source, destination, fanout } = template.address;
        let mut message = Message { fanout, ..Message::new(source, destination, Bytes::new()) };
        while !payloads.is_empty() {
            message.payload = payloads.split_to(template.len());
            self.link.publish(&message).await.map_err(Error::link)?;
        }
        Ok(())
    }

    pub(super) async fn finish(self) -> Result<(), Error> {
        self.link.close().await.map_err(Error::link)
    }
}

impl Receiver {
    pub(super) async fn receive(&mut self, arrivals: &mut Vec<Arrival>) -> Result<bool, Error> {
        self.link.receive_many(&mut self.messages).await.map_err(Error::link)?;
        let payloads = self.messages.drain(..).map(|message| message.payload);
        arrivals.extend(payloads.filter_map(|payload| Arrival::of(&payload)));
        Ok(true)
    }
}
