use std::fmt;

/// Whom a link belongs to, as far as it was proved when the link was opened. Two principals with
/// the same text but of different kinds are not the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nothing was asked and nothing was shown.
    #[default]
    Nobody,
    /// A TLS certificate that one of the server's `client_ca` vouches for: its SPIFFE id, else its
    /// first DNS name, else `CN=` and the common name of its subject.
    Certificate(Box<str>),
    /// The user of `auth.basic`.
    Basic(Box<str>),
    /// The subject of a token by `auth.jwt`; empty for a token without one.
    Token(Box<str>),
}

/// Texts of peers are quoted, so that they can neither start a line nor pass for something else.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Certificate(name) => write!(f, "certificate {name:?}"),
            Self::Basic(user) => write!(f, "user {user:?}"),
            Self::Token(subject) => write!(f, "token {subject:?}"),
        }
    }
}
