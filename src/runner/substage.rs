//! The sub-stages of a job, and which kind of container each belongs to.

/// What an endpoint of a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The user's own lines.
    Build,
    /// Sources, caches, artifacts.
    Helper,
}

/// Returns where a sub-stage runs, as GitLab's docker executor has it. Names that are not known yet belong
/// to the user: the Runner makes new ones only for user steps (`step_*`).
#[must_use]
pub fn role(name: &str) -> Role {
    match name {
        "prepare_script"
        | "get_sources"
        | "clear_worktree"
        | "restore_cache"
        | "download_artifacts"
        | "archive_cache"
        | "archive_cache_on_failure"
        | "upload_artifacts_on_success"
        | "upload_artifacts_on_failure"
        | "cleanup_file_variables" => Role::Helper,
        _ => Role::Build,
    }
}
