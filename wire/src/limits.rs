//! Limits that belong to the protocols. What an operator may choose lives in `slim-config`.

/// Largest gRPC message that published clients can decode, in bytes of protobuf without the
/// 5-byte prefix. A larger one makes them drop the whole stream, so it is neither accepted
/// nor ever sent. Source: tonic's default, which no published release changes.
pub const GRPC_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Longest text of one name component, in bytes of UTF-8. Published protocols name no limit;
/// this one keeps a name in a log line readable and a subscription small.
pub const NAME_COMPONENT_BYTES: usize = 1024;

/// Payloads up to this many bytes are copied into a packed buffer on their way out, because one
/// copy costs less than handling a reference-counted slice; larger ones leave as they came.
pub const PACKING_THRESHOLD_BYTES: usize = 2048;

const _: () = assert!(PACKING_THRESHOLD_BYTES < GRPC_MESSAGE_BYTES);

/// Length of a native frame's header in bytes.
pub const HEADER_BYTES: usize = 104;

/// Longest native frame in bytes that any node may be configured to take.
pub const FRAME_BYTES: usize = 16 * 1024 * 1024;

/// Longest session part of a native frame in bytes.
pub const SESSION_PART_BYTES: usize = 64 * 1024;

/// Entries in the metadata of one message. Published protocols name no limit; together with
/// [`SESSION_PART_BYTES`], which bounds all texts of a message at once, this one bounds the work
/// of telling their keys apart.
pub const METADATA_ENTRIES: usize = 256;

/// Members in one list of a group's members. [`SESSION_PART_BYTES`] holds some 700 with texts of
/// usual length; this one bounds the work before that is known.
pub const ROSTER_MEMBERS: usize = 1024;

/// Data streams of a native link in each direction. Messages of one session and source share a
/// lane, so that they keep their order and others do not wait for them.
pub const LANES: u8 = 8;

/// Consecutive frames to one target travel together up to so many bytes, so that none of them
/// keeps a core for long.
pub const RUN_BYTES: usize = 64 * 1024;

const _: () = assert!(GRPC_MESSAGE_BYTES < FRAME_BYTES && RUN_BYTES < FRAME_BYTES);
