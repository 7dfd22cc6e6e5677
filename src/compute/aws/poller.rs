//! One call for all who wait: whichever process has the lead asks for the state of all machines that processes of this host
//! wait for, and gives each its own.
//!
//! One that is alone asks at once. The pace is one call every half second for each account and region, so that a call of
//! many has had time to gather them. Whoever leads may be killed: the others look for the lead every [`RETRY`].

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::Aws;
use crate::machine::verdict::{Verdict, Why};
use crate::state::shared::queue::{Lead, Place, Queue};

/// The most machines that one call asks for: DescribeTasks takes no more.
const BATCH: usize = 100;
/// Between two looks for the lead.
const RETRY: Duration = Duration::from_millis(200);
/// Whoever has waited for so long asks for itself: the one that leads may have been stopped.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is known of a machine: nothing where AWS does not know it.
type Answer<T> = Result<Option<T>, Verdict>;

/// Asks for the state of one machine, by its name, together with all who ask for the state of others.
///
/// `scope` says which answers are the same for all: the cluster, and what else they depend on beside account, region and
/// role. `ask` makes the call; machines that AWS does not know are left out of its answer, or are an error of
/// [`Why::NotFound`] for the whole call, which is then made anew without them.
///
/// # Errors
/// Where AWS does not say.
pub(in crate::compute) async fn state<T>(
    aws: &Aws,
    scope: &str,
    name: &str,
    ask: impl AsyncFn(&[String]) -> Result<Vec<(String, T)>, Verdict>,
) -> Answer<T>
where
    T: Clone + Serialize + DeserializeOwned,
{
    let queue = aws.shared.queue(&format!("{} {scope}", aws.identity));
    let began = Instant::now();
    let mut place: Option<Place> = None;
    while began.elapsed() < PATIENCE {
        match lead(&queue) {
            Lookup::Mine(lead) => {
                if let Some(answer) = place.as_mut().and_then(Place::answer_now).and_then(read) {
                    return answer;
                }
                drop(place);
                return lead_all(aws, &lead, name, &ask).await;
            }
            Lookup::Nobodys => break,
            Lookup::Anothers => {}
        }
        let waiting = match &mut place {
            Some(place) => place,
            none => match queue.join(name) {
                Ok(place) => none.insert(place),
                Err(error) => {
                    tracing::debug!(%error, "asks alone");
                    break;
                }
            },
        };
        tokio::select! {
            answer = waiting.answer() => if let Some(answer) = read(&answer) {
                return answer;
            },
            () = sleep(RETRY) => {}
        }
    }
    aws.pace().await;
    alone(name, &ask).await
}

/// Who has the lead.
enum Lookup {
    Mine(Lead),
    Anothers,
    /// It cannot be had.
    Nobodys,
}

fn lead(queue: &Queue) -> Lookup {
    match queue.lead() {
        Ok(Some(lead)) => Lookup::Mine(lead),
        Ok(None) => Lookup::Anothers,
        Err(error) => {
            tracing::debug!(%error, "asks alone");
            Lookup::Nobodys
        }
    }
}

fn read<T: DeserializeOwned>(answer: impl AsRef<[u8]>) -> Option<Answer<T>> {
    serde_json::from_slice(answer.as_ref()).ok()
}

async fn alone<T>(
    name: &str,
    ask: &impl AsyncFn(&[String]) -> Result<Vec<(String, T)>, Verdict>,
) -> Answer<T> {
    match ask(&[name.to_owned()]).await {
        Ok(known) => Ok(known.into_iter().find(|(n, _)| n == name).map(|(_, t)| t)),
        Err(verdict) if verdict.why == Why::NotFound => Ok(None),
        Err(verdict) => Err(verdict),
    }
}

/// Asks for all who wait, and gives each its answer.
async fn lead_all<T>(
    aws: &Aws,
    lead: &Lead,
    own: &str,
    ask: &impl AsyncFn(&[String]) -> Result<Vec<(String, T)>, Verdict>,
) -> Answer<T>
where
    T: Clone + Serialize,
{
    aws.pace().await;
    // Only now: whoever came meanwhile is served as well.
    let waiting = lead.waiting();
    let mut names = vec![own.to_owned()];
    for waiting in &waiting {
        if names.len() < BATCH && !names.contains(&waiting.name) {
            names.push(waiting.name.clone());
        }
    }
    let mut found = Vec::new();
    let mut parts = vec![names.clone()];
    while let Some(mut part) = parts.pop() {
        match ask(&part).await {
            Ok(known) => found.extend(known),
            // One unknown name fails the call for all. AWS names those that it does not know; otherwise halves find them.
            Err(verdict) if verdict.why == Why::NotFound && part.len() > 1 => {
                let count = part.len();
                part.retain(|name| !verdict.cause.contains(name.as_str()));
                if part.len() == count {
                    parts.push(part.split_off(count / 2));
                }
                if !part.is_empty() {
                    parts.push(part);
                }
                aws.pace().await;
            }
            Err(verdict) if verdict.why == Why::NotFound => {}
            // Nobody else has waited for as long as this call was repeated: they ask anew.
            Err(verdict) if verdict.why.repeats_call() => return Err(verdict),
            Err(verdict) if names.len() == 1 => return Err(verdict),
            // It may be the others' machines that this one's session may not ask for. If not, it is refused to all alike.
            Err(verdict) => {
                aws.pace().await;
                let answer = alone(own, ask).await;
                if matches!(&answer, Err(again) if again.why == verdict.why) {
                    for waiting in waiting {
                        tell(waiting, &answer);
                    }
                }
                return answer;
            }
        }
    }
    let answer = |name: &str| -> Answer<T> {
        let known = found.iter().find(|(n, _)| n == name);
        Ok(known.map(|(_, state)| state.clone()))
    };
    for waiting in waiting {
        if names.contains(&waiting.name) {
            let answer = answer(&waiting.name);
            tell(waiting, &answer);
        }
    }
    answer(own)
}

fn tell<T: Serialize>(waiting: crate::state::shared::queue::Waiting, answer: &Answer<T>) {
    match serde_json::to_vec(answer) {
        Ok(answer) => waiting.tell(&answer),
        Err(error) => tracing::debug!(%error, "an answer cannot be written"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::machine::access::Access;
    use crate::state::Store;

    async fn aws(directory: &std::path::Path) -> Aws {
        let access = Access {
            region: Some("eu-west-1".into()),
            role: None,
        };
        Aws::new(&access, None, &Store::new(directory.to_owned()).shared()).await
    }

    fn verdict(why: Why) -> Verdict {
        named(why, "c")
    }

    fn named(why: Why, cause: &str) -> Verdict {
        Verdict {
            why,
            cause: cause.into(),
            remedy: "r".into(),
        }
    }

    /// Three ask while the first call is under way; one name fails each call that it is in.
    #[tokio::test]
    async fn those_who_wait_are_asked_for_at_once_and_an_unknown_one_spoils_nothing() {
        for (cause, limit) in [
            ("no words", 6),
            ("The instance ID 'gone' does not exist", 3),
        ] {
            unknown_one(cause, limit).await;
        }
    }

    /// Waits until something holds of which no event tells.
    async fn until(holds: impl Fn() -> bool) {
        let looks = async {
            while !holds() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, looks).await.unwrap();
    }

    /// Counts those who wait for an answer of one kind or another.
    fn places(directory: &std::path::Path) -> usize {
        let kinds = std::fs::read_dir(directory.join("shared/poll")).unwrap();
        let files = kinds.flat_map(|kind| std::fs::read_dir(kind.unwrap().path()).unwrap());
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| name != "lock" && !name.starts_with('.'))
            .count()
    }

    async fn unknown_one(cause: &str, limit: usize) {
        let dir = tempfile::tempdir().unwrap();
        let aws = aws(dir.path()).await;
        let calls = RefCell::new(Vec::new());
        let ask = async |names: &[String]| {
            calls.borrow_mut().push(names.to_vec());
            let is_first = calls.borrow().len() == 1;
            if is_first {
                until(|| places(dir.path()) == 3).await;
            }
            if names.iter().any(|name| name == "gone") {
                return Err(named(Why::NotFound, cause));
            }
            Ok(names.iter().map(|n| (n.clone(), n.len())).collect())
        };
        let state = |name| state(&aws, "x", name, ask);
        let later = async |name| {
            until(|| !calls.borrow().is_empty()).await;
            state(name).await
        };
        let (first, b, gone, d) =
            tokio::join!(state("a"), later("bb"), later("gone"), later("dddd"));
        assert_eq!(first.unwrap(), Some(1));
        assert_eq!(b.unwrap(), Some(2));
        assert_eq!(gone.unwrap(), None);
        assert_eq!(d.unwrap(), Some(4));
        let calls = calls.into_inner();
        assert_eq!(calls[0], ["a"]);
        assert_eq!(calls[1].len(), 3, "{calls:?}");
        assert!(calls.len() <= limit, "{calls:?}");
    }

    #[tokio::test]
    async fn a_refusal_is_everybodys_and_trouble_is_not() {
        for why in [Why::Denied, Why::Outage] {
            let dir = tempfile::tempdir().unwrap();
            let aws = aws(dir.path()).await;
            let calls = RefCell::new(0);
            let ask = async |names: &[String]| -> Result<Vec<(String, u8)>, Verdict> {
                *calls.borrow_mut() += 1;
                sleep(Duration::from_millis(300)).await;
                match names {
                    [name] if name == "a" => Ok(vec![(name.clone(), 1)]),
                    _ => Err(verdict(why)),
                }
            };
            let later = async |name| {
                sleep(Duration::from_millis(100)).await;
                state(&aws, "x", name, ask).await
            };
            let (a, b, c) = tokio::join!(state(&aws, "x", "a", ask), later("b"), later("c"));
            assert_eq!(a.unwrap(), Some(1));
            assert_eq!(b.unwrap_err(), verdict(why));
            assert_eq!(c.unwrap_err(), verdict(why));
            assert_eq!(calls.into_inner(), 3);
        }
    }

    #[tokio::test]
    async fn who_may_ask_only_for_its_own_does() {
        let dir = tempfile::tempdir().unwrap();
        let aws = aws(dir.path()).await;
        let ask = async |names: &[String]| {
            sleep(Duration::from_millis(300)).await;
            match names {
                [name] => Ok(vec![(name.clone(), name.len())]),
                _ => Err(verdict(Why::Denied)),
            }
        };
        let state = async |name| state(&aws, "x", name, ask).await.unwrap();
        let all = tokio::join!(state("a"), state("bb"), state("ccc"));
        assert_eq!(all, (Some(1), Some(2), Some(3)));
    }

    #[tokio::test]
    async fn where_nothing_can_be_shared_each_asks_for_itself() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("shared"), "").unwrap();
        let aws = aws(dir.path()).await;
        let ask = async |names: &[String]| {
            assert_eq!(names.len(), 1);
            Ok(vec![(names[0].clone(), 7)])
        };
        let (a, b) = tokio::join!(state(&aws, "x", "a", ask), state(&aws, "x", "b", ask));
        assert_eq!((a.unwrap(), b.unwrap()), (Some(7), Some(7)));
    }
}
