//! Shell completions: clap's generators, with corrections.

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Arg, ArgAction, Command};
use clap_complete::{Shell, generate};

use crate::config::settings::{LogFormat, LogLevel};
use crate::ops::manual::PAGES;

/// Returns the completions of the program for a shell.
pub(super) fn text(program: Command, shell: Shell) -> String {
    let name = program.get_name().to_owned();
    let mut program = completed(program);
    match shell {
        Shell::Bash => bash(program, &name),
        Shell::Fish => fish(program, &name),
        Shell::Zsh => zsh(program, &name),
        _ => generated(&mut program, shell, &name),
    }
}

fn generated(program: &mut Command, shell: Shell, name: &str) -> String {
    let mut text = Vec::new();
    generate(shell, program, name, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Names the words that may follow where the parser takes more than these: other spellings, any case.
fn completed(program: Command) -> Command {
    let levels = [
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ];
    let formats = [LogFormat::Text, LogFormat::TextSimple, LogFormat::Json];
    let of =
        |arg: Arg, words: Vec<&'static str>| arg.value_parser(PossibleValuesParser::new(words));
    program
        .mut_arg("log_level", |arg| {
            of(arg, levels.map(LogLevel::name).into())
        })
        .mut_arg("log_format", |arg| {
            of(arg, formats.map(LogFormat::name).into())
        })
        // Its value is never the next word, for which the generators would wait.
        .mut_arg("debug", |arg| {
            let help = arg.get_help().cloned().unwrap_or_default();
            Arg::new("debug")
                .long("debug")
                .help(help)
                .action(ArgAction::SetTrue)
        })
        .mut_subcommand("man", |man| {
            man.mut_arg("name", |arg| of(arg, PAGES.to_vec()))
        })
}

/// Gives bash a program name without dashes. With dashes the generator makes two different names of it, and below the first
/// level it would look for the wrong one.
fn bash(mut program: Command, name: &str) -> String {
    let plain = name.replace('-', "__");
    let text = generated(&mut program, Shell::Bash, &plain);
    // Bash splits `--option=value` into three words, and the generator looks for the option in the word before.
    let text = text.replace(
        "    prev=\"$3\"\n",
        "    prev=\"$3\"\n    [[ \"$prev\" != = ]] || prev=\"${COMP_WORDS[COMP_CWORD-2]}\"\n",
    );
    text.replace(
        &format!(" -o default {plain}\n"),
        &format!(" -o default {name}\n"),
    )
}

/// Tells zsh that `--debug` may have a value after an equals sign.
fn zsh(mut program: Command, name: &str) -> String {
    let text = generated(&mut program, Shell::Zsh, name);
    let line = |line: &str| match line.strip_prefix("'--debug[") {
        Some(rest) => {
            let rest = rest.replace("]' \\", "]::BOOL:(true false)' \\");
            format!("'--debug=-[{rest}\n")
        }
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Corrects fish's generator, and adds what it leaves out.
fn fish(mut program: Command, name: &str) -> String {
    let text = generated(&mut program, Shell::Fish, name);
    // Where an option still has no value the generator's own look at the line fails, and nothing is offered.
    let text = text.replace(
        "2>/dev/null\n    or return\n",
        "2>/dev/null\n    or return 0\n",
    );
    text + &fish_words(&program, name)
}

/// Returns lines for words that are not options, and lines that say where no file belongs.
fn fish_words(program: &Command, name: &str) -> String {
    let mut text = String::new();
    let of = name.replace('-', "_");
    for command in program.get_subcommands() {
        let using = format!(
            "complete -c {name} -n \"__fish_{of}_using_subcommand {}\" -f",
            command.get_name()
        );
        let word = command.get_positionals().next();
        let values = word.map(Arg::get_possible_values).unwrap_or_default();
        let words: Vec<&str> = match command.get_name() {
            // The generator takes the command's own name for that of a command below it.
            "help" => command.get_subcommands().map(Command::get_name).collect(),
            _ => values.iter().map(PossibleValue::get_name).collect(),
        };
        if !words.is_empty() {
            text.push_str(&format!("{using} -a \"{}\"\n", words.join(" ")));
        } else if word.is_none() && !command.has_subcommands() {
            text.push_str(&format!("{using}\n"));
        }
    }
    text
}
