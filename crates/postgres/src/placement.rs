//! The placement of a distributed registry's widgets on workers, as the Citus catalogs describe it.
//!
//! Only the forming of batches depends on it: the functions find every widget without it. It may
//! therefore be out of date, which costs time but no operation, and it is read again from time to
//! time.

use std::array;
use tokio_postgres::{Client, Error};
use widgets_registry::{Command, SerialNumber};

/// Run first, because only Citus has these catalogs.
const HAS_CITUS: &str = "SELECT to_regclass('pg_catalog.pg_dist_shard') IS NOT NULL";

/// The last hash of each shard, and the node that holds the shard.
const SHARDS: &str = "
    SELECT shard.shardmaxvalue::integer, node.nodename || ':' || node.nodeport
    FROM pg_catalog.pg_dist_shard shard
    JOIN pg_catalog.pg_dist_placement placement USING (shardid)
    JOIN pg_catalog.pg_dist_node node USING (groupid)
    WHERE shard.logicalrelid = to_regclass('widgets.widgets') AND node.noderole = 'primary'
        AND node.nodecluster = current_setting('citus.cluster_name')
    ORDER BY 1";

/// The numbers of the two workers that an operation concerns, the lower one first; twice the same
/// number if it is only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Home(pub(crate) usize, pub(crate) usize);

/// The placement of the widgets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The last hash of each shard, and the number of its worker.
    shards: Vec<(i32, usize)>,
    /// The host and port of each worker.
    pub(crate) workers: Vec<String>,
}

impl Placement {
    /// Reads the placement from the database. Returns `None` if the registry is not distributed.
    pub(crate) async fn of(client: &Client) -> Result<Option<Self>, Error> {
        let rows = client.query_typed(HAS_CITUS, &[]).await?;
        let has_citus = rows.first().map_or(Ok(false), |row| row.try_get(0))?;
        if !has_citus {
            return Ok(None);
        }
        let mut shards = Vec::new();
        for row in client.query_typed(SHARDS, &[]).await? {
            shards.push((row.try_get(0)?, row.try_get(1)?));
        }
        Ok(Self::new(shards))
    }

    /// Builds a placement from each shard's last hash, in ascending order, and its node.
    pub(crate) fn new(shards: Vec<(i32, String)>) -> Option<Self> {
        let mut placement = Self::default();
        for (last, node) in shards {
            let known = placement.workers.iter().position(|known| *known == node);
            let number = known.unwrap_or_else(|| {
                placement.workers.push(node);
                placement.workers.len() - 1
            });
            placement.shards.push((last, number));
        }
        (!placement.shards.is_empty()).then_some(placement)
    }

    /// Reports whether there are at least two workers; with fewer there is nothing to distinguish.
    pub(crate) const fn has_several(&self) -> bool {
        self.workers.len() > 1
    }

    /// Returns the worker that holds a widget, or would hold it.
    pub(crate) fn worker(&self, serial_number: &SerialNumber) -> usize {
        let hash = hash(serial_number.as_bytes());
        let shard = self.shards.partition_point(|(last, _)| *last < hash);
        // The last shard ends with the greatest hash, so this default is never used.
        self.shards.get(shard).map_or(0, |(_, worker)| *worker)
    }

    /// Returns the workers that a command concerns. The peers of a removed widget are not included.
    pub(crate) fn home(&self, command: &Command) -> Home {
        match command {
            Command::AddWidget { serial_number, .. } | Command::RemoveWidget { serial_number } => {
                let worker = self.worker(serial_number);
                Home(worker, worker)
            }
            Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => {
                let workers = [self.worker(pair.widget1()), self.worker(pair.widget2())];
                Home(workers[0].min(workers[1]), workers[0].max(workers[1]))
            }
        }
    }
}

/// Computes PostgreSQL's `hashtext`: Bob Jenkins' lookup3 with its own initial value.
fn hash(bytes: &[u8]) -> i32 {
    // A serial number has at most 255 bytes.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let start = 0x9e37_79b9_u32.wrapping_add(length).wrapping_add(3_923_095);
    let [mut a, mut b, mut c] = [start; 3];
    let (chunks, rest) = bytes.as_chunks::<12>();
    for chunk in chunks {
        let [first, second, third] = words(chunk);
        a = a.wrapping_add(first);
        b = b.wrapping_add(second);
        c = c.wrapping_add(third);
        a = a.wrapping_sub(c) ^ c.rotate_left(4);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(6);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(8);
        b = b.wrapping_add(a);
        a = a.wrapping_sub(c) ^ c.rotate_left(16);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(19);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(4);
        b = b.wrapping_add(a);
    }
    // The lowest byte of the last word is reserved for the length.
    let mut last = [0; 12];
    for (place, byte) in rest.iter().enumerate() {
        last[if place < 8 { place } else { place + 1 }] = *byte;
    }
    let [first, second, third] = words(&last);
    a = a.wrapping_add(first);
    b = b.wrapping_add(second);
    c = c.wrapping_add(third);
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    c = (c ^ b).wrapping_sub(b.rotate_left(24));
    c.cast_signed()
}

fn words(bytes: &[u8; 12]) -> [u32; 3] {
    let (words, _) = bytes.as_chunks::<4>();
    array::from_fn(|place| u32::from_le_bytes(words[place]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use widgets_conformance::commands::{add_widget, associate_widgets, serial_number};
    use widgets_registry::Port;

    /// Each hash is the result of `SELECT hashtext(…)`.
    const HASHES: [(&str, i32); 7] = [
        ("a", 1_075_015_857),
        ("widget-1", 652_050_688),
        ("eleven-byte", 272_465_422),
        ("twelve-bytes", 1_227_069_167),
        ("thirteen-byte", 731_131_178),
        ("zürich", -1_380_109_836),
        ("0123456789abcdefghijklmnopqrstuvwxyz", -933_383_701),
    ];

    #[test]
    fn hashes_equal_those_of_postgresql() {
        for (text, expected) in HASHES {
            assert_eq!(hash(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn the_home_of_an_operation_is_the_workers_of_its_widgets() {
        let shards = [
            (-1_073_741_825, "a:1"),
            (-1, "b:1"),
            (1_073_741_823, "a:1"),
            (i32::MAX, "c:1"),
        ];
        let shards = shards.map(|(last, node)| (last, node.to_owned()));
        let placement = Placement::new(shards.to_vec()).expect("three workers");
        assert_eq!(placement.workers, ["a:1", "b:1", "c:1"]);
        let on = |worker| {
            let names = (0..).map(|number| serial_number(&format!("w{number}")));
            let mut names = names.filter(|name| placement.worker(name) == worker);
            names.next().expect("endless")
        };
        let [on_a, on_b, on_c] = [on(0), on(1), on(2)];
        assert_eq!(placement.home(&add_widget(&on_c, "", "P")), Home(2, 2));
        for (one, two) in [(&on_a, &on_b), (&on_b, &on_a)] {
            let home = placement.home(&associate_widgets(one, two, Port::P));
            assert_eq!(home, Home(0, 1));
        }
    }

    #[test]
    fn one_node_may_have_all_shards() {
        let shards = vec![(-1, "a:1".to_owned()), (i32::MAX, "a:1".to_owned())];
        let placement = Placement::new(shards).expect("two shards");
        assert_eq!(placement.workers, ["a:1"]);
        assert!(!placement.has_several());
        assert_eq!(Placement::new(Vec::new()), None);
    }
}
