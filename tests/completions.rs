//! The completions, tried by completing: in bash, in zsh and in fish, at each level of the command line.

use std::collections::BTreeMap;
use std::path::Path;

use crate::lab;
use crate::lab::PATIENCE;
use crate::lab::stage::Call;
use crate::lab::stage::Output;

const PROGRAM: &str = "gitlab-aws-driver";
/// What nobody is offered: the commands by which the program starts itself.
const INTERNAL: [&str; 3] = ["local-machine", "local-guard", "local-server"];

/// What is offered at the end of a line: all of these, and none of those.
type Line = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const LINES: &[Line] = &[
    (
        "",
        &["custom", "try", "check", "reap", "completions", "man"],
        &["prepare"],
    ),
    ("che", &["check"], &["reap"]),
    ("-", &["--config", "--debug", "--task-def"], &["--strict"]),
    (
        "check --",
        &["--json", "--strict", "--job", "--config"],
        &["--dry-run"],
    ),
    ("check --js", &["--json"], &["--strict"]),
    ("reap --", &["--dry-run", "--json"], &["--strict"]),
    ("try --st", &["--stage-attempts"], &["--timeout"]),
    (
        "custom ",
        &["config", "prepare", "run", "cleanup"],
        &["check"],
    ),
    ("custom pre", &["prepare"], &["run"]),
    ("custom run --", &["--config"], &["--json"]),
    ("c ", &["config", "prepare", "run", "cleanup"], &["check"]),
    ("completions ", &["bash", "zsh", "fish"], &["check"]),
    ("completions z", &["zsh"], &["fish"]),
    ("man ", &["try", "reap"], &["bash"]),
    ("--log-level ", &["warn", "debug"], &["check"]),
    ("--log-format te", &["text", "text-simple"], &["json"]),
    // What stands before the command takes nothing away from it.
    ("--debug ch", &["check"], &["reap"]),
    ("--debug=true ch", &["check"], &["reap"]),
    ("--config x.toml check --st", &["--strict"], &["--json"]),
    ("--log-level=warn reap --d", &["--dry-run"], &["--json"]),
    ("help ", &["check", "custom"], &[]),
    // Files, by an option at each level and as a word.
    ("--config ./one", &["./one-file.toml"], &["./other"]),
    ("check --job ./one", &["./one-file.toml"], &["./other"]),
    ("custom run ./one", &["./one-file.toml"], &["./other"]),
    ("loc", &[], &[]),
    ("help loc", &[], &[]),
];

/// Runs a program in a directory that has two files.
fn run(program: &str, args: &[&str], directory: &Path) -> Output {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for file in ["one-file.toml", "other"] {
        std::fs::write(directory.join(file), "").unwrap();
    }
    Call {
        name: program.to_owned(),
        program: program.into(),
        args: args.iter().map(Into::into).collect(),
        env: BTreeMap::from([
            ("PATH".into(), path.into()),
            ("HOME".into(), directory.into()),
            ("TERM".into(), "dumb".into()),
        ]),
        directory: directory.to_owned(),
        ..Call::default()
    }
    .spawn()
    .wait(PATIENCE)
}

/// Asks the binary for its completions and has a shell complete all lines by them: its text prints those of one line
/// between the line itself, after `= `, and the next.
fn complete(shell: &str, file: &str, text: &str, more: &[Line]) {
    let directory = lab::temp_dir();
    let at = directory.path();
    let completions = run(
        env!("CARGO_BIN_EXE_gitlab-aws-driver"),
        &["completions", shell],
        at,
    );
    std::fs::write(at.join(file), completions.assert_success().stdout).unwrap();
    let script = at.join("script");
    std::fs::write(&script, text).unwrap();
    let mut args = vec![script.to_str().unwrap()];
    let lines = || LINES.iter().chain(more);
    args.extend(lines().map(|(line, ..)| *line));
    let output = run(shell, &args, at).assert_success();
    let said = output.stdout_text();
    let mut answers = said.split("= ").skip(1);
    for (line, all, none) in lines() {
        let answer = answers
            .next()
            .unwrap_or_else(|| panic!("no {line:?}:\n{output}"));
        let mut offered = answer.lines();
        assert_eq!(offered.next(), Some(*line), "{output}");
        let offered: Vec<&str> = offered
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .collect();
        for word in *all {
            assert!(
                offered.contains(word),
                "{line:?}: no {word} in {offered:?}\n{output}"
            );
        }
        for word in none.iter().chain(&INTERNAL) {
            assert!(
                !offered.contains(word),
                "{line:?}: {word} in {offered:?}\n{output}"
            );
        }
    }
    assert_eq!(answers.next(), None, "{output}");
}

#[test]
fn bash_completes_at_each_level() {
    // As readline does: the words up to the cursor, the function that is registered, and files where that has nothing.
    complete(
        "bash",
        "completions",
        r#"
source ./completions
compopt() { :; }
registered=$(complete -p gitlab-aws-driver)
function=${registered##*-F }
function=${function%% *}
case $registered in *"-o default "*) ;; *) exit 1 ;; esac
for line; do
	read -ra COMP_WORDS <<<"gitlab-aws-driver ${line/=/ = }"
	case $line in '' | *' ') COMP_WORDS+=('') ;; esac
	COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
	COMPREPLY=()
	current=${COMP_WORDS[COMP_CWORD]}
	"$function" gitlab-aws-driver "$current" "${COMP_WORDS[COMP_CWORD - 1]}" || exit 1
	[ ${#COMPREPLY[@]} -gt 0 ] || [ -z "$current" ] || mapfile -t COMPREPLY < <(compgen -f -- "$current")
	printf '= %s\n' "$line"
	printf '%s\n' "${COMPREPLY[@]}"
done
"#,
        // The shell itself tells the value from the option.
        &[
            ("--log-level=w", &["warn"], &["debug"]),
            ("--config=./one", &["./one-file.toml"], &["./other"]),
        ],
    );
}

#[test]
fn fish_completes_at_each_level() {
    complete(
        "fish",
        "completions.fish",
        r#"
source ./completions.fish
for line in $argv
	printf '= %s\n' $line
	complete -C "gitlab-aws-driver $line" | string replace -r '\t.*' ''
end
# Of the last line nothing may come.
exit 0
"#,
        &[],
    );
}

#[test]
fn zsh_completes_at_each_level() {
    // A shell at a terminal for each line, whose matches are printed instead of shown.
    complete(
        "zsh",
        "_gitlab-aws-driver",
        r#"
zmodload zsh/zpty
cat >inner <<'END'
PROMPT=
fpath=($PWD $fpath)
autoload -Uz compinit
compinit -u -d $PWD/dump
setopt no_list_beep
bindkey '^I' complete-word
zstyle ':completion:*' insert-tab false
compadd() {
	if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
		builtin compadd "$@"
		return
	fi
	local -a matches
	builtin compadd -A matches "$@"
	local prefix= i
	for ((i = 1; i < $#; i++)); do [[ ${@[i]} == -p ]] && prefix=${@[i + 1]}; done
	local match
	for match in $matches; do print -r -- "MATCH $IPREFIX$prefix$match"; done
	builtin compadd "$@"
}
finish() { print -r -- THE-END; exit }
comppostfuncs=(finish)
print -r -- READY
END
for line; do
	zpty inner zsh -f -i
	zpty -w inner 'source ./inner'
	zpty -r inner said '*READY*' || exit 1
	zpty -n -w inner "gitlab-aws-driver $line"$'\t'
	printf '= %s\n' "$line"
	zpty -r inner said '*THE-END*' || exit 1
	zpty -d inner
	print -r -- ${said//$'\r'/} | sed -n 's/.*MATCH //p' | sort -u
done
"#,
        &[],
    );
}

#[test]
fn nobody_is_shown_the_internal_commands() {
    let directory = lab::temp_dir();
    let mut all = vec![
        vec!["--help"],
        vec!["help"],
        vec!["man"],
        vec!["man", "man"],
    ];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        all.push(vec!["completions", shell]);
    }
    for args in all {
        let output = run(
            env!("CARGO_BIN_EXE_gitlab-aws-driver"),
            &args,
            directory.path(),
        );
        let text = output.assert_success().stdout_text().replace('\\', "");
        assert!(text.contains(PROGRAM), "{args:?}");
        for name in INTERNAL {
            assert!(!text.contains(name), "{args:?}: {name}");
        }
    }
    // Nor are they suggested; something that is shown is.
    for (word, meant) in [
        ("local-guar", None),
        ("local", None),
        ("chekc", Some("'check'")),
    ] {
        let output = run(
            env!("CARGO_BIN_EXE_gitlab-aws-driver"),
            &[word],
            directory.path(),
        );
        let output = output.assert_code(2);
        let text = output.stderr_text();
        for name in INTERNAL {
            assert!(!text.replace(word, "").contains(name), "{output}");
        }
        assert!(meant.is_none_or(|meant| text.contains(meant)), "{output}");
    }
}
