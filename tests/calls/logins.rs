//! Tasks and instances have logins of their own: an image's server listens at 2222, a stock image's at 22.

use std::sync::Arc;

use serde_json::Value;

use crate::lab::aws::Account;
use crate::lab::aws::Fault;
use crate::lab::aws::Instance;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;

/// A job whose file holds another port and login at the top; `fargate` and `ec2` are lines of these tables.
fn job(account: &Arc<Account>, fargate: &[&str], ec2: &[&str]) -> Runner {
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Bash).user("admin");
    let runner = Runner::builder()
        .machine(machine)
        .on_account(account)
        .capacity(&["fargate", "ec2"])
        .build();
    let right = runner.server().port().to_string();
    let lines = |lines: &[&str]| lines.join("\n").replace("RIGHT", &right) + "\n";
    let text = runner
        .default_config()
        .replace(&format!("port = {right}\n"), "port = 1\n")
        .replace("username = \"admin\"", "username = \"nobody-here\"")
        .replace("[fargate]\n", &format!("[fargate]\n{}", lines(fargate)))
        .replace("[ec2]\n", &format!("[ec2]\n{}", lines(ec2)));
    runner.write_config(&text);
    runner
}

const RIGHT: &[&str] = &["port = RIGHT", "username = \"admin\""];
const WRONG: &[&str] = &["port = 2", "username = \"somebody\""];

#[test]
fn each_table_says_how_its_machines_are_logged_in_to() {
    let account = Arc::new(Account::new());
    let tasks = job(&account, RIGHT, WRONG);
    tasks.start();
    assert_eq!(account.alive().len(), 1);
    tasks.run("build_script", "id -un").assert_stdout("admin\n");
    tasks.cleanup().assert_success();
    tasks.assert_nothing_left();

    // One and the same job climbs from tasks to instances, and takes the other login.
    let instances = job(&account, WRONG, RIGHT);
    account.fault(&Fault::capacity());
    instances.start();
    let mine: Vec<Instance> = instances.instances();
    assert_eq!(mine.len(), 1);
    // The instance was told to let that user in.
    let machine = instances.run("build_script", "id -un");
    machine.assert_stdout("admin\n");
    instances.cleanup().assert_success();
    instances.assert_nothing_left();
}

#[test]
fn a_profile_may_change_them_and_check_tells_them() {
    let account = Arc::new(Account::new());
    let runner = job(&account, WRONG, WRONG);
    let text = std::fs::read_to_string(runner.config_file()).unwrap();
    let right = runner.server().port();
    let profile = format!(
        "[[profile]]\nname = \"lab\"\nmatch = {{ job_name = \"lab\" }}\n[profile.fargate]\nport = {right}\nusername = \"admin\"\n\
         [profile.ssh]\nusername = \"ubuntu\"\n"
    );
    runner.write_config(&format!("{text}\n{profile}"));
    runner.start();
    runner.assert_runs_and_ends();

    let told = runner.command(&["check"]).assert_success();
    let both = "tasks: somebody on port 2; instances: somebody on port 2";
    assert!(!told.contains(both), "{told}");
    // The line of each table, and that for both.
    assert_eq!(
        told.stdout_text().matches("somebody on port 2").count(),
        3,
        "{told}"
    );
    let response = runner.attempt().join("response.json");
    let job = runner.command(&["check", "--json", "--job", response.to_str().unwrap()]);
    let job: Value = serde_json::from_slice(&job.assert_success().stdout).unwrap();
    assert_eq!(job["gets"]["task"]["login"]["username"], "admin", "{job:#}");
    assert_eq!(job["gets"]["task"]["login"]["port"], right, "{job:#}");
    // The table stands above [ssh], of the profile too.
    assert_eq!(job["gets"]["instance"]["login"]["username"], "somebody");
    let job = runner.command(&["check", "--job", response.to_str().unwrap()]);
    let told = format!("tasks: admin on port {right}; instances: somebody on port 2");
    assert!(job.contains(&told), "{job}");
}

#[test]
fn a_go_driver_file_that_has_them_in_the_wrong_table_stays_one() {
    let runner = Runner::builder().on_fargate().build();
    let file = runner.go_driver_file();
    let file = file.replace("[Fargate]\n", "[Fargate]\n  Port = 2\n  Username = \"x\"\n");
    runner.write_config(&file);
    let told = runner.command(&["check", "--json"]).assert_success();
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["style"], "go-driver", "{told:#}");
    let warnings = told["warnings"].to_string();
    for (line, key) in [(2, "Port"), (3, "Username")] {
        let warning = format!(
            ":{line}: Fargate.{key} is ignored, as by the Go driver; did you mean {key} under [SSH]?"
        );
        assert!(warnings.contains(&warning), "{warnings}");
    }
    runner.start();
    runner.assert_runs_and_ends();
}
