//! Blobs of peers, as far as they can be judged without a group.

use openmls::prelude::tls_codec::Deserialize;
use openmls::prelude::{
    ContentType, KeyPackageIn, MlsMessageBodyIn, MlsMessageIn, PrivateMessageIn, PublicMessageIn,
    Welcome,
};
use slim_wire::limits::FRAME_BYTES;

use super::MlsError;

/// The longest key package, welcome, commit or proposal, in bytes: 1 MiB.
pub const HANDSHAKE_BYTES: usize = 1 << 20;

/// The longest plaintext, in bytes: its ciphertext fits into a frame of 16 MiB.
pub const PLAINTEXT_BYTES: usize = FRAME_BYTES - 4096;

pub(super) fn key_package(bytes: &[u8]) -> Result<KeyPackageIn, MlsError> {
    match message("key package", bytes)? {
        MlsMessageBodyIn::KeyPackage(package) => Ok(package),
        other => Err(another("key package", "an MLS key package", &other)),
    }
}

pub(super) fn welcome(bytes: &[u8]) -> Result<Welcome, MlsError> {
    match message("welcome", bytes)? {
        MlsMessageBodyIn::Welcome(welcome) => Ok(welcome),
        other => Err(another("welcome", "an MLS welcome", &other)),
    }
}

/// A commit or a proposal. Those of apps are signed, not encrypted: one that is encrypted could
/// not be tried again after it was refused, for its key is gone then.
pub(super) fn handshake(
    field: &'static str,
    kind: ContentType,
    bytes: &[u8],
) -> Result<PublicMessageIn, MlsError> {
    match message(field, bytes)? {
        MlsMessageBodyIn::PublicMessage(message) if message.content_type() == kind => Ok(message),
        other => Err(another(field, "one that is not encrypted", &other)),
    }
}

pub(super) fn application(bytes: &[u8]) -> Result<PrivateMessageIn, MlsError> {
    const FIELD: &str = "ciphertext";
    within(FIELD, bytes.len(), FRAME_BYTES, "at most 16 MiB")?;
    match parsed(FIELD, bytes)? {
        MlsMessageBodyIn::PrivateMessage(message)
            if message.content_type() == ContentType::Application =>
        {
            Ok(message)
        }
        other => Err(another(FIELD, "an encrypted application message", &other)),
    }
}

/// Refuses what is too long.
pub(super) fn within(
    field: &'static str,
    length: usize,
    limit: usize,
    expected: &'static str,
) -> Result<(), MlsError> {
    if length > limit {
        return Err(MlsError::Wrong { field, expected, got: format!("{length} bytes") });
    }
    Ok(())
}

/// Refuses a handshake message that is too long.
pub(super) fn within_handshake(field: &'static str, length: usize) -> Result<(), MlsError> {
    within(field, length, HANDSHAKE_BYTES, "at most 1 MiB")
}

fn message(field: &'static str, bytes: &[u8]) -> Result<MlsMessageBodyIn, MlsError> {
    within_handshake(field, bytes.len())?;
    parsed(field, bytes)
}

fn parsed(field: &'static str, bytes: &[u8]) -> Result<MlsMessageBodyIn, MlsError> {
    match MlsMessageIn::tls_deserialize_exact(bytes) {
        Ok(message) => Ok(message.extract()),
        Err(error) => {
            let got = format!("{} bytes that are none: {error}", bytes.len());
            Err(MlsError::Wrong { field, expected: "an MLS 1.0 message", got })
        }
    }
}

fn another(field: &'static str, expected: &'static str, got: &MlsMessageBodyIn) -> MlsError {
    let got = match got {
        MlsMessageBodyIn::PublicMessage(message) => {
            format!("a public {:?}", message.content_type())
        }
        MlsMessageBodyIn::PrivateMessage(message) => {
            format!("an encrypted {:?}", message.content_type())
        }
        MlsMessageBodyIn::Welcome(_) => "a welcome".into(),
        MlsMessageBodyIn::GroupInfo(_) => "a group info".into(),
        MlsMessageBodyIn::KeyPackage(_) => "a key package".into(),
    };
    MlsError::Wrong { field, expected, got }
}
