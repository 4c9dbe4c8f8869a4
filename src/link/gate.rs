//! Who may open a link at a server.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use slim_wire::Fault;
use thiserror::Error;

use super::host::Host;
use crate::identity::{IdentityError, TokenCheck};
use crate::policy::Principal;

/// Why somebody is not let in. No text of it holds a password or a token.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unauthenticated {
    /// There are no credentials.
    #[error("no credentials: expected authorization: {expected}, got none")]
    Missing {
        /// The scheme that the server asks for.
        expected: &'static str,
    },
    /// There are credentials of another scheme, or none that can be read.
    #[error("credentials: expected authorization: {expected} with what goes with it")]
    Scheme {
        /// The scheme that the server asks for.
        expected: &'static str,
    },
    /// The user is not the configured one, or has another password.
    #[error("user name or password wrong")]
    WrongPassword,
    /// Others of the same address are kept waiting with wrong credentials.
    #[error("too many wrong credentials come from this address: these were not looked at")]
    Guessing,
    /// The token is not good.
    #[error(transparent)]
    Token(#[from] IdentityError),
}

impl Unauthenticated {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Missing { .. } | Self::Scheme { .. } | Self::WrongPassword | Self::Guessing => {
                Fault::Peer
            }
            Self::Token(error) => error.fault(),
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::Scheme { .. } => {
                "give the client the `auth` that the server has"
            }
            Self::Guessing => "try again in a second",
            Self::WrongPassword => "give client and server the same user name and password",
            Self::Token(error) => error.hint(),
        }
    }

    /// Whether the keys that were missing may be on their way.
    fn may_pass_soon(&self) -> bool {
        matches!(self, Self::Token(IdentityError::NoKeys { .. } | IdentityError::UnknownKey { .. }))
    }
}

/// What a server asks of those who open links (`auth`).
#[derive(Default)]
pub struct Gate(Asks);

#[derive(Default)]
enum Asks {
    #[default]
    Nothing,
    /// The digest of what goes with `Basic`, before it is put in base64: of equal length whatever
    /// somebody sends, so that comparing it says nothing of the password.
    Basic {
        user: Box<str>,
        pair: Digest,
    },
    Token(Arc<dyn TokenCheck>),
}

/// Who is at the other end of a connection.
pub struct Visitor {
    /// Where from.
    pub peer: SocketAddr,
    /// Who it is by its certificate.
    pub certificate: Principal,
    /// What it has to show before it opens a link.
    pub gate: Arc<Gate>,
}

/// Longest that somebody who is refused waits for the answer: clients that try again at once are
/// not to cost more than this lets through.
pub(super) const REFUSAL_DELAY: Duration = Duration::from_secs(1);

impl Gate {
    /// Lets everybody in.
    pub fn open() -> Self {
        Self::default()
    }

    /// Lets in who knows the password of this user.
    pub fn basic(user: &str, password: &str) -> Self {
        let pair = digest(&SHA256, format!("{user}:{password}").as_bytes());
        Self(Asks::Basic { user: user.into(), pair })
    }

    /// Lets in whose token is good.
    pub fn token(check: Arc<dyn TokenCheck>) -> Self {
        Self(Asks::Token(check))
    }

    /// Who it is that shows `authorization`, the value of the header of that name, at `now`.
    /// `certificate` is who it is by its certificate; credentials say more.
    ///
    /// # Errors
    /// [`Unauthenticated`].
    pub fn admit(
        &self,
        certificate: &Principal,
        authorization: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<Principal, Unauthenticated> {
        match &self.0 {
            Asks::Nothing => Ok(certificate.clone()),
            Asks::Basic { user, pair } => {
                let expected = "Basic";
                let shown = credentials(expected, authorization)?;
                let shown = BASE64_STANDARD
                    .decode(shown)
                    .map_err(|_| Unauthenticated::Scheme { expected })?;
                let shown = digest(&SHA256, &shown);
                verify_slices_are_equal(shown.as_ref(), pair.as_ref())
                    .map_err(|_| Unauthenticated::WrongPassword)?;
                Ok(Principal::Basic(user.clone()))
            }
            Asks::Token(check) => {
                let expected = "Bearer";
                let token = credentials(expected, authorization)?;
                let token =
                    str::from_utf8(token).map_err(|_| Unauthenticated::Scheme { expected })?;
                Ok(Principal::Token(check.check(token, now)?.subject))
            }
        }
    }

    /// Whether anything has to be shown here.
    pub(super) fn asks(&self) -> bool {
        !matches!(self.0, Asks::Nothing)
    }

    /// The same, with who is refused kept waiting for a while, unless too many are. Keys that are
    /// fetched for a token may arrive meanwhile.
    pub(super) async fn admit_or_delay(
        &self,
        certificate: &Principal,
        authorization: Option<&[u8]>,
        address: IpAddr,
        host: &Host,
    ) -> Result<Principal, Unauthenticated> {
        if self.asks() && host.is_guessing(address) {
            return Err(Unauthenticated::Guessing);
        }
        let first = self.admit(certificate, authorization, SystemTime::now());
        let Err(error) = first else {
            return first;
        };
        let Some(_delayed) = host.take_delay(address) else {
            return Err(error);
        };
        tokio::select! {
            () = tokio::time::sleep(host.refusal_delay()) => {}
            () = host.finish.cancelled() => return Err(error),
        }
        self.admit_late(error, certificate, authorization)
    }

    /// What becomes, after the delay, of somebody who was refused because of `error`.
    pub(super) fn admit_late(
        &self,
        error: Unauthenticated,
        certificate: &Principal,
        authorization: Option<&[u8]>,
    ) -> Result<Principal, Unauthenticated> {
        match error.may_pass_soon() {
            true => self.admit(certificate, authorization, SystemTime::now()),
            false => Err(error),
        }
    }
}

/// Who it is that something is reported of: an address, and what it has proved if it has.
pub(super) struct Known<'a>(pub(super) SocketAddr, pub(super) &'a Principal);

impl fmt::Display for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Principal::Nobody => write!(f, "{}", self.0),
            principal => write!(f, "{} ({principal})", self.0),
        }
    }
}

/// What follows the scheme, whose case does not matter.
fn credentials<'a>(
    expected: &'static str,
    authorization: Option<&'a [u8]>,
) -> Result<&'a [u8], Unauthenticated> {
    let value = authorization.ok_or(Unauthenticated::Missing { expected })?;
    let (_, rest) = value
        .split_at_checked(expected.len())
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(expected.as_bytes()))
        .ok_or(Unauthenticated::Scheme { expected })?;
    rest.strip_prefix(b" ").map(<[u8]>::trim_ascii).ok_or(Unauthenticated::Scheme { expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(gate: &Gate, authorization: Option<&str>) -> Result<Principal, Unauthenticated> {
        let authorization = authorization.map(str::as_bytes);
        gate.admit(&Principal::Nobody, authorization, SystemTime::UNIX_EPOCH)
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(pair))
    }

    #[test]
    fn only_the_user_with_its_password_is_let_in() {
        let gate = Gate::basic("alice", "a:b");
        let alice = Ok(Principal::Basic("alice".into()));
        assert_eq!(admit(&gate, Some(&basic("alice:a:b"))), alice);
        let other_case = basic("alice:a:b").replacen("Basic", "bASIC", 1);
        assert_eq!(admit(&gate, Some(&other_case)), alice);
        for pair in ["alice:a:", "alice:a:bb", "Alice:a:b", "alice", "", ":", "bob:a:b"] {
            let refused = admit(&gate, Some(&basic(pair)));
            assert_eq!(refused, Err(Unauthenticated::WrongPassword), "{pair}");
        }
        let expected = "Basic";
        assert_eq!(admit(&gate, None), Err(Unauthenticated::Missing { expected }));
        for value in ["", "Basic", "Basic!YQ==", "Bearer YQ==", "Basic \u{1}", "Basic YQ"] {
            let refused = admit(&gate, Some(value));
            assert_eq!(refused, Err(Unauthenticated::Scheme { expected }), "{value}");
        }
    }

    #[test]
    fn without_a_question_everybody_is_whom_the_certificate_says() {
        let certified = Principal::Certificate("node".into());
        let admitted = Gate::open().admit(&certified, Some(b"whatever"), SystemTime::UNIX_EPOCH);
        assert_eq!(admitted, Ok(certified));
    }
}
