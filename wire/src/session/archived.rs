//! A session part in place.

use rkyv::rancor::Failure;

use super::{
    ArchivedFullName, ArchivedSession, ArchivedSessionKind, DecodeError, Session, SessionKind,
    check_encrypted, check_keys, check_kind, check_members, check_name, not_an_archive,
};
use crate::name::{ArchivedTextName, Name};

impl ArchivedSession {
    /// Which kind of session the message belongs to.
    pub fn kind(&self) -> SessionKind {
        match self.kind {
            ArchivedSessionKind::Unspecified => SessionKind::Unspecified,
            ArchivedSessionKind::PointToPoint => SessionKind::PointToPoint,
            ArchivedSessionKind::Group => SessionKind::Group,
            ArchivedSessionKind::Other(number) => SessionKind::Other(number.to_native()),
        }
    }

    /// The sender's token.
    pub fn identity(&self) -> Option<&str> {
        self.identity.as_ref().map(|identity| identity.as_str())
    }

    /// Keys and values that the app chose.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.metadata.iter().map(|entry| (entry.0.as_str(), entry.1.as_str()))
    }

    /// All of it in memory of its own.
    ///
    /// # Errors
    /// [`DecodeError`] if the archive is not one that [`access`](super::access) gave.
    pub fn to_session(&self) -> Result<Session, DecodeError> {
        rkyv::deserialize::<Session, Failure>(self).map_err(|Failure| not_an_archive(0))
    }

    pub(super) fn check(&self) -> Result<(), DecodeError> {
        check_kind(self.kind())?;
        check_encrypted(self.encrypted && !self.content.may_be_encrypted())?;
        check_members(self.content.members().iter().map(|member| member.identity.len()))?;
        let named = self.content.names().filter_map(ArchivedFullName::texts);
        let ends = [self.source.as_ref(), self.destination.as_ref()].into_iter().flatten();
        ends.map(ArchivedTextName::components).chain(named).try_for_each(check_name)?;
        check_keys(self.metadata().map(|(key, _)| key), self.metadata.len())
    }
}

impl ArchivedFullName {
    /// Hashes and id.
    pub fn name(&self) -> Name {
        self.name.to_name()
    }

    /// Texts of organization, namespace and application.
    pub fn texts(&self) -> Option<[&str; 3]> {
        self.texts.as_ref().map(|texts| texts.each_ref().map(|text| text.as_ref()))
    }
}
