use crate::diagnostics::{key_path, nearest};
use crate::tree::{Entry, Kind};
use crate::value::Value;

/// A mapping whose keys are known. It remembers the keys it was asked for, so that
/// [`Section::finish`] can report all others.
pub(crate) struct Section<'a> {
    value: Value<'a>,
    entries: &'a [Entry],
    /// Keys that may stand here.
    valid: Vec<&'static str>,
    /// Keys that may not stand here, but were already reported in better words.
    reported: Vec<&'static str>,
    /// Keys that have to be given and are not, each with a hint.
    absent: Vec<(&'static str, Option<String>)>,
}

impl<'a> Section<'a> {
    pub(crate) fn new(value: Value<'a>, entries: &'a [Entry]) -> Self {
        Self { value, entries, valid: Vec::new(), reported: Vec::new(), absent: Vec::new() }
    }

    /// The mapping as a value: its place and its findings.
    pub(crate) fn value(&self) -> &Value<'a> {
        &self.value
    }

    /// The value of `key`, if it is given and not null.
    pub(crate) fn child(&mut self, key: &'static str) -> Option<Value<'a>> {
        if !self.valid.contains(&key) {
            self.valid.push(key);
        }
        let entry = self.entry(key)?;
        match entry.value.kind {
            Kind::Null => None,
            _ => Some(self.value_of(entry)),
        }
    }

    /// The value of `key` as `read` reads it, if it is given.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Option<T> {
        read(self.child(key)?)
    }

    /// The value of `key` as `read` reads it; reported if it is not given.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Option<T> {
        if let Some(value) = self.child(key) {
            return read(value);
        }
        self.missing(key, None)
    }

    /// Notes that `key` has to be given; [`Self::finish`] reports it.
    pub(crate) fn missing<T>(&mut self, key: &'static str, hint: Option<String>) -> Option<T> {
        self.absent.push((key, hint));
        None
    }

    /// Reads and checks `key`, and warns that it does nothing because of `why`.
    pub(crate) fn ineffective<T>(
        &mut self,
        key: &'static str,
        why: &str,
        read: impl FnOnce(Value<'a>) -> Option<T>,
    ) {
        let Some(value) = self.child(key) else { return };
        if read(value.clone()).is_some() {
            let hint = Some("it can be removed".to_owned());
            let message = format!("has no effect: {why}");
            let at = self.entry(key).map_or(value.at(), |entry| entry.key_at);
            value.findings.warning(at, &value.path, message, hint);
        }
    }

    /// Reports `key` as a spelling of later releases, of which `instead` is what is read here.
    pub(crate) fn later_spelling(&mut self, key: &'static str, instead: &str) -> bool {
        let Some(entry) = self.entry(key) else {
            return false;
        };
        self.reported.push(key);
        self.value.findings.error(
            entry.key_at,
            &key_path(&self.value.path, key),
            "a spelling of releases since 0.7, which is not read yet",
            Some(format!("use {instead}, the spelling of 0.6")),
        );
        true
    }

    /// Which single one of `keys` is given, as its index and value. More or fewer are reported.
    pub(crate) fn one_of(&mut self, keys: &'static [&'static str]) -> Option<(usize, Value<'a>)> {
        let mut given = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            if let Some(value) = self.child(key) {
                given.push((index, value));
            }
        }
        let expected = || {
            let keys: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
            format!("expected one of {}", keys.join(", "))
        };
        if given.len() > 1 {
            let names: Vec<_> = given.iter().map(|(index, _)| keys[*index]).collect();
            let message = format!("{}, got {}", expected(), names.join(" and "));
            return self.value.fail(message, None);
        }
        if given.is_empty() && !self.has_unknown() {
            return self.value.fail(format!("{}, got none", expected()), None);
        }
        given.pop()
    }

    /// Whether `key` is given and not null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| !matches!(entry.value.kind, Kind::Null))
    }

    /// Whether a key is given that was not asked for.
    pub(crate) fn has_unknown(&self) -> bool {
        self.unknown().next().is_some()
    }

    /// Whether a spelling of later releases was reported.
    pub(crate) fn has_later_spelling(&self) -> bool {
        !self.reported.is_empty()
    }

    /// Reports every key that was not asked for, with the nearest one that was, and every required
    /// key that is not given, unless a key that was not asked for is a slip of it.
    pub(crate) fn finish(mut self) {
        let findings = self.value.findings;
        let unknown: Vec<_> = self.unknown().collect();
        for entry in unknown {
            if findings.is_full() {
                return;
            }
            let meant = nearest(&entry.key, self.valid.iter().copied());
            let hint = match meant {
                Some(key) => format!("did you mean `{key}`?"),
                None => format!("keys known here: {}", self.valid.join(", ")),
            };
            self.absent.retain(|(key, _)| Some(*key) != meant);
            let path = key_path(&self.value.path, &entry.key);
            findings.error(entry.key_at, &path, "unknown key", Some(hint));
        }
        for (key, hint) in std::mem::take(&mut self.absent) {
            let at = self.entry(key).map_or(self.value.at(), |entry| entry.key_at);
            let path = key_path(&self.value.path, key);
            findings.error(at, &path, "required, but not given", hint);
        }
    }

    fn unknown(&self) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(|entry| {
            let known = self.valid.iter().chain(&self.reported);
            !known.into_iter().any(|key| *key == entry.key)
        })
    }

    fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn value_of(&self, entry: &'a Entry) -> Value<'a> {
        Value {
            node: &entry.value,
            path: key_path(&self.value.path, &entry.key),
            findings: self.value.findings,
        }
    }
}
