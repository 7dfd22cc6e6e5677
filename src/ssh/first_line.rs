//! The first line on a command's standard input, which shows whether the login shell's start-up files took it.
//!
//! The login shell removes the line before the command starts. A shell that a start-up file has started instead would run all
//! input, including a job's script: this line makes it say so and exit. If a start-up file reads standard input, the login shell
//! finds another line, and reports that.

/// The line, for shells of any kind: interactive zsh has no comments after a command, csh has another `>&2`, and a prompt may come
/// before it.
pub const LINE: &str = "printf '\\ngad-astray\\n'; exit 97; #gad\n";
/// The beginning of each command: takes the line, and exits if it is missing, since the rest would be incomplete.
pub const TAKE: &str = "read -r first_line; case $first_line in *'#gad');; *) echo '\ngad-astray' >&2; exit 97;; esac; ";
/// The message then, on a line of its own.
const ASTRAY: &str = "gad-astray";

/// Returns whether a start-up file has taken a command's input, from the output before the command's own.
#[must_use]
pub fn is_astray(stderr: &[u8], stdout: &[u8]) -> bool {
    let is_word = |line: &[u8]| line.trim_ascii() == ASTRAY.as_bytes();
    let mut outputs = [stderr, stdout].into_iter();
    outputs.any(|output| output.split(|byte| *byte == b'\n').any(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_itself_tells_that_a_start_up_file_took_what_was_sent() {
        for output in ["gad-astray\n", "Welcome\ngad-astray\r\n", "gad-astray"] {
            assert!(is_astray(output.as_bytes(), b"") && is_astray(b"", output.as_bytes()));
        }
        // As a shell shows it that echoes what it runs.
        for output in ["", "+ printf '\\ngad-astray\\n'", TAKE, LINE] {
            assert!(!is_astray(output.as_bytes(), output.as_bytes()), "{output}");
        }
    }
}
