use std::fmt;

use slim_config::{PrincipalPattern, TextPattern};

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
    /// The other end of a link that this node began: its configuration has chosen it, so that it
    /// may do everything.
    Configured,
}

/// Texts of peers are quoted, so that they can neither start a line nor pass for something else.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Certificate(name) => write!(f, "certificate {name:?}"),
            Self::Basic(user) => write!(f, "user {user:?}"),
            Self::Token(subject) => write!(f, "token {subject:?}"),
            Self::Configured => f.write_str("a configured node"),
        }
    }
}

/// Whether a rule about `pattern` is about `principal`.
pub(super) fn is_meant(pattern: &PrincipalPattern, principal: &Principal) -> bool {
    use PrincipalPattern as Pattern;
    match (pattern, principal) {
        (Pattern::Anyone, _) | (Pattern::Nobody, Principal::Nobody) => true,
        (Pattern::Certificate(pattern), Principal::Certificate(text))
        | (Pattern::Basic(pattern), Principal::Basic(text))
        | (Pattern::Token(pattern), Principal::Token(text)) => matches(pattern, text),
        _ => false,
    }
}

fn matches(pattern: &TextPattern, text: &str) -> bool {
    match pattern {
        TextPattern::Exact(exact) => **exact == *text,
        TextPattern::Prefix(begin) => text.starts_with(&**begin),
    }
}
