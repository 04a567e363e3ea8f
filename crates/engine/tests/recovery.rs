//! What survives: restarts, torn tails, damage, failed syncs, full disks, two processes.

#![expect(
    clippy::expect_used,
    reason = "in the helpers of tests a panic is the failed test"
)]

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use widgets_engine::{Disk, DiskFile, Engine, OpenError, Settings, SystemClock};
use widgets_registry::{
    Command, Fault, Name, Pair, Port, Ports, Rejection, SerialNumber, Store, Widget,
};

fn serial_number(text: &str) -> SerialNumber {
    SerialNumber::new("widget_sn", text).expect("within the limits")
}

fn add(text: &str) -> Command {
    Command::AddWidget {
        serial_number: serial_number(text),
        name: Name::new("widget_name", "a name").expect("within the limits"),
        ports: Ports::new(&[Port::P, Port::R]).expect("two slots"),
    }
}

fn associate(one: &str, other: &str) -> Command {
    let pair = Pair::new(serial_number(one), serial_number(other), Port::P);
    Command::AssociateWidgets(pair.expect("two widgets"))
}

fn peer(widget: &Widget) -> Option<&str> {
    widget.slots[0].peer.as_deref()
}

/// Small segments, so that a test crosses several.
fn settings() -> Settings {
    Settings {
        queue_operations_max: 8,
        segment_bytes: 32 << 10,
        ..Settings::default()
    }
}

/// A disk in memory. What was synced is kept beside what was written.
#[derive(Clone, Default)]
struct TestDisk(Arc<Mutex<Files>>);

#[derive(Default)]
struct Files {
    written: BTreeMap<String, Vec<u8>>,
    synced: BTreeMap<String, Vec<u8>>,
    fail_sync: bool,
    fail_create: bool,
}

struct TestFile(TestDisk, Mutex<String>);

impl TestDisk {
    fn files(&self) -> std::sync::MutexGuard<'_, Files> {
        self.0.lock().expect("no test panics with the lock")
    }

    /// The disk after a power cut: what was not synced is gone.
    fn after_power_cut(&self) -> Self {
        let synced = self.files().synced.clone();
        let files = Files {
            written: synced.clone(),
            synced,
            ..Files::default()
        };
        Self(Arc::new(Mutex::new(files)))
    }

    fn open(&self) -> Result<Engine, OpenError> {
        let mut salt = 0x5eed;
        let random = Box::new(move || {
            salt += 1;
            salt
        });
        Engine::open_on(self.clone(), SystemClock::new(), random, &settings())
    }

    fn segments(&self) -> Vec<String> {
        self.files().written.keys().cloned().collect()
    }
}

impl Disk for TestDisk {
    type File = TestFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.segments())
    }

    fn create(&self, name: &str) -> io::Result<TestFile> {
        let mut files = self.files();
        if files.fail_create {
            return Err(io::ErrorKind::StorageFull.into());
        }
        files.written.insert(name.into(), Vec::new());
        drop(files);
        Ok(TestFile(self.clone(), Mutex::new(name.into())))
    }

    fn open(&self, name: &str) -> io::Result<TestFile> {
        assert!(self.files().written.contains_key(name));
        Ok(TestFile(self.clone(), Mutex::new(name.into())))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let file = files.written.remove(from).expect("the file is there");
        files.written.insert(to.into(), file);
        let file = files.synced.remove(from).expect("it was synced before");
        files.synced.insert(to.into(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut files = self.files();
        files.written.remove(name);
        files.synced.remove(name);
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }
}

impl TestFile {
    /// The engine goes on writing to a file that it has renamed.
    fn name(&self) -> String {
        let mut name = self.1.lock().expect("no test panics with the lock");
        if !self.0.files().written.contains_key(&*name) {
            let ready = name.trim_end_matches("_unfinished").len();
            name.truncate(ready);
        }
        name.clone()
    }
}

impl DiskFile for TestFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let name = self.name();
        let files = self.0.files();
        let offset = usize::try_from(offset).expect("small files");
        let rest = files.written[&name].get(offset..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let name = self.name();
        let mut files = self.0.files();
        let file = files.written.get_mut(&name).expect("the file is there");
        let start = usize::try_from(offset).expect("small files");
        file.resize(file.len().max(start + data.len()), 0);
        file[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let name = self.name();
        let mut files = self.0.files();
        if files.fail_sync {
            return Err(io::Error::other("the test fails this sync"));
        }
        let file = files.written[&name].clone();
        files.synced.insert(name, file);
        Ok(())
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_power_cut_across_segments() {
    let disk = TestDisk::default();
    let engine = disk.open().expect("a new store");
    let client = engine.client();
    for number in 0..600 {
        client
            .submit(add(&format!("w{number}")))
            .await
            .expect("added");
    }
    client
        .submit(associate("w0", "w1"))
        .await
        .expect("associated");
    assert_eq!(
        client
            .submit(add("w7"))
            .await
            .expect_err("taken")
            .to_string(),
        "duplicate key value violates unique constraint \"widgets_serial_number_key\""
    );
    assert!(
        disk.segments().len() > 1,
        "the test is about several segments"
    );

    let engine = disk.after_power_cut().open().expect("recovered");
    let client = engine.client();
    for number in 0..600 {
        let serial_number = serial_number(&format!("w{number}"));
        let widget = client
            .lookup(serial_number)
            .await
            .expect("answered")
            .expect("there");
        assert_eq!(
            peer(&widget),
            [Some("w1"), Some("w0")].get(number).copied().flatten()
        );
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_written_over() {
    let disk = TestDisk::default();
    let engine = disk.open().expect("a new store");
    for name in ["a", "b", "c"] {
        engine.client().submit(add(name)).await.expect("added");
    }
    drop(engine);
    // The last group loses its end, as in a crash halfway through its write.
    {
        let mut files = disk.files();
        let segment = files.written.values_mut().next().expect("a segment");
        let last = segment
            .iter()
            .rposition(|&byte| byte != 0)
            .expect("not empty");
        segment[last] = 0;
    }
    let engine = disk.open().expect("the torn tail is no damage");
    let client = engine.client();
    assert!(
        client
            .lookup(serial_number("b"))
            .await
            .expect("answered")
            .is_some()
    );
    assert!(
        client
            .lookup(serial_number("c"))
            .await
            .expect("answered")
            .is_none()
    );
    client.submit(add("d")).await.expect("added");
    drop(engine);
    let engine = disk.open().expect("no trace of the torn tail");
    assert!(
        engine
            .client()
            .lookup(serial_number("d"))
            .await
            .expect("answered")
            .is_some()
    );
}

#[tokio::test]
async fn damage_before_the_tail_stops_the_start_and_is_named() {
    let disk = TestDisk::default();
    let engine = disk.open().expect("a new store");
    for name in ["a", "b", "c"] {
        engine.client().submit(add(name)).await.expect("added");
    }
    drop(engine);
    let clean = disk.files().written.clone();
    let name = clean.keys().next().expect("a segment").clone();
    // The first of three groups, and the segment's header.
    for at in [4096 + 40, 21] {
        disk.files().written.get_mut(&name).expect("a segment")[at] ^= 1;
        let error = disk.open().err().expect("damaged");
        assert!(
            matches!(&error, OpenError::Damaged { file, .. } if *file == name),
            "{error}"
        );
        disk.files().written = clean.clone();
    }
    disk.open().expect("as it was");
}

#[tokio::test]
async fn a_failed_sync_ends_writing_and_its_fate_is_unknown() {
    let disk = TestDisk::default();
    let engine = disk.open().expect("a new store");
    let client = engine.client();
    client.submit(add("a")).await.expect("added");
    disk.files().fail_sync = true;
    let unknown = client.submit(add("b")).await.expect_err("not durable");
    assert!(
        matches!(unknown, Rejection::Fault(Fault::FateUnknown { .. })),
        "{unknown}"
    );
    // The disk is well again, but that proves nothing of what the kernel dropped.
    disk.files().fail_sync = false;
    let refused = client.submit(add("c")).await.expect_err("read-only");
    assert!(
        matches!(refused, Rejection::Fault(Fault::Unavailable { .. })),
        "{refused}"
    );
    assert!(client.ready().await.is_err());
    assert!(
        client
            .lookup(serial_number("a"))
            .await
            .expect("answered")
            .is_some()
    );
    assert!(
        client
            .lookup(serial_number("b"))
            .await
            .expect("answered")
            .is_none()
    );
    drop(engine);
    let engine = disk.after_power_cut().open().expect("recovered");
    engine
        .client()
        .submit(add("c"))
        .await
        .expect("writable after the restart");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_space() {
    let disk = TestDisk::default();
    let engine = disk.open().expect("a new store");
    let client = engine.client();
    disk.files().fail_create = true;
    let mut added = 0;
    let refused = loop {
        match client.submit(add(&format!("w{added}"))).await {
            Ok(()) => added += 1,
            Err(rejection) => break rejection,
        }
        assert!(added < 10_000, "the segment must fill up");
    };
    assert!(
        matches!(refused, Rejection::Fault(Fault::Unavailable { .. })),
        "{refused}"
    );
    let missing = client
        .lookup(serial_number(&format!("w{added}")))
        .await
        .expect("answered");
    assert_eq!(missing, None);
    disk.files().fail_create = false;
    client
        .submit(add(&format!("w{added}")))
        .await
        .expect("there is space again");
}

/// A new directory of its own, removed at the end.
struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        drop(std::fs::remove_dir_all(&path));
        Self(path)
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[tokio::test]
async fn a_real_directory_is_kept_and_has_one_owner() {
    let directory = TemporaryDirectory::new("one_owner");
    let engine = Engine::open(&directory.0, &settings()).expect("a new directory");
    engine.client().submit(add("a")).await.expect("added");
    let second = Engine::open(&directory.0, &settings())
        .err()
        .expect("it is in use");
    assert!(matches!(second, OpenError::Locked), "{second}");
    drop(engine);
    let engine = Engine::open(&directory.0, &settings()).expect("the lock is gone");
    assert!(
        engine
            .client()
            .lookup(serial_number("a"))
            .await
            .expect("answered")
            .is_some()
    );
}
