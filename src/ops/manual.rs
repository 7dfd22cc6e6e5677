//! `completions` and `man`: what shells and manuals want to know, made from the commands themselves.

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::print;
use crate::error::{Error, Kind, Result};

/// Prints completions for a shell.
///
/// # Errors
/// When nothing can be printed.
pub fn completions(command: &mut Command, shell: Shell) -> Result<()> {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, command, name, &mut text);
    print(&text)
}

/// Prints the manual page of the program, or of one of its commands.
///
/// # Errors
/// When there is no such command, and when nothing can be printed.
pub fn page(mut program: Command, name: Option<&str>) -> Result<()> {
    program.build();
    let command = match name {
        None => program,
        Some(name) => match program.find_subcommand(name).filter(|c| !c.is_hide_set()) {
            Some(command) => command.clone(),
            None => {
                return Err(
                    Error::new(Kind::Contract, format!("there is no command {name}"))
                        .hint("`gitlab-aws-driver --help` names them all."),
                );
            }
        },
    };
    let fail = |e| Error::new(Kind::State, "cannot write the page").because(e);
    print(&render(command).map_err(fail)?)
}

fn render(command: Command) -> std::io::Result<Vec<u8>> {
    let examples = command.get_after_help().map(ToString::to_string);
    let has_commands = command.has_subcommands();
    let page = Man::new(command);
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if has_commands {
        page.render_subcommands_section(&mut text)?;
    }
    if let Some(examples) = examples {
        // As it is: filling the lines would make the examples' one.
        let mut roff = Roff::new();
        roff.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in examples.lines().skip_while(|l| *l == "Examples:") {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
        roff.to_writer(&mut text)?;
    }
    page.render_version_section(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_page_names_all_that_help_names() {
        let text = String::from_utf8(render(Cli::command()).unwrap()).unwrap();
        for word in [
            "task\\-def",
            "custom",
            "try",
            "reap",
            "config_exec",
            ".SH EXAMPLES\n.nf\n",
        ] {
            assert!(text.contains(word), "{word}\n{text}");
        }
        assert!(!text.contains("local\\-guard"), "{text}");
    }
}
