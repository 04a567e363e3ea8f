//! File descriptors: how many files and connections the process may have open.
//!
//! Every connection and every file of the store takes one. Without a reserved share the store could
//! not begin a segment while clients hold connections, and would refuse every write.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use widgets_server::EXCESS_MAX;

/// What the process itself needs, whatever it serves: its standard streams, the listener, the data
/// directory's lock, segments, checkpoints, certificates, keys that are fetched, and a margin.
const OWN: u64 = 64;

/// How many descriptors a thread with a runtime uses to wait for events.
const OF_A_WORKER: u64 = 4;

/// With fewer connections than this, the service does not start.
const CONNECTIONS_LEAST: u64 = 8;

/// Raises the process's limit as far as it may, and returns the resulting limit, if there is one.
pub(crate) fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
    getrlimit(Resource::Nofile).current
}

/// Returns how many connections may be open if the process may have `limit` descriptors: `wanted`,
/// or what is left after the store with its connections to a database, and the workers, have
/// theirs.
pub(crate) fn connections_max(
    wanted: usize,
    limit: Option<u64>,
    workers: usize,
    database_connections: usize,
) -> Result<usize, String> {
    let Some(limit) = limit else {
        return Ok(wanted);
    };
    // A new connection to a database may overlap with the old one that it replaces.
    let count = |each: usize| u64::try_from(each).unwrap_or(u64::MAX);
    let needed = OWN
        .saturating_add(count(EXCESS_MAX))
        .saturating_add(count(workers).saturating_mul(OF_A_WORKER))
        .saturating_add(count(database_connections).saturating_mul(2));
    let left = limit.saturating_sub(needed);
    if left >= count(wanted) {
        return Ok(wanted);
    }
    let raise = "raise it (ulimit -n, LimitNOFILE= of systemd, --ulimit nofile= of Docker)";
    if left < CONNECTIONS_LEAST {
        let least = needed + CONNECTIONS_LEAST;
        return Err(format!(
            "the limit on open files must be at least {least}, but it is {limit}: {raise}"
        ));
    }
    tracing::warn!(
        "connections_max is {left} instead of {wanted}: the limit on open files is {limit}, and \
         the service keeps {needed} of them for itself; {raise} or lower http.connections_max"
    );
    Ok(usize::try_from(left).unwrap_or(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_by_the_remaining_file_descriptors() {
        let connections = |limit| connections_max(1000, limit, 2, 3);
        assert_eq!(connections(None), Ok(1000));
        assert_eq!(connections(Some(1 << 20)), Ok(1000));
        // 64 for the process itself, 64 for excess connections, 8 for the workers, 6 for the
        // database.
        assert_eq!(connections(Some(1142)), Ok(1000));
        assert_eq!(connections(Some(1141)), Ok(999));
        assert_eq!(connections(Some(256)), Ok(114));
        assert_eq!(connections(Some(150)), Ok(8));
        let refused = connections(Some(149)).expect_err("too few");
        assert!(
            refused.starts_with(
                "the limit on open files must be at least 150, but it is 149: raise it"
            ),
            "{refused}"
        );
        assert!(connections(Some(0)).is_err());
    }
}
