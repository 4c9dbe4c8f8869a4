use thiserror::Error;

/// Who has to act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The other end of a link sent something wrong.
    Peer,
    /// The configuration has to change.
    Config,
    /// The calling code passed something wrong.
    Caller,
    /// A defect in this program.
    Internal,
}

/// Bytes of a peer that break the format they claim to have. Always [`Fault::Peer`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The input ends inside a field.
    #[error("{field}: expected {expected} more bytes, got {got}")]
    Truncated {
        /// The field that is cut.
        field: &'static str,
        /// Bytes that the field still needs.
        expected: usize,
        /// Bytes that are left.
        got: usize,
    },
    /// A field is present in a form that its type does not allow.
    #[error("{field}: expected {expected}, got {got}")]
    Unexpected {
        /// The field that is wrong.
        field: &'static str,
        /// What the format asks for.
        expected: &'static str,
        /// What arrived, as a number or wire type.
        got: u64,
    },
    /// A field that the message cannot do without is absent.
    #[error("{field}: expected to be present, got nothing")]
    Missing {
        /// The absent field.
        field: &'static str,
    },
    /// A length or number is above its limit.
    #[error("{field}: expected at most {limit}, got {got}")]
    TooLarge {
        /// The field that is too large.
        field: &'static str,
        /// The largest value allowed.
        limit: u64,
        /// What arrived.
        got: u64,
    },
    /// Text that is not UTF-8.
    #[error("{field}: expected UTF-8, got an invalid byte at offset {offset}")]
    NotUtf8 {
        /// The field that holds the text.
        field: &'static str,
        /// Offset of the first invalid byte within the field.
        offset: usize,
    },
}

impl DecodeError {
    /// Always the peer's.
    pub fn fault(&self) -> Fault {
        Fault::Peer
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "send less in one message",
            _ => "check that the client is a published SLIM release that this node serves",
        }
    }
}

/// A text that is not a name. [`Fault::Caller`], or [`Fault::Config`] where the text comes from
/// a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Not `organization/namespace/application` with an optional fourth part.
    #[error("expected \"org/namespace/app\" or \"org/namespace/app/id\", got {got:?}")]
    Parts {
        /// The text.
        got: String,
    },
    /// The fourth part is not an id.
    #[error("id of a name: expected a decimal number below 18446744073709551615, got {got:?}")]
    Id {
        /// The fourth part.
        got: String,
    },
    /// A component is longer than [`limits::NAME_COMPONENT_BYTES`](crate::limits::NAME_COMPONENT_BYTES).
    #[error("{component} of a name: expected at most {limit} bytes, got {got}")]
    TooLong {
        /// Which of the three components.
        component: &'static str,
        /// The limit in bytes.
        limit: usize,
        /// The length in bytes.
        got: usize,
    },
}

impl NameError {
    /// The calling code's, unless the text came from a configuration file.
    pub fn fault(&self) -> Fault {
        Fault::Caller
    }
}
