use std::io;
use std::path::PathBuf;

use slim_wire::{Fault, NameError};
use thiserror::Error;

use crate::client::link::LinkError;
use crate::identity::IdentityError;
use crate::session::SessionError;

/// Why an app could not do what it was asked to.
#[derive(Debug, Error)]
pub enum AppError {
    /// A link to a node failed.
    #[error("connection error: {0}")]
    Link(Box<LinkError>),
    /// A session did.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The app's identity cannot be used.
    #[error("configuration error Failed to get token from provider: {0}")]
    Identity(#[from] IdentityError),
    /// A name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The system has no randomness.
    #[error("randomness: {0}")]
    Randomness(String),
    /// The app's folder cannot be used.
    #[error("folder {folder}: {source}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Nothing came in time.
    #[error("timed out")]
    Timeout,
    /// The app was closed.
    #[error("the app was closed")]
    Closed,
}

impl From<LinkError> for AppError {
    fn from(error: LinkError) -> Self {
        Self::Link(Box::new(error))
    }
}

impl AppError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Link(error) => error.fault(),
            Self::Session(error) => error.fault(),
            Self::Identity(_) | Self::Folder { .. } => Fault::Config,
            Self::Name(_) | Self::Closed => Fault::Caller,
            Self::Randomness(_) => Fault::Internal,
            Self::Timeout => Fault::Peer,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Link(error) => error.hint(),
            Self::Session(error) => error.hint(),
            Self::Identity(_) => "check the identity that the app was given",
            Self::Name(_) => "write names as org/namespace/app",
            Self::Folder { .. } => "check that it can be written, and no other process uses it",
            Self::Randomness(_) => "the system is broken",
            Self::Timeout => "wait longer, or check that the other side runs",
            Self::Closed => "create another app",
        }
    }
}
