//! The published schemas as far as a node reads them: where the routing header lies, how names
//! are written, and what else a generated decoder would look at.

use slim_wire::{Class, Encoding};

use crate::schema::{Schema, Type};

/// Dialect P: releases 0.4 and 0.5. Names are four flat numbers.
#[derive(Clone, Copy, Debug)]
pub struct P;

/// Dialect D6: release 0.6. Names are four flat numbers.
#[derive(Clone, Copy, Debug)]
pub struct D6;

/// Dialect D7: releases 0.7 to 1.4. Names are hashes and texts, with an id of 64 bits.
#[derive(Clone, Copy, Debug)]
pub struct D7;

/// Dialect D20: releases from 2.0. Names have an id of 128 bits, and headers an authentication
/// code for each link.
#[derive(Clone, Copy, Debug)]
pub struct D20;

/// What differs between the dialects. All else they have in common.
pub(crate) trait Layout {
    const ENCODING: Encoding;
    const PATH: &'static str;
    const HEADER: HeaderFields;
    const NAMES: Names;
    const SUBSCRIPTIONS: Subscriptions;
    /// The number of a publish's content, and what it holds.
    const CONTENT: (u32, &'static Schema);
    /// The rest of the session header, beside the message type and the session's id.
    const SESSION: &'static Schema;

    /// How a node treats a publish with this session message type.
    fn class(message_type: u32) -> Class;
}

/// How a name is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Four numbers.
    Flat,
    /// A message of four numbers, and one of three texts.
    Nested,
    /// As `Nested`, but the id is a message of two numbers.
    Wide,
}

/// What a subscription holds beside its header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subscriptions {
    /// The texts of the name, in fields 2 to 4.
    Texts,
    /// A number for the acknowledgement, in field 2.
    Numbered,
}

/// Numbers of the header's fields; [`HeaderFields::NONE`] for those that a dialect does not have.
#[derive(Clone, Copy)]
pub(crate) struct HeaderFields {
    pub(crate) fanout: u32,
    pub(crate) recv_from: u32,
    pub(crate) forward_to: u32,
    pub(crate) incoming_conn: u32,
    pub(crate) error: u32,
    pub(crate) identity: u32,
    pub(crate) version: u32,
    pub(crate) ttl: u32,
    pub(crate) mac: u32,
    pub(crate) signature: u32,
}

impl HeaderFields {
    pub(crate) const NONE: u32 = u32::MAX;
}

// Field numbers that all dialects share.
pub(crate) const SUBSCRIBE: u32 = 1;
pub(crate) const UNSUBSCRIBE: u32 = 2;
pub(crate) const PUBLISH: u32 = 3;
pub(crate) const MESSAGE_METADATA: u32 = 4;
pub(crate) const LINK: u32 = 5;
pub(crate) const SUBSCRIPTION_ACK: u32 = 6;
pub(crate) const BODY_HEADER: u32 = 1;
pub(crate) const PUBLISH_SESSION: u32 = 2;
pub(crate) const HEADER_SOURCE: u32 = 1;
pub(crate) const HEADER_DESTINATION: u32 = 2;
pub(crate) const SESSION_MESSAGE_TYPE: u32 = 2;
pub(crate) const SESSION_ID: u32 = 3;

// Those of D6 that transcoding needs.
pub(crate) const PUBLISH_CONTENT: u32 = 3;
pub(crate) const HEADER_FANOUT: u32 = FLAT_HEADER.fanout;
pub(crate) const HEADER_ERROR: u32 = FLAT_HEADER.error;

const DATAPLANE_PATH: &str = "/dataplane.proto.v1.DataPlaneService/OpenChannel";

const FLAT_HEADER: HeaderFields = HeaderFields {
    fanout: 3,
    recv_from: 4,
    forward_to: 5,
    incoming_conn: 6,
    error: 7,
    identity: HeaderFields::NONE,
    version: HeaderFields::NONE,
    ttl: HeaderFields::NONE,
    mac: HeaderFields::NONE,
    signature: HeaderFields::NONE,
};

impl Layout for P {
    const ENCODING: Encoding = Encoding::P;
    const PATH: &'static str = "/pubsub.proto.v1.PubSubService/OpenChannel";
    const HEADER: HeaderFields = FLAT_HEADER;
    const NAMES: Names = Names::Flat;
    const SUBSCRIPTIONS: Subscriptions = Subscriptions::Texts;
    const CONTENT: (u32, &'static Schema) = (4, &BLOB);
    const SESSION: &'static Schema = &SESSION;

    fn class(message_type: u32) -> Class {
        match message_type {
            1 => Class::BestEffort,
            // Unspecified, reliable fire-and-forget, streaming, pub-sub, retransmission.
            0 | 2 | 4 | 5 | 7 => Class::Reliable,
            _ => Class::Control,
        }
    }
}

impl Layout for D6 {
    const ENCODING: Encoding = Encoding::D6;
    const PATH: &'static str = DATAPLANE_PATH;
    const HEADER: HeaderFields = FLAT_HEADER;
    const NAMES: Names = Names::Flat;
    const SUBSCRIPTIONS: Subscriptions = Subscriptions::Texts;
    const CONTENT: (u32, &'static Schema) = (PUBLISH_CONTENT, &BLOB);
    const SESSION: &'static Schema = &NAMED_SESSION;

    fn class(message_type: u32) -> Class {
        match message_type {
            1 => Class::BestEffort,
            // Unspecified, reliable, group and retransmission. Group messages do not say whether
            // their session is reliable: assume that it is.
            0 | 2 | 4 | 6 => Class::Reliable,
            _ => Class::Control,
        }
    }
}

impl Layout for D7 {
    const ENCODING: Encoding = Encoding::D7;
    const PATH: &'static str = DATAPLANE_PATH;
    const HEADER: HeaderFields = HeaderFields {
        fanout: 3,
        identity: 4,
        recv_from: 5,
        forward_to: 6,
        incoming_conn: 7,
        error: 8,
        ..FLAT_HEADER
    };
    const NAMES: Names = Names::Nested;
    const SUBSCRIPTIONS: Subscriptions = Subscriptions::Numbered;
    const CONTENT: (u32, &'static Schema) = (PUBLISH_CONTENT, &d7::CONTENT);
    const SESSION: &'static Schema = &SESSION;

    fn class(message_type: u32) -> Class {
        modern_class(message_type)
    }
}

impl Layout for D20 {
    const ENCODING: Encoding = Encoding::D20;
    const PATH: &'static str = DATAPLANE_PATH;
    const HEADER: HeaderFields = HeaderFields {
        identity: 3,
        fanout: 4,
        version: 5,
        ttl: 6,
        recv_from: 7,
        forward_to: 8,
        incoming_conn: 9,
        error: 10,
        mac: 11,
        signature: 12,
    };
    const NAMES: Names = Names::Wide;
    const SUBSCRIPTIONS: Subscriptions = Subscriptions::Numbered;
    const CONTENT: (u32, &'static Schema) = (PUBLISH_CONTENT, &d20::CONTENT);
    const SESSION: &'static Schema = &SESSION;

    fn class(message_type: u32) -> Class {
        modern_class(message_type)
    }
}

/// From 0.7 on one type stands for all data, whatever its session promises.
fn modern_class(message_type: u32) -> Class {
    match message_type {
        // Unspecified, message, retransmission.
        0 | 1 | 4 => Class::Reliable,
        _ => Class::Control,
    }
}

static SESSION: Schema = Schema {
    name: "session",
    fields: &[(1, "session type", Type::Varint), (4, "message id", Type::Varint)],
};

static NAMED_SESSION: Schema = Schema {
    name: "session",
    fields: &[
        (1, "session type", Type::Varint),
        (4, "message id", Type::Varint),
        (5, "session source", Type::Message(&ORIGINAL_NAME)),
        (6, "session destination", Type::Message(&ORIGINAL_NAME)),
    ],
};

static ORIGINAL_NAME: Schema = Schema {
    name: "session name",
    fields: &[
        (1, "component_0", Type::Text),
        (2, "component_1", Type::Text),
        (3, "component_2", Type::Text),
        (4, "component_3", Type::Varint),
    ],
};

/// Content as an opaque blob: P and D6.
static BLOB: Schema = Schema {
    name: "content",
    fields: &[(1, "content type", Type::Text), (2, "blob", Type::Bytes)],
};

static APPLICATION: Schema = Schema {
    name: "application payload",
    fields: &[(1, "payload type", Type::Text), (2, "blob", Type::Bytes)],
};

static STRING_NAME: Schema = Schema {
    name: "name text",
    fields: &[
        (1, "component_0", Type::Text),
        (2, "component_1", Type::Text),
        (3, "component_2", Type::Text),
    ],
};

static TIMERS: Schema = Schema {
    name: "timer settings",
    fields: &[(1, "timeout", Type::Varint), (2, "max retries", Type::Varint)],
};

static MLS: Schema = Schema {
    name: "mls payload",
    fields: &[(1, "commit id", Type::Varint), (2, "mls content", Type::Bytes)],
};

static EMPTY: Schema = Schema { name: "command", fields: &[] };

/// Commands of releases 0.7 to 1.4.
mod d7 {
    use super::{APPLICATION, EMPTY, MLS, STRING_NAME, Schema, TIMERS, Type};

    pub(super) static CONTENT: Schema = Schema {
        name: "content",
        fields: &[
            (1, "application payload", Type::Message(&APPLICATION)),
            (2, "command payload", Type::Message(&COMMAND)),
        ],
    };

    static ENCODED_NAME: Schema = Schema {
        name: "name",
        fields: &[
            (1, "component_0", Type::Varint),
            (2, "component_1", Type::Varint),
            (3, "component_2", Type::Varint),
            (4, "component_3", Type::Varint),
        ],
    };

    static NAME: Schema = Schema {
        name: "name",
        fields: &[
            (1, "name", Type::Message(&ENCODED_NAME)),
            (2, "name text", Type::Message(&STRING_NAME)),
        ],
    };

    static COMMAND: Schema = Schema {
        name: "command payload",
        fields: &[
            (1, "discovery request", Type::Message(&ADDRESSED)),
            (2, "discovery reply", Type::Message(&EMPTY)),
            (3, "join request", Type::Message(&JOIN_REQUEST)),
            (4, "join reply", Type::Message(&JOIN_REPLY)),
            (5, "leave request", Type::Message(&ADDRESSED)),
            (6, "leave reply", Type::Message(&EMPTY)),
            (7, "group add", Type::Message(&GROUP_CHANGE)),
            (8, "group remove", Type::Message(&GROUP_CHANGE)),
            (9, "group welcome", Type::Message(&GROUP_MEMBERS)),
            (10, "group close", Type::Message(&GROUP_MEMBERS)),
            (11, "group proposal", Type::Message(&PROPOSAL)),
            (12, "group ack", Type::Message(&EMPTY)),
            (13, "group nack", Type::Message(&EMPTY)),
            (14, "ping", Type::Message(&EMPTY)),
        ],
    };

    static ADDRESSED: Schema =
        Schema { name: "request", fields: &[(1, "destination", Type::Message(&NAME))] };

    static JOIN_REQUEST: Schema = Schema {
        name: "join request",
        fields: &[
            (1, "enable mls", Type::Varint),
            (2, "timer settings", Type::Message(&TIMERS)),
            (3, "channel", Type::Message(&NAME)),
        ],
    };

    static JOIN_REPLY: Schema =
        Schema { name: "join reply", fields: &[(1, "key package", Type::Bytes)] };

    static GROUP_CHANGE: Schema = Schema {
        name: "group change",
        fields: &[
            (1, "participant", Type::Message(&NAME)),
            (2, "participants", Type::Message(&NAME)),
            (3, "mls", Type::Message(&MLS)),
        ],
    };

    static GROUP_MEMBERS: Schema = Schema {
        name: "group members",
        fields: &[(1, "participants", Type::Message(&NAME)), (2, "mls", Type::Message(&MLS))],
    };

    static PROPOSAL: Schema = Schema {
        name: "group proposal",
        fields: &[(1, "source", Type::Message(&NAME)), (2, "mls proposal", Type::Bytes)],
    };
}

/// Commands of releases from 2.0.
mod d20 {
    use super::{APPLICATION, EMPTY, MLS, STRING_NAME, Schema, TIMERS, Type};

    pub(super) static CONTENT: Schema = Schema {
        name: "content",
        fields: &[
            (1, "application payload", Type::Message(&APPLICATION)),
            (2, "command payload", Type::Message(&COMMAND)),
        ],
    };

    static NAME_ID: Schema =
        Schema { name: "name id", fields: &[(1, "id_0", Type::Varint), (2, "id_1", Type::Varint)] };

    static ENCODED_NAME: Schema = Schema {
        name: "name",
        fields: &[
            (1, "component_0", Type::Varint),
            (2, "component_1", Type::Varint),
            (3, "component_2", Type::Varint),
            (4, "name id", Type::Message(&NAME_ID)),
        ],
    };

    static NAME: Schema = Schema {
        name: "name",
        fields: &[
            (1, "name", Type::Message(&ENCODED_NAME)),
            (2, "name text", Type::Message(&STRING_NAME)),
        ],
    };

    static PARTICIPANT: Schema = Schema {
        name: "participant",
        fields: &[
            (1, "name", Type::Message(&NAME)),
            (2, "settings", Type::Message(&PARTICIPANT_SETTINGS)),
            (3, "status", Type::Varint),
        ],
    };

    static PARTICIPANT_SETTINGS: Schema = Schema {
        name: "participant settings",
        fields: &[(1, "sends data", Type::Varint), (2, "receives data", Type::Varint)],
    };

    static COMMAND: Schema = Schema {
        name: "command payload",
        fields: &[
            (1, "discovery request", Type::Message(&EMPTY)),
            (2, "discovery reply", Type::Message(&EMPTY)),
            (3, "join request", Type::Message(&JOIN_REQUEST)),
            (4, "join reply", Type::Message(&JOIN_REPLY)),
            (5, "leave request", Type::Message(&EMPTY)),
            (6, "leave reply", Type::Message(&EMPTY)),
            (7, "group update", Type::Message(&GROUP_UPDATE)),
            (8, "group welcome", Type::Message(&GROUP_WELCOME)),
            (9, "group close", Type::Message(&GROUP_CLOSE)),
            (10, "group proposal", Type::Message(&PROPOSAL)),
            (11, "group ack", Type::Message(&EMPTY)),
            (12, "group nack", Type::Message(&EMPTY)),
            (13, "heartbeat", Type::Message(&HEARTBEAT)),
            (14, "participant state", Type::Message(&PARTICIPANT_STATE)),
            (15, "rejoin request", Type::Message(&REJOIN_REQUEST)),
            (16, "rejoin reply", Type::Message(&MLS)),
        ],
    };

    static JOIN_REQUEST: Schema = Schema {
        name: "join request",
        fields: &[
            (1, "timer settings", Type::Message(&TIMERS)),
            (2, "channel", Type::Message(&NAME)),
            (3, "control", Type::Message(&NAME)),
            (4, "mls settings", Type::Message(&MLS_SETTINGS)),
        ],
    };

    static MLS_SETTINGS: Schema = Schema {
        name: "mls settings",
        fields: &[(1, "header integrity validation percent", Type::Varint)],
    };

    static JOIN_REPLY: Schema = Schema {
        name: "join reply",
        fields: &[(1, "key package", Type::Bytes), (2, "participant", Type::Message(&PARTICIPANT))],
    };

    static GROUP_UPDATE: Schema = Schema {
        name: "group update",
        fields: &[
            (1, "op", Type::Varint),
            (2, "participant", Type::Message(&PARTICIPANT)),
            (3, "participants", Type::Message(&PARTICIPANT)),
            (4, "mls", Type::Message(&MLS)),
        ],
    };

    static GROUP_WELCOME: Schema = Schema {
        name: "group welcome",
        fields: &[
            (1, "participants", Type::Message(&PARTICIPANT)),
            (2, "mls", Type::Message(&MLS)),
        ],
    };

    static GROUP_CLOSE: Schema =
        Schema { name: "group close", fields: &[(1, "participants", Type::Message(&NAME))] };

    static PROPOSAL: Schema = Schema {
        name: "group proposal",
        fields: &[(1, "source", Type::Message(&NAME)), (2, "mls proposal", Type::Bytes)],
    };

    static HEARTBEAT: Schema = Schema { name: "heartbeat", fields: &[(1, "epoch", Type::Varint)] };

    static PARTICIPANT_STATE: Schema = Schema {
        name: "participant state",
        fields: &[
            (1, "participant", Type::Message(&NAME)),
            (2, "new state", Type::Varint),
            (3, "epoch", Type::Varint),
        ],
    };

    static REJOIN_REQUEST: Schema = Schema {
        name: "rejoin request",
        fields: &[(1, "participant", Type::Message(&NAME)), (2, "key package", Type::Bytes)],
    };
}
