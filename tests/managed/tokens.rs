//! By which tokens apps of each kind know the control plane.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use slim_quic::identity::{
    Algorithm, Compat, ControlPlaneTokens, Identity, Jwt, JwtCheck, JwtClaims, JwtRules, Keys,
    SharedSecret, SigningKey, TokenSource,
};
use slim_quic::session::{ControlPlane, Limits};

use crate::exchange::Exchange;
use crate::messages::{Managed, hand, packet};
use crate::requests::{ALICE, CHANNEL, GROUP};

const SECRET: &str = "a secret that all of the test share";

fn shared(compat: Compat) -> Identity {
    let mut rng = StdRng::seed_from_u64(1);
    let tokens = SharedSecret::new("alice", SECRET, compat, &mut rng);
    let tokens = Arc::new(tokens.expect("an identity"));
    Identity { source: tokens.clone(), check: tokens }
}

/// How many of these tokens an app takes as the control plane's, each in the same request; and
/// whether it has created the group.
fn taken(identity: Identity, tokens: &[&str]) -> (u64, bool) {
    let mut exchange = Exchange::default();
    exchange.join_under(ALICE, identity, Limits::default(), ControlPlane::default());
    for token in tokens {
        let mut group = Managed::new(ALICE, CHANNEL, GROUP).with_token(token);
        hand(&mut exchange, ALICE, packet(&group.create()));
    }
    let counts = exchange.app(ALICE).control_counts();
    let created = exchange.app(ALICE).accept().is_some();
    assert!(exchange.app(ALICE).accept().is_none(), "once at most");
    assert_eq!(counts.accepted, u64::from(created));
    (counts.accepted + counts.repeated, created)
}

#[test]
fn a_node_that_knows_the_secret_reaches_each_kind_of_app_with_the_tokens_it_makes() {
    let tokens = ControlPlaneTokens::new(SECRET, &mut StdRng::seed_from_u64(7)).expect("a secret");
    let now = Exchange::default().now().wall;
    let native = tokens.native(now).expect("a token");
    let clear = tokens.v0_6(now).expect("a token").expect("no colon in the secret");
    // An app takes clear tokens only if it was configured to.
    assert_eq!(taken(shared(Compat::Native), &[&clear]), (0, false));
    assert_eq!(taken(shared(Compat::Native), &[&native]), (1, true));
    // Both, where it is not known which app it is.
    assert_eq!(taken(shared(Compat::Native), &[&clear, &native]), (1, true));
    assert_eq!(taken(shared(Compat::V0_6), &[&clear, &native]), (2, true));
}

#[test]
fn an_ordinary_app_with_the_secret_is_not_the_control_plane() {
    let now = Exchange::default().now().wall;
    for compat in [Compat::Native, Compat::V0_6] {
        let token = shared(compat).source.token(now).expect("a token");
        assert_eq!(taken(shared(compat), &[&token]), (0, false));
    }
}

#[test]
fn of_jwts_the_subject_decides() {
    let jwt = |subject: Option<&str>| {
        let key = SigningKey::new(Algorithm::HS256, SECRET).expect("a key");
        let claims = JwtClaims { subject: subject.map(str::to_owned), ..JwtClaims::default() };
        Jwt::new(key, claims).expect("a source")
    };
    let now = Exchange::default().now().wall;
    for (subject, obeyed) in
        [(Some("control-plane"), true), (Some("mallory"), false), (Some(""), false), (None, false)]
    {
        let keys = Keys::secret(SECRET).expect("keys");
        let check = Arc::new(JwtCheck::new(keys, JwtRules::default()));
        let identity = Identity { source: Arc::new(jwt(Some("alice"))), check };
        let token = jwt(subject).token(now).expect("a token");
        assert_eq!(taken(identity, &[&token]).1, obeyed, "{subject:?}");
    }
}
