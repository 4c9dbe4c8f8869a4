//! Files as a controller finds them.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use redb::{Database, ReadableDatabase, TableDefinition};
use slim_quic::controller::store::{Change, EmbeddedStore, NodeRecord, State, Store, StoreError};

use crate::disk::{Disk, Sync};

const META: TableDefinition<'_, &str, u32> = TableDefinition::new("meta");
const NODES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("nodes");

fn put_node(id: &str) -> Change {
    Change::PutNode(NodeRecord {
        id: id.into(),
        group: None,
        connections: Vec::new(),
        product: None,
    })
}

#[track_caller]
fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path).unwrap_or_else(|error| panic!("{error}"))
}

/// Asserts that `path` is refused as not this program's, with `got`, and stays as it is.
#[track_caller]
fn assert_foreign(path: &Path, got: &str) {
    let before = fs::read(path).expect("the file");
    let error = EmbeddedStore::open(path).expect_err(got);
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()) && text.contains(got), "{text}");
    assert!(error.hint().contains("database.filePath"), "{}", error.hint());
    let after = fs::read(path).expect("the file");
    assert!(before == after || before.starts_with(b"redb"), "{} was changed", path.display());
}

#[test]
fn the_file_is_made_with_its_folders_for_this_user_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a/b/store.redb");
    open(&path).commit(&[put_node("n")]).expect("a commit");
    let mode = fs::metadata(&path).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(open(&path).load().expect("a state").nodes.len(), 1);
}

#[test]
fn a_second_store_is_refused_while_the_first_is_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let first = open(&path);
    let error = EmbeddedStore::open(&path).expect_err("a second one");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("store.redb"), "{error}");
    assert!(error.hint().contains("stop the other controller"), "{}", error.hint());
    first.commit(&[put_node("n")]).expect("the first goes on");
    drop(first);
    assert_eq!(open(&path).load().expect("a state").nodes.len(), 1);
}

#[test]
fn files_of_others_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("controlplane.db");
    let mut sqlite = b"SQLite format 3\0".to_vec();
    sqlite.resize(8192, 0);
    let long_zeros = [vec![0; 600], b"x".to_vec()].concat();
    for bytes in [sqlite, b"northbound: {}\n".to_vec(), b"redb".to_vec(), long_zeros] {
        fs::write(&path, bytes).expect("a file");
        assert_foreign(&path, "a database of a controller");
    }
}

#[test]
fn databases_of_other_programs_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("other.redb");
    let database = Database::create(&path).expect("a database");
    let writing = database.begin_write().expect("a transaction");
    writing.open_table(NODES).expect("a table").insert("a", &b"b"[..]).expect("an entry");
    writing.commit().expect("a commit");
    drop(database);
    assert_foreign(&path, "[\"nodes\"]");
    let database = Database::create(&path).expect("a database");
    let reading = database.begin_read().expect("a transaction");
    let kept = reading.open_table(NODES).expect("the table").get("a").expect("it can be read");
    assert_eq!(kept.expect("the entry").value(), b"b");
}

#[test]
fn formats_of_later_programs_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    open(&path).commit(&[put_node("n")]).expect("a commit");
    let edit = |edit: &dyn Fn(&redb::WriteTransaction)| {
        let database = Database::create(&path).expect("a database");
        let writing = database.begin_write().expect("a transaction");
        edit(&writing);
        writing.commit().expect("a commit");
    };
    let records: [(&[u8], &str); 4] = [
        (b"", "nothing"),
        (b"\x02{}", "form 2"),
        (b"\x01{", "EOF"),
        (b"\x01{\"id\": 7}", "invalid type"),
    ];
    for (record, got) in records {
        edit(&|writing| {
            writing.open_table(NODES).expect("a table").insert("n", record).expect("an entry");
        });
        let error = open(&path).load().expect_err(got);
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("nodes \"n\": expected a record of form 1, got"), "{text}");
        assert!(text.contains(got), "{text}");
    }
    edit(&|writing| {
        writing.open_table(META).expect("a table").insert("format", 2).expect("an entry");
    });
    assert_foreign(&path, "format: expected version 1, got version 2");
    edit(&|writing| {
        writing.open_table(META).expect("a table").remove("format").expect("it can be removed");
    });
    assert_foreign(&path, "format: expected version 1, got none");
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("a file");
    for path in [file.join("store.redb"), folder.path().to_owned()] {
        let error = EmbeddedStore::open(&path).expect_err("no place for a file");
        assert!(matches!(error, StoreError::Medium { .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert!(error.hint().contains("in_memory"), "{}", error.hint());
    }
}

#[test]
fn an_empty_file_and_an_unfinished_one_are_begun_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let mut without_magic = vec![0; 1 << 20];
    without_magic[9..100].fill(7);
    let mut with_a_part = without_magic.clone();
    with_a_part[..3].copy_from_slice(b"red");
    for bytes in [Vec::new(), vec![0; 4096], without_magic, with_a_part] {
        fs::write(&path, bytes).expect("a file");
        open(&path).commit(&[put_node("n")]).expect("a commit");
        assert_eq!(open(&path).load().expect("a state").nodes.len(), 1);
        fs::remove_file(&path).expect("the file");
    }
}

#[test]
fn a_full_disk_fails_commits_until_the_store_is_opened_again() {
    for (kind, hint) in [
        (ErrorKind::StorageFull, "make room"),
        (ErrorKind::QuotaExceeded, "make room"),
        (ErrorKind::ReadOnlyFilesystem, "in_memory"),
    ] {
        let disk = Disk::new(Sync::Honest);
        let store = EmbeddedStore::with_backend(disk.clone()).expect("a store");
        store.commit(&[put_node("before")]).expect("a commit");
        disk.fail_after(0, kind);
        let error = store.commit(&[put_node("full")]).expect_err("a full disk");
        assert!(matches!(error, StoreError::Medium { .. }), "{error}");
        assert!(error.hint().contains(hint), "{kind:?}: {error}: {}", error.hint());
        disk.repair();
        store.commit(&[put_node("later")]).expect_err("the outcome is not known");
        drop(store);
        let store = EmbeddedStore::with_backend(disk).expect("a store");
        let nodes: Vec<_> = store.load().expect("a state").nodes.into_keys().collect();
        assert_eq!(nodes[0], "before");
        store.commit(&[put_node("after")]).expect("a commit");
    }
}

#[test]
fn a_disk_that_is_full_from_the_start_is_named() {
    let disk = Disk::new(Sync::Honest);
    disk.fail_after(0, ErrorKind::StorageFull);
    let error = EmbeddedStore::with_backend(disk.clone()).expect_err("a full disk");
    assert!(error.hint().contains("make room"), "{error}: {}", error.hint());
    disk.repair();
    let store = EmbeddedStore::with_backend(disk).expect("a store");
    assert_eq!(store.load().expect("a state"), State::default());
}
