use std::fs;
use std::io;
use std::time::Duration;

/// User and system time of all threads of a process so far. A thread that is running just now has
/// its last time slice missing, so ask while the process is at rest.
///
/// # Errors
/// If there is no such process, or the kernel keeps no `schedstat`.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let ns = text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok());
        total += ns.ok_or_else(|| {
            let message = format!("schedstat: expected a number of nanoseconds, got {text:?}");
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
    }
    Ok(Duration::from_nanos(total))
}
