//! A Rust source file taken apart by line into code and comment. Not a parser: it only has to know where strings
//! and comments begin and end.

/// One line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// What the compiler sees; the inside of strings and characters is left out.
    pub(super) code: String,
    /// The text of a comment with its slashes; empty where there is none.
    pub(super) comment: String,
    /// The line is in, or below, the file's `#[cfg(test)]` module.
    pub(super) in_tests: bool,
}

enum Inside {
    Code,
    LineComment,
    /// Depth.
    BlockComment(u32),
    Text,
    /// Number of `#`.
    RawText(usize),
}

/// Takes a file apart. Test modules stand at the end of their file, so everything below the attribute is theirs.
pub(super) fn lines(text: &str) -> Vec<Line> {
    let mut inside = Inside::Code;
    let mut in_tests = false;
    text.lines()
        .map(|line| {
            let mut out = Line { in_tests, ..Line::default() };
            take_apart(line, &mut inside, &mut out);
            in_tests |= out.code.trim() == "#[cfg(test)]";
            out
        })
        .collect()
}

fn take_apart(line: &str, inside: &mut Inside, out: &mut Line) {
    let mut rest = line;
    while let Some(next) = rest.chars().next() {
        let mut taken = next.len_utf8();
        match *inside {
            Inside::LineComment => out.comment.push(next),
            Inside::BlockComment(depth) => {
                if rest.starts_with("*/") {
                    taken = 2;
                    *inside = if depth == 1 { Inside::Code } else { Inside::BlockComment(depth - 1) };
                } else if rest.starts_with("/*") {
                    taken = 2;
                    *inside = Inside::BlockComment(depth + 1);
                } else {
                    out.comment.push(next);
                }
            }
            Inside::Text => match next {
                '\\' => taken += rest[taken..].chars().next().map_or(0, char::len_utf8),
                '"' => {
                    out.code.push('"');
                    *inside = Inside::Code;
                }
                _ => {}
            },
            Inside::RawText(hashes) => {
                if next == '"' && rest[1..].bytes().take_while(|&byte| byte == b'#').count() >= hashes {
                    taken += hashes;
                    out.code.push('"');
                    *inside = Inside::Code;
                }
            }
            Inside::Code => taken = take_code(rest, next, inside, out),
        }
        rest = &rest[taken..];
    }
    if matches!(inside, Inside::LineComment) {
        *inside = Inside::Code;
    }
}

/// Bytes taken from the start of `rest`, which is code.
fn take_code(rest: &str, next: char, inside: &mut Inside, out: &mut Line) -> usize {
    if rest.starts_with("//") {
        *inside = Inside::LineComment;
        out.comment.push_str("//");
        return 2;
    }
    if rest.starts_with("/*") {
        *inside = Inside::BlockComment(1);
        return 2;
    }
    if let Some(length) = raw_text_start(rest, &out.code) {
        *inside = Inside::RawText(length - 2);
        out.code.push_str("r\"");
        return length;
    }
    match next {
        '"' => *inside = Inside::Text,
        '\'' => {
            if let Some(length) = character(rest) {
                out.code.push_str("''");
                return length;
            }
        }
        _ => {}
    }
    out.code.push(next);
    next.len_utf8()
}

/// Length of `r"`, `r#"`, ... unless the `r` is the end of a word.
fn raw_text_start(rest: &str, before: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.bytes().take_while(|&byte| byte == b'#').count();
    let in_word = before.ends_with(|last: char| (last.is_alphanumeric() || last == '_') && last != 'b');
    (!in_word && after[hashes..].starts_with('"')).then_some(hashes + 2)
}

/// Length of a character literal; `None` when the quote begins a lifetime.
fn character(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next()?;
        return chars.find(|(_, found)| *found == '\'').map(|(at, _)| at + 1);
    }
    chars.next().filter(|(_, found)| *found == '\'').map(|(at, _)| at + 1)
}

/// Whether `word` stands in `code` by itself.
pub(super) fn has_word(code: &str, word: &str) -> bool {
    count_word(code, word) > 0
}

/// How often `word` stands in `code` by itself.
pub(super) fn count_word(code: &str, word: &str) -> usize {
    let is_part = |found: char| found.is_alphanumeric() || found == '_';
    code.match_indices(word)
        .filter(|(at, _)| !code[..*at].ends_with(is_part) && !code[at + word.len()..].starts_with(is_part))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<String> {
        lines(text).into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn strings_characters_and_comments_are_told_from_code() {
        assert_eq!(codes(r#"let a = "// \" x"; // b"#), [r#"let a = ""; "#]);
        assert_eq!(codes("let q = '\"'; let s: &'a str; '\\'' // c"), ["let q = ''; let s: &'a str; '' "]);
        assert_eq!(codes("a /* b /* c */ d\ne */ f"), ["a ", " f"]);
        assert_eq!(codes("r#\"x\" // y\n\"# ; var\"z\""), ["r\"", "\" ; var\"\""]);
        assert_eq!(lines("x // y").first().map(|line| line.comment.as_str()), Some("// y"));
    }

    #[test]
    fn everything_below_the_attribute_is_tests() {
        let found: Vec<_> = lines("a\n#[cfg(test)]\nmod tests {}").iter().map(|line| line.in_tests).collect();
        assert_eq!(found, [false, false, true]);
    }

    #[test]
    fn a_word_is_not_found_in_a_longer_one() {
        assert_eq!(count_word("unsafe { } forbid(unsafe_code) unsafe", "unsafe"), 2);
        assert!(!has_word("unsafely", "unsafe"));
    }
}
