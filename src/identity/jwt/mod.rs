//! JSON web tokens, made and checked.
//!
//! Times are judged by the clock that is passed in, and signatures by the crypto provider that is
//! named here; the defaults of `jsonwebtoken` for both are left alone.

mod check;
mod keys;
mod source;
mod token;

pub use jsonwebtoken::Algorithm;

pub use self::check::{JwtCheck, JwtRules};
pub use self::keys::Keys;
pub use self::source::{Jwt, JwtClaims, SigningKey, StaticJwt};

/// What clocks may differ by where a token's times are judged, in seconds.
const LEEWAY: f64 = 60.0;

#[cfg(test)]
mod tests;
