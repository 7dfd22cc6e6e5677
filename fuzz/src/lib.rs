//! What each fuzz target does with its input, and what must be true whatever the input is.
//!
//! The targets in `targets/` call these under libFuzzer; `tests/fuzz_short.rs` includes this file and calls
//! them with the seeds and with changed seeds.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use gitlab_aws_driver::compute::aws::classify::{self, Action};
use gitlab_aws_driver::config;
use gitlab_aws_driver::container::auth::{self, Login};
use gitlab_aws_driver::container::trouble;
use gitlab_aws_driver::error::Error;
use gitlab_aws_driver::image;
use gitlab_aws_driver::runner::containers::{Containers, Credential, Secret};
use gitlab_aws_driver::runner::payload::Payload;
use gitlab_aws_driver::script::frames::{Frame, HELD_LIMIT, Item, Malformed, Scanner};
use gitlab_aws_driver::state::Store;
use gitlab_aws_driver::state::record::Record;
use gitlab_aws_driver::state::shared::Shared;
use gitlab_aws_driver::state::shared::breaker::Decision;
use gitlab_aws_driver::state::shared::budget::Bucket;
use gitlab_aws_driver::state::shared::spot_losses::SpotLoss;

/// The nonce that inputs of [`frames`] have to use for something to happen.
const NONCE: &str = "0123456789abcdef0123456789abcdef";

/// How long a line for people may get, whatever it is about.
const LINE_LIMIT: usize = 64 << 10;

/// Parses a configuration file: right, or one error; whatever is printed stays on its line.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match config::parse(text, Path::new("aws-driver.toml")) {
        Ok(loaded) => loaded.warnings.iter().for_each(|warning| one_line(warning)),
        Err(error) => printable(&error),
    }
}

/// Parses a job's record: what is taken says the same when it is written and read again.
pub fn record(data: &[u8]) {
    match Record::parse(data) {
        Ok(record) => {
            let Ok(written) = serde_json::to_vec(&record) else {
                panic!("a record that was read cannot be written");
            };
            assert_eq!(Record::parse(&written).ok(), Some(record));
        }
        Err(error) => one_line(&error.to_string()),
    }
}

/// Parses a job's payload, which is read leniently: any JSON will do.
pub fn payload(data: &[u8]) {
    let taken = Payload::parse(data);
    let json = serde_json::from_slice::<serde_json::Value>(data);
    assert_eq!(taken.is_ok(), json.is_ok());
    if let Ok(payload) = taken {
        assert!(payload.id != Some(0) && payload.pipeline_id != Some(0));
        assert!(
            payload
                .services
                .iter()
                .all(|service| !service.image.name.is_empty())
        );
    }
}

/// Scans what a machine sends: the result is the same in pieces as in one go, and next to nothing is kept back.
///
/// The first byte says how the rest is cut.
pub fn frames(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else {
        return;
    };
    let length = usize::from(*cut).max(1);
    let (bytes, frames, error) = scan(stream.chunks(length));
    let (all_bytes, all_frames, all_error) = scan(std::iter::once(stream));
    // A frame that is too long may be refused before its end is seen, so errors come earlier in pieces.
    if error.is_none() {
        assert_eq!(all_error, None);
        assert_eq!(bytes, all_bytes);
        assert_eq!(frames, all_frames);
    } else {
        assert!(all_bytes.starts_with(&bytes));
        assert!(all_frames.starts_with(&frames));
    }
}

fn scan<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Vec<Frame>, Option<Malformed>) {
    let mut scanner = Scanner::new(NONCE);
    let (mut bytes, mut frames) = (Vec::new(), Vec::new());
    for piece in pieces {
        scanner.push(piece);
        loop {
            match scanner.take() {
                Ok(Some(Item::Bytes(some))) => bytes.extend_from_slice(&some),
                Ok(Some(Item::Frame(frame))) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    // Nobody may ever take from it again, and more may come all the same.
                    scanner.push(piece);
                    assert_eq!(scanner.waiting(), 0);
                    assert_eq!(scanner.take(), Err(error.clone()));
                    return (bytes, frames, Some(error));
                }
            }
        }
        assert!(scanner.waiting() <= HELD_LIMIT, "{}", scanner.waiting());
    }
    (bytes, frames, None)
}

/// Reads what a job and a docker say of containers: a name says the same however it is written, a registry gets to see
/// nothing of another, and whatever is printed stays on its line.
///
/// The first line is an image's name; up to the next NUL it is docker's words, and then `DOCKER_AUTH_CONFIG`.
pub fn containers(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (name, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let (said, config) = rest.split_once('\0').unwrap_or((rest, rest));
    let job = Containers {
        auth_config: Some(Secret(config.to_owned())),
        credentials: vec![Credential {
            registry: "https://registry.example.com".to_owned(),
            username: "user".to_owned(),
            password: Secret("password".to_owned()),
        }],
        ..Containers::default()
    };
    auth::problem(&job).iter().for_each(|told| one_line(told));
    // No other name comes so far: the job is refused before.
    let Ok(image) = image::Reference::parse(name) else {
        assert_eq!(auth::login(name, &job), Login::Machine);
        return;
    };
    let full = image.full();
    assert_eq!(image::Reference::parse(&full).as_ref(), Ok(&image));
    assert!(image.fits(name) && image.fits(&full) && image.fits("**"));
    // A digest fits no pattern of tags.
    assert!(!(full.contains('@') && image.fits("**:**")));
    for registry in ["registry.example.com", image::HUB] {
        assert_eq!(
            image.fits(&format!("{registry}/**")),
            image.registry() == registry
        );
    }
    assert!(
        image::aliases(name)
            .iter()
            .all(|alias| !alias.contains(['/', ':']))
    );
    one_login(&auth::login(name, &job), image.registry());
    for trouble in [
        trouble::pull(name, said),
        trouble::start("image", name, said),
        trouble::ended(name, said),
    ] {
        printable(&trouble.error);
    }
    trouble::exec(said).iter().for_each(printable);
}

/// What is written for docker names one registry, and helpers by their names alone.
fn one_login(login: &Login, registry: &str) {
    let text = match login {
        Login::Machine => return,
        Login::Ecr { registry: of, .. } => return assert_eq!(of, registry),
        Login::Config(Secret(text)) => text,
    };
    let Ok(serde_json::Value::Object(config)) = serde_json::from_str(text) else {
        panic!("{text:?} is no configuration of docker's");
    };
    assert_eq!(config.len(), 1, "{text}");
    let own = |name: &String| match registry {
        image::HUB => name.contains("//index.docker.io/"),
        other => name == other,
    };
    let is_program = |helper: &serde_json::Value| {
        let helper = helper.as_str();
        helper.is_some_and(|h| !h.is_empty() && !h.contains('/'))
    };
    for (key, value) in &config {
        match (key.as_str(), value.as_object()) {
            ("auths", Some(all)) => assert!(all.len() == 1 && all.keys().all(own), "{text}"),
            ("credHelpers", Some(all)) => {
                assert!(all.len() == 1 && all.keys().all(own), "{text}");
                assert!(all.values().all(is_program), "{text}");
            }
            ("credsStore", None) => assert!(is_program(value), "{text}"),
            _ => panic!("{text}"),
        }
    }
}

/// Damages what the jobs of a host share: nobody waits for long, no rung is barred for long, and nobody fails.
///
/// Up to the first line break it is the name of a file among those who wait, and then what all files hold, where `NOW`
/// stands for the time: most of what is read there counts for minutes only.
pub fn shared(data: &[u8]) {
    let cut = data.iter().position(|byte| *byte == b'\n');
    let (name, content) = data.split_at(cut.unwrap_or(data.len()));
    let content = &at_this_hour(content.strip_prefix(b"\n").unwrap_or(content));
    let place = Scratch::new();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return;
    };
    runtime.block_on(async {
        let shared = Store::new(place.0.clone()).shared();
        // Once as it should be, so that all the files are there.
        use_all(&shared).await;
        for file in ["budget", "rungs", "climbs"] {
            for file in files(&place.0.join("shared").join(file)) {
                drop(fs::write(file, content));
            }
        }
        if let Ok(name) = std::str::from_utf8(name)
            && !name.contains(['/', '\0'])
        {
            for queue in files(&place.0.join("shared/poll")) {
                drop(fs::write(queue.join(name), content));
            }
        }
        use_all(&shared).await;
    });
}

fn at_this_hour(content: &[u8]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs().to_string();
    let mut rest = content;
    let mut out = Vec::new();
    while let Some(at) = rest.windows(3).position(|three| three == b"NOW") {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(now.as_bytes());
        rest = &rest[at + 3..];
    }
    out.extend_from_slice(rest);
    out
}

async fn use_all(shared: &Shared) {
    const BUCKET: Bucket = Bucket {
        name: "x",
        size: 3.0,
        rate: 2.0,
    };
    assert!(shared.take("here", &BUCKET).await <= Duration::from_secs(240));
    shared.drain("here", &BUCKET).await;
    assert!(shared.take("here", &BUCKET).await <= Duration::from_secs(240));
    assert!(!matches!(
        shared.decide("other", true).await,
        Decision::Skip { .. }
    ));
    if let Decision::Skip { until, .. } = shared.decide("rung", false).await {
        assert!(until <= SystemTime::now() + Duration::from_secs(30 * 60));
    }
    let full = classify::no_room(Action::RunTask, "no room".to_owned());
    shared.full("rung", &full).await;
    assert_ne!(shared.decide("rung", true).await, Decision::Wait);
    shared.has_room("rung").await;
    assert_eq!(shared.decide("rung", false).await, Decision::Try);
    assert!(
        shared
            .spot_loss("job")
            .is_none_or(|loss| !loss.rung.is_empty())
    );
    let loss = SpotLoss {
        rung: "rung".to_owned(),
        cause: "no room".to_owned(),
    };
    shared.note_spot_loss("job", loss.clone()).await;
    assert_eq!(shared.spot_loss("job"), Some(loss));
    let queue = shared.queue("here");
    // Where a damaged place is in the way each asks for itself.
    let Ok(Some(lead)) = queue.lead() else { return };
    let Ok(mut place) = queue.join("task") else {
        return;
    };
    for waiting in lead.waiting() {
        waiting.tell(b"answer");
    }
    let answer = tokio::time::timeout(Duration::from_secs(10), place.answer()).await;
    assert_eq!(answer.as_deref(), Ok(&b"answer\n"[..]));
}

/// A directory that goes with its user.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("gitlab-aws-driver-fuzz-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        if fs::create_dir(&path).is_err() {
            panic!("{} cannot be made", path.display());
        }
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn printable(error: &Error) {
    one_line(&error.to_string());
    error.remedy().into_iter().for_each(one_line);
}

/// Nothing from outside may forge a line of the job log, or flood it.
fn one_line(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.len() <= LINE_LIMIT, "{} bytes", text.len());
}
