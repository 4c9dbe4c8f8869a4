//! What links subscribe to, and whether they may.

use std::sync::Arc;
use std::task::{Context, Poll};

use slim_wire::{Encoding, Envelope, Name, Space, TextName};
use slotmap::{DefaultKey, SlotMap};
use thiserror::Error;

use super::{Core, Link};
use crate::datapath::announce::{Announcement, Audience};
use crate::datapath::counters::RefuseReason;
use crate::datapath::port::LinkId;
use crate::datapath::replica::{Change, Ordered, Submission};
use crate::datapath::violation::{Act, Violation};
use crate::policy::{Mode, Policy, Principal};

/// Why a subscription was not made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SubscribeError {
    /// The link has as many as it may have.
    #[error("subscriptions of one link: expected at most {limit}")]
    Limit {
        /// `limits.subscriptions_per_link`, or `limits.subscriptions_per_node`.
        limit: usize,
    },
    /// The core has as many as it may have.
    #[error("subscriptions of all links of a core: expected at most {limit}")]
    CoreLimit {
        /// The core's share of `limits.subscriptions`.
        limit: usize,
    },
    /// The policy does not allow the name to whom the link belongs.
    #[error("policy: this name is not allowed to {principal}")]
    NotAllowed {
        /// Whom the link belongs to.
        principal: Principal,
    },
}

impl SubscribeError {
    /// As what it counts.
    pub fn refuse_reason(&self) -> RefuseReason {
        match self {
            Self::Limit { .. } | Self::CoreLimit { .. } => RefuseReason::SubscriptionLimit,
            Self::NotAllowed { .. } => RefuseReason::NotAllowed,
        }
    }
}

impl Core {
    /// Notes a subscription of the link; it takes effect after [`Core::submit`]. One that the
    /// link already has changes nothing. Texts that are not those of the name are left aside.
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub fn subscribe(
        &mut self,
        id: LinkId,
        encoding: Encoding,
        name: Name,
        texts: Option<[&str; 3]>,
    ) -> Result<(), SubscribeError> {
        self.note_subscription(id, encoding, name, texts, None)
    }

    /// As [`Core::subscribe`], of what another node has told: how recent its subscription is among
    /// those to the same name with an id, see [`Table::subscribe_told`](crate::datapath::Table). One
    /// that the link already has becomes as recent as it says now.
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub fn subscribe_told(
        &mut self,
        id: LinkId,
        encoding: Encoding,
        name: Name,
        texts: Option<[&str; 3]>,
        recency: u32,
    ) -> Result<(), SubscribeError> {
        self.note_subscription(id, encoding, name, texts, Some(recency))
    }

    fn note_subscription(
        &mut self,
        id: LinkId,
        encoding: Encoding,
        name: Name,
        texts: Option<[&str; 3]>,
        recency: Option<u32>,
    ) -> Result<(), SubscribeError> {
        let Some(link) = self.links.get_mut(id.key) else {
            return Ok(());
        };
        let (space, key) = (encoding.space(), (encoding.space(), name));
        if link.subscriptions.contains(&key) {
            if recency.is_some() && !name.id.is_any() {
                let port = Arc::clone(link.egress.port());
                let renewed = Change::Subscribe { port, space, name, text: None, recency };
                link.batch.extend([Change::Unsubscribe(id, space, name), renewed]);
            }
            return Ok(());
        }
        let text = || text_of(name, texts?);
        if !link.view.may_subscribe(&name) {
            self.judge_subscription(id, name, text())?;
        }
        let Some(link) = self.links.get_mut(id.key) else {
            return Ok(());
        };
        let is_node = link.egress.port().is_node();
        let limit = match is_node {
            true => self.config.subscriptions_per_node,
            false => self.config.subscriptions_per_link,
        };
        if link.subscriptions.len() >= limit {
            return Err(SubscribeError::Limit { limit });
        }
        let limit = self.config.subscriptions;
        if self.counters.subscriptions.value() >= limit as u64 {
            return Err(SubscribeError::CoreLimit { limit });
        }
        link.subscriptions.insert(key);
        self.counters.subscriptions.add(1);
        let port = link.egress.port();
        port.name_once(|| label(&text().map_or_else(|| name.to_string(), |text| text.to_string())));
        // What other nodes reach is announced to nobody.
        let text = if is_node { None } else { text().map(Arc::new) };
        let port = Arc::clone(port);
        link.batch.push(Change::Subscribe { port, space, name, text, recency });
        Ok(())
    }

    /// Notes the end of a subscription; it takes effect after [`Core::submit`]. Returns whether
    /// the link had it.
    pub fn unsubscribe(&mut self, id: LinkId, encoding: Encoding, name: Name) -> bool {
        let Some(link) = self.links.get_mut(id.key) else {
            return false;
        };
        let key = (encoding.space(), name);
        let had = link.subscriptions.remove(&key);
        if had {
            self.counters.subscriptions.sub(1);
            link.batch.push(Change::Unsubscribe(id, key.0, name));
        }
        had
    }

    /// Judges all links by this policy from now on, and ends the subscriptions that it refuses.
    /// Returns how many those are. Links that are told of names are told of those that they may
    /// know now, and that others are gone.
    pub fn set_policy(&mut self, policy: Policy) -> u64 {
        let mut ended = 0;
        let ids: Vec<_> = self.links.values().map(|link| link.egress.port().id()).collect();
        for id in ids {
            let Some(link) = self.links.get_mut(id.key) else { continue };
            link.view = policy.view(link.egress.port().principal());
            if policy.mode() == Mode::Enforce {
                let (view, batch) = (&link.view, &mut link.batch);
                link.subscriptions.retain(|(space, name)| {
                    let stays = view.may_subscribe(name);
                    if !stays {
                        ended += 1;
                        batch.push(Change::Unsubscribe(id, *space, *name));
                    }
                    stays
                });
            }
            self.submit(id);
        }
        self.counters.subscriptions.sub(ended);
        self.policy = policy;
        let Self { announcer, links, ready, .. } = self;
        announcer.judge_again(|link| wake(links, ready, link));
        ended
    }

    /// Hands the changes noted since the last call to the sequencer.
    pub fn submit(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id.key) else {
            return;
        };
        if link.batch.is_empty() || link.submitted {
            return;
        }
        link.submitted = true;
        let changes = std::mem::take(&mut link.batch);
        self.mail.submit(Submission { link: id, changes });
    }

    /// Ready when every core has applied all changes of the link.
    pub fn poll_submitted(&mut self, id: LinkId, cx: &mut Context<'_>) -> Poll<()> {
        self.submit(id);
        match self.links.get_mut(id.key) {
            Some(link) if link.submitted => {
                link.wait(cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Whether all cores have applied what was last submitted of the link.
    pub fn is_settled(&self, id: LinkId) -> bool {
        self.links.get(id.key).is_none_or(|link| !link.submitted)
    }

    /// From now on the link, to a node of a published release, is told of the names that this
    /// node's clients subscribe to in the space of `encoding`.
    pub fn announce(&mut self, id: LinkId, encoding: Encoding) {
        self.announcer.listen(id, Audience::Published(encoding.space()));
    }

    /// From now on the link, to another node of this kind, is told of the names that this node's
    /// clients subscribe to.
    pub fn exchange(&mut self, id: LinkId) {
        self.announcer.listen(id, Audience::Exchange);
    }

    /// From now on the link, of the control plane in this node, is told of the names that this
    /// node's clients subscribe to.
    pub fn report(&mut self, id: LinkId) {
        self.announcer.listen(id, Audience::ControlPlane);
    }

    /// What the link has to be told next of this node's names, those aside that the policy does not
    /// allow it. When there is more, the link is woken.
    pub fn next_announcement(&mut self, id: LinkId) -> Option<Announcement> {
        let Self { announcer, replica, links, policy, .. } = self;
        let (table, view) = (&*replica.table(), &links.get(id.key)?.view);
        let observed = policy.mode() == Mode::Observe;
        let recency = |(space, name): &(Space, Name)| table.recency(*space, *name);
        announcer.next(id, recency, |name| observed || view.may_subscribe(name))
    }

    /// What the link has to be told next of this node's names.
    pub fn poll_announcement(&mut self, id: LinkId, cx: &mut Context<'_>) -> Poll<Announcement> {
        if let Some(announcement) = self.next_announcement(id) {
            return Poll::Ready(announcement);
        }
        if let Some(link) = self.links.get_mut(id.key) {
            link.wait(cx);
        }
        Poll::Pending
    }

    /// What the link was told has been answered; `taken` says whether the other node knows it now.
    pub fn announcement_answered(&mut self, id: LinkId, announcement: &Announcement, taken: bool) {
        self.announcer.answered(id, announcement, taken);
        if let Some(link) = self.links.get_mut(id.key) {
            link.wake(&mut self.ready);
        }
    }

    /// Has those links told of changes that wait for it.
    pub(super) fn note_changes(&mut self, ordered: &Ordered) {
        let Self { announcer, links, ready, .. } = self;
        for change in ordered.changes() {
            announcer.note(change, |link| wake(links, ready, link));
        }
    }

    /// Whether the link may publish as the source of an envelope, or does so and is watched only.
    #[inline]
    pub(in crate::datapath) fn may_publish(&mut self, id: LinkId, envelope: &Envelope) -> bool {
        let source = envelope.header.source;
        match self.links.get(id.key) {
            Some(link) if !link.view.may_publish_as(&source) => {
                self.tolerate(id, Act::Publish, source, envelope.messages)
            }
            _ => true,
        }
    }

    /// An error for a subscription that the policy does not allow, unless it is let pass.
    #[cold]
    fn judge_subscription(
        &mut self,
        id: LinkId,
        name: Name,
        text: Option<TextName>,
    ) -> Result<(), SubscribeError> {
        let first = self.violation.is_none();
        let tolerated = self.tolerate(id, Act::Subscribe, name, 1);
        if first && let Some(violation) = &mut self.violation {
            violation.label = text.map(|text| label(&text.to_string()));
        }
        if tolerated {
            return Ok(());
        }
        let principal = self.port(id).map(|port| port.principal().clone());
        Err(SubscribeError::NotAllowed { principal: principal.unwrap_or_default() })
    }

    /// Counts and notes what the policy does not allow, so many `times`; returns whether it is
    /// let pass.
    #[cold]
    fn tolerate(&mut self, id: LinkId, act: Act, name: Name, times: u32) -> bool {
        let tolerated = self.policy.mode() == Mode::Observe;
        self.counters.violations.add(times.into());
        // One at a time is logged; the others only count.
        if self.violation.is_none()
            && let Some(port) = self.port(id)
        {
            self.violation = Some(Violation::new(port, act, name, tolerated));
        }
        tolerated
    }

    /// What the policy does not allow, the first of it since the last call, for the log.
    pub fn take_violation(&mut self) -> Option<Violation> {
        self.violation.take()
    }
}

fn wake(links: &mut SlotMap<DefaultKey, Link>, ready: &mut Vec<LinkId>, id: LinkId) {
    if let Some(link) = links.get_mut(id.key) {
        link.wake(ready);
    }
}

/// A name as logs and metrics show it: of bounded length.
fn label(text: &str) -> Box<str> {
    const LABEL_CHARS: usize = 160;
    text.chars().take(LABEL_CHARS).collect::<String>().into()
}

/// The texts of a name, if its hashes were made from them: the policy has judged the hashes, and
/// other nodes are told of the texts.
fn text_of(name: Name, texts: [&str; 3]) -> Option<TextName> {
    TextName::new(texts, name.id).ok().filter(|text| text.to_name() == name)
}
