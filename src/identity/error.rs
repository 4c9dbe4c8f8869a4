use slim_wire::Fault;
use thiserror::Error;

/// What is wrong with a token, or why there is none. No text of it holds a token or a secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// A message without a token.
    #[error("identity not found in message metadata")]
    Missing,
    /// The token has not the parts that one of its kind has.
    #[error("token invalid: invalid token format")]
    Format,
    /// The token is longer than any that is taken.
    #[error("token invalid: expected at most {limit} bytes, got {got}")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
        /// Its length in bytes.
        got: usize,
    },
    /// The sender has another secret, or the token was changed on the way.
    #[error("token invalid: shared secret mismatch")]
    WrongSecret,
    /// The token was good once.
    #[error("token invalid: expired {seconds} s ago")]
    Expired {
        /// For how long it has not been good.
        seconds: u64,
    },
    /// The token will be good later, or the clocks differ.
    #[error("token invalid: not valid for another {seconds} s")]
    NotYet {
        /// How far it is ahead of this clock.
        seconds: u64,
    },
    /// A claim of the token that has to be there is not.
    #[error("token invalid: expected a claim {claim:?}, got none")]
    NoClaim {
        /// Its name.
        claim: &'static str,
    },
    /// The token is for others.
    #[error("token invalid: its audience is not that of this app")]
    Audience,
    /// The token has another issuer than was configured.
    #[error("token invalid: expected another issuer, got {got:?}")]
    Issuer {
        /// The token's `iss`.
        got: String,
    },
    /// The token has another subject than was configured.
    #[error("token invalid: expected another subject, got {got:?}")]
    Subject {
        /// The token's `sub`.
        got: String,
    },
    /// None of the known keys is the one that the token names.
    #[error("token invalid: no key {kid:?} is known for it")]
    UnknownKey {
        /// The `kid` of its header, or, without one, its algorithm.
        kid: String,
    },
    /// The keys of the token's issuer have not been fetched yet, or cannot be.
    #[error("token invalid: the keys of its issuer {issuer:?} are not known yet")]
    NoKeys {
        /// The token's `iss`.
        issuer: String,
    },
    /// The token's algorithm is none that is taken, or none for the key.
    #[error("token invalid: algorithm {got:?} does not go with the key")]
    Algorithm {
        /// The `alg` of its header.
        got: String,
    },
    /// The token was changed on the way, or signed with another key.
    #[error("token invalid: its signature is not that of the key")]
    Signature,
    /// The credential was made for another signature key than the member's.
    #[error("token invalid: it vouches for another key than the member's")]
    MemberKey,
    /// Something else is wrong with the token.
    #[error("token invalid: {reason}")]
    Invalid {
        /// What was expected and what was found; never the token itself.
        reason: String,
    },
    /// The app's own token cannot be had.
    #[error("no token: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The secret that was configured is no secret.
    #[error("token invalid: shared_secret is empty")]
    EmptySecret,
    /// What the app was configured with cannot be used.
    #[error("identity configuration: {reason}")]
    Config {
        /// Which part, what was expected, what was found; never a secret.
        reason: String,
    },
}

impl IdentityError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Missing
            | Self::Format
            | Self::TooLong { .. }
            | Self::WrongSecret
            | Self::Expired { .. }
            | Self::NotYet { .. }
            | Self::NoClaim { .. }
            | Self::Audience
            | Self::Issuer { .. }
            | Self::Subject { .. }
            | Self::UnknownKey { .. }
            | Self::NoKeys { .. }
            | Self::Algorithm { .. }
            | Self::Signature
            | Self::MemberKey
            | Self::Invalid { .. } => Fault::Peer,
            Self::Unavailable { .. } | Self::EmptySecret | Self::Config { .. } => Fault::Config,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing => "the sender is no SLIM app of this release, or has no identity",
            Self::Format => {
                "both apps need the same kind of identity; a token `secret:identity` comes from \
                 release 0.6 and is taken only with that option"
            }
            Self::TooLong { .. } => "the sender's token has too many claims",
            Self::WrongSecret => "give both apps the same shared secret",
            Self::Expired { .. } => "renew the sender's token, and compare the clocks",
            Self::NotYet { .. } => "the clocks of the two machines differ: set them",
            Self::NoClaim { .. } => "have the claim added where the token is issued",
            Self::Audience => {
                "the audience of the token and that of the check need a member in common; a token \
                 with an audience is not taken by a check without one"
            }
            Self::Issuer { .. } => "configure the issuer that the sender's tokens have",
            Self::Subject { .. } => "configure the subject that the sender's tokens have",
            Self::UnknownKey { .. } => {
                "renew the keys or the trust bundle, if the sender is one to trust"
            }
            Self::NoKeys { .. } => {
                "keys are fetched when an issuer's first token arrives; if this lasts, check that \
                 the issuer can be reached and is one to trust"
            }
            Self::Algorithm { .. } => "sign with an algorithm that goes with the configured key",
            Self::Signature => "configure the public key that goes with the sender's private key",
            Self::MemberKey => "somebody may be using the token of another member",
            Self::Invalid { .. } => "check how the sender's token is made",
            Self::Unavailable { .. } => "check that what issues the app's token is at work",
            Self::EmptySecret => "give both apps the same shared secret, of at least 32 bytes",
            Self::Config { .. } => "correct the app's configuration",
        }
    }

    /// A token that is good, but somebody else's.
    pub(crate) fn subject(got: &str) -> Self {
        Self::Subject { got: shown(got) }
    }

    pub(crate) fn config(reason: impl Into<String>) -> Self {
        Self::Config { reason: reason.into() }
    }
}

/// A text of a peer on one line and not too long.
pub(super) fn shown(text: &str) -> String {
    const CHARACTERS: usize = 100;
    let plain = |character: char| if character.is_control() { ' ' } else { character };
    text.chars().take(CHARACTERS).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_texts_are_said_word_for_word() {
        let texts = [
            (IdentityError::Missing, "identity not found in message metadata"),
            (IdentityError::Format, "token invalid: invalid token format"),
            (IdentityError::WrongSecret, "token invalid: shared secret mismatch"),
            (IdentityError::EmptySecret, "token invalid: shared_secret is empty"),
        ];
        for (error, text) in texts {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_claim_of_a_peer_can_neither_start_a_line_nor_fill_a_log() {
        assert_eq!(shown("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(shown(&"x".repeat(5000)).len(), 100);
    }
}
