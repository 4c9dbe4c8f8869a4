use thiserror::Error;

/// What is wrong with a token, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// A message without a token.
    #[error("identity not found in message metadata")]
    Missing,
    /// The token is not one of the expected form, or not good.
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
    /// What the app was configured with cannot be used.
    #[error("identity configuration: {reason}")]
    Config {
        /// Which part, what was expected, what was found; never a secret.
        reason: String,
    },
}
