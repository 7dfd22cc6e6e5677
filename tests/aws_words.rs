//! What AWS says when a job gets no machine, said to the real driver by the lab's AWS: what it does about it, how often it asks, how
//! long it takes, and the last two lines of the job log.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;

use crate::fargate_capacity::assert_once;
use crate::fargate_capacity::lines;
use crate::lab::aws::Account;
use crate::lab::aws::CONTAINER;
use crate::lab::aws::Fate;
use crate::lab::aws::Fault;
use crate::lab::aws::InstanceFate;
use crate::lab::aws::Shortage;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::stage::Output;

/// All of it is over sooner, the waits of one second included, also where the machine is busy.
const SOON: Duration = Duration::from_secs(40);
/// So many jobs at once.
const WORKERS: usize = 6;

/// Where in AWS's life words come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Call,
    Failures,
    Stopped,
    FleetCall,
    FleetErrors,
    Ended,
}

/// What is right about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// All rungs are tried, and no further try of the job is made.
    NextRung,
    /// Nothing else is tried, now or in the next try of the job.
    Settings,
    /// The next try of the job asks again.
    Again,
}

struct Case {
    place: Place,
    code: &'static str,
    words: &'static str,
    class: Class,
    /// What the last line has to name, and what it must not (`!`).
    remedy: &'static [&'static str],
}

const fn case(
    place: Place,
    code: &'static str,
    words: &'static str,
    class: Class,
    remedy: &'static [&'static str],
) -> Case {
    Case {
        place,
        code,
        words,
        class,
        remedy,
    }
}

use Class::Again;
use Class::NextRung;
use Class::Settings;
use Place::Call;
use Place::Ended;
use Place::Failures;
use Place::FleetCall;
use Place::FleetErrors;
use Place::Stopped;

const START: &str = "TaskFailedToStart";

#[rustfmt::skip]
const CASES: &[Case] = &[
    // RunTask.
    case(Call, "ClientException", "Role is not valid", Settings, &["executionRoleArn"]),
    case(Call, "ClientException", "No Fargate configuration exists for given values: 1024 CPU, 1024 memory. See the Amazon ECS documentation for the valid values.", Settings, &["memory"]),
    case(Call, "InvalidParameterException", "The selected task definition is not compatible with the selected compute strategy.", Settings, &["requiresCompatibilities"]),
    case(Call, "AccessDeniedException", "User: arn:aws:sts::111122223333:assumed-role/b/i is not authorized to perform: ecs:RunTask on resource: x because no VPC endpoint policy allows the ecs:RunTask action", Settings, &["VPC endpoint", "!Allow the driver's role"]),
    case(Call, "ClientException", "You've reached the limit on the number of vCPUs you can run concurrently", NextRung, &["Service Quotas", "capacity_wait"]),
    case(Failures, "", "RESOURCE:GPU", NextRung, &["Auto Scaling", "capacity_wait"]),
    case(Failures, "", "Rate exceeded", Again, &["retry", "later"]),
    // Tasks that were taken.
    case(Stopped, START, "Timeout waiting for EphemeralStorage provisioning to complete.", Again, &["retry"]),
    case(Stopped, START, "Unexpected EC2 error while attempting to Create Network Interface with public IP assignment enabled in subnet 'subnet-0a1b2c3d': InsufficientFreeAddressesInSubnet", NextRung, &["address", "`subnets`"]),
    case(Stopped, START, "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref r.example/team/forbidden-words:1: unexpected status from HEAD request to https://r.example/v2/team/forbidden-words/manifests/1: 503 Service Unavailable", Again, &["retry", "!repositoryCredentials"]),
    case(Stopped, START, "CannotPullContainerError: Error response from daemon: Get https://r.example/v2/: x509: certificate signed by unknown authority", Settings, &["certificate"]),
    case(Stopped, START, "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve secret from asm: service call has been retried 5 time(s): failed to fetch secret arn:aws:secretsmanager:us-east-1:111122223333:secret:ci/x from secrets manager: ThrottlingException: Rate exceeded", Again, &["retry", "!secrets"]),
    case(Stopped, START, "ResourceInitializationError: failed to download env files: service call has been retried 1 time(s): operation error S3: HeadObject, https response error StatusCode: 403, api error Forbidden: Forbidden.", Settings, &["environmentFiles", "s3:GetObject"]),
    case(Stopped, START, "CannotStartContainerError: ResourceInitializationError: failed to create new container runtime task: OCI runtime create failed: runc create failed: unable to start container process: exec: \"/decrypt.sh\": permission denied: unknown", Settings, &["entryPoint", "!NAT"]),
    case(Stopped, START, "CannotPullContainerError: ref pull has been retried 1 time(s): failed to copy: write tcp 10.0.0.1:4567->192.0.2.1:443: write: broken pipe", Again, &["retry", "!ephemeralStorage"]),
    case(Stopped, START, "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: failed to create Cloudwatch log group: OperationAbortedException: A conflicting operation is currently in progress against this resource. Please try again. : exit status 1", Again, &["retry", "!logConfiguration"]),
    case(Failures, "", "TaskDefinition is inactive", Settings, &["task_definition"]),
    // Fleets.
    case(FleetErrors, "BrandNew", "None just now. (Service: AmazonEC2; Status Code: 500; Error Code: InsufficientInstanceCapacity; Request ID: 1)", NextRung, &["instance_types", "capacity_wait"]),
    case(FleetErrors, "InvalidFleetConfiguration", "Your requested instance type ( m7i.large) is not supported in your requested Availability Zone (eu-west-1a).", NextRung, &["instance_types", "!Two of", "!capacity_wait"]),
    case(FleetErrors, "VcpuLimitExceeded", "You have requested more vCPU capacity than your current vCPU limit of 32 allows for the instance bucket that the specified instance type belongs to.", NextRung, &["quota", "capacity_wait"]),
    case(FleetErrors, "SpotMaxPriceTooLow", "Your Spot request price of 0.001 is lower than the minimum required Spot request fulfillment price of 0.0312.", NextRung, &["max_price", "capacity_wait"]),
    case(FleetErrors, "OptInRequired", "In order to use this AWS Marketplace product you need to accept terms and subscribe. To do so please visit https://aws.amazon.com/marketplace/pp?sku=x", Settings, &["Marketplace"]),
    case(FleetErrors, "Client.InvalidKMSKey.InvalidState", "The KMS key provided is in an incorrect state. Launching EC2 instance failed.", Settings, &["KMS"]),
    case(FleetErrors, "InternalError", "An internal error has occurred", Again, &["retry"]),
    case(FleetCall, "InvalidSubnetID.NotFound", "The subnet ID 'subnet-0a1b2c3d' does not exist", Settings, &["subnets"]),
    case(FleetCall, "MaxSpotFleetRequestCountExceeded", "You've reached your quota for maximum Spot Fleet Requests for this account.", NextRung, &["quota"]),
    case(FleetCall, "SsmInvalidParameter", "Unsupported data type. The following parameter data types are supported: aws:ec2:image", Settings, &["aws:ec2:image", "image_id"]),
    case(FleetCall, "UnauthorizedOperation", "You are not authorized to perform this operation. User: arn:aws:sts::1:assumed-role/b/i is not authorized to perform: ec2:CreateFleet on resource: * because no session policy allows the ec2:CreateFleet action", Settings, &["session policy", "ec2:CreateFleet"]),
    // Instances that ended on their way up.
    case(Ended, "Server.InternalError", "Client.InternalError: Client error on launch", Settings, &["KMS"]),
    case(Ended, "Client.InvalidParameterCombination", "Could not create volume with size 50GiB and iops 32000 from snapshot 'snap-0a1b2c3d'", Settings, &["volume_type"]),
    case(Ended, "Server.InternalError", "Internal error on launch", Again, &["retry"]),
];

impl Case {
    fn is_of_instances(&self) -> bool {
        matches!(self.place, FleetCall | FleetErrors | Ended)
    }

    /// Makes a job that is told this whatever it asks for.
    fn job(&self) -> Runner {
        let job = Runner::builder();
        let job = match self.is_of_instances() {
            true => job.on_ec2().capacity(&["ec2-spot", "ec2"]),
            false => job.on_fargate().capacity(&["fargate-spot", "fargate"]),
        };
        let runner = job.config_line("capacity_wait = \"1s\"").build();
        let account = runner.account();
        let Self { code, words, .. } = *self;
        match self.place {
            Call => account.fault(&Fault::error("RunTask", 400, code, words).forever()),
            Failures => account.fault(&Fault::failure(words).forever()),
            Stopped => account.fate(&Fate::stopped("PENDING", code, words).forever()),
            // The first call is the one that finds out that the template is missing.
            FleetCall => {
                let fault = Fault::error("CreateFleet", 400, code, words);
                account.fault(&fault.skip(1).forever());
            }
            FleetErrors => account.shortage(&Shortage::new(code, words)),
            Ended => account.instance_fate(&InstanceFate::fails(code, words).times(99)),
        }
        runner
    }

    /// Returns how often a machine was asked for.
    fn asked(&self, account: &Account) -> usize {
        let action = match self.is_of_instances() {
            true => "CreateFleet",
            false => "RunTask",
        };
        let calls = account.calls(action).into_iter();
        let of_template = |code: &str| code.contains("LaunchTemplate");
        calls
            .filter(|call| !call.code.as_deref().is_some_and(of_template))
            .count()
    }

    fn check(&self) {
        let runner = self.job();
        let account = runner.account();
        runner.config().assert_success();
        let output = runner.prepare().assert_code(2);
        let asked = self.asked(account);
        let said = format!("{:?} {}: {}\n{output}", self.place, self.code, self.words);
        assert!(output.duration < SOON, "{said}");
        let told = lines(&output);
        let [error, remedy] = &told[told.len() - 2..] else {
            panic!("{said}");
        };
        assert!(error.starts_with("ERROR: "), "{said}");
        let sentence = self.words.trim_end_matches('.');
        assert!(
            error.contains(sentence) || error.ends_with('…'),
            "AWS's own sentence should be told: {said}"
        );
        for word in self.remedy {
            let (word, wanted) = match word.strip_prefix('!') {
                Some(word) => (word, false),
                None => (*word, true),
            };
            // One in capitals is a name.
            let is_told = match word == word.to_uppercase() {
                true => remedy.contains(word),
                false => remedy.to_lowercase().contains(&word.to_lowercase()),
            };
            assert_eq!(is_told, wanted, "{word}: {said}");
        }
        assert!(!remedy.contains("does not know"), "{said}");
        match self.class {
            NextRung => assert!(asked >= 2, "{asked} {said}"),
            Settings => assert_eq!(asked, 1, "{said}"),
            Again => assert!(asked >= 1, "{said}"),
        }
        runner.cleanup().assert_success();
        runner.next_attempt();
        let again = runner.prepare().assert_code(2);
        let more = self.asked(account) - asked;
        match self.class {
            NextRung | Settings => {
                assert_eq!(more, 0, "{said}");
                let last = lines(&again);
                assert_eq!(last, [error.clone(), remedy.clone()], "{said}");
            }
            Again => assert!(more >= 1, "{said}"),
        }
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

#[test]
fn each_answer_of_aws_is_met_as_is_right_for_it() {
    let next = Mutex::new(CASES.iter());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let case = next.lock().expect("no case panics with the lock").next();
                    match case {
                        Some(case) => case.check(),
                        None => break,
                    }
                }
            });
        }
    });
}

/// Checks that a job with ten minutes to wait fails at once.
#[track_caller]
fn fails_at_once(job: RunnerBuilder, arrange: impl Fn(&Account)) -> Output {
    let runner = job.config_line("capacity_wait = \"10m\"").build();
    arrange(runner.account());
    runner.config().assert_success();
    let output = runner.prepare().assert_code(2);
    assert!(output.duration < SOON, "{output}");
    let told = lines(&output);
    let [error, remedy] = &told[told.len() - 2..] else {
        panic!("{output}");
    };
    assert!(
        error.starts_with("ERROR: no rung ever has room for the job's machine"),
        "{output}"
    );
    assert!(remedy.contains("quota"), "{output}");
    assert!(!remedy.contains("capacity_wait"), "{output}");
    assert!(!output.contains("trying again in"), "{output}");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    output
}

#[test]
fn a_quota_that_this_request_exceeds_by_itself_is_not_waited_for() {
    let limit = |limit: u32| {
        let words = format!(
            "You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance bucket that the \
             specified instance type belongs to."
        );
        move |account: &Account| account.shortage(&Shortage::new("VcpuLimitExceeded", &words))
    };
    let on_ec2 = || Runner::builder().on_ec2().capacity(&["ec2-spot", "ec2"]);
    let output = fails_at_once(on_ec2(), limit(0));
    let told = lines(&output);
    assert_eq!(
        told[told.len() - 2].matches("limit of 0 allows").count(),
        2,
        "{output}"
    );
    let large = on_ec2().ec2_line("instance_types = [\"m7i.16xlarge\"]");
    fails_at_once(large, limit(32));
    let words = "The requested CPU configuration is above your limit";
    let on_fargate = Runner::builder().on_fargate();
    fails_at_once(on_fargate, |account| {
        let fault = Fault::error("RunTask", 400, "ClientException", words);
        account.fault(&fault.forever());
    });
}

#[test]
fn what_helps_is_told_for_each_rung() {
    let runner = Runner::builder()
        .on_ec2()
        .capacity(&["fargate", "ec2-spot", "ec2"])
        .config_line("capacity_wait = \"1s\"")
        .build();
    let account = runner.account();
    let words = "You've reached the limit on the number of vCPUs you can run concurrently";
    let fault = Fault::error("RunTask", 400, "ClientException", words);
    account.fault(&fault.forever());
    let low = "Your Spot request price of 0.001 is lower than the minimum required Spot request fulfillment price of 0.0312.";
    account.shortage(&Shortage::new("SpotMaxPriceTooLow", low).on_market("spot"));
    account.shortage(&Shortage::capacity().on_market("on-demand"));
    runner.config().assert_success();
    let output = runner.prepare().assert_code(2);
    let told = lines(&output);
    let [error, remedy] = &told[told.len() - 2..] else {
        panic!("{output}");
    };
    assert!(
        error.contains(words) && error.contains(low.trim_end_matches('.')),
        "{output}"
    );
    // Of plain want of room the code is enough.
    assert!(!error.contains("We currently do not have"), "{output}");
    for (rung, helps) in [
        ("fargate: ", "Ask AWS for a higher Fargate vCPU quota"),
        ("ec2-spot: ", "`max_price`"),
        ("ec2: ", "Name more `instance_types`"),
    ] {
        assert!(remedy.contains(&format!("{rung}{helps}")), "{output}");
    }
    assert!(
        remedy.ends_with("Otherwise retry the job later, or raise `capacity_wait`."),
        "{output}"
    );
    runner.cleanup().assert_success();
}

#[test]
fn a_size_that_only_aws_knows_is_asked_for_with_a_warning_and_refused_in_its_words() {
    let job = |cpu: &str, memory: &str| {
        let runner = Runner::builder()
            .on_fargate()
            .config_tables(
                "[limits]\nmax_cpu = \"64\"\nmax_memory = \"512GiB\"\ntask_definitions = [\"**\"]\n",
            )
            .variable("AWS_DRIVER_CPU", cpu)
            .variable("AWS_DRIVER_MEMORY", memory)
            .build();
        runner.account().register(&json!({
            "family": runner.family(),
            "containerDefinitions": [{ "name": CONTAINER, "image": "lab", "essential": true }],
        }));
        runner.config().assert_success();
        runner
    };
    let asked = |runner: &Runner| {
        let call = runner.account().calls("RunTask").pop().expect("a call");
        let overrides = &call.parameters["overrides"];
        (overrides["cpu"].clone(), overrides["memory"].clone())
    };
    let known = job("32", "61GiB");
    let output = known.prepare().assert_success();
    assert!(!output.contains("WARNING: the job asks"), "{output}");
    assert_eq!(asked(&known), (json!("32768"), json!("122880")));
    known.cleanup().assert_success();

    let unknown = job("64", "300GiB");
    let words = "No Fargate configuration exists for given values: 65536 CPU, 307200 memory.";
    let fault = Fault::error("RunTask", 400, "ClientException", words);
    unknown.account().fault(&fault);
    let output = unknown.prepare().assert_code(2);
    let warning = assert_once(&output, "WARNING: the job asks for \"64\"");
    assert!(
        warning.contains("more than Fargate is known to have"),
        "{warning}"
    );
    assert_eq!(asked(&unknown), (json!("65536"), json!("307200")));
    let told = lines(&output);
    assert!(
        told[told.len() - 2].contains("No Fargate configuration exists"),
        "{output}"
    );
    assert!(
        told[told.len() - 1].contains("AWS_DRIVER_MEMORY"),
        "{output}"
    );
    unknown.cleanup().assert_success();
}
