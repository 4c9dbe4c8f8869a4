//! A store in one file of this machine.
//!
//! The file is a redb database, with a table for each kind of record and the table `meta`, which
//! holds the version of this format. A record is one byte with the version of its form, and JSON.

mod records;
mod unfinished;

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, StorageBackend, StorageError,
    TableDefinition, TableHandle,
};

use self::records::{CHANNELS, CONNECTIONS, Fail, NODES, ROUTES, Writer};
use super::{
    Change, ChannelRecord, ConnectionRecord, NodeRecord, RouteRecord, State, Store, StoreError,
};

/// What a file holds besides records: by name.
const META: TableDefinition<'_, &str, u32> = TableDefinition::new("meta");
/// The entry of [`META`] with the version of the format.
const FORMAT: &str = "format";
/// The version that this program reads and writes.
const VERSION: u32 = 1;
/// Memory for pages of the file, in bytes. Everything is read once; later only few are touched.
const CACHE: usize = 8 * 1024 * 1024;

/// Keeps everything in one file of this machine. A change that was committed outlasts a crash of
/// the process, and of the machine if its disk keeps what it was told to keep.
///
/// One store at a time uses a file; a second one is refused. A store whose medium failed while it
/// wrote refuses everything from then on: only opening it again tells what the medium has.
#[derive(Debug)]
pub struct EmbeddedStore {
    place: String,
    database: Database,
}

impl EmbeddedStore {
    /// Opens the file at `path`. If it is absent it is made, with its folders, so that nobody but
    /// this user reads it.
    ///
    /// Reads all of the file to see that it is whole. What a crash left in it is cleared away.
    ///
    /// # Errors
    /// [`StoreError`]; a file that is not of this program is left as it is.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let place = path.display().to_string();
        let file = open_file(path).map_err(|error| medium(&place, error))?;
        let backend = FileBackend::new(file).map_err(|error| of_database(&place, error))?;
        Self::prepare(place, backend)
    }

    /// Opens what `backend` holds, as [`Self::open`] does.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_backend(backend: impl StorageBackend) -> Result<Self, StoreError> {
        Self::prepare("of a backend".to_owned(), backend)
    }

    fn prepare(place: String, backend: impl StorageBackend) -> Result<Self, StoreError> {
        unfinished::clear(&backend).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => StoreError::InUse { place: place.clone() },
            _ => medium(&place, error),
        })?;
        let database = Database::builder()
            .set_cache_size(CACHE)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .map_err(|error| of_database(&place, error))?;
        let store = Self { place, database };
        store.initialize().map_err(|fail| store.error(fail))?;
        Ok(store)
    }

    /// Makes the tables of an empty database; checks the format of any other.
    fn initialize(&self) -> Result<(), Fail> {
        let reading = self.database.begin_read()?;
        let tables: Vec<_> = reading.list_tables()?.map(|table| table.name().to_owned()).collect();
        if !tables.is_empty() || reading.list_multimap_tables()?.next().is_some() {
            return check_format(&tables, &reading);
        }
        drop(reading);
        let writing = self.database.begin_write()?;
        writing.open_table(META)?.insert(FORMAT, VERSION)?;
        Writer::open(&writing)?;
        writing.commit()?;
        Ok(())
    }

    fn read(&self) -> Result<State, Fail> {
        let reading = self.database.begin_read()?;
        Ok(State {
            nodes: records::read(&reading, NODES, |node: &NodeRecord| node.id.clone())?,
            connections: records::read(&reading, CONNECTIONS, |connection: &ConnectionRecord| {
                (connection.node.clone(), connection.id.clone())
            })?,
            routes: records::read(&reading, ROUTES, |route: &RouteRecord| route.id.clone())?,
            channels: records::read(&reading, CHANNELS, |channel: &ChannelRecord| {
                channel.name.clone()
            })?,
        })
    }

    fn write(&self, changes: &[Change]) -> Result<(), Fail> {
        let writing = self.database.begin_write()?;
        let mut writer = Writer::open(&writing)?;
        for change in changes {
            writer.apply(change)?;
        }
        drop(writer);
        // Durable when it returns: that is redb's default.
        writing.commit()?;
        Ok(())
    }

    fn error(&self, fail: Fail) -> StoreError {
        let place = &self.place;
        match fail {
            Fail::Medium(redb::Error::Io(error)) => medium(place, error),
            Fail::Medium(redb::Error::Corrupted(what)) => damaged(place, what),
            Fail::Medium(
                error @ (redb::Error::TableTypeMismatch { .. }
                | redb::Error::TableDoesNotExist(_)
                | redb::Error::TableIsMultimap(_)
                | redb::Error::TypeDefinitionChanged { .. }),
            ) => foreign(place, "tables", "those of a controller", error.to_string()),
            Fail::Medium(error) => {
                StoreError::Medium { place: place.clone(), source: Box::new(error) }
            }
            Fail::Foreign { key, expected, got } => foreign(place, key, expected, got),
        }
    }
}

impl Store for EmbeddedStore {
    fn load(&self) -> Result<State, StoreError> {
        self.read().map_err(|fail| self.error(fail))
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.write(changes).map_err(|fail| self.error(fail))
    }
}

/// Whether `tables` are those that this program makes, in a format that it knows.
fn check_format(tables: &[String], reading: &ReadTransaction) -> Result<(), Fail> {
    if !tables.iter().any(|table| table == META.name()) {
        return Err(Fail::Foreign {
            key: "tables".into(),
            expected: "those of a controller",
            got: format!("{tables:?}"),
        });
    }
    match reading.open_table(META)?.get(FORMAT)?.map(|version| version.value()) {
        Some(VERSION) => Ok(()),
        version => Err(Fail::Foreign {
            key: FORMAT.into(),
            expected: "version 1",
            got: version.map_or("none".into(), |version| format!("version {version}")),
        }),
    }
}

/// Opens the file for reading and writing. If it is made now, its entries in folders are durable.
fn open_file(path: &Path) -> io::Result<File> {
    let folder = path.parent().unwrap_or(Path::new(""));
    make_folder(folder)?;
    let mut options = OpenOptions::new();
    let file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    sync_folder(folder)?;
    Ok(file)
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder == Path::new("") || folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new(""));
    make_folder(parent)?;
    match fs::create_dir(folder) {
        // Another process may have made it just now.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match folder.is_dir() {
            true => Ok(()),
            false => Err(ErrorKind::NotADirectory.into()),
        },
        Err(error) => Err(error),
        Ok(()) => sync_folder(parent),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder == Path::new("") { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

fn of_database(place: &str, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::InUse { place: place.to_owned() }
        }
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() == ErrorKind::InvalidData =>
        {
            foreign(place, "file", "a database of a controller", error.to_string())
        }
        DatabaseError::Storage(StorageError::Io(error)) => medium(place, error),
        DatabaseError::Storage(StorageError::Corrupted(what)) => damaged(place, what),
        DatabaseError::UpgradeRequired(version) => {
            foreign(place, "file", "a current format of redb", format!("version {version}"))
        }
        error => StoreError::Medium { place: place.to_owned(), source: Box::new(error) },
    }
}

fn medium(place: &str, error: io::Error) -> StoreError {
    StoreError::Medium { place: place.to_owned(), source: Box::new(error) }
}

fn damaged(place: &str, what: String) -> StoreError {
    foreign(place, "file", "an undamaged database", what)
}

fn foreign(place: &str, key: impl Into<String>, expected: &'static str, got: String) -> StoreError {
    StoreError::Foreign { place: place.to_owned(), key: key.into(), expected, got }
}
