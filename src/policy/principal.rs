use slim_config::{PrincipalPattern, TextPattern};

/// Whom a link belongs to, as far as it was proved when the link was opened. Two principals with
/// the same text but of different kinds are not the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nothing was asked and nothing was shown.
    #[default]
    Nobody,
    /// A certificate: its SPIFFE id, else its DNS name, else `CN=` and the common name of its
    /// subject.
    Certificate(Box<str>),
    /// A user with a password.
    Basic(Box<str>),
    /// The subject of a token.
    Token(Box<str>),
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
