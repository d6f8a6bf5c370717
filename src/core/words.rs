//! Words that come from outside (servers, databases, requests), before they are shown: in a log, an answer or on a
//! terminal. No IO.

/// Longest error that is shown, in characters.
pub(crate) const ERROR_CHARS: usize = 8_000;

/// At most `most` characters of a text, without any that could forge a line, colour a terminal or turn the
/// direction of what follows: control characters and those that no one sees.
pub fn clean(text: &str, most: usize) -> String {
    let mut clean: String = text.chars().take(most).map(|c| if is_plain(c) { c } else { ' ' }).collect();
    if text.chars().nth(most).is_some() {
        clean.push_str("..."); // a dead letter may say it, in whatever encoding the database has
    }
    clean
}

/// The same of a text that may hold a list of ours, whose items begin with a line break, two blanks and a dash.
pub(crate) fn clean_list(text: &str, most: usize) -> String {
    const ITEM: &str = "\n  - ";
    let bounded: String = text.chars().take(most).collect();
    let items: Vec<String> = bounded.split(ITEM).map(|item| clean(item, most)).collect();
    items.join(ITEM)
}

fn is_plain(c: char) -> bool {
    let is_hidden = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    !c.is_control() && !is_hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forges_lines_or_hides_is_gone_and_the_rest_stays() {
        for (text, most, expected) in [
            ("größer, 数, ﷽, \u{1f600}", 100, "größer, 数, ﷽, \u{1f600}"),
            ("a\nb\r\u{1b}[31mc\u{7f}\u{9b}d\0", 100, "a b  [31mc  d "),
            ("a\u{202e}b\u{2066}c\u{200b}d\u{2028}e\u{feff}", 100, "a b c d e "),
            ("123456789", 5, "12345..."),
            ("12345", 5, "12345"),
        ] {
            assert_eq!(clean(text, most), expected, "{text:?}");
        }
    }
}
