//! Sizes, counts and text as people read them.

use std::fmt::Write as _;

/// A size with three significant digits and a binary unit: `1.50 GiB`, `512 B`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 999.5 would print as 1000, so the next unit starts there.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A size as git takes it: digits, and a suffix `k`, `m` or `g` for powers of 1024.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (digits, shift) = match lower.as_bytes().last()? {
        b'k' => (&lower[..lower.len() - 1], 10),
        b'm' => (&lower[..lower.len() - 1], 20),
        b'g' => (&lower[..lower.len() - 1], 30),
        _ => (lower.as_str(), 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// How much moved in which time: `1.00 GiB in 8.1 s, 126 MiB/s`. Of what took no second, the rate says nothing.
pub fn moved(count: u64, time: std::time::Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1. {
        return bytes(count);
    }
    format!("{} in {seconds:.1} s, {}/s", bytes(count), bytes((count as f64 / seconds) as u64))
}

/// `1 file`, `2 files`, `1,204 files`.
pub fn count(number: u64, noun: &str) -> String {
    let plural = match noun {
        "directory" if number != 1 => return format!("{} directories", thousands(number)),
        _ if number == 1 => "",
        _ => "s",
    };
    format!("{} {noun}{plural}", thousands(number))
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Text from a repository or a store, made safe for a terminal: control characters, bidirectional overrides and
/// line separators become visible escapes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let hostile = c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            _ if hostile => {
                let _ = write!(out, "\\u{{{:x}}}", c as u32);
            }
            _ => out.push(c),
        }
    }
    out
}

/// A time of Unix seconds as RFC 3339 has it, UTC. `None` of one that no calendar has.
pub fn rfc3339(seconds: i64) -> Option<String> {
    Some(chrono::DateTime::from_timestamp(seconds, 0)?.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}

/// Unix seconds of a time as RFC 3339 has it.
pub fn unix_seconds(text: &str) -> Option<i64> {
    Some(chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp())
}

/// Text as a part of a URL: all but letters, digits, `-._~` and what is to be kept is percent-encoded.
pub fn percent_encode(text: &str, keep: &[u8]) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// An argument as it can be pasted into a POSIX shell.
pub fn shell_quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-#".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.starts_with(['-', '#']) {
        return text.to_owned();
    }
    let text = if text.starts_with('-') { format!("./{text}") } else { text.to_owned() };
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.00 KiB");
        assert_eq!(bytes(90_868_376), "86.7 MiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.00 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn sizes_are_read_with_gits_suffixes() {
        assert_eq!(parse_bytes("10M"), Some(10 << 20));
        assert_eq!(parse_bytes("512"), Some(512));
        for wrong in ["", "m", "-1", "1.5g", "10MiB", "99999999999g"] {
            assert_eq!(parse_bytes(wrong), None, "{wrong}");
        }
        assert_eq!(moved(1 << 30, std::time::Duration::from_secs(8)), "1.00 GiB in 8.0 s, 128 MiB/s");
    }

    #[test]
    fn counts_agree_with_their_noun() {
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(20_000, "file"), "20,000 files");
        assert_eq!(count(2, "directory"), "2 directories");
    }

    #[test]
    fn escapes_what_a_terminal_would_obey() {
        assert_eq!(escape("a\u{1b}[31m\u{202e}b\n"), "a\\u{1b}[31m\\u{202e}b\\n");
        assert_eq!(escape("naïve 模型"), "naïve 模型");
    }

    #[test]
    fn quotes_for_a_shell() {
        assert_eq!(shell_quote("models/a.bin"), "models/a.bin");
        assert_eq!(shell_quote("it's"), r"'it'\''s'");
        assert_eq!(shell_quote("-rf"), "'./-rf'");
    }
}
