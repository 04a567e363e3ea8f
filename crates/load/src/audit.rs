//! The audit: reads widgets back with lookups and compares them with what was acknowledged and
//! refused.
//!
//! Each lane reads its own partition while nothing else is in flight, so every difference is a
//! fault of the server and not a matter of timing.

use crate::{
    client::{Channel, Request},
    feed::Reporter,
    partition::{AuditItem, Difference, Observed, Partition, SlotDifference, Unresolved, WidgetId},
    shown,
    worker::{SharedRecorder, lock},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::sleep;

/// How often a failed lookup is repeated before its widget counts as unreadable.
const ATTEMPTS_MAX: u32 = 20;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);

/// How often an operation of unknown fate is checked, because it may still be in progress.
const LOOKS_MAX: u32 = 10;
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// The maximum number of findings that each lane keeps as text. All are counted.
const EXAMPLES_MAX: usize = 20;

/// What the audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Widgets that were read and compared.
    pub widgets_checked: u64,
    /// Operations of unknown fate that were checked.
    pub unknown_fates_checked: u64,
    /// Acknowledged operations whose effect is missing.
    pub acknowledged_but_lost: u64,
    /// Operations that were refused or never acknowledged, but whose effect is there.
    pub refused_but_applied: u64,
    /// Associations that only one of their widgets names.
    pub asymmetric: u64,
    /// Operations of unknown fate that were applied in part.
    pub partly_applied: u64,
    /// Operations of unknown fate for which the widgets and the feed of changes disagree.
    #[serde(default)]
    pub told_otherwise: u64,
    /// Widgets whose name or slots differ from those they were given.
    pub altered: u64,
    /// Widgets that could not be read.
    pub unreadable: u64,
    /// Widgets of this run that were forgotten, and therefore not checked.
    pub forgotten: u64,
    /// Operations of unknown fate that were too many to remember, and therefore not checked.
    pub unknown_fates_forgotten: u64,
    /// The first findings as text.
    pub examples: Vec<String>,
}

impl Findings {
    /// Returns how many faults of the server were found.
    #[must_use]
    pub const fn faults(&self) -> u64 {
        self.acknowledged_but_lost
            + self.refused_but_applied
            + self.asymmetric
            + self.partly_applied
            + self.told_otherwise
            + self.altered
            + self.unreadable
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.widgets_checked += other.widgets_checked;
        self.unknown_fates_checked += other.unknown_fates_checked;
        self.acknowledged_but_lost += other.acknowledged_but_lost;
        self.refused_but_applied += other.refused_but_applied;
        self.asymmetric += other.asymmetric;
        self.partly_applied += other.partly_applied;
        self.told_otherwise += other.told_otherwise;
        self.altered += other.altered;
        self.unreadable += other.unreadable;
        self.forgotten += other.forgotten;
        self.unknown_fates_forgotten += other.unknown_fates_forgotten;
        self.examples.extend(other.examples);
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text());
        }
    }
}

/// Reads a partition back: all of it, or a sample of at most `widgets_max` widgets. If the feed is
/// followed, it must agree about the operations of unknown fate. `during_crash` means that a server
/// that cannot be reached is waited for.
pub(crate) async fn run(
    channel: &mut Channel,
    partition: &Partition,
    feed: Option<&Reporter>,
    widgets_max: Option<u64>,
    timeout: Duration,
    during_crash: bool,
    recorder: &SharedRecorder,
) -> Findings {
    let mut reader = Reader {
        channel,
        timeout,
        during_crash,
        recorder,
        request: Request::default(),
    };
    let mut findings = Findings {
        forgotten: partition.forgotten(),
        unknown_fates_forgotten: partition.unresolved_dropped(),
        ..Findings::default()
    };
    for item in partition.audit_items(widgets_max, 0) {
        match item {
            AuditItem::Widget(id) => widget(&mut reader, partition, id, &mut findings).await,
            AuditItem::Unresolved(position) => {
                if let Some(operation) = partition.unresolved().get(position) {
                    unresolved(&mut reader, partition, feed, operation, &mut findings).await;
                }
            }
        }
    }
    findings
}

struct Reader<'a> {
    channel: &'a mut Channel,
    timeout: Duration,
    during_crash: bool,
    recorder: &'a SharedRecorder,
    request: Request,
}

impl Reader<'_> {
    /// Looks a widget up and returns the body, or `None` if the widget does not exist.
    async fn read(&mut self, serial_number: &str) -> Result<Option<Vec<u8>>, String> {
        self.request.path.clear();
        self.request.path.push_str("/widgets/");
        self.request.path.push_str(serial_number);
        let mut attempt = 0;
        loop {
            let exchanged = match self.channel.connect(self.timeout).await {
                // The time for the whole audit limits the wait.
                Err(cause) if self.during_crash => {
                    note(self.recorder, Some(&cause));
                    sleep(ATTEMPT_PAUSE).await;
                    continue;
                }
                Err(cause) => Err(cause),
                Ok(_) => self
                    .channel
                    .exchange(&self.request, self.timeout)
                    .await
                    .map_err(|failure| failure.cause),
            };
            note(self.recorder, exchanged.as_ref().err());
            let cause = match exchanged {
                Err(cause) => cause,
                Ok(response) => match response.status {
                    200 => return Ok(Some(response.body.to_vec())),
                    404 if response.code().as_deref() == Some("WG001") => {
                        return Ok(None);
                    }
                    status => {
                        let body = String::from_utf8_lossy(response.body);
                        format!("status {status}: {}", shown(&body))
                    }
                },
            };
            attempt += 1;
            if attempt == ATTEMPTS_MAX {
                return Err(cause);
            }
            sleep(ATTEMPT_PAUSE).await;
        }
    }
}

/// Records for the display whether the server answers.
fn note(recorder: &SharedRecorder, cause: Option<&String>) {
    let mut recorder = lock(recorder);
    recorder.read_back += u64::from(cause.is_none());
    recorder.connect_error = cause.cloned();
}

async fn widget(
    reader: &mut Reader<'_>,
    partition: &Partition,
    id: WidgetId,
    findings: &mut Findings,
) {
    let serial_number = partition.serial_number(id);
    findings.widgets_checked += 1;
    let body = match reader.read(&serial_number).await {
        Ok(body) => body,
        Err(cause) => {
            findings.unreadable += 1;
            return findings.example(|| format!("{serial_number} cannot be read: {cause}"));
        }
    };
    let difference = match body.as_deref().map(Observed::parse).transpose() {
        Ok(observed) => partition.difference(id, observed.as_ref()),
        Err(text) => {
            findings.altered += 1;
            return findings.example(|| format!("{serial_number}: {text}"));
        }
    };
    let Some(difference) = difference else {
        return;
    };
    let (count, class) = match &difference {
        Difference::Missing | Difference::Present { removed: true } => lost(findings),
        Difference::Present { removed: false } => applied(findings),
        Difference::Content(..) => (&mut findings.altered, "altered"),
        Difference::Slot(slot) => {
            if is_asymmetric(reader, &serial_number, slot).await {
                (&mut findings.asymmetric, "asymmetric association")
            } else if slot.expected.is_none() && !slot.freed {
                applied(findings)
            } else {
                lost(findings)
            }
        }
    };
    *count += 1;
    findings.example(|| format!("{class}: {serial_number}: {}", difference.describe()));
}

const fn lost(findings: &mut Findings) -> (&mut u64, &'static str) {
    (&mut findings.acknowledged_but_lost, "acknowledged but lost")
}

const fn applied(findings: &mut Findings) -> (&mut u64, &'static str) {
    (&mut findings.refused_but_applied, "refused but applied")
}

/// Reports whether the two ends of the association disagree about it.
async fn is_asymmetric(
    reader: &mut Reader<'_>,
    serial_number: &str,
    slot: &SlotDifference,
) -> bool {
    let named_here = slot.observed.is_some();
    let Some(other) = slot.observed.as_ref().or(slot.expected.as_ref()) else {
        return false;
    };
    let body = reader.read(other).await.ok().flatten();
    let observed = body.as_deref().map(Observed::parse);
    let named_back = matches!(
        observed,
        Some(Ok(observed)) if observed.names(slot.port, serial_number)
    );
    named_here != named_back
}

async fn unresolved(
    reader: &mut Reader<'_>,
    partition: &Partition,
    feed: Option<&Reporter>,
    operation: &Unresolved,
    findings: &mut Findings,
) {
    let serial_numbers = partition.unresolved_serial_numbers(operation);
    findings.unknown_fates_checked += 1;
    let told = || {
        let (feed, effect) = (feed?, operation.effect.as_ref()?);
        feed.is_told(partition.number(), effect)
    };
    let (mut last, mut is_whole) = (String::new(), false);
    for look in 0..LOOKS_MAX {
        if look > 0 {
            sleep(LOOK_PAUSE).await;
        }
        let mut bodies = Vec::with_capacity(serial_numbers.len());
        for serial_number in &serial_numbers {
            match reader.read(serial_number).await {
                Ok(body) => bodies.push(body),
                Err(cause) => {
                    findings.unreadable += 1;
                    return findings.example(|| format!("{serial_number} cannot be read: {cause}"));
                }
            }
        }
        let observed = bodies
            .iter()
            .map(|body| body.as_deref().map(Observed::parse).transpose());
        is_whole = false;
        match observed.collect::<Result<Vec<_>, _>>() {
            Ok(observed) => match (partition.was_applied(operation, &observed), told()) {
                (Some(_), None) => return,
                (Some(applied), Some(told)) if applied == told => return,
                (Some(applied), Some(_)) => {
                    is_whole = true;
                    last = if applied {
                        "it was applied, and no change tells it".into()
                    } else {
                        "it was not applied, and a change tells it".into()
                    };
                }
                (None, _) => last = format!("{observed:?}"),
            },
            Err(text) => last = text,
        }
    }
    let name = &operation.operation;
    if is_whole {
        findings.told_otherwise += 1;
        return findings
            .example(|| format!("told otherwise, its fate being unknown: {name}: {last}"));
    }
    findings.partly_applied += 1;
    findings.example(|| format!("partly applied, its fate being unknown: {name}: {last}"));
}
