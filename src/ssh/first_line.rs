//! The first line on a command's standard input, for any shell that reads it.
//!
//! The login's shell reads it before the command begins. A start-up file may have started another shell in its place, which would
//! run all that comes, a job's script included: this line has that shell say so, and end. A start-up file that reads this line
//! leaves another one in its place, which the login's shell sees.

/// The line, for shells of any kind: interactive zsh knows no comment behind a command, csh has another `>&2`, and before it may
/// stand a prompt.
pub const LINE: &str = "printf '\\ngad-astray\\n'; exit 97; #gad\n";
/// What a command begins with: takes the line, and ends where it is gone, since the rest would be cut.
pub const TAKE: &str = "read -r first_line; case $first_line in *'#gad');; *) echo '\ngad-astray' >&2; exit 97;; esac; ";
/// What is said then, on a line of its own.
const ASTRAY: &str = "gad-astray";

/// Tells whether a login's start-up has taken what was sent to a command, by what was said before that spoke.
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
