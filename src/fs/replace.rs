//! Replacing a file whole, so that its name always means the old bytes or the new ones.

use std::path::Path;
use std::sync::Arc;

use crate::error::{ErrorKind, Result};
use crate::fs::{Fs, WriteFile, name};

/// Makes `bytes` the file `name` in `dir`: a temporary file, sync, rename, sync of the directory. When it
/// returns, the new file is on the device under its name; the handle appends to it.
///
/// # Errors
/// `Io`. Then the name means the old file or the new one, and after a power cut either.
pub(crate) fn replace(fs: &dyn Fs, dir: &Path, name: &str, bytes: &[u8]) -> Result<Arc<dyn WriteFile>> {
    let file = prepare(fs, dir, name, bytes)?;
    publish(fs, dir, name)?;
    Ok(file)
}

/// The first half: `bytes` are on the device under the temporary name. When it fails, nothing has happened to
/// the file of this name, and it can be tried again, since that makes another file.
pub(crate) fn prepare(fs: &dyn Fs, dir: &Path, name: &str, bytes: &[u8]) -> Result<Arc<dyn WriteFile>> {
    let temporary = dir.join(name::temporary(name));
    // Left by a crash between create and rename.
    match fs.remove(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = fs.create(&temporary)?;
    let written = file.write_at(bytes, 0).and_then(|()| file.sync());
    if let Err(error) = written {
        // It holds room that a full disk lacks; the next try would remove it as well.
        let _ = fs.remove(&temporary);
        return Err(error);
    }
    Ok(file)
}

/// The second half: the temporary file takes the name.
pub(crate) fn publish(fs: &dyn Fs, dir: &Path, name: &str) -> Result<()> {
    fs.rename(&dir.join(name::temporary(name)), &dir.join(name))?;
    fs.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{Call, Crash, Fault, FaultFs, FaultKind, MemoryFs};

    /// Stops the world before every call in turn, cuts the power, and looks: never a mixture, never nothing.
    #[test]
    fn the_name_means_old_or_new_after_a_crash_at_any_step() {
        let dir = Path::new("/db");
        for seed in 0..50 {
            for nth in 1.. {
                let disk = MemoryFs::new(seed);
                disk.create_dir(dir).unwrap();
                disk.sync_dir(Path::new("/")).unwrap();
                replace(&disk, dir, "file", &[1; 3000]).unwrap();

                let fault = FaultFs::new(Arc::new(disk.clone()));
                fault.inject(Fault { call: Call::Any, nth, kind: FaultKind::Stop, sticky: true });
                let result = replace(&fault, dir, "file", &[2; 4000]);
                let after = disk.crash(Crash::PowerCut);
                let bytes = after.open(&dir.join("file")).unwrap().read_all().unwrap();
                if fault.fired() == 0 {
                    assert!(result.is_ok());
                    assert_eq!(bytes, [2; 4000]);
                    break;
                }
                assert!(bytes == [1; 3000] || bytes == [2; 4000], "seed {seed}, call {nth}");
            }
        }
    }
}
