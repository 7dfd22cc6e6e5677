//! Words as a POSIX shell takes them.

/// Quotes a word.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
