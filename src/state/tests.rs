use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::record::{Intent, Record, Tombstone};
use super::*;
use crate::host::Host;
use crate::machine::launch::{Launch, LaunchState};
use crate::machine::local::{LocalPlace, LocalRequest};
use crate::machine::{Machine, Place, Request};
use crate::process::Process;

fn request() -> Request {
    Request::Local(LocalRequest {
        token: "t".into(),
        command: Vec::new(),
        port: 22,
        user: "root".into(),
        public_key: "ssh-ed25519 AAAA".into(),
        container: None,
    })
}

fn record(attempt: &str) -> (Intent, Record) {
    let hour = Duration::from_secs(3600);
    let mut intent = Intent::new(attempt.into(), Process::this(), None, hour);
    intent.launches.push(Launch {
        request: request(),
        state: LaunchState::Asked,
    });
    let machine = Machine {
        place: Place::Local(LocalPlace {
            keeper: Process::this().unwrap(),
            token: "t".into(),
            container: false,
        }),
        endpoints: Vec::new(),
    };
    let record = Record::new(&intent, machine, "key".into(), "spool".into());
    (intent, record)
}

fn store() -> (tempfile::TempDir, Job) {
    let dir = tempfile::tempdir().unwrap();
    let job = Store::new(dir.path().join("state")).job("k-1");
    (dir, job)
}

#[test]
fn a_record_is_private_whole_and_readable_again() {
    let (_dir, job) = store();
    let (intent, record) = record("a");
    let locked = job.lock().unwrap();
    locked.write_intent(&intent).unwrap();
    assert!(locked.write_record(&record).unwrap());
    drop(locked);
    assert_eq!(job.record().unwrap().unwrap(), record);
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&job.directory().join("record.json")), 0o600);
    assert_eq!(mode(job.directory()), 0o700);
    assert_eq!(fs::read_dir(job.directory()).unwrap().count(), 2);
}

#[test]
fn a_record_is_not_written_once_cleanup_took_the_intent() {
    let (_dir, job) = store();
    let (intent, record) = record("a");
    let locked = job.lock().unwrap();
    locked.write_intent(&intent).unwrap();
    locked.remove().unwrap();
    assert!(job.lock_existing().unwrap().is_none());
    assert!(!job.lock().unwrap().write_record(&record).unwrap());
}

#[test]
fn a_waiter_on_a_removed_directory_gets_the_new_one() {
    let (_dir, job) = store();
    let locked = job.lock().unwrap();
    let other = job.clone();
    let waiter = std::thread::spawn(move || {
        let locked = other.lock().unwrap();
        locked.write_intent(&record("b").0).unwrap();
    });
    locked.remove().unwrap();
    waiter.join().unwrap();
    assert_eq!(job.lock().unwrap().intent().unwrap().unwrap().attempt, "b");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_somebody_keeps_is_not_waited_for_without_end() {
    let (_dir, job) = store();
    let held = job.lock().unwrap();
    held.write_intent(&record("a").0).unwrap();
    for error in [
        job.lock_when_free().await.unwrap_err(),
        job.lock_existing_when_free().await.unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(
            text.contains("has kept the lock on") && text.ends_with(" for 120 s"),
            "{text}"
        );
    }
    assert!(held.intent().unwrap().is_some());
    drop(held);
    assert!(job.lock_existing_when_free().await.unwrap().is_some());
}

#[test]
fn the_holder_of_a_lock_is_found_and_no_waiter() {
    let locks = "1: POSIX  ADVISORY  WRITE 11 fe:01:77 0 EOF\n\
                 2: FLOCK  ADVISORY  WRITE 12 fe:01:177 0 EOF\n\
                 3: -> FLOCK  ADVISORY  WRITE 13 fe:01:77 0 EOF\n\
                 3: FLOCK  ADVISORY  WRITE 14 fe:01:77 0 EOF\n";
    assert_eq!(lock_holder(locks, 77), Some(14));
    assert_eq!(lock_holder(locks, 7), None);
    assert_eq!(lock_holder("", 77), None);
}

#[test]
fn damaged_and_newer_files_say_so_and_stay() {
    let (_dir, job) = store();
    drop(job.lock().unwrap());
    let path = job.directory().join("record.json");
    for (content, text) in [
        ("", "is damaged"),
        ("{\"version\":1}", "is damaged"),
        (
            "{\"version\":99}",
            "has format 99, written by a newer gitlab-aws-driver",
        ),
        ("not json", "is damaged"),
    ] {
        fs::write(&path, content).unwrap();
        let error = job.record().unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.remedy().unwrap().starts_with("It is left as it is."));
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

/// Returns how large a job's file is.
fn size(job: &Job, name: &str) -> u64 {
    fs::metadata(job.directory().join(name)).unwrap().len()
}

#[test]
fn launches_that_are_over_count_and_take_no_room() {
    let (_dir, job) = store();
    let mut intent = record("a").0;
    intent.launches.clear();
    for number in 0..1000 {
        let mut request = request();
        if let Request::Local(request) = &mut request {
            request.command = vec!["x".repeat(10_000)];
        }
        let state = LaunchState::Asked;
        intent.launches.push(Launch { request, state });
        intent.launches[number].settle(LaunchState::Over);
    }
    let state = LaunchState::Asked;
    let request = request();
    intent.launches.push(Launch { request, state });
    let locked = job.lock().unwrap();
    locked.write_intent(&intent).unwrap();
    assert!(size(&job, "intent.json") < 400_000);
    let read = locked.intent().unwrap().unwrap();
    assert_eq!(read, intent);
    assert_eq!(read.launches.len(), 1001);
    assert_eq!(read.open_launches().count(), 1);
}

#[test]
fn an_intent_whose_launches_are_over_but_whole_is_read() {
    let (_dir, job) = store();
    let mut intent = record("a").0;
    // As versions before this one left it.
    intent.launches[0].state = LaunchState::Over;
    let locked = job.lock().unwrap();
    locked.write_intent(&intent).unwrap();
    assert_eq!(locked.intent().unwrap(), Some(intent));
}

#[test]
fn what_is_written_is_read_again_and_what_could_not_be_is_refused() {
    let (_dir, job) = store();
    let (mut intent, mut record) = record("a");
    if let Request::Local(request) = &mut intent.launches[0].request {
        request.command = vec!["x".repeat(2 << 20)];
    }
    let locked = job.lock().unwrap();
    locked.write_intent(&intent).unwrap();
    assert!(size(&job, "intent.json") > 2 << 20);
    assert_eq!(locked.intent().unwrap().as_ref(), Some(&intent));
    assert!(locked.write_record(&record).unwrap());

    let whole = record.clone();
    record.private_key = "x".repeat(16 << 20);
    let error = locked.write_record(&record).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("record.json is not written: it is larger than 16 MiB"),
        "{text}"
    );
    // What was there before still is.
    assert_eq!(locked.record().unwrap(), Some(whole));
    assert_eq!(fs::read_dir(job.directory()).unwrap().count(), 2);

    let path = job.directory().join("record.json");
    fs::write(&path, vec![b' '; (16 << 20) + 1]).unwrap();
    let text = locked.record().unwrap_err().to_string();
    assert!(
        text.contains("is damaged: it is larger than 16 MiB"),
        "{text}"
    );
}

#[test]
fn a_tombstone_outlives_the_job() {
    let (_dir, job) = store();
    assert_eq!(job.tombstone().unwrap(), None);
    let tombstone = Tombstone::new(7);
    job.bury(&tombstone).unwrap();
    assert_eq!(job.tombstone().unwrap(), Some(tombstone));
}

#[test]
fn a_tombstone_holds_for_its_runner_process_and_configuration_alone() {
    let process = |pid| Process {
        pid,
        ..Process::this().unwrap()
    };
    let by = |owner: Option<i32>, candidates: &[i32], configuration: &str| {
        let mut intent = record("a").0;
        intent.owner = owner.map(process);
        intent.candidates = candidates.iter().copied().map(process).collect();
        intent.configuration = configuration.to_owned();
        intent
    };
    let settled = Tombstone::of(&by(Some(100), &[], "c"));
    assert!(settled.holds_for(&by(Some(100), &[], "c")));
    assert!(settled.holds_for(&by(None, &[300, 100, 50], "c")));
    for other in [
        by(Some(101), &[], "c"),
        by(None, &[101, 50], "c"),
        by(None, &[], "c"),
        by(Some(100), &[], "d"),
        by(Some(100), &[], ""),
    ] {
        assert!(!settled.holds_for(&other), "{other:?}");
    }
    let unsettled = Tombstone::of(&by(None, &[100, 50], "c"));
    assert!(unsettled.holds_for(&by(None, &[100, 50], "c")));
    assert!(unsettled.holds_for(&by(Some(100), &[], "c")));
    // Both are of the same service, and behind wrappers of their own.
    assert!(!unsettled.holds_for(&by(None, &[300, 50], "c")));
    assert!(!unsettled.holds_for(&by(None, &[300, 100, 50], "c")));
    // As 0.1.0 left it.
    let old: Tombstone =
        serde_json::from_str(r#"{"version":1,"first_seen":7,"final_failure":null}"#).unwrap();
    assert_eq!(old, Tombstone::new(7));
    for intent in [by(None, &[], ""), by(Some(100), &[], "c")] {
        assert!(!old.holds_for(&intent));
    }
}

proptest! {
    /// Whatever number a server, a clock or a damaged file brings.
    #[test]
    fn no_number_makes_a_sum_of_times_overflow(seconds in prop_oneof![any::<u64>(), Just(u64::MAX), 0..u64::from(u32::MAX)]) {
        let lifetime = Duration::from_secs(seconds);
        let intent = Intent::new("a".into(), None, Some(seconds), lifetime);
        prop_assert!(intent.until.unix() >= intent.created);
        let at = record::time(seconds);
        prop_assert!(at.checked_add(lifetime.min(Duration::from_secs(1 << 32))).is_some());
        if seconds < 1 << 32 {
            prop_assert_eq!(at, SystemTime::UNIX_EPOCH + lifetime);
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(bytes: Vec<u8>) {
        drop(Record::parse(&bytes));
    }

    #[test]
    fn a_record_cut_or_changed_anywhere_never_panics(at in 0usize..700, byte: u8, cut: bool) {
        let mut bytes = serde_json::to_vec_pretty(&record("a").1).unwrap();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        drop(Record::parse(&bytes));
    }
}

#[tokio::test]
async fn a_named_pipe_anywhere_in_the_state_is_refused_at_once() {
    let pipe = |path: &Path| {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    };
    let (dir, job) = store();
    let locked = job.lock().unwrap();
    for name in ["record.json", "intent.json", "notice.json"] {
        pipe(&job.directory().join(name));
    }
    let said = locked.record().unwrap_err().to_string();
    assert!(said.contains("a named pipe"), "{said}");
    assert!(locked.intent().is_err());
    assert_eq!(job.spot_notice("a"), None);
    drop(locked);
    let root = dir.path().join("state");
    let store = Store::new(root.clone());
    for part in ["tombstones", "notes", "known", "shared/climbs"] {
        fs::create_dir_all(root.join(part)).unwrap();
    }
    pipe(&root.join("manager"));
    let here = store.make_bastion(&Host::instance("i-1")).unwrap();
    assert!(store.manager(&here).is_err() && store.known_manager(&here).is_err());
    pipe(&root.join("tombstones/k-1.json"));
    assert!(job.tombstone().is_err());
    pipe(&root.join("notes/x"));
    store.note("x");
    store.keep(&["a"], &1);
    for kept in fs::read_dir(root.join("known")).unwrap().flatten() {
        fs::remove_file(kept.path()).unwrap();
        pipe(&kept.path());
    }
    assert_eq!(store.recall::<u8>(&["a"], NOTE_AGE), None);
    // In the place of a job's directory as well.
    pipe(&root.join("jobs/k-2"));
    let other = store.job("k-2");
    assert!(other.lock_existing().is_err() && other.lock_existing_when_free().await.is_err());
}

#[test]
fn a_told_notice_is_remembered_for_its_machine_alone() {
    let (_dir, job) = store();
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    // Of a job that is gone nothing is kept.
    job.note_spot_notice("try-1", at);
    assert!(!job.directory().exists());
    drop(job.lock().unwrap());
    job.note_spot_notice("try-1", at);
    assert_eq!(job.spot_notice("try-1"), Some(at));
    assert_eq!(job.spot_notice("try-2"), None);
    // Whoever has the lock is not waited for.
    let locked = job.lock().unwrap();
    job.note_spot_notice("try-2", at);
    assert_eq!(job.spot_notice("try-2"), None);
    fs::write(job.directory().join("notice.json"), "{\"version\":2}").unwrap();
    assert_eq!(job.spot_notice("try-1"), None);
    locked.remove().unwrap();
}
