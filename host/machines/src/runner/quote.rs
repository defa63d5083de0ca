//! Quoting for POSIX shells.

/// `text` as one word that means exactly `text` to any POSIX shell.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_gives_back_what_was_quoted() {
        for text in ["", "plain", "it's", "''", "$HOME `id` \\ \" !", "two\nlines", "-n", "*"] {
            let echoed = Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(text))).output().unwrap();
            assert_eq!(String::from_utf8(echoed.stdout).unwrap(), text);
        }
    }
}
