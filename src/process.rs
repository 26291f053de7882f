//! What this process has used of its machine: CPU time and memory.
//!
//! Both ends of a benchmark read them: a node tells its own in STATUS, the load generator counts its own beside it.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// CPU time of all threads since the start, user and system. What the kernel does later on our behalf (writing back
/// pages, interrupts) is not in it.
pub fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let whole = u64::try_from(spent.tv_sec).unwrap_or(0);
    Duration::from_secs(whole) + Duration::from_nanos(u64::try_from(spent.tv_nsec).unwrap_or(0))
}

/// Resident memory, bytes; `None` where the system has no `/proc`.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_cpu_time_and_memory_is_somewhere() {
        let before = cpu_time();
        let mut sum = 0u64;
        while cpu_time() == before {
            sum = sum.wrapping_mul(31).wrapping_add(1);
        }
        assert!(cpu_time() > before, "{sum}");
        assert!(resident_bytes().is_none_or(|bytes| bytes > 100_000));
    }
}
