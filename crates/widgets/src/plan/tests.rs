//! Compares the arithmetic with measured or published figures, and with the page that shows them.

use super::{
    Told,
    figures::{
        ALL, CITUS, CITUS_BATCH, CITUS_BY_COORDINATOR, CITUS_COORDINATOR, CITUS_PARTICIPANT,
        CITUS_SHARD, EMBEDDED_CHECKPOINT, EMBEDDED_MEMORY, EMBEDDED_START, HTTP, OWNER, POSTGRES,
        POSTGRES_DISK, POSTGRES_INDEX,
    },
    model::{Machine, Plan, Store, Wanted, citus_microseconds, plan},
};

const PAGE: &str = include_str!("../../../../docs/scale.md");
const PERFORMANCE: &str = include_str!("../../../../docs/performance.md");
const POSTGRES_PAGE: &str = include_str!("../../../../docs/postgres.md");
const CITUS_PAGE: &str = include_str!("../../../../docs/citus.md");

fn planned(store: Store, widgets: u64, rate: f64) -> Plan {
    let machine = Machine {
        cores: 16,
        memory_bytes: 64 << 30,
    };
    plan(
        store,
        &Wanted {
            widgets,
            rate,
            machine,
        },
    )
}

fn assert_near(found: f64, expected: f64, part: f64) {
    let off = (found / expected - 1.0).abs();
    assert!(off <= part, "{found} instead of {expected}");
}

/// docs/scale.md shows each figure with the value that is used here, and with its source.
#[test]
fn the_scale_page_shows_every_figure_with_its_source() {
    for figure in ALL {
        let link = match figure.source.split_once('#') {
            Some(("scale.md", anchor)) => format!("[{anchor}](#{anchor})"),
            Some((page, _)) => format!("[{page}]({})", figure.source),
            None => panic!("{} names no place", figure.source),
        };
        let row = format!(
            "| {} | {} {} | {link} |",
            figure.name, figure.value, figure.unit
        );
        assert!(PAGE.contains(&row), "docs/scale.md lacks: {row}");
    }
}

/// The pages about the measurements contain the rows from which the figures come. Each row is made
/// from the figures, so that neither can be changed without the other.
#[test]
fn the_measurement_pages_contain_the_figures() {
    let widgets = 1e7;
    let disk_mib = widgets * EMBEDDED_CHECKPOINT.value / 1_048_576.0;
    let start = widgets / 1e6 * EMBEDDED_START.value;
    let memory_mib = widgets * EMBEDDED_MEMORY.value / 1_048_576.0;
    // Freshly loaded, the index takes two thirds of what it takes after random changes.
    let loaded = POSTGRES_INDEX.value / 1.5;
    let postgres_gb = widgets * POSTGRES_DISK.value / 1e9;
    let milliseconds = |microseconds: f64| microseconds / 1000.0;
    for (page, row) in [
        (
            PERFORMANCE,
            format!("| 10,000,000 | {disk_mib:.0} | 12.2 |"),
        ),
        (
            PERFORMANCE,
            format!("had {memory_mib:.0} MiB resident and started in {start:.2} s"),
        ),
        (
            PERFORMANCE,
            format!("and 12.1 to {} at 256; of the owner", HTTP.value),
        ),
        (
            PERFORMANCE,
            format!("and 2.9 to {} at 256, kernel included", OWNER.value),
        ),
        (
            POSTGRES_PAGE,
            format!("| 204; 201 | {}; 24 | 8.3 |", POSTGRES.value),
        ),
        (
            POSTGRES_PAGE,
            format!("to about one and a half times; plan {postgres_gb} GB"),
        ),
        (
            POSTGRES_PAGE,
            format!("| `widgets_serial_number_key` | 301 MB | {loaded} |"),
        ),
        (
            CITUS_PAGE,
            format!(
                "| associations | 10.0 | 34.3 | 21.5 | 20.7 | 1.66 | {} | 9.8 | {} |",
                CITUS_BY_COORDINATOR.value, CITUS_COORDINATOR.value
            ),
        ),
        (
            PAGE,
            format!(
                "{} µs × operations + {} ms × shards + {} ms × workers that take part",
                CITUS.value,
                milliseconds(CITUS_SHARD.value),
                milliseconds(CITUS_PARTICIPANT.value)
            ),
        ),
    ] {
        assert!(page.contains(&row), "the page has no {row}");
    }
}

#[test]
fn the_plan_for_ten_million_widgets_matches_the_measurements() {
    let Plan { machines, .. } = planned(Store::Embedded, 10_000_000, 1000.0);
    let spared = f64::from(u32::try_from(machines[0].memory_bytes >> 20).expect("MiB"));
    // Resident memory, a fifth more for a checkpoint, and a reserve of one third.
    assert_near(spared, 937.0 * 1.2 * 4.0 / 3.0, 0.01);
    let disk = f64::from(u32::try_from(machines[0].disk_bytes >> 20).expect("MiB"));
    assert_near(disk, 3.0 * 459.0, 0.01);
    let Plan { machines, .. } = planned(Store::Postgres, 10_000_000, 1000.0);
    // The tables, and twice max_wal_size.
    assert_eq!(machines[1].disk_bytes, 1_500_000_000 + 16_000_000_000);
}

/// The operations per second in docs/scale.md's table, for workers with two cores that do nothing
/// else.
#[test]
fn the_citus_model_gives_the_table_of_the_scale_page() {
    for (workers, at_random, of_1024, routed) in [
        (2.0, 161_000.0, 224_000.0, 161_000.0),
        (4.0, 234_000.0, 396_000.0, 321_000.0),
        (8.0, 302_000.0, 643_000.0, 643_000.0),
        (16.0, 354_000.0, 934_000.0, 1_280_000.0),
    ] {
        let rate =
            |batch, touched| 2.0 * workers * 1e6 / citus_microseconds(batch, touched, touched);
        assert_near(rate(CITUS_BATCH, workers), at_random, 0.005);
        assert_near(rate(1024.0, workers), of_1024, 0.005);
        assert_near(rate(CITUS_BATCH, 2.0), routed, 0.006);
        let number =
            |rate: f64| widgets_load::report::count_text(format!("{rate}").parse().expect("whole"));
        let row = format!(
            "| {workers} | {} | {} | {} |",
            number(at_random),
            number(of_1024),
            number(routed)
        );
        assert!(PAGE.contains(&row), "docs/scale.md lacks: {row}");
    }
}

#[test]
fn the_limiting_resource_is_reported() {
    let memory = planned(Store::Embedded, 1_000_000_000, 1000.0);
    assert!(!memory.fits);
    assert!(memory.limit.contains("memory"), "{}", memory.limit);
    let writer = planned(Store::Embedded, 1000, 250_000.0);
    assert!(!writer.fits);
    assert!(writer.limit.contains("one thread"), "{}", writer.limit);
    let cores = planned(Store::Postgres, 1000, 500_000.0);
    assert!(!cores.fits);
    assert!(cores.limit.contains("cores"), "{}", cores.limit);
    // There can be more workers, but not more coordinators.
    let citus = planned(Store::Citus, 1000, 1e7);
    assert_near(citus.machines[2].cores, 1e7 * 0.1e-6 / 0.7, 0.01);
    let by_coordinator = "through the coordinator, which handles at most 777,777 of them a second";
    assert!(
        citus.notes.iter().any(|note| note.contains(by_coordinator)),
        "{:?}",
        citus.notes
    );
    let indexes = planned(Store::Postgres, 1_000_000_000, 1000.0);
    assert!(!indexes.fits);
    assert!(indexes.limit.contains("memory"), "{}", indexes.limit);
}

#[test]
fn the_simplest_store_that_fits_is_advised() {
    let advised = |widgets, rate| {
        let machine = Machine {
            cores: 16,
            memory_bytes: 64 << 30,
        };
        let wanted = Wanted {
            widgets,
            rate,
            machine,
        };
        Told::new(wanted, None).advice
    };
    assert_eq!(advised(10_000_000, 5000.0), Some(Store::Embedded));
    assert_eq!(advised(10_000_000, 300_000.0), Some(Store::Postgres));
    assert_eq!(advised(1_000_000_000, 200_000.0), Some(Store::Citus));
    assert_eq!(advised(100_000_000_000, 200_000.0), None);
}

/// More widgets and operations never need fewer machines. If fewer do not fit, neither do more.
#[test]
fn more_widgets_and_operations_never_need_fewer_machines() {
    for store in [Store::Embedded, Store::Postgres, Store::Citus] {
        let mut before: Option<Plan> = None;
        for step in 0..40 {
            let widgets = 1000 << (step / 2);
            let now = planned(store, widgets, 100.0 * 1.3_f64.powi(step));
            if let Some(before) = before {
                assert!(now.machines_total >= before.machines_total, "{now:?}");
                assert!(before.fits || !now.fits, "{now:?}");
            }
            before = Some(now);
        }
    }
}
