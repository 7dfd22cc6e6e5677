//! What `reap` believes before it ends anything: clocks, tags, and what it cannot read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use serde_json::json;

use crate::lab::aws::Account;
use crate::lab::aws::Fault;
use crate::lab::aws::Instance;
use crate::lab::runner::Runner;
use crate::reap::Bastion;
use crate::reap::ended;
use crate::reap::files;
use crate::reap::killed_while_coming_up;
use crate::reap::only_other;
use crate::reap::reap;
use crate::reap::report;
use crate::reap::unix_now;

/// Changes the files of the only job.
fn change(bastion: &Bastion, change: &dyn Fn(&mut Value)) {
    for path in files(&bastion.state.join("jobs")) {
        let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(&path, value.to_string()).unwrap();
    }
}

/// Has nobody be able to tell whether a job's Runner lives, and the files be those of version 0.1.0, with that deadline.
fn as_before(value: &mut Value, deadline: u64) {
    value["owner"]["namespace"] = json!(1);
    value["deadline"] = json!(deadline);
    let fields = value.as_object_mut().unwrap();
    fields.remove("made_in_boot");
    fields.remove("bastion");
}

#[test]
fn one_reap_with_a_wrong_clock_leaves_nothing_behind_for_the_next() {
    let bastion = Bastion::new();
    let runner = bastion.job();
    runner.start();
    change(&bastion, &|value| as_before(value, unix_now() - 7200));
    bastion.account.fault(&Fault::denied("StopTask"));
    let output = runner.command(&["reap", "--json"]).assert_code(1);
    assert_eq!(report(&output)["ended"], json!([]), "{output}");
    for path in files(&bastion.state.join("jobs")) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("\"ending\""), "{text}");
    }
    // The clock is right again: the job has an hour left.
    bastion.account.no_faults();
    change(&bastion, &|value| as_before(value, unix_now() + 3600));
    assert_eq!(reap(&runner)["ended"], json!([]));
    // AWS's clock says that this host's is ahead, so nothing is past yet.
    change(&bastion, &|value| as_before(value, unix_now() - 3600));
    bastion.account.clock(-7200);
    let output = runner.command(&["reap", "--json"]).assert_code(1);
    assert_eq!(report(&output)["ended"], json!([]), "{output}");
    runner.assert_runs_and_ends();
}

#[test]
fn nobody_elses_machine_ends_by_one_clock_alone() {
    let first = Bastion::new();
    let account = &first.account;
    let lost = first.job();
    let task = killed_while_coming_up(&lost);
    std::fs::remove_dir_all(&first.state).unwrap();
    account.make_overdue();
    let second = Bastion::on(account);
    let timer = second.job();
    account.clock(-7200);
    let output = timer.command(&["reap", "--json"]).assert_code(1);
    let told = report(&output);
    assert_eq!(told["ended"], json!([]), "{told:#}");
    let problems = told["problems"].to_string();
    assert!(problems.contains("ahead of AWS's"), "{told:#}");
    assert!(output.contains("NTP"), "{output}");
    // Of an AWS that says no time nothing is ended by it.
    account.clock_says("soon");
    assert_eq!(reap(&timer)["ended"], json!([]));
    // Behind AWS's, but both say that it is past.
    account.clock(600);
    let output = timer.command(&["reap", "--json"]).assert_code(1);
    assert_eq!(ended(&report(&output)), [task.arn], "{output}");
    assert!(output.contains("behind AWS's"), "{output}");
}

#[test]
fn a_job_without_end_has_an_end() {
    let bastion = Bastion::new();
    let builder = Runner::builder().on_account(&bastion.account);
    let runner = builder.job_timeout(u64::MAX).build();
    runner.start();
    let task = bastion.account.tasks().remove(0);
    let deadline: u64 = task.tags["gitlab-aws-driver:deadline"].parse().unwrap();
    let years = (deadline - unix_now()) / (365 * 24 * 3600);
    assert!((1..=10).contains(&years), "{deadline}");
    runner.assert_runs_and_ends();
}

#[test]
fn one_unreadable_job_shields_what_may_be_its_own_and_no_more() {
    let bastion = Bastion::new();
    let (damaged, lost) = (bastion.job(), bastion.job());
    damaged.start();
    let orphan = killed_while_coming_up(&lost);
    std::fs::remove_dir_all(only_other(&bastion.state, &damaged)).unwrap();
    let job = files(&bastion.state.join("jobs"));
    let whole: Vec<_> = job.iter().map(|p| std::fs::read(p).unwrap()).collect();
    for path in &job {
        std::fs::write(path, "{").unwrap();
    }
    // What is no job's directory shields nothing.
    std::fs::write(bastion.state.join("jobs/stray"), "").unwrap();
    let output = damaged.command(&["reap", "--json"]).assert_code(1);
    let told = report(&output);
    assert_eq!(ended(&told), [orphan.arn], "{told:#}");
    let skipped = told["skipped"].to_string();
    assert!(skipped.contains("of which nothing can be read"), "{told:#}");
    std::fs::remove_file(bastion.state.join("jobs/stray")).unwrap();
    for (path, text) in job.iter().zip(&whole) {
        std::fs::write(path, text).unwrap();
    }
    damaged.assert_runs_and_ends();
}

#[test]
fn a_damaged_name_keeps_nothing_else_from_being_ended() {
    let bastion = Bastion::new();
    let runner = bastion.job();
    runner.start();
    change(&bastion, &|value| value["owner"]["started"] = json!(1));
    std::fs::write(bastion.state.join("manager"), "x").unwrap();
    let output = runner.command(&["reap", "--json"]).assert_code(1);
    assert_eq!(ended(&report(&output)).len(), 1, "{output}");
    assert!(output.contains("hexadecimal digits"), "{output}");
    runner.assert_nothing_left();
}

fn on_ec2(account: &Arc<Account>) -> Runner {
    Runner::builder().on_ec2_of(account).build()
}

/// Returns the tags that somebody would give by hand to what looks like one of ours.
fn by_hand(like: &Instance) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::from([
        ("Name".to_owned(), "somebody's".to_owned()),
        (
            "gitlab-aws-driver:deadline".to_owned(),
            (unix_now() - 7200).to_string(),
        ),
    ]);
    for name in ["fleet", "manager"] {
        let key = format!("gitlab-aws-driver:{name}");
        tags.insert(key.clone(), like.tags[&key].clone());
    }
    tags
}

#[test]
fn nothing_of_ec2_ends_by_tags_that_somebody_gave_it() {
    let account = Arc::new(Account::new());
    let (foreign, own) = (on_ec2(&account), on_ec2(&account));
    foreign.start();
    own.start();
    let theirs = account.instances().remove(0);
    let ours = own.instances().remove(0);
    account.make_overdue();
    let overdue = account.instances().remove(0).tags;
    account.retag(&ours.id, &ours.tags);
    // All tags of one of ours, as a copy has them: without what AWS alone sets.
    let mut copied = overdue.clone();
    copied.retain(|key, _| !key.starts_with("aws:"));
    let mut changed = overdue.clone();
    let manager = "gitlab-aws-driver:manager".to_owned();
    changed.insert(manager.clone(), ours.tags[&manager].clone());
    for (tags, why) in [
        (by_hand(&ours), "it has no tag `launch`"),
        (changed, "does not fit its other tags"),
        (copied, "no fleet has launched it"),
    ] {
        account.retag(&theirs.id, &tags);
        let told = reap(&own);
        assert_eq!(told["ended"], json!([]), "{told:#}");
        let skipped = told["skipped"].to_string();
        assert!(skipped.contains(&theirs.id), "{told:#}");
        assert!(skipped.contains(why), "{told:#}");
    }
    foreign
        .run("build_script", "echo lives")
        .assert_stdout("lives\n");
    account.retag(&theirs.id, &overdue);
    let told = reap(&own);
    assert_eq!(ended(&told).len(), 1, "{told:#}");
    // Its own job goes by what that knows itself, and an orphan by its name.
    own.run("build_script", "echo lives")
        .assert_stdout("lives\n");
    std::fs::remove_dir_all(own.state_directory().join("jobs")).unwrap();
    let told = reap(&own);
    assert_eq!(ended(&told).len(), 1, "{told:#}");
    own.assert_nothing_left();
    foreign.cleanup().assert_success();
}

#[test]
fn no_volume_and_no_spot_request_goes_by_tags_that_somebody_gave_it() {
    for kind in ["volume", "spot-request"] {
        let account = Arc::new(Account::new());
        let builder = Runner::builder().on_ec2_of(&account);
        let runner = builder.capacity(&["ec2-spot"]).build();
        runner.start();
        account.leave_behind(kind);
        let instance = account.instances().remove(0);
        runner.cleanup().assert_success();
        let state = account.wait("the end", |state| {
            state.instances.iter().all(|one| !one.is_alive())
        });
        let (id, tags) = match kind {
            "volume" => (&state.volumes[0].id, &state.volumes[0].tags),
            _ => (&state.spot_requests[0].id, &state.spot_requests[0].tags),
        };
        account.age(20 * 60);
        account.retag(id, &by_hand(&instance));
        let told = reap(&runner);
        assert_eq!(told["ended"], json!([]), "{told:#}");
        assert!(told["skipped"].to_string().contains(id), "{told:#}");
        account.retag(id, tags);
        assert_eq!(ended(&reap(&runner)).len(), 1);
        assert!(account.state().ec2_alive(|_| true).is_empty());
    }
}
