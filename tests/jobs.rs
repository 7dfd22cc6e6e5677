//! Whole jobs, of the shape that GitLab Runner gives them: every sub-stage in its order, sources by git
//! over HTTP, cache and artifacts by a helper command, endings of every kind.

use std::path::PathBuf;

use rustix::process::Signal;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::git;
use crate::lab::git::GitServer;
use crate::lab::helper;
use crate::lab::helper::Helper;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Output;

/// A job with all that its scripts call.
struct Job {
    runner: Runner,
    git: GitServer,
    helper: Helper,
    _directory: tempfile::TempDir,
}

impl Job {
    fn new(builder: RunnerBuilder) -> Self {
        let directory = lab::temp_dir();
        let helper = Helper::new(directory.path());
        let runner = builder.path_first(&helper.bin()).build();
        Self {
            runner,
            git: GitServer::start(),
            helper,
            _directory: directory,
        }
    }

    fn project(&self) -> PathBuf {
        self.runner.root().join("builds/group/project")
    }

    fn cache(&self) -> PathBuf {
        self.runner.root().join("cache/group/project/key/cache.zip")
    }

    /// Runs lines as a sub-stage, wrapped as the Runner wraps them: variables, a sub-shell with an
    /// `eval` of one quoted string, nothing on standard input.
    fn run(&self, stage: &str, lines: &str) -> Output {
        self.runner.run(stage, self.script(lines))
    }

    fn script(&self, lines: &str) -> String {
        let project = self.project();
        let body = format!(
            "export CI_JOB_ID={job}\nexport CI_PROJECT_DIR={dir}\nmkdir -p {dir}\ncd {dir}\n{lines}\n",
            job = self.runner.job(),
            dir = project.display(),
        );
        let quoted = body
            .replace('\\', r"\\")
            .replace('\'', r"\'")
            .replace('\n', r"\n");
        format!(
            "#!/usr/bin/env bash\ntrap 'exit 1' TERM\nset -o errexit -o pipefail\n\
             (trap 'exit 1' TERM; eval $'{quoted}') < /dev/null\nexit 0\n"
        )
    }

    fn get_sources(&self) -> Output {
        let lines = format!(
            "git init -q .\ngit remote add origin {url} 2>/dev/null || git remote set-url origin {url}\n\
             git fetch -q origin +refs/heads/main:refs/remotes/origin/main\n\
             git checkout -f -q {sha}\ngit clean -ffdxq\necho checked out",
            url = self.git.url(),
            sha = self.git.sha(),
        );
        self.run("get_sources", &lines)
    }

    fn restore_cache(&self) -> Output {
        let file = self.cache();
        let command = format!("gitlab-runner cache-extractor --file {}", file.display());
        self.run("restore_cache", &format!("{command} || echo no cache"))
    }

    fn archive_cache(&self, stage: &str) -> Output {
        let file = self.cache();
        let lines = format!(
            "gitlab-runner cache-archiver --file {} --path vendor/",
            file.display()
        );
        self.run(stage, &lines)
    }

    fn upload(&self, stage: &str) -> Output {
        let job = self.runner.job();
        let lines = format!("gitlab-runner artifacts-uploader --id {job} --path out/");
        self.run(stage, &lines)
    }

    fn cleanup_file_variables(&self) -> Output {
        self.run("cleanup_file_variables", "rm -rf \"$CI_PROJECT_DIR.tmp\"")
    }

    fn end(&self) {
        self.cleanup_file_variables().assert_stdout("");
        self.runner.cleanup().assert_success();
        self.runner.assert_nothing_left();
    }
}

fn a_job_succeeds(builder: RunnerBuilder) {
    let job = Job::new(builder);
    let runner = &job.runner;
    let answer = runner.config().assert_success();
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    let builds = runner.root().join("builds").display().to_string();
    assert_eq!(answer["builds_dir"], builds.as_str(), "{answer}");
    runner.prepare().assert_success();
    job.run("prepare_script", "echo on $(hostname)")
        .assert_success();
    job.get_sources().assert_stdout("checked out\n");
    job.restore_cache()
        .assert_success()
        .assert_contains("no cache\n");
    let expected = format!(
        "{}\n{}result of job {}\n",
        job.project().display(),
        git::BUILD_OUTPUT,
        runner.job()
    );
    job.run(
        "build_script",
        "pwd\nsh build.sh\necho stamp > vendor/stamp\ncat out/result.txt",
    )
    .assert_success()
    .assert_stdout(expected);
    assert_eq!(runner.exit_file(), None);
    runner.set_status("success");
    job.run("after_script", "echo after")
        .assert_stdout("after\n");
    job.archive_cache("archive_cache").assert_success();
    job.upload("upload_artifacts_on_success").assert_success();
    assert_eq!(helper::packed(&job.cache()), ["vendor/", "vendor/stamp"]);
    let artifacts = helper::packed(&job.helper.artifacts(runner.job()));
    assert_eq!(artifacts, ["out/", "out/result.txt"]);
    job.end();
}

#[test]
fn a_job_succeeds_on_the_drivers_own_machine() {
    a_job_succeeds(Runner::builder());
}

#[test]
fn a_job_succeeds_on_openssh() {
    for login in [Login::Bash, Login::Busybox] {
        let machine = ServerBuilder::new(Kind::OpenSsh, login);
        a_job_succeeds(Runner::builder().machine(machine));
    }
}

#[test]
fn a_job_succeeds_on_dropbear() {
    for login in [Login::Bash, Login::Dash] {
        let machine = ServerBuilder::new(Kind::Dropbear, login).noise("good morning\n");
        a_job_succeeds(Runner::builder().machine(machine).through_proxy());
    }
}

#[test]
fn a_job_fails_with_its_own_code() {
    let job = Job::new(Runner::builder());
    let runner = &job.runner;
    // An earlier job has left a clone, a cache and artifacts.
    job.git.clone_to(&job.project());
    helper::pack(&job.cache(), "vendor/stamp", "an old stamp\n");
    helper::pack(
        &job.helper.artifacts(1),
        "out/result.txt",
        "an old result\n",
    );
    runner.start();
    job.get_sources().assert_success();
    job.restore_cache().assert_success();
    job.run(
        "download_artifacts",
        "gitlab-runner artifacts-downloader --id 1",
    )
    .assert_success();
    job.run(
        "build_script",
        "cat out/result.txt vendor/stamp\nexit 42\necho never",
    )
    .assert_code(1)
    .assert_stdout("an old result\nan old stamp\n");
    assert_eq!(runner.exit_file().as_deref(), Some(&b"42"[..]));
    runner.set_status("failed");
    job.run("after_script", "echo after")
        .assert_stdout("after\n");
    // What the script before left is not this one's.
    assert_eq!(runner.exit_file(), None);
    job.archive_cache("archive_cache_on_failure")
        .assert_success();
    job.upload("upload_artifacts_on_failure").assert_success();
    job.end();
}

const TICKS: &str = "for i in $(seq 600); do echo tick $i; sleep 1; done";

#[test]
fn a_cancelled_job_goes_on_with_its_after_script() {
    let job = Job::new(Runner::builder());
    let runner = &job.runner;
    runner.start();
    job.get_sources().assert_success();
    let build = runner.spawn_run("build_script", job.script(TICKS));
    build.wait_output(b"tick 2", PATIENCE);
    build.signal(Signal::TERM);
    build.wait(PATIENCE).assert_code(1);
    runner.set_status("canceled");
    job.run("after_script", "cat README.md; echo after")
        .assert_success()
        .assert_contains("after\n");
    job.upload("upload_artifacts_on_failure").assert_success();
    job.end();
}

#[test]
fn a_job_that_ran_into_its_time_limit_is_cleaned_up_at_once() {
    let job = Job::new(Runner::builder());
    let runner = &job.runner;
    runner.start();
    let lines = format!("trap 'echo got it; exit 9' TERM\n{TICKS}");
    let build = runner.spawn_run("build_script", job.script(&lines));
    build.wait_output(b"tick 2", PATIENCE);
    build.signal(Signal::TERM);
    build.wait(PATIENCE).assert_code(1);
    runner.set_status("failed");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn sources_that_come_at_the_third_try_are_tried_three_times() {
    let job = Job::new(Runner::builder());
    job.runner.start();
    job.git.fail_next(2);
    for requests in [1, 2] {
        job.get_sources().assert_code(1);
        assert_eq!(job.runner.exit_file().as_deref(), Some(&b"128"[..]));
        assert_eq!(job.git.requests(), requests);
        job.run("clear_worktree", "git clean -ffdxq")
            .assert_success();
    }
    job.get_sources().assert_stdout("checked out\n");
    assert!(job.git.requests() > 2);
    job.end();
}

#[test]
fn a_machine_that_comes_at_the_third_try_is_tried_three_times() {
    let job = Job::new(Runner::builder().connect_timeout("3s"));
    let runner = &job.runner;
    let good = runner.default_config();
    for entrypoint in ["/nonexistent/entrypoint", "/bin/false"] {
        let port = lab::port::Port::reserve();
        let ssh = format!("[ssh]\nport = {}", port.number());
        let bad = good.replace("[ssh]", &ssh);
        runner.write_config(&format!("{bad}\n[local]\ncommand = [\"{entrypoint}\"]\n"));
        runner.config().assert_success();
        runner.prepare().assert_code(2);
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
        runner.next_attempt();
    }
    runner.write_config(&good);
    runner.start();
    job.run("build_script", "true").assert_stdout("");
    job.end();
}
