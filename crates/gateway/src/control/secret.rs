//! The bearer token of the control API.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq as _;

/// Shorter tokens can be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// A token file holds one line; more than this is some other file.
const FILE_BYTES_MAX: u64 = 4096;

/// A token that shows itself to nobody.
#[derive(Clone)]
pub(crate) struct Secret(Box<[u8]>);

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// It can't be read.
    #[error("can't read the token file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing is in its first line.
    #[error("the first line of the token file {0} is empty")]
    Empty(PathBuf),
    /// Its first line is shorter than 16 bytes.
    #[error(
        "the token in {0} is shorter than {TOKEN_BYTES_MIN} bytes; make one with `openssl rand -base64 32`"
    )]
    TooShort(PathBuf),
    /// Its first line can't be sent in a header, or the file is far too large.
    #[error("the token in {0} has bytes other than visible ASCII, or is longer than {FILE_BYTES_MAX} bytes")]
    Unfit(PathBuf),
}

impl Secret {
    /// Reads the first line of `path`.
    ///
    /// # Errors
    /// The file can't be read, or its first line is no token of at least 16 visible ASCII bytes.
    pub(crate) fn read(path: &Path) -> Result<Secret, SecretError> {
        let unreadable = |source| SecretError::Unreadable { path: path.into(), source };
        let mut text = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(unreadable)?;
        let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
        if line.is_empty() {
            return Err(SecretError::Empty(path.into()));
        }
        if line.len() < TOKEN_BYTES_MIN {
            return Err(SecretError::TooShort(path.into()));
        }
        if line.len() as u64 == FILE_BYTES_MAX || !line.iter().all(u8::is_ascii_graphic) {
            return Err(SecretError::Unfit(path.into()));
        }
        Ok(Secret(line.into()))
    }

    /// Compares in a time that does not depend on where the two differ.
    pub(super) fn matches(&self, given: &[u8]) -> bool {
        self.0.ct_eq(given).into()
    }

    /// The value of an `Authorization` header that carries the token.
    pub(crate) fn authorization(&self) -> String {
        format!("Bearer {}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::TempDir;

    fn read(text: &[u8]) -> Result<Secret, SecretError> {
        let dir = TempDir::new();
        let path = dir.path("token");
        std::fs::write(&path, text).unwrap();
        Secret::read(&path)
    }

    #[test]
    fn the_first_line_is_the_token() {
        for text in ["0123456789abcdef", "0123456789abcdef\n", "0123456789abcdef\r\nwhatever else\n"] {
            let secret = read(text.as_bytes()).unwrap();
            assert!(secret.matches(b"0123456789abcdef"), "{text:?}");
            assert!(!secret.matches(b"0123456789abcdeF") && !secret.matches(b"0123456789abcde"));
            assert!(!secret.matches(b"") && !secret.matches(b"0123456789abcdef0"));
            assert!(!format!("{secret:?}").contains("0123"));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        assert!(matches!(read(b""), Err(SecretError::Empty(_))));
        assert!(matches!(read(b"\n0123456789abcdef\n"), Err(SecretError::Empty(_))));
        assert!(matches!(read(b"   \n"), Err(SecretError::Empty(_))));
        assert!(matches!(read(b"0123456789abcde\n"), Err(SecretError::TooShort(_))));
        assert!(matches!(read(b"0123456789 abcdef"), Err(SecretError::Unfit(_))));
        assert!(matches!(read("0123456789abcdefü".as_bytes()), Err(SecretError::Unfit(_))));
        assert!(matches!(read(&[b'x'; 5000]), Err(SecretError::Unfit(_))));
        let error = Secret::read(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
