//! Reads the configuration's file and the process's environment.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::fault::{Fault, Place};
use super::key::ENVIRONMENT_PREFIX;

/// Largest file; a configuration that is larger is something else.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads the file as text.
///
/// # Errors
/// One fault: the file is missing, a directory, unreadable, larger than 1 MiB, or not UTF-8.
pub fn read(path: &Path) -> Result<String, Fault> {
    let shown: Arc<str> = path.display().to_string().into();
    let fault = |message: String| Fault::new(Place::Path(Arc::clone(&shown)), message);
    if path.is_dir() {
        return Err(fault("this is a directory, not a file".into()).help("name the TOML file in it"));
    }
    let file = std::fs::File::open(path).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            fault("no such file".into())
                .help("`pulsegate config default > pulsegate.toml` writes one with every key and its default")
        } else {
            fault(format!("can't be opened: {error}"))
        }
    })?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a full file from one that is too large, however it reports its size.
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fault(format!("can't be read: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fault(format!("larger than {} MiB: this is no configuration", FILE_BYTES_MAX >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let good = String::from_utf8_lossy(good);
        let place = Place::in_file(&shown, &good, good.len()..good.len());
        Fault::new(place, "not UTF-8 from here on").help("save the file as UTF-8")
    })
}

/// The `PULSEGATE_*` variables of this process, without those in `others`, which belong to other commands.
///
/// # Errors
/// One fault for each value that is not UTF-8.
pub fn environment(others: &[String]) -> Result<Vec<(String, String)>, Vec<Fault>> {
    let mut variables = Vec::new();
    let mut faults = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        if !name.starts_with(ENVIRONMENT_PREFIX) || others.contains(&name) {
            continue;
        }
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(value) => {
                let value = value.to_string_lossy().into_owned();
                faults.push(Fault::new(Place::Environment { name, value }, "the value is not UTF-8"));
            }
        }
    }
    variables.sort();
    if faults.is_empty() { Ok(variables) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn temporary(name: &str, bytes: &[u8]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pulsegate-file-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn what_is_no_file_is_named() {
        let directory = read(&std::env::temp_dir()).unwrap_err();
        assert!(directory.message.contains("directory"), "{directory}");
        let missing = read(Path::new("/nowhere/at/all.toml")).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/at/all.toml: no such file"), "{missing}");
        let endless = read(Path::new("/dev/zero")).unwrap_err();
        assert!(endless.message.contains("larger than 1 MiB"), "{endless}");
    }

    #[test]
    fn a_byte_that_is_not_utf8_has_a_place() {
        let path = temporary("latin1", b"[log]\nlevel = \"caf\xe9\"\n");
        let fault = read(&path).unwrap_err();
        assert!(fault.to_string().contains(":2:13: not UTF-8"), "{fault}");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_largest_file_is_read() {
        let path = temporary("full", &vec![b'#'; 1 << 20]);
        assert_eq!(read(&path).map(|text| text.len()), Ok(1 << 20));
        std::fs::remove_file(path).unwrap();
    }
}
