//! The closed list of GitLab's variables on which a decision may depend.
//!
//! GitLab's list of a job's variables proves nothing. What the pipeline's author writes is in it as well, beside
//! GitLab's own or, where a server does not send one of these, in its place; and values come expanded: a branch named `$A`
//! with `A: main` reads `main`. So a name is on this list only where the job's own description says the same beside its
//! variables, or where every server that describes its jobs fully sends it first and its value has a form in which there
//! is nothing to expand. LOGIN, EMAIL and NAME of the user, messages, titles, branches by other names: none of them is.

use super::keys::closest;

/// A value of GitLab's about a job that its author can neither forge nor have expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedVariable {
    /// The job's number.
    JobId,
    /// The job's name.
    JobName,
    /// Its stage.
    JobStage,
    /// Its time limit, in seconds.
    JobTimeout,
    /// The pipeline's number.
    PipelineId,
    /// What the pipeline was started by.
    PipelineSource,
    /// The project's number.
    ProjectId,
    /// The project's path.
    ProjectPath,
    /// The last part of that path.
    ProjectName,
    /// All before it.
    ProjectNamespace,
    /// The number of that namespace.
    ProjectNamespaceId,
    /// The first part of that path.
    ProjectRootNamespace,
    /// Who may see the project.
    ProjectVisibility,
    /// The branch or tag.
    Ref,
    /// Whether it is protected.
    RefProtected,
    /// The tag, where it is one.
    Tag,
    /// The commit.
    Sha,
    /// Its first eight digits.
    ShortSha,
    /// The commit before it.
    BeforeSha,
    /// The number of whoever started the job.
    UserId,
}

/// The list.
pub const TRUSTED_VARIABLES: [(&str, TrustedVariable); 20] = [
    ("CI_COMMIT_BEFORE_SHA", TrustedVariable::BeforeSha),
    ("CI_COMMIT_REF_NAME", TrustedVariable::Ref),
    ("CI_COMMIT_REF_PROTECTED", TrustedVariable::RefProtected),
    ("CI_COMMIT_SHA", TrustedVariable::Sha),
    ("CI_COMMIT_SHORT_SHA", TrustedVariable::ShortSha),
    ("CI_COMMIT_TAG", TrustedVariable::Tag),
    ("CI_JOB_ID", TrustedVariable::JobId),
    ("CI_JOB_NAME", TrustedVariable::JobName),
    ("CI_JOB_STAGE", TrustedVariable::JobStage),
    ("CI_JOB_TIMEOUT", TrustedVariable::JobTimeout),
    ("CI_PIPELINE_ID", TrustedVariable::PipelineId),
    ("CI_PIPELINE_SOURCE", TrustedVariable::PipelineSource),
    ("CI_PROJECT_ID", TrustedVariable::ProjectId),
    ("CI_PROJECT_NAME", TrustedVariable::ProjectName),
    ("CI_PROJECT_NAMESPACE", TrustedVariable::ProjectNamespace),
    (
        "CI_PROJECT_NAMESPACE_ID",
        TrustedVariable::ProjectNamespaceId,
    ),
    ("CI_PROJECT_PATH", TrustedVariable::ProjectPath),
    (
        "CI_PROJECT_ROOT_NAMESPACE",
        TrustedVariable::ProjectRootNamespace,
    ),
    ("CI_PROJECT_VISIBILITY", TrustedVariable::ProjectVisibility),
    ("GITLAB_USER_ID", TrustedVariable::UserId),
];

/// Returns the variable of that name, if it is on the list.
#[must_use]
pub fn named(name: &str) -> Option<TrustedVariable> {
    let found = TRUSTED_VARIABLES.iter().find(|(own, _)| *own == name);
    found.map(|(_, fact)| *fact)
}

/// Returns whether the name is one of those that GitLab gives its own variables.
#[must_use]
pub fn is_gitlabs(name: &str) -> bool {
    name == "CI" || name.starts_with("CI_") || name.starts_with("GITLAB_")
}

/// Says why no decision may depend on a variable that is not on the list.
#[must_use]
pub fn why_not_trusted(name: &str) -> &'static str {
    match is_gitlabs(&name.to_ascii_uppercase()) {
        true => "whoever writes the job can set it or have it expanded",
        false => "whoever writes the job can set it",
    }
}

/// Returns the name on the list that probably serves instead of one that is not.
#[must_use]
pub fn trusted_alternative(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_uppercase();
    let prefixes = [
        ("GITLAB_USER_", "GITLAB_USER_ID"),
        ("CI_COMMIT_AUTHOR", "GITLAB_USER_ID"),
        ("CI_COMMIT_BRANCH", "CI_COMMIT_REF_NAME"),
        ("CI_COMMIT_REF_", "CI_COMMIT_REF_NAME"),
        ("CI_DEFAULT_BRANCH", "CI_COMMIT_REF_NAME"),
        ("CI_BUILD_REF", "CI_COMMIT_REF_NAME"),
        ("CI_MERGE_REQUEST_", "CI_PIPELINE_SOURCE"),
        ("CI_ENVIRONMENT_", "CI_COMMIT_REF_PROTECTED"),
        ("CI_PROJECT_", "CI_PROJECT_PATH"),
    ];
    if let Some((own, _)) = TRUSTED_VARIABLES.iter().find(|(own, _)| *own == name) {
        return Some(own);
    }
    let likely = prefixes.iter().find(|(prefix, _)| name.starts_with(prefix));
    if let Some((_, own)) = likely {
        return Some(own);
    }
    let gitlabs =
        is_gitlabs(&name).then(|| closest(&name, TRUSTED_VARIABLES.iter().map(|(own, _)| *own)));
    gitlabs.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTATION: &str = include_str!("../../docs/job-variables.md");

    #[test]
    fn the_list_is_closed_and_documented() {
        for (at, (name, fact)) in TRUSTED_VARIABLES.iter().enumerate() {
            assert_eq!(named(name), Some(*fact));
            assert!(is_gitlabs(name), "{name}");
            assert!(
                TRUSTED_VARIABLES[..at]
                    .iter()
                    .all(|(other, f)| other < name && f != fact)
            );
            assert!(DOCUMENTATION.contains(&format!("`{name}`")), "{name}");
        }
        for name in [
            "GITLAB_USER_LOGIN",
            "GITLAB_USER_EMAIL",
            "GITLAB_USER_NAME",
            "CI_COMMIT_AUTHOR",
            "CI_COMMIT_MESSAGE",
            "CI_COMMIT_TITLE",
            "CI_COMMIT_DESCRIPTION",
            "CI_COMMIT_BRANCH",
            "CI_COMMIT_REF_SLUG",
            "CI_COMMIT_TAG_MESSAGE",
            "CI_DEFAULT_BRANCH",
            "CI_ENVIRONMENT_NAME",
            "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME",
            "CI_PROJECT_TITLE",
            "CI_PROJECT_URL",
            "CI_RUNNER_SHORT_TOKEN",
            "CI_JOB_IMAGE",
            "CI_DEBUG_TRACE",
            "CI_JOB_MANUAL",
            "KIND",
            "ci_project_path",
            "",
        ] {
            assert_eq!(named(name), None, "{name}");
        }
    }

    #[test]
    fn what_may_serve_instead_is_on_the_list() {
        for (name, want) in [
            ("GITLAB_USER_LOGIN", Some("GITLAB_USER_ID")),
            ("ci_project_path", Some("CI_PROJECT_PATH")),
            ("CI_PROJECT_URL", Some("CI_PROJECT_PATH")),
            ("CI_COMMIT_BRANCH", Some("CI_COMMIT_REF_NAME")),
            ("CI_PIPELINE_SORCE", Some("CI_PIPELINE_SOURCE")),
            ("KIND", None),
            ("CI", None),
        ] {
            assert_eq!(trusted_alternative(name), want, "{name}");
        }
    }
}
