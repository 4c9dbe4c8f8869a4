//! What identities and connections are trusted by, as far as it comes from files or the network:
//! certificates and keys in PEM form, tokens and keys that others renew, keys that issuers publish.

mod credentials;
mod file;
mod issuers;
mod keys;
pub mod pem;

pub use self::credentials::{Credentials, source_of};
pub use self::file::{JwtFile, KeyFile, KeyForm};
pub use self::issuers::{IssuerKeys, IssuerOptions};
pub use self::keys::KeyText;
