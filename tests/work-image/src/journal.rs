//! Two append-only files that prove things: `journal.log`, whose numbered lines are on disk before they are
//! acknowledged, and `starts.log`, which says when each process began and ended. It decides nothing from them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::home::Home;

/// The journal of one process's life.
pub(crate) struct Journal {
    boot_id: String,
    path: PathBuf,
    starts: Mutex<File>,
    state: Mutex<State>,
}

struct State {
    file: File,
    count: u64,
    closed: bool,
}

impl Journal {
    /// Continues the numbering of an earlier process and writes down that this one started.
    pub(crate) fn open(home: &Home) -> io::Result<Self> {
        let boot_id = random_hex::<8>()?;
        let mut starts = append_to(home.path("starts.log"))?;
        write_mark(&mut starts, "start", &boot_id)?;

        let path = home.path("journal.log");
        let mut file = append_to(path.clone())?;
        let count = recover(&mut file)?;
        home.sync()?;
        let state = Mutex::new(State { file, count, closed: false });
        Ok(Self { boot_id, path, starts: Mutex::new(starts), state })
    }

    /// Names this process: random, so that two copies can be told apart.
    pub(crate) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    pub(crate) fn count(&self) -> u64 {
        self.state().count
    }

    /// Writes one numbered line and returns its number once it is on disk.
    pub(crate) fn append(&self, text: &str) -> io::Result<u64> {
        let mut state = self.state();
        if state.closed {
            return Err(io::Error::new(ErrorKind::BrokenPipe, "the journal is closed, this process is stopping"));
        }
        let line = state.count + 1;
        let written = state.file.write_all(format!("{line} {text}\n").as_bytes()).and_then(|()| state.file.sync_data());
        if let Err(error) = written {
            // Half a line may be on disk. Take it back, or the next line would hang on to it.
            recover(&mut state.file)?;
            return Err(error);
        }
        state.count = line;
        Ok(line)
    }

    pub(crate) fn read(&self) -> io::Result<String> {
        let _no_half_line = self.state();
        fs::read_to_string(&self.path)
    }

    /// Writes down that this process stops; nothing is acknowledged after this.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.state().closed = true;
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        write_mark(&mut starts, "stop", &self.boot_id)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Random bytes from the kernel, as hexadecimal digits.
pub(crate) fn random_hex<const BYTES: usize>() -> io::Result<String> {
    let mut bytes = [0; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn append_to(path: PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).read(true).open(path)
}

fn write_mark(file: &mut File, what: &str, boot_id: &str) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    file.write_all(format!("{what} {boot_id} {}\n", now.as_nanos()).as_bytes())?;
    file.sync_all()
}

/// The number of the last whole line. A line without its end was never acknowledged and is cut off.
fn recover(file: &mut File) -> io::Result<u64> {
    let mut content = Vec::new();
    io::Seek::rewind(file)?;
    file.read_to_end(&mut content)?;
    let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < content.len() {
        file.set_len(whole as u64)?;
    }
    file.sync_all()?;
    let last = content[..whole].trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let number = last.split(|byte| *byte == b' ').next().unwrap_or_default();
    Ok(std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbering_goes_on_after_a_restart_and_a_half_line_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        let journal = Journal::open(&home).unwrap();
        assert_eq!(journal.append("one").unwrap(), 1);
        assert_eq!(journal.append("two").unwrap(), 2);
        drop(journal);
        append_to(home.path("journal.log")).unwrap().write_all(b"3 thr").unwrap();

        let journal = Journal::open(&home).unwrap();
        assert_eq!(journal.append("three").unwrap(), 3);
        assert_eq!(journal.read().unwrap(), "1 one\n2 two\n3 three\n");
    }

    #[test]
    fn each_process_writes_its_start_and_its_stop() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        let boots: Vec<String> = (0..2)
            .map(|_| {
                let journal = Journal::open(&home).unwrap();
                journal.close().unwrap();
                assert_eq!(journal.append("late").unwrap_err().kind(), ErrorKind::BrokenPipe);
                journal.boot_id().to_owned()
            })
            .collect();

        let starts = fs::read_to_string(home.path("starts.log")).unwrap();
        let seen: Vec<Vec<&str>> = starts.lines().map(|line| line.split(' ').take(2).collect()).collect();
        let (first, second) = (boots[0].as_str(), boots[1].as_str());
        assert_eq!(seen, [["start", first], ["stop", first], ["start", second], ["stop", second]]);
        assert_ne!(first, second);
    }
}
