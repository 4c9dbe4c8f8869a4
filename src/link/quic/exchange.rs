use std::collections::HashMap;
use std::net::SocketAddr;

use slim_compat_grpc::Subscription;
use slim_wire::{DecodeError, Encoding, FrameHeader, FrameKind, SessionIds, Space};

use super::control::Control;
use crate::datapath::{Announcement, Core, LinkId};
use crate::link::host::Host;
use crate::link::incident::Incident;

/// What this node tells another of the names of its clients, if they exchange names: each with a
/// control frame, of which so many wait for their acknowledgement.
#[derive(Default)]
pub(super) struct Telling {
    asked: HashMap<u32, Announcement>,
    request: u32,
}

/// Names that the other node may leave unanswered before it is told no more. All of them, with their
/// answers, fit the window of the control stream.
const UNANSWERED: usize = 128;

/// Answers and names that wait to be written before no more are added.
const UNWRITTEN_BYTES: usize = 16 * 1024;

impl Telling {
    /// Tells what there is to tell, as far as the other node has answered.
    pub(super) fn tell(&mut self, link: LinkId, core: &mut Core, control: &mut Control) {
        while self.asked.len() < UNANSWERED && control.unwritten() < UNWRITTEN_BYTES {
            let Some(announcement) = core.next_announcement(link) else {
                return;
            };
            // Those that wait are fewer than numbers by far.
            self.request = self.request.wrapping_add(1);
            control.announce(&announcement, self.request);
            self.asked.insert(self.request, announcement);
        }
    }

    /// The other node has answered a request; `refused` says why it was not done.
    pub(super) fn answered(
        &mut self,
        link: LinkId,
        request: u32,
        refused: Option<&[u8]>,
        (host, remote): (&Host, &SocketAddr),
    ) -> Result<(), DecodeError> {
        let Some(announcement) = self.asked.remove(&request) else {
            return Err(DecodeError::Unexpected {
                field: "message id of an ack",
                expected: "that of a request without an answer",
                got: request.into(),
            });
        };
        let taken = refused.is_none();
        host.core.borrow_mut().announcement_answered(link, &announcement, taken);
        if let Some(why) = refused {
            let detail = format_args!("{announcement}: {}", String::from_utf8_lossy(why));
            host.report(Incident::AnnouncementRefused, remote, &detail);
        }
        Ok(())
    }
}

/// How the space of a name is written in a control frame between nodes.
pub(super) fn encoding_of(space: Space) -> Encoding {
    match space {
        Space::Native => Encoding::Native,
        Space::P => Encoding::P,
        Space::D7 => Encoding::D7,
        Space::D20 => Encoding::D20,
    }
}

/// The space of the name in a control frame. Apps have the native one only; so have nodes that do
/// not exchange names.
pub(super) fn space_of(header: &FrameHeader, exchanging: bool) -> Result<Encoding, DecodeError> {
    let (encoding, kind) = (header.header(0)?.encoding, header.kind()?);
    let of_a_name = matches!(kind, FrameKind::Subscribe | FrameKind::Unsubscribe);
    match encoding {
        Encoding::Native => Ok(encoding),
        Encoding::P | Encoding::D7 | Encoding::D20 if exchanging && of_a_name => Ok(encoding),
        other => {
            let expected = match exchanging {
                true => "0 (native), of a name 1 (P), 3 (D7) or 4 (D20) too",
                false => "0 (native)",
            };
            let field = "encoding of a control frame";
            Err(DecodeError::Unexpected { field, expected, got: other as u64 })
        }
    }
}

/// Kind and numbers of the frame that tells of a name.
pub(super) fn head_of(announcement: &Announcement, request: u32) -> (FrameKind, SessionIds) {
    let kind = match announcement.change {
        Subscription::Made => FrameKind::Subscribe,
        Subscription::TakenBack => FrameKind::Unsubscribe,
    };
    (kind, SessionIds { session: announcement.recency, message: request })
}
