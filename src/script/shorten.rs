//! Makes the shell texts short enough to be sent as a command, which some SSH servers limit.
//!
//! A text gives each of its variables and functions a name of lower-case words with underscores between them, and nothing
//! else in it has such a name. So a name is found without knowing the shell's grammar, in quotes too, where a `trap` or an
//! `eval` has it. What is sent has names of a letter or two instead.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Drops comments and indentation. A text has comments on lines of their own only, and no here-document.
pub(super) fn stripped(text: &str) -> String {
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// Drops comments and indentation, and puts short names in place of the text's own.
pub(super) fn shortened(text: &str) -> String {
    renamed(&stripped(text))
}

fn renamed(text: &str) -> String {
    let names = short_names(text);
    let mut short = String::with_capacity(text.len());
    for (word, rest) in words(text) {
        let name = is_own_form(word).then(|| names.get(word)).flatten();
        short += name.map_or(word, String::as_str);
        short += rest;
    }
    short
}

/// Returns a short name for each of the text's own, the shortest for those that it uses most. None is a word of the text
/// already.
fn short_names(text: &str) -> BTreeMap<&str, String> {
    let mut own: Vec<(&str, usize)> = own_names(text).into_iter().collect();
    own.sort_by_key(|(_, uses)| Reverse(*uses));
    // No command and no word of the shell's is a letter and a digit.
    let letters = || ('a'..='z').chain('A'..='Z');
    let pairs =
        letters().flat_map(|letter| ('0'..='9').map(move |digit| format!("{letter}{digit}")));
    let all = letters().map(String::from).chain(pairs);
    let taken: BTreeSet<&str> = words(text)
        .map(|(word, _)| word)
        .filter(|word| word.len() <= 2)
        .collect();
    let free = all.filter(|name| !taken.contains(&**name));
    own.into_iter().map(|(name, _)| name).zip(free).collect()
}

/// Returns the variables whose value the text takes and the functions that it defines, by the form of their names, and how
/// often each occurs. A word of that form that is neither (`oom_kill`) is data.
fn own_names(text: &str) -> BTreeMap<&str, usize> {
    let mut all: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
    let mut before = "";
    for (word, rest) in words(text) {
        if is_own_form(word) {
            let (uses, is_name) = all.entry(word).or_default();
            let is_variable = ["$", "${", "${#", "(("]
                .iter()
                .any(|sign| before.ends_with(sign));
            *uses += 1;
            *is_name |= is_variable || rest.starts_with("()");
        }
        before = rest;
    }
    let names = all.into_iter().filter(|(_, (_, is_name))| *is_name);
    names.map(|(word, (uses, _))| (word, uses)).collect()
}

fn is_own_form(word: &str) -> bool {
    let is_lower = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    word.contains('_') && word.split('_').all(is_lower)
}

/// Returns a text's words, each with all that comes before the next one. The first word may be empty.
fn words(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut text = text;
    std::iter::from_fn(move || {
        let end = text.bytes().position(|b| !is_word(b)).unwrap_or(text.len());
        let (word, behind) = text.split_at(end);
        let next = behind.bytes().position(is_word).unwrap_or(behind.len());
        let (rest, left) = behind.split_at(next);
        text = left;
        (end + next > 0).then_some((word, rest))
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use proptest::prelude::*;

    use super::*;
    use crate::script::first_command::{FIRST_COMMAND, WATCHDOG};
    use crate::script::notice::NOTICE;
    use crate::script::{REMOTE, keep_key};

    /// Each text that is sent in a command.
    const TEXTS: [&str; 4] = [REMOTE, FIRST_COMMAND, WATCHDOG, NOTICE];
    const SHELLS: [&[&str]; 3] = [&["dash"], &["bash"], &["busybox", "sh"]];

    /// Puts the long names back.
    fn lengthened(stripped: &str) -> String {
        let names = short_names(stripped);
        let back: BTreeMap<&str, &str> =
            names.iter().map(|(own, short)| (&**short, *own)).collect();
        assert_eq!(back.len(), names.len(), "no two have the same");
        let short = renamed(stripped);
        let words = words(&short);
        words
            .flat_map(|(word, rest)| [*back.get(word).unwrap_or(&word), rest])
            .collect()
    }

    fn run(words: &[&str]) -> Output {
        Command::new(words[0]).args(&words[1..]).output().unwrap()
    }

    #[test]
    fn stripping_drops_nothing_but_comments() {
        for text in TEXTS.into_iter().chain([keep_key::REMOTE]) {
            // A here-document may have a line that begins with #.
            assert!(!text.contains("<<"));
        }
    }

    #[test]
    fn each_name_of_the_texts_is_found_and_no_other_is_changed() {
        for text in TEXTS {
            let stripped = stripped(text);
            assert_eq!(lengthened(&stripped), stripped);
            let short = shortened(text);
            let left: Vec<&str> = words(&short)
                .map(|(word, _)| word)
                .filter(|word| is_own_form(word))
                .collect();
            let is_data = |word: &&str| ["oom_kill", "oom_control"].contains(word);
            assert!(left.iter().all(is_data), "{left:?}");
            // A name of another form would stay as it is, and might be one of the short ones some day.
            let mut before = "";
            for (word, rest) in words(&stripped) {
                let is_name =
                    before.ends_with('$') || before.ends_with("${") || rest.starts_with("()");
                let is_foreign = word.is_empty()
                    || word
                        .bytes()
                        .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase() || b == b'_');
                assert!(!is_name || is_foreign || is_own_form(word), "{word}");
                before = rest;
            }
        }
    }

    #[test]
    fn shells_and_shellcheck_accept_what_is_sent() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("text");
        let path = file.to_str().unwrap();
        for text in TEXTS {
            std::fs::write(&file, shortened(text)).unwrap();
            for shell in SHELLS {
                let checked = run(&[shell, &["-n", path]].concat());
                assert!(
                    checked.status.success() && checked.stderr.is_empty(),
                    "{checked:?}"
                );
            }
            let disabled = text.lines().filter_map(|line| line.split_once("disable="));
            let disabled: Vec<&str> = disabled.map(|(_, codes)| codes).collect();
            let disabled = format!("--exclude={}", disabled.join(","));
            let checked = run(&["shellcheck", "-s", "sh", &disabled, path]);
            assert!(
                checked.status.success(),
                "{}",
                String::from_utf8_lossy(&checked.stdout)
            );
        }
    }

    /// Every place in which a text may have a name.
    const PLACES: &str = "
        # A comment about the_names.
        say_all() {
            printf '%s|' \"$@\" \"${#long_word}\"
        }
        long_word=some_data other_word=${long_word#some_} is_set=
        trap 'say_all the \"$long_word\" at_exit' EXIT
        for each_word in oom_kill $other_word; do say_all \"$each_word\"; done
        first_number=3 second_number=4
        say_all \"$((first_number + second_number * 2))\" \"${is_set:-$first_number}\" $((first_number))
        read -r next_line </proc/uptime
        [ \"$next_line\" ] && next_line=\"$long_word\"
        long_word=$next_line command eval 'say_all \"$next_line\"'
        long_word=exported_here sh -c 'echo \"$long_word\"'
        (exit $((first_number - 1))) || say_all $?
    ";

    #[test]
    fn a_shortened_text_does_what_the_text_does() {
        let short = shortened(PLACES);
        assert!(short.len() < stripped(PLACES).len());
        for shell in SHELLS {
            let said = [PLACES, &short].map(|text| {
                let output = run(&[shell, &["-c", text]].concat());
                assert!(
                    output.status.success() && output.stderr.is_empty(),
                    "{output:?}"
                );
                String::from_utf8(output.stdout).unwrap()
            });
            assert_eq!(said[0], said[1]);
            assert!(said[0].ends_with("the|some_data|at_exit|9|"), "{said:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_its_names_back(
            pieces in proptest::collection::vec(prop_oneof!["[a-c]{1,2}(_[ab]{1,2}){0,2}", "[A-Z0-9_]{1,3}", "[$ {}()\"'#;\n=-]{1,3}", "[$][{]?[ab]_[ab]", ".{0,3}"], 0..60),
        ) {
            let text = stripped(&pieces.concat());
            prop_assert_eq!(lengthened(&text), text.clone());
            prop_assert!(renamed(&text).len() <= text.len());
        }

        #[test]
        fn so_many_names_are_all_different(count in 0usize..700) {
            let word = |number: usize| format!("$n_{}", number.to_string().bytes().map(|b| char::from(b - b'0' + b'a')).collect::<String>());
            let text: String = (0..count).flat_map(|number| [word(number), "\n".to_owned()]).collect();
            prop_assert_eq!(lengthened(&text), text);
        }
    }
}
