//! Every key: its section, type, default and limits, and what it is for. The flags, the variables,
//! the help, the example file and `docs/configuration.md` are all made from this one list.

use super::values::{Anything, Filter, LogFormat, StoreKind, Value};
use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZero,
    path::PathBuf,
    time::Duration,
};

/// One thing that can be set.
pub(crate) struct Key {
    /// The section of the file.
    pub(crate) section: &'static str,
    /// The key in its section.
    pub(crate) name: &'static str,
    /// The word that its flag and variable are made of, where that is not the name.
    alias: Option<&'static str>,
    /// What it is for, in lines.
    doc: &'static [&'static str],
    /// What the file has for it.
    pub(super) kind: Kind,
    /// What it may be, in words that follow "must be".
    pub(super) limits: fn() -> String,
    /// Sets it from text, or says what it must be and what was given.
    pub(super) set: fn(&mut Configuration, &str) -> Result<(), String>,
    /// Its value as the file has it, secrets redacted.
    pub(super) get: fn(&Configuration) -> String,
}

/// The types of a TOML file that keys have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Integer,
    String,
}

impl Key {
    /// `section.name`
    pub(crate) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The flag, without the dashes.
    pub(crate) fn flag(&self) -> String {
        self.alias.unwrap_or(self.name).replace('_', "-")
    }

    /// The environment variable.
    pub(crate) fn variable(&self) -> String {
        format!("WIDGETS_{}", self.alias.unwrap_or(self.name).to_uppercase())
    }

    /// What it is for, with its limits, as one paragraph.
    pub(crate) fn help(&self) -> String {
        let doc: Vec<&str> = self.doc.iter().map(|line| line.trim()).collect();
        let limits = (self.limits)();
        format!("{} It must be {limits}.", doc.join(" "))
    }
}

macro_rules! limit {
    () => {
        Anything
    };
    ($limit:expr) => {
        $limit
    };
}

macro_rules! alias {
    () => {
        None
    };
    ($alias:literal) => {
        Some($alias)
    };
}

macro_rules! configuration {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $(
                $(#[doc = $doc:literal])+
                $name:ident $(as $alias:literal)?: $Type:ty = $default:expr $(, within $limit:expr)?;
            )+
        }
    )+) => {
        /// All that can be set, by section.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub(crate) struct Configuration {
            $( $(#[doc = $section_doc])+ pub(crate) $section: $Section, )+
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, PartialEq)]
            pub(crate) struct $Section {
                $( $(#[doc = $doc])+ pub(crate) $name: $Type, )+
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $name: $default, )+ }
                }
            }
        )+

        /// The sections in their order, each with what it is about.
        pub(crate) const SECTIONS: &[(&str, &str)] =
            &[$( (stringify!($section), concat!($($section_doc),+)), )+];

        /// Every key, in the order of the sections.
        pub(crate) const KEYS: &[Key] = &[$($(
            Key {
                section: stringify!($section),
                name: stringify!($name),
                alias: alias!($($alias)?),
                doc: &[$($doc),+],
                kind: <$Type as Value>::KIND,
                limits: || <$Type as Value>::describe(&limit!($($limit)?)),
                set: |configuration, text| {
                    let limit = limit!($($limit)?);
                    match <$Type as Value>::parse(text, &limit) {
                        Some(value) => configuration.$section.$name = value,
                        None => return Err(format!(
                            "must be {}, {} was given",
                            <$Type as Value>::describe(&limit),
                            <$Type as Value>::quote(text),
                        )),
                    }
                    Ok(())
                },
                get: |configuration| configuration.$section.$name.toml(),
            },
        )+)+];
    };
}

configuration! {
    /// How the service is asked.
    http: Http {
        /// The address to listen on. Anyone who reaches it may do everything.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 3000));
        /// How many connections may be open at once. One more is answered 503 WG503 and closed.
        connections_max: usize = 16_384, within 1..=1_000_000;
        /// A connection on which nothing moves for so long is closed, after at most twice as long.
        idle_timeout_ms: u64 = 75_000, within 100..=86_400_000;
        /// From the first byte of a request to the first byte of its answer: a request that takes
        /// longer to arrive ends its connection, after at most twice as long.
        request_timeout_ms: u64 = 15_000, within 100..=3_600_000;
        /// How long a shutdown waits for answers that are under way.
        shutdown_timeout_ms: u64 = 25_000, within 0..=3_600_000;
        /// How many bytes a request's body may have. A longer one is answered 413.
        body_bytes_max: usize = 64 << 10, within 8 << 10..=16 << 20;
        /// How many threads serve connections; 0 stands for one less than there are cores, and at
        /// least one.
        workers: usize = 0, within 0..=1024;
    }
    /// Where widgets are kept.
    store: Store {
        /// The store.
        url as "store": StoreKind = StoreKind::Embedded;
        /// The directory of the embedded store. Made where it is missing.
        data_dir: PathBuf = PathBuf::from("widgets-data");
    }
    /// The embedded store.
    engine: Engine {
        /// How many requests may wait, and so how many a batch can have. One more is answered 503
        /// WG503.
        queue_operations_max: usize = 2048, within 1..=65_536;
        /// How many bytes of text the waiting requests may have together.
        queue_bytes_max: usize = 4 << 20, within 4096..=1 << 30;
        /// How long a request may wait before it is refused.
        queue_wait_ms_max: u64 = 5000, within 1..=600_000;
        /// The size of a segment of the journal. A whole batch must fit into one.
        segment_bytes: u64 = 64 << 20, within 8192..=u32::MAX.into();
        /// A checkpoint is due after so many bytes of the journal, or after half as many as the last
        /// checkpoint has where that is more. What a restart replays is not much more.
        checkpoint_journal_bytes: u64 = 256 << 20, within 4096..=1 << 40;
    }
    /// The store in a PostgreSQL database.
    postgres: Postgres {
        /// How many connections apply operations, and so how many batches are in flight.
        connections as "postgres_connections": usize = 2, within 1..=64;
        /// How many connections answer lookups.
        lookup_connections as "postgres_lookup_connections": usize = 1, within 1..=64;
        /// How many operations one commit may have.
        batch_operations_max as "postgres_batch_operations_max": usize = 256, within 1..=4096;
        /// How many requests may wait. One more is answered 503 WG503.
        queue_operations_max as "postgres_queue_operations_max": usize = 2048, within 1..=65_536;
        /// How many bytes of text the waiting requests may have together.
        queue_bytes_max as "postgres_queue_bytes_max": usize = 4 << 20, within 4096..=1 << 30;
        /// How long a request may wait to be sent, or to be sent again after a conflict.
        queue_wait_ms_max as "postgres_queue_wait_ms_max": u64 = 5000, within 1..=600_000;
        /// How long making a connection may take.
        connect_timeout_ms as "postgres_connect_timeout_ms": u64 = 2000, within 1..=600_000;
        /// How long a statement may take before it is cancelled.
        statement_timeout_ms as "postgres_statement_timeout_ms": u64 = 5000, within 1..=600_000;
    }
    /// What the service tells of itself, on its standard error.
    log: Log {
        /// For people, or a JSON object a line for programs.
        format as "log_format": LogFormat = LogFormat::Text;
        /// What is logged.
        filter as "log_filter": Filter = Filter::default();
    }
}

impl Http {
    /// What connections may take.
    pub(crate) fn limits(&self) -> widgets_server::Limits {
        let defaults = widgets_server::Limits::default();
        widgets_server::Limits {
            connections_max: self.connections_max,
            idle_timeout: Duration::from_millis(self.idle_timeout_ms),
            request_timeout: Duration::from_millis(self.request_timeout_ms),
            shutdown_timeout: Duration::from_millis(self.shutdown_timeout_ms),
            workers: NonZero::new(self.workers).unwrap_or(defaults.workers),
        }
    }

    /// How the API is set.
    pub(crate) fn settings(&self) -> widgets_server::Settings {
        widgets_server::Settings {
            body_bytes_max: self.body_bytes_max,
        }
    }
}

impl Engine {
    /// How the engine is set.
    pub(crate) fn settings(&self) -> widgets_engine::Settings {
        let Self {
            queue_operations_max,
            queue_bytes_max,
            queue_wait_ms_max,
            segment_bytes,
            checkpoint_journal_bytes,
        } = *self;
        widgets_engine::Settings {
            queue_operations_max,
            queue_bytes_max,
            queue_wait_ms_max,
            segment_bytes,
            checkpoint_journal_bytes,
        }
    }
}

impl Postgres {
    /// How the store is set.
    pub(crate) fn settings(&self) -> widgets_postgres::Settings {
        let Self {
            connections,
            lookup_connections,
            batch_operations_max,
            queue_operations_max,
            queue_bytes_max,
            queue_wait_ms_max,
            connect_timeout_ms,
            statement_timeout_ms,
        } = *self;
        widgets_postgres::Settings {
            connections,
            lookup_connections,
            batch_operations_max,
            queue_operations_max,
            queue_bytes_max,
            queue_wait_ms_max,
            connect_timeout_ms,
            statement_timeout_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn defaults_are_those_of_the_parts() {
        let Configuration {
            http,
            engine,
            postgres,
            ..
        } = Configuration::default();
        assert_eq!(http.limits(), widgets_server::Limits::default());
        assert_eq!(http.settings(), widgets_server::Settings::default());
        assert_eq!(engine.settings(), widgets_engine::Settings::default());
        assert_eq!(postgres.settings(), widgets_postgres::Settings::default());
    }

    #[test]
    fn flags_and_variables_are_unique() {
        let flags: BTreeSet<String> = KEYS.iter().map(Key::flag).collect();
        assert_eq!(flags.len(), KEYS.len());
    }

    #[test]
    fn a_value_that_is_shown_can_be_given() {
        let defaults = Configuration::default();
        for key in KEYS {
            let toml = (key.get)(&defaults);
            let text = toml.trim_matches('"');
            let mut configuration = defaults.clone();
            assert_eq!(
                (key.set)(&mut configuration, text),
                Ok(()),
                "{}",
                key.path()
            );
            assert_eq!(configuration, defaults);
        }
    }

    #[test]
    fn limits_are_inclusive_and_told_with_what_was_given() {
        let connections_max = |text| {
            let mut configuration = Configuration::default();
            let key = KEYS.iter().find(|key| key.name == "connections_max");
            (key.expect("the key").set)(&mut configuration, text)
                .map(|()| configuration.http.connections_max)
        };
        assert_eq!(connections_max("1"), Ok(1));
        assert_eq!(connections_max("1000000"), Ok(1_000_000));
        let refused = [
            ("0", "0"),
            ("1000001", "1000001"),
            ("-1", "-1"),
            ("99999999999999999999", "99999999999999999999"),
            ("1.5", "\"1.5\""),
            ("", "\"\""),
        ];
        for (given, shown) in refused {
            let refused = format!("must be an integer from 1 to 1000000, {shown} was given");
            assert_eq!(connections_max(given), Err(refused));
        }
    }

    /// The parts check their settings themselves. What a key allows, its part must allow, and the
    /// next value it must refuse.
    #[test]
    fn the_limits_are_those_of_the_parts() {
        let http = |body_bytes_max| {
            let http = Http {
                body_bytes_max,
                ..Http::default()
            };
            http.settings().check().is_ok()
        };
        let engine = |operations, bytes| {
            let engine = Engine {
                queue_operations_max: operations,
                queue_bytes_max: bytes,
                segment_bytes: u32::MAX.into(),
                ..Engine::default()
            };
            engine.settings().check().is_ok()
        };
        let in_parts: [(&str, &dyn Fn(usize) -> bool); 3] = [
            ("http.body_bytes_max", &http),
            ("engine.queue_operations_max", &|value| {
                engine(value, 1 << 20)
            }),
            ("engine.queue_bytes_max", &|value| engine(1, value)),
        ];
        for (path, part) in in_parts {
            let key = KEYS.iter().find(|key| key.path() == path).expect("the key");
            let limits = (key.limits)();
            let limits = limits.strip_prefix("an integer from ").expect("an integer");
            let (least, most) = limits.split_once(" to ").expect("two limits");
            let (least, most): (usize, usize) = (
                least.parse().expect("a limit"),
                most.parse().expect("a limit"),
            );
            assert!(part(least) && part(most), "{path}");
            assert!(!part(least - 1), "{path}");
            // The engine sets no upper limit to memory; the configuration does.
            assert!(
                path == "engine.queue_bytes_max" || !part(most + 1),
                "{path}"
            );
        }
    }
}
