//! What docker's own words mean for a job: whether another try may fare better, and what helps.

use super::commands;
use crate::error::{Error, Kind, one_line};

/// What is repeated of docker's words.
const SHOWN: usize = 600;

/// A failure, and whether another try of the job's `prepare` can fare better.
#[derive(Debug)]
pub struct Trouble {
    /// The failure.
    pub error: Error,
    /// No further try can.
    pub hopeless: bool,
}

impl Trouble {
    fn new(hopeless: bool, message: String, hint: &str) -> Self {
        Self {
            error: Error::new(Kind::Launch, message).hint(hint),
            hopeless,
        }
    }
}

/// Says why docker cannot be used at all; `None` where its words are about something else.
#[must_use]
pub fn docker(stderr: &str) -> Option<Trouble> {
    let says = |words: &str| stderr.contains(words);
    let told = |what: &str| format!("docker cannot be used on the instance: {what}");
    if says("docker: not found") || says("docker: command not found") {
        let hint = "Jobs with [ec2] container = true need an image (image_id) with docker, git and gitlab-runner.";
        return Some(Trouble::new(true, told("it has no `docker` command"), hint));
    }
    if says("ermission denied") && says("docker") && says("sock") {
        let hint = "Add the login (`username` under [ec2] or [ssh]) to the group docker in the instance's image, or log in as root.";
        let what = "its login may not use docker's socket";
        return Some(Trouble::new(true, told(what), hint));
    }
    if says("annot connect to the Docker daemon") || says("docker daemon running") {
        let hint = "Have docker start at boot in the instance's image (systemctl enable docker), and see its journal.";
        return Some(Trouble::new(false, told("its daemon does not run"), hint));
    }
    None
}

/// Says why an image cannot be had, in the registry's own words.
#[must_use]
pub fn pull(name: &str, stderr: &str) -> Trouble {
    if let Some(trouble) = docker(stderr) {
        return trouble;
    }
    let message = format!("the image {name} cannot be pulled: {}", shown(stderr));
    let lower = stderr.to_ascii_lowercase();
    let says = |all: &[&str]| all.iter().any(|words| lower.contains(words));
    if says(&["toomanyrequests", "too many requests", "rate limit"]) {
        let hint = "The registry limits how often it may be asked: give the job credentials for it (DOCKER_AUTH_CONFIG), \
                    or use a mirror or a pull-through cache.";
        return Trouble::new(false, message, hint);
    }
    if says(&[
        "no matching manifest",
        "does not match the specified platform",
        "no image found in manifest list",
    ]) {
        let hint = "The image is not made for this architecture: use one that is, or other instance_types.";
        return Trouble::new(true, message, hint);
    }
    let denied = [
        "denied",
        "unauthorized",
        "authentication required",
        "no basic auth",
        "invalid username/password",
        "unable to locate credentials",
        "incorrect username or password",
    ];
    if says(&denied) {
        let hint = if commands::is_ecr(name) {
            "Give the role that logs in to ECR (`ecr_login` under [ec2]: the instance's profile unless it says driver) \
             ecr:GetAuthorizationToken, ecr:BatchGetImage and ecr:GetDownloadUrlForLayer; by its own profile the instance \
             also needs docker-credential-ecr-login or the aws command in its image."
        } else {
            "Does the image exist, and may the job read it? Credentials come from DOCKER_AUTH_CONFIG, or from GitLab for \
             its own registry."
        };
        return Trouble::new(true, message, hint);
    }
    if says(&[
        "not found",
        "manifest unknown",
        "name unknown",
        "no such image",
        "image not known",
        "invalid reference",
        "no such manifest",
    ]) {
        return Trouble::new(true, message, "Check the image's name and tag.");
    }
    let hint = "Retry the job; if it happens again, check that the instance reaches the registry.";
    Trouble::new(false, message, hint)
}

/// Says why a container did not start.
#[must_use]
pub fn start(what: &str, name: &str, stderr: &str) -> Trouble {
    if let Some(trouble) = docker(stderr) {
        return trouble;
    }
    let lower = stderr.to_ascii_lowercase();
    let is_missing =
        lower.contains("executable file not found") || lower.contains("no such file or directory");
    if is_missing && lower.contains("\"sh\"") {
        return no_shell(name);
    }
    let message = format!("the {what} {name} does not start: {}", shown(stderr));
    match is_missing {
        true => Trouble::new(
            true,
            message,
            "Correct its entrypoint or command in the job.",
        ),
        false => Trouble::new(
            false,
            message,
            "See docker's words; retry the job if they are no fault of it.",
        ),
    }
}

/// Says that the job's own container ended instead of waiting for scripts. What it said is its code and last lines.
#[must_use]
pub fn ended(name: &str, said: &str) -> Trouble {
    let (code, log) = said.split_once('\n').unwrap_or((said, ""));
    if code.trim() == "127" && log.contains("sh") && log.contains("not found") {
        return no_shell(name);
    }
    let log = match log.trim() {
        "" => "it said nothing".to_owned(),
        log => shown(log),
    };
    let message = format!(
        "the container of {name} ended at once, with code {}: {log}",
        one_line(code)
    );
    let hint = "The image's entrypoint has to run the command it is given; `entrypoint: [\"\"]` under `image:` does \
                without it.";
    Trouble::new(true, message, hint)
}

/// Says that the entrypoint never came to the command it was given.
#[must_use]
pub fn stuck(name: &str, seconds: u64) -> Trouble {
    let message = format!(
        "the entrypoint of {name} did not start the command it was given within {seconds} s"
    );
    let hint = "The image's entrypoint has to run the command it is given; `entrypoint: [\"\"]` under `image:` does \
                without it.";
    Trouble::new(true, message, hint)
}

fn no_shell(name: &str) -> Trouble {
    let message = format!("the image {name} has no `sh`, so no script can run in it");
    let hint = "Use an image with a shell and coreutils or busybox; many have a variant with them (tags with debug).";
    Trouble::new(true, message, hint)
}

/// Says why a command could not be run in the job's container while the job was running; `None` where that is not
/// what the words are about.
#[must_use]
pub fn exec(stderr: &str) -> Option<Error> {
    let lower = stderr.to_ascii_lowercase();
    let is_about = |words: &[&str]| words.iter().any(|words| lower.contains(words));
    if is_about(&[
        "is not running",
        "no such container",
        "container state improper",
        "is paused",
    ]) {
        return Some(
            Error::new(
                Kind::MachineGone,
                format!("the job's container is gone: {}", shown(stderr)),
            )
            .hint("Something ended it (out of memory, a script that stops containers?); retry the job."),
        );
    }
    docker(stderr).map(|trouble| trouble.error)
}

fn shown(text: &str) -> String {
    let line = one_line(text);
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_itself_may_be_what_is_wrong() {
        for (said, words, hopeless) in [
            ("docker: not found", "no `docker` command", true),
            ("sh: 1: docker: not found", "no `docker` command", true),
            (
                "bash: line 1: docker: command not found",
                "no `docker` command",
                true,
            ),
            (
                "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
                "does not run",
                false,
            ),
            (
                "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
                "may not use",
                true,
            ),
        ] {
            let trouble = docker(said).unwrap();
            let text = trouble.error.to_string();
            assert!(text.contains(words), "{text}");
            assert_eq!(trouble.hopeless, hopeless);
        }
        assert!(docker("Error response from daemon: manifest unknown").is_none());
    }

    #[test]
    fn only_what_another_try_may_mend_is_tried_again() {
        for (said, hopeless, helps) in [
            (
                "Error response from daemon: manifest for x:1 not found: manifest unknown",
                true,
                "tag",
            ),
            (
                "Error response from daemon: pull access denied for x, repository does not exist or may require 'docker login'",
                true,
                "may the job",
            ),
            (
                "Error response from daemon: Head \"https://r/v2/\": unauthorized: HTTP Basic: Access denied",
                true,
                "DOCKER_AUTH",
            ),
            (
                "no matching manifest for linux/arm64/v8 in the manifest list entries",
                true,
                "architecture",
            ),
            (
                "toomanyrequests: You have reached your unauthenticated pull rate limit.",
                false,
                "mirror",
            ),
            (
                "Error response from daemon: Get \"https://r/v2/\": net/http: TLS handshake timeout",
                false,
                "reaches",
            ),
            (
                "received unexpected HTTP status: 503 Service Unavailable",
                false,
                "reaches",
            ),
        ] {
            let trouble = pull("x:1", said);
            assert_eq!(trouble.hopeless, hopeless, "{said}");
            assert!(trouble.error.remedy().unwrap().contains(helps), "{said}");
            assert!(trouble.error.to_string().contains("x:1"));
        }
        let ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/a";
        let remedy = pull(ecr, "no basic auth credentials").error;
        assert!(
            remedy
                .remedy()
                .unwrap()
                .contains("ecr:GetAuthorizationToken")
        );
    }

    #[test]
    fn a_container_that_ended_shows_its_last_words() {
        let told = ended("x", "3\nno config\n").error.to_string();
        assert!(told.contains("code 3: no config"), "{told}");
        let told = start(
            "service",
            "x",
            "exec: \"srv\": executable file not found in $PATH: unknown.",
        );
        assert!(told.hopeless && told.error.to_string().contains("\"srv\""));
        let told = start(
            "image",
            "x",
            "exec: \"sh\": executable file not found in $PATH: unknown.",
        );
        assert!(told.error.to_string().contains("no `sh`"));
    }

    #[test]
    fn every_message_stands_in_the_documentation() {
        const PAGE: &str = include_str!("../../docs/containers.md");
        let troubles = [
            docker("docker: not found").unwrap(),
            docker("permission denied: /var/run/docker.sock").unwrap(),
            docker("Cannot connect to the Docker daemon").unwrap(),
            pull("X", "SAID"),
            start("image", "X", "SAID"),
            start("service", "X", "SAID"),
            start("image", "X", "exec: \"sh\": executable file not found"),
            ended("X", "N\nSAID"),
            stuck("X", 300),
        ];
        let gone = exec("no such container").unwrap();
        let errors = troubles.into_iter().map(|trouble| trouble.error);
        for error in errors.chain([gone]) {
            let text = error.to_string();
            let fixed = text
                .strip_suffix(": SAID")
                .or(text.strip_suffix(": no such container"))
                .unwrap_or(&text);
            assert!(PAGE.contains(fixed), "{fixed}");
        }
    }

    #[test]
    fn a_container_that_is_gone_is_no_fault_of_the_protocol() {
        for said in [
            "Error response from daemon: Container 0123 is not running",
            "Error response from daemon: No such container: job-1-build",
        ] {
            assert_eq!(exec(said).unwrap().kind(), Kind::MachineGone, "{said}");
        }
        assert!(exec("sh: mkfifo: not found").is_none());
    }
}
