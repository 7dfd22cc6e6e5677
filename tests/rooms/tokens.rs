//! Rust sources as tokens: names and punctuation, without comments and what literals hold.

/// One token, and the line on which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
}

/// Returns the tokens of a text. `::` is one; all other punctuation comes character by character.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut all = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let end = match (chars[at], chars.get(at + 1)) {
            ('/', Some('/')) => find(&chars, at, |rest| rest[0] == '\n'),
            ('/', Some('*')) => comment(&chars, at),
            ('"', _) => string(&chars, at + 1),
            ('\'', _) => quote(&chars, at),
            (c, _) if c.is_whitespace() => at + 1,
            (c, _) if c.is_alphanumeric() || c == '_' => {
                let end = find(&chars, at, |rest| {
                    !(rest[0].is_alphanumeric() || rest[0] == '_')
                });
                let word: String = chars[at..end].iter().collect();
                match raw(&word, &chars, end) {
                    Some(end) => end,
                    None => {
                        all.push(Token { text: word, line });
                        end
                    }
                }
            }
            (':', Some(':')) => {
                all.push(Token {
                    text: "::".to_owned(),
                    line,
                });
                at + 2
            }
            (c, _) => {
                all.push(Token {
                    text: c.to_string(),
                    line,
                });
                at + 1
            }
        };
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    all
}

/// Returns where from `at` on something begins, or the end.
fn find(chars: &[char], at: usize, begins: impl Fn(&[char]) -> bool) -> usize {
    (at..chars.len())
        .find(|i| begins(&chars[*i..]))
        .unwrap_or(chars.len())
}

/// Returns the end of a block comment, which may have others within.
fn comment(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

/// Returns the end of a string whose first quote is before `at`.
fn string(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// Returns the end of a character, or of the quote alone before a lifetime's name.
fn quote(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            let end = find(chars, at + 3, |rest| rest[0] == '\'');
            (end + 1).min(chars.len())
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

/// Returns the end of a literal that begins with a word: `r"…"`, `b"…"`, `br#"…"#`, `c"…"`, `b'…'`.
fn raw(word: &str, chars: &[char], at: usize) -> Option<usize> {
    if !matches!(word, "r" | "b" | "br" | "c" | "cr") {
        return None;
    }
    if chars.get(at) == Some(&'\'') && word == "b" {
        return Some(quote(chars, at));
    }
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        return None;
    }
    if !word.contains('r') {
        return Some(string(chars, at + 1));
    }
    let closes = |rest: &[char]| {
        rest[0] == '"' && rest.len() > hashes && rest[1..=hashes].iter().all(|c| *c == '#')
    };
    Some((find(chars, at + hashes + 1, closes) + hashes + 1).min(chars.len()))
}
