//! The manual pages, as `man` shows them.

use std::collections::BTreeMap;
use std::path::Path;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::stage::Call;
use crate::lab::stage::Output;

const PAGES: [&str; 6] = ["custom", "try", "check", "reap", "completions", "man"];

fn run(program: &str, args: &[&str], directory: &Path) -> Output {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    Call {
        name: format!("{program} {}", args.join(" ")),
        program: program.into(),
        args: args.iter().map(Into::into).collect(),
        env: BTreeMap::from([
            ("PATH".into(), path.into()),
            ("HOME".into(), directory.into()),
            ("LC_ALL".into(), "C.UTF-8".into()),
            ("MANWIDTH".into(), "200".into()),
            ("MANROFFOPT".into(), "-c".into()),
            ("MAN_KEEP_FORMATTING".into(), "".into()),
        ]),
        directory: directory.to_owned(),
        ..Call::default()
    }
    .spawn()
    .wait(PATIENCE)
}

/// Returns a page as it is shown, by its headings.
fn shown(args: &[&str]) -> BTreeMap<String, String> {
    let directory = lab::temp_dir();
    let at = directory.path();
    let page = run(env!("CARGO_BIN_EXE_gitlab-aws-driver"), args, at).assert_success();
    std::fs::write(at.join("page.1"), &page.stdout).unwrap();
    let output = run("man", &["--warnings=w", "-l", "./page.1"], at).assert_success();
    // What the formatter finds odd.
    assert_eq!(output.stderr_text(), "", "{output}");
    let mut sections: BTreeMap<String, String> = BTreeMap::new();
    let mut heading = String::new();
    for line in output.stdout_text().lines() {
        if line.starts_with(|c: char| c.is_ascii_uppercase()) {
            heading = line.to_owned();
        } else {
            let section = sections.entry(heading.clone()).or_default();
            section.push_str(line.trim());
            section.push('\n');
        }
    }
    sections
}

#[track_caller]
fn assert_says(page: &BTreeMap<String, String>, heading: &str, words: &[&str]) {
    let section = page.get(heading);
    let section = section.unwrap_or_else(|| panic!("no {heading} in {page:#?}"));
    for word in words {
        assert!(section.contains(word), "{heading}: no {word} in {section}");
    }
}

#[test]
fn the_programs_page_has_what_a_page_has() {
    let page = shown(&["man"]);
    assert_says(
        &page,
        "FILES",
        &[
            "/etc/gitlab-runner/aws-driver.toml",
            "/etc/gitlab-runner/fargate.toml",
            "/var/lib/gitlab-aws-driver",
        ],
    );
    assert_says(
        &page,
        "EXIT STATUS",
        &["\n0 ", "\n1 ", "\n2 "].map(str::trim_start),
    );
    assert_says(
        &page,
        "ENVIRONMENT",
        &[
            "NO_COLOR",
            "AWS_REGION",
            "AWS_PROFILE",
            "AWS_EC2_METADATA_DISABLED",
        ],
    );
    let others = PAGES.map(|name| format!("gitlab-aws-driver-{name}(1)"));
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    assert_says(&page, "SEE ALSO", &others);
    assert_says(&page, "SEE ALSO", &["gitlab-runner", "troubleshooting.md"]);
    for name in ["local-machine", "local-guard", "local-server"] {
        let told = page.values().any(|section| section.contains(name));
        assert!(!told, "{name}: {page:#?}");
    }
}

#[test]
fn each_commands_page_says_how_it_ends_and_what_it_reads() {
    for name in PAGES {
        let page = shown(&["man", name]);
        assert_says(&page, "SEE ALSO", &["gitlab-aws-driver(1)"]);
        let own = format!("gitlab-aws-driver-{name}(1)");
        assert!(!page["SEE ALSO"].contains(&own), "{page:#?}");
        let (codes, variables, files): (&[&str], &[&str], &[&str]) = match name {
            "custom" => (
                &[
                    "$BUILD_FAILURE_EXIT_CODE",
                    "$SYSTEM_FAILURE_EXIT_CODE, or 2",
                ],
                &[
                    "JOB_RESPONSE_FILE",
                    "BUILD_EXIT_CODE_FILE",
                    "CUSTOM_ENV_AWS_DRIVER_CPU",
                    "AWS_REGION",
                ],
                &[
                    "/var/lib/gitlab-aws-driver",
                    "$TMPDIR/.gitlab-aws-driver.json",
                ],
            ),
            "try" => (&["124", "125", "130"], &["TMPDIR"], &[]),
            "check" => (
                &["0", "1", "2"],
                &["NO_COLOR"],
                &["/etc/gitlab-runner/aws-driver.toml"],
            ),
            "reap" => (
                &["0", "1", "2"],
                &["AWS_PROFILE"],
                &["/var/lib/gitlab-aws-driver"],
            ),
            _ => (&["0", "1", "2"], &["NO_COLOR"], &[]),
        };
        assert_says(&page, "EXIT STATUS", codes);
        assert_says(&page, "ENVIRONMENT", variables);
        if !files.is_empty() {
            assert_says(&page, "FILES", files);
        }
    }
}
