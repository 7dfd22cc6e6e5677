//! Patterns as the configuration writes them: `*` stands for anything within a segment, `**` for anything.

/// What parts an ARN, and so ends what one `*` may stand for.
pub const OF_ARNS: &[char] = &[':', '/'];

enum Token {
    Is(char),
    WithinSegment,
    Anything,
}

/// Returns whether the pattern fits the whole text; `*` never stands for one of the separators. Either star may
/// stand for nothing; all other characters are themselves, in their own case.
#[must_use]
pub fn fits(pattern: &str, text: &str, separators: &[char]) -> bool {
    let text: Vec<char> = text.chars().collect();
    // Which beginnings of the text fit the pattern so far: no way back, so no pattern takes long.
    let mut so_far = vec![false; text.len() + 1];
    so_far[0] = true;
    for token in tokens(pattern) {
        let mut next = vec![false; text.len() + 1];
        match token {
            Token::Is(c) => {
                for (i, at) in text.iter().enumerate() {
                    next[i + 1] = so_far[i] && *at == c;
                }
            }
            Token::WithinSegment | Token::Anything => {
                next[0] = so_far[0];
                for (i, at) in text.iter().enumerate() {
                    let passes = matches!(token, Token::Anything) || !separators.contains(at);
                    next[i + 1] = so_far[i + 1] || (next[i] && passes);
                }
            }
        }
        so_far = next;
    }
    so_far[text.len()]
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' if chars.next_if_eq(&'*').is_some() => Token::Anything,
            '*' => Token::WithinSegment,
            _ => Token::Is(c),
        });
    }
    tokens
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::pattern::*;

    /// The same, as one would say it: slow, and plainly right.
    fn model(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', '*', rest @ ..] => (0..=text.len()).any(|n| model(rest, &text[n..])),
            ['*', rest @ ..] => (0..=text.len())
                .take_while(|n| !text[..*n].iter().any(|c| OF_ARNS.contains(c)))
                .any(|n| model(rest, &text[n..])),
            [c, rest @ ..] => text.first() == Some(c) && model(rest, &text[1..]),
        }
    }

    #[test]
    fn stars_stop_where_they_should() {
        for (pattern, text, want) in [
            ("ci-*", "ci-x", true),
            ("ci-*", "ci-", true),
            ("ci-*", "xci-x", false),
            ("ci-*", "ci-x:1", false),
            ("ci-**", "ci-x:1/a", true),
            ("a*c*", "abbcc", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("***", "a/b", true),
            ("Ci", "ci", false),
            ("a?c", "abc", false),
            ("*é", "éé", true),
        ] {
            assert_eq!(fits(pattern, text, OF_ARNS), want, "{pattern} {text}");
        }
        assert!(fits("a:*", "a:b:c", &['/']));
        // Quick even where trying all ways would take ages.
        assert!(!fits(
            &"**a".repeat(500),
            &format!("{}b", "a".repeat(2_000)),
            OF_ARNS
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_agrees_with_the_model(pattern in "[ab:/*]{0,8}", text in "[ab:/]{0,8}") {
            let chars = |s: &str| s.chars().collect::<Vec<_>>();
            prop_assert_eq!(fits(&pattern, &text, OF_ARNS), model(&chars(&pattern), &chars(&text)));
        }

        #[test]
        fn a_text_fits_itself_and_every_star(text in "[a-z:/.é-]{0,40}") {
            prop_assert!(fits(&text, &text, OF_ARNS));
            prop_assert!(fits("**", &text, OF_ARNS));
            prop_assert_eq!(fits("*", &text, OF_ARNS), !text.contains(OF_ARNS));
        }
    }
}
