//! Launch templates of launches that EC2 refuses for good: they go with the launch that made them, and no others.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::aws::Account;
use crate::lab::aws::Fault;
use crate::lab::aws::Meanwhile;
use crate::lab::aws::allowing;
use crate::lab::runner::Runner;
use crate::lab::stage::Output;

/// What EC2 says of a template or an override that is wrong.
const WRONG: &str = "InvalidParameterCombination";

/// Jobs of one bastion.
struct Bastion {
    account: Arc<Account>,
    directory: tempfile::TempDir,
}

impl Bastion {
    fn new() -> Self {
        Self {
            account: Arc::new(Account::new()),
            directory: lab::temp_dir(),
        }
    }

    fn job(&self, lines: &[&str]) -> Runner {
        let state = self.directory.path().join("state");
        let builder = Runner::builder().on_ec2_of(&self.account);
        let lines = lines.iter();
        let builder = lines.fold(builder, |builder, line| builder.ec2_line(line));
        builder.state_directory(&state).build()
    }

    fn templates(&self) -> usize {
        self.account.state().templates.len()
    }

    /// Has the next launches that name a template be refused for good.
    fn refuse(&self, skip: u32) {
        let wrong = Fault::error("CreateFleet", 400, WRONG, "They do not fit together.");
        self.account.fault(&wrong.skip(skip));
    }
}

/// Prepares a job that is refused, and cleans up.
#[track_caller]
fn refused(runner: &Runner, cause: &str) -> Output {
    runner.config().assert_success();
    let output = runner.prepare().assert_code(2);
    assert!(output.contains(cause), "{cause}: {output}");
    assert_eq!(
        output.stderr_text().matches("ERROR: ").count(),
        1,
        "{output}"
    );
    runner.cleanup().assert_success();
    output
}

#[test]
fn a_template_goes_with_the_launch_that_is_refused_for_good() {
    let bastion = Bastion::new();
    for (lines, cause) in [
        (
            &["image_id = \"ami-00000000000000001\""][..],
            "InvalidAMIID.NotFound",
        ),
        (
            &["image_id = \"ami-00000000000000002\""][..],
            "InvalidAMIID.NotFound",
        ),
        (&["key_name = \"nobody\""][..], "InvalidKeyPair.NotFound"),
        (
            &["instance_profile = \"nobody\""][..],
            "Invalid IAM Instance Profile",
        ),
        (&["instance_types = [\"m7g.large\"]"][..], "architecture"),
        // By a second template EC2 is asked what the parameter holds.
        (
            &["image_id = \"/ci/none\"", "volume_size = \"20GiB\""][..],
            "SsmInvalidParameter: The following aliases are invalid",
        ),
    ] {
        let runner = bastion.job(lines);
        refused(&runner, cause);
        assert_eq!(bastion.templates(), 0, "{lines:?}");
        assert!(!bastion.account.calls("CreateLaunchTemplate").is_empty());
    }
    // Both of them, where the image is known and something else is wrong.
    let account = &bastion.account;
    account.parameter("/ci/image", account.image());
    let lines = [
        "image_id = \"/ci/image\"",
        "volume_size = \"20GiB\"",
        "key_name = \"nobody\"",
    ];
    refused(&bastion.job(&lines), "InvalidKeyPair.NotFound");
    assert_eq!(bastion.templates(), 0);
}

#[test]
fn a_template_that_was_there_before_stays() {
    let bastion = Bastion::new();
    let first = bastion.job(&[]);
    first.start();
    first.cleanup().assert_success();
    assert_eq!(bastion.templates(), 1);
    bastion.refuse(0);
    refused(&bastion.job(&[]), WRONG);
    assert_eq!(bastion.templates(), 1);
    // Nor does want of room say anything against one.
    first.next_attempt();
    first.start();
    first.cleanup().assert_success();
    let calls = bastion.account.calls("CreateLaunchTemplate");
    assert_eq!(calls.len(), 1);
}

#[test]
fn a_template_that_another_intent_names_stays_until_nobody_does() {
    let bastion = Bastion::new();
    let account = &bastion.account;
    // One that is killed while its launch travels: it may have launched by the template.
    let other = bastion.job(&[]);
    let late = Fault::delayed("CreateFleet", Duration::from_secs(2), Meanwhile::Waits);
    account.fault(&late.skip(1));
    other.config().assert_success();
    let prepare = other.spawn_prepare();
    account.wait_calls("CreateFleet", 2);
    prepare.signal(Signal::KILL);
    prepare.wait(PATIENCE);
    bastion.refuse(0);
    refused(&bastion.job(&[]), WRONG);
    assert_eq!(bastion.templates(), 1);
    other.cleanup().assert_success();
    other.assert_nothing_left();
    bastion.refuse(0);
    refused(&bastion.job(&[]), WRONG);
    assert_eq!(bastion.templates(), 0);
}

#[test]
fn of_several_jobs_that_are_refused_together_the_last_takes_the_template_along() {
    let bastion = Bastion::new();
    let account = &bastion.account;
    let jobs: Vec<_> = (0..3)
        .map(|_| bastion.job(&["image_id = \"ami-00000000000000003\""]))
        .collect();
    // All of them are on their way before the first is told.
    account.fault(&Fault::slow("CreateFleet", Duration::from_secs(1)).forever());
    let stages: Vec<_> = jobs
        .iter()
        .map(|job| {
            job.config().assert_success();
            job.spawn_prepare()
        })
        .collect();
    for stage in stages {
        let output = stage.wait(PATIENCE).assert_code(2);
        assert!(output.contains("InvalidAMIID.NotFound"), "{output}");
    }
    assert_eq!(bastion.templates(), 0);
    for job in &jobs {
        job.cleanup().assert_success();
    }
}

#[test]
fn a_template_that_was_taken_back_meanwhile_is_made_again() {
    let bastion = Bastion::new();
    let account = &bastion.account;
    let runner = bastion.job(&[]);
    // The one that was just made is not known at the next call: it was another's, who took it back.
    let code = "InvalidLaunchTemplateName.NotFoundException";
    account.fault(&Fault::error("CreateFleet", 400, code, "No such template.").times(2));
    runner.start();
    assert_eq!(bastion.templates(), 1);
    assert_eq!(account.calls("CreateLaunchTemplate").len(), 2);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_template_that_may_not_be_deleted_is_left_to_reap_without_a_word() {
    let bastion = Bastion::new();
    let account = &bastion.account;
    account.policy(&allowing(&[
        "ec2:CreateFleet",
        "ec2:CreateLaunchTemplate",
        "ec2:CreateTags",
        "ec2:DescribeSubnets",
        "ec2:RunInstances",
    ]));
    let runner = bastion.job(&["key_name = \"nobody\""]);
    let output = refused(&runner, "InvalidKeyPair.NotFound");
    assert!(!output.contains("DeleteLaunchTemplate"), "{output}");
    assert_eq!(bastion.templates(), 1);
}
