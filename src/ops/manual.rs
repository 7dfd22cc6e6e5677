//! `completions` and `man`: shell completions and manual pages, made from the command line's definition.

mod completions;
mod sections;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use self::sections::Sections;
use super::print;
use crate::error::{Error, Kind, Result};

/// The commands that have manual pages of their own.
pub(crate) const PAGES: [&str; 6] = ["custom", "try", "check", "reap", "completions", "man"];

/// Prints completions for a shell.
///
/// # Errors
/// When nothing can be printed.
pub fn completions(program: Command, shell: Shell) -> Result<()> {
    print(completions::text(program, shell).as_bytes())
}

/// Prints the manual page of the program, or of one of its commands.
///
/// # Errors
/// When there is no such command, and when nothing can be printed.
pub fn page(mut program: Command, name: Option<&str>) -> Result<()> {
    program.build();
    let of = program.get_name().to_owned();
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
    print(&render(command, &of).map_err(fail)?)
}

fn render(command: Command, program: &str) -> std::io::Result<Vec<u8>> {
    let name = command.get_name().to_owned();
    let name = Some(name.as_str()).filter(|name| *name != program);
    let examples = command.get_after_help().map(ToString::to_string);
    let commands = commands(&command);
    let versioned = command.get_version().is_some();
    let page = Man::new(command);
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    // Names of variables and files stay whole, to be found and pasted.
    let mut whole = Roff::new();
    whole.control("nh", []).control("ad", ["l"]);
    whole.to_writer(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    commands.to_writer(&mut text)?;
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
    let sections = Sections::of(name).render(program, name);
    sections.to_writer(&mut text)?;
    // Without one, the generator panics.
    if versioned {
        page.render_version_section(&mut text)?;
    }
    Ok(text)
}

/// Names the commands that a command has; only those of the program itself have pages of their own.
fn commands(command: &Command) -> Roff {
    let mut roff = Roff::new();
    let shown = |c: &&Command| !c.is_hide_set() && c.get_name() != "help";
    let all: Vec<&Command> = command.get_subcommands().filter(shown).collect();
    if all.is_empty() {
        return roff;
    }
    let is_program = command.get_bin_name().is_none_or(|n| !n.contains(' '));
    roff.control("SH", ["COMMANDS"]);
    for c in all {
        let page = format!("{}-{}(1)", command.get_name(), c.get_name());
        let name = match is_program {
            true => roman(page),
            false => bold(c.get_name()),
        };
        let about = c.get_about().map(ToString::to_string);
        roff.control("TP", []).text([name]);
        roff.text([roman(about.unwrap_or_default())]);
    }
    roff
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::VisibleCli;
    use crate::ops::manual::PAGES;

    fn program() -> Command {
        let mut program = VisibleCli::command();
        program.build();
        program
    }

    fn rendered(command: Command) -> String {
        let page = render(command, "gitlab-aws-driver").unwrap();
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn the_page_names_all_that_help_names() {
        let text = rendered(program());
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

    /// Returns the pages that a page names under a heading.
    fn named(text: &str, heading: &str) -> Vec<String> {
        let plain = text.replace("\\-", "-");
        let (_, section) = plain.split_once(&format!(".SH {heading}\n")).unwrap();
        let section = section.split("\n.SH").next().unwrap();
        let words = section.split([',', '\n']).map(str::trim);
        let pages = words.filter_map(|word| word.strip_suffix("(1)"));
        pages.map(str::to_owned).collect()
    }

    #[test]
    fn every_page_that_is_named_is_in_the_packages() {
        let program = program();
        let list = include_str!("../../packaging/build");
        let (_, list) = list.split_once("for command in ").unwrap();
        let (list, _) = list.split_once(';').unwrap();
        let packed: Vec<String> = list
            .split(' ')
            .map(|name| format!("{}-{name}", program.get_name()))
            .collect();
        let shown: Vec<&str> = program
            .get_subcommands()
            .map(Command::get_name)
            .filter(|name| *name != "help")
            .collect();
        assert_eq!(shown, PAGES);
        let root = rendered(program.clone());
        assert_eq!(named(&root, "COMMANDS"), packed);
        assert_eq!(named(&root, "\"SEE ALSO\""), packed);
        for name in PAGES {
            let page = rendered(program.find_subcommand(name).unwrap().clone());
            let others = named(&page, "\"SEE ALSO\"");
            assert_eq!(others[0], program.get_name());
            let own = format!("{}-{name}", program.get_name());
            let rest: Vec<&String> = packed.iter().filter(|page| **page != own).collect();
            assert_eq!(others[1..].iter().collect::<Vec<_>>(), rest);
        }
        let custom = rendered(program.find_subcommand("custom").unwrap().clone());
        for stage in ["config", "prepare", "run", "cleanup"] {
            assert!(
                custom.contains(&format!(".TP\n\\fB{stage}\\fR\n")),
                "{custom}"
            );
        }
    }

    #[test]
    fn every_page_has_its_sections() {
        let program = program();
        for name in PAGES {
            let page = rendered(program.find_subcommand(name).unwrap().clone());
            for heading in ["\"EXIT STATUS\"", "ENVIRONMENT", "\"SEE ALSO\""] {
                let heading = format!("\n.SH {heading}\n");
                assert_eq!(page.matches(&heading).count(), 1, "{heading}{page}");
            }
        }
    }
}
