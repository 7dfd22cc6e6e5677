//! Finds profiles that no job reaches, because one above them always fits first.

use super::super::settings::Match;

/// Returns whether `above` fits every job that `below` fits, as far as their patterns alone can tell.
pub(super) fn covers(above: &Match, below: &Match) -> bool {
    let Match {
        job_name,
        project,
        reference,
        protected,
        image,
        variables,
    } = above;
    let variable = |(name, pattern): &(String, String)| {
        let same = below.variables.iter().find(|(other, _)| other == name);
        let same = same.map(|(_, pattern)| pattern.as_str());
        same.is_some_and(|below| below == pattern || fits_all(pattern, true))
    };
    // Every job has a name. Not every server sends the other fields, and not all jobs have an image.
    part(job_name.as_ref(), below.job_name.as_ref(), true, true)
        && part(project.as_ref(), below.project.as_ref(), false, false)
        && part(reference.as_ref(), below.reference.as_ref(), false, false)
        && part(image.as_ref(), below.image.as_ref(), false, false)
        && (protected.is_none() || *protected == below.protected)
        && variables.iter().all(variable)
}

/// Returns whether one pattern fits whatever the other fits, which may be missing.
fn part(
    above: Option<&String>,
    below: Option<&String>,
    always_there: bool,
    anywhere: bool,
) -> bool {
    above.is_none_or(|pattern| {
        above == below || (fits_all(pattern, anywhere) && (always_there || below.is_some()))
    })
}

/// Returns whether a pattern fits any text: `*` does where it stops nowhere.
fn fits_all(pattern: &str, anywhere: bool) -> bool {
    let least = if anywhere { 1 } else { 2 };
    pattern.len() >= least && pattern.chars().all(|c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(text: &str) -> Match {
        let text = format!("log_level = \"warn\"\n[[profile]]\nname = \"a\"\nmatch = {text}");
        let loaded = crate::config::parse(&text, std::path::Path::new("f.toml"));
        let profile = loaded.unwrap().settings.profiles.pop();
        profile.unwrap().matches
    }

    #[test]
    fn what_fits_more_covers_what_fits_less() {
        for (above, below, want) in [
            ("{ job_name = \"*\" }", "{ project = \"g/*\" }", true),
            ("{ project = \"**\" }", "{ job_name = \"a\" }", false),
            ("{ project = \"**\" }", "{ project = \"a\" }", true),
            ("{ project = \"*\" }", "{ job_name = \"a\" }", false),
            ("{ image = \"**\" }", "{ job_name = \"a\" }", false),
            ("{ image = \"**\" }", "{ image = \"a\" }", true),
            (
                "{ protected = true }",
                "{ protected = true, project = \"g/*\" }",
                true,
            ),
            ("{ protected = true }", "{ protected = false }", false),
            ("{ protected = true }", "{ project = \"**\" }", false),
            (
                "{ project = \"g/*\" }",
                "{ project = \"g/*\", ref = \"main\" }",
                true,
            ),
            (
                "{ project = \"g/*\", ref = \"main\" }",
                "{ project = \"g/*\" }",
                false,
            ),
            ("{ project = \"g/*\" }", "{ project = \"g/a\" }", false),
            (
                "{ variables = { CI_PIPELINE_SOURCE = \"*\" } }",
                "{ variables = { CI_PIPELINE_SOURCE = \"x\" } }",
                true,
            ),
            (
                "{ variables = { CI_PIPELINE_SOURCE = \"*\" } }",
                "{ variables = { CI_PIPELINE_ID = \"x\" } }",
                false,
            ),
            (
                "{ variables = { CI_PIPELINE_SOURCE = \"x\" } }",
                "{ variables = { CI_PIPELINE_SOURCE = \"x\", CI_PIPELINE_ID = \"y\" } }",
                true,
            ),
        ] {
            assert_eq!(
                covers(&reads(above), &reads(below)),
                want,
                "{above} {below}"
            );
        }
    }
}
