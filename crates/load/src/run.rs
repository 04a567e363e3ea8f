//! A whole run: warm-up, the measured load or a search, the audit, and the report.

use crate::{
    client::Protocol,
    error::Error,
    find_max::FindMax,
    objective::Objective,
    quantity,
    report::{self, Report, Search, StretchReport, count_text, rate_text},
    schedule::{Arrivals, Extent},
    session::{EndedEarly, Session, Settings, Stretch, block_on},
    watch::{Push, Subject, Watch},
};
use std::{
    io::{self, Write as _},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

/// How fast requests arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// This many per second.
    PerSecond(f64),
    /// Closed loop.
    Max,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let rate = quantity::rate(text).filter(|rate| (0.001..=1e8).contains(rate));
        let wrong = || {
            format!(
                "must be 0.001 to 100000000 a second, as in `2500` or `5k`, or `max`, `{text}` was given"
            )
        };
        rate.map(Self::PerSecond).ok_or_else(wrong)
    }
}

/// Everything that defines a run.
#[derive(Debug)]
pub struct Plan {
    /// The settings of the session.
    pub session: Settings,
    /// The rate of requests.
    pub rate: Rate,
    /// Whether arrivals are Poisson instead of constant.
    pub poisson: bool,
    /// The length of the measured stretch.
    pub duration: Duration,
    /// The maximum number of requests in it.
    pub requests: Option<u64>,
    /// The length of the load before it.
    pub warm_up: Duration,
    /// Whether there is an audit, and of how many widgets at most.
    pub audit: Option<Option<u64>>,
    /// The timeout of the audit.
    pub audit_timeout: Duration,
    /// Conditions that make the run fail if they are true.
    pub fail_if: Vec<Objective>,
    /// The objectives of a search. If there are none, there is no search.
    pub objectives: Vec<Objective>,
    /// How long a search tries each rate.
    pub step: Duration,
    /// Where the HTML report is written.
    pub html: Option<PathBuf>,
    /// Where the JSON report is written.
    pub json: Option<PathBuf>,
    /// Where the HDR log is written.
    pub hdr: Option<PathBuf>,
    /// The URL that live metrics are pushed to.
    pub push: Option<String>,
    /// Labels that the user gave the run.
    pub labels: Vec<(String, String)>,
    /// Whether there is a terminal to draw on.
    pub terminal: bool,
}

impl Plan {
    fn arrivals(&self) -> Arrivals {
        match self.rate {
            Rate::PerSecond(rate) if self.poisson => Arrivals::Poisson(rate),
            Rate::PerSecond(rate) => Arrivals::Constant(rate),
            Rate::Max => Arrivals::Closed,
        }
    }

    const fn is_search(&self) -> bool {
        !self.objectives.is_empty()
    }

    /// Checks that something will be measured.
    fn check(&self) -> Result<(), Error> {
        let time = |time: Duration| (time.is_zero(), humantime::format_duration(time).to_string());
        let (setting, (is_zero, given)) = if self.is_search() {
            ("step", time(self.step))
        } else if self.requests == Some(0) {
            ("requests", (true, "0".into()))
        } else {
            ("duration", time(self.duration))
        };
        if is_zero {
            let limit = "more than 0".into();
            return Err(Error::Setting {
                setting,
                limit,
                given,
            });
        }
        Ok(())
    }

    /// Returns every setting by its name on the command line, except the token.
    fn settings(&self) -> Vec<(String, String)> {
        let session = &self.session;
        let time = |time: Duration| humantime::format_duration(time).to_string();
        let rate = match self.rate {
            Rate::PerSecond(rate) => rate.to_string(),
            Rate::Max => "max".into(),
        };
        let list = |objectives: &[Objective]| {
            let texts: Vec<String> = objectives.iter().map(ToString::to_string).collect();
            texts.join(" ")
        };
        let audit = match self.audit {
            None => "none".into(),
            Some(None) => "all".into(),
            Some(Some(widgets)) => widgets.to_string(),
        };
        let mut settings = vec![
            ("url", session.target.url.clone()),
            ("run", session.run.clone()),
        ];
        if self.is_search() {
            settings.push(("slo", list(&self.objectives)));
            settings.push(("step", time(self.step)));
        } else {
            settings.push(("rate", rate));
            settings.push(("duration", time(self.duration)));
        }
        if let Some(requests) = self.requests {
            settings.push(("requests", requests.to_string()));
        }
        settings.extend([
            ("poisson", self.poisson.to_string()),
            ("warm-up", time(self.warm_up)),
            ("connections", session.connections.to_string()),
            ("workers", session.workers.to_string()),
            (
                "http2",
                (session.target.protocol == Protocol::Http2).to_string(),
            ),
            ("streams", session.streams.to_string()),
            ("mix", session.mix.to_string()),
            (
                "conflicts",
                format!("{}%", (session.conflicts * 1e6).round() / 1e4),
            ),
            ("seed", session.seed.to_string()),
            ("timeout", time(session.timeout)),
            ("audit", audit),
            ("during-crash", session.during_crash.to_string()),
            ("idempotency-keys", session.idempotency_keys.to_string()),
            ("follow-changes", session.follow_changes.to_string()),
            ("interval", time(session.interval)),
        ]);
        if let Some((dataset, (part, parts))) = session.dataset {
            settings.push(("dataset", dataset.to_string()));
            settings.push(("dataset-part", format!("{}/{parts}", part + 1)));
        }
        if !self.fail_if.is_empty() {
            settings.push(("fail-if", list(&self.fail_if)));
        }
        let settings = settings.into_iter();
        settings
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

/// Performs the run.
pub fn run(plan: Plan) -> Result<Report, Error> {
    plan.check()?;
    block_on(run_async(plan))?
}

async fn run_async(plan: Plan) -> Result<Report, Error> {
    let settings = &plan.session;
    // The files are created first, because nobody wants to learn after an hour of load that its
    // report cannot be written.
    let json = plan.json.as_deref().map(report::begin).transpose()?;
    let html = plan.html.as_deref().map(report::begin).transpose()?;
    let mut run = Run {
        session: Session::start(settings.clone()).await?,
        report: Report::new(plan.settings(), plan.labels.clone()),
        wrong: 0,
        unproven: None,
        unfollowed: None,
    };
    let push = match &plan.push {
        Some(url) => {
            let (push, place) = Push::start(url, &settings.run).await?;
            // Printed before the load, so that a view can be open when the first values arrive.
            let _ = writeln!(io::stderr(), "metrics: {place}");
            Some(push)
        }
        None => None,
    };
    let subject = Subject {
        run: settings.run.clone(),
        url: settings.target.url.clone(),
    };
    let mut watch = Watch::new(&subject, plan.terminal, plan.hdr.as_deref(), push)?;
    // The terminal is restored in any case before any error is reported.
    let outcome = run.phases(&plan, &mut watch).await;
    let closed = watch.close(outcome.is_ok()).await;
    outcome?;
    let mut report = run.report;
    report.close();
    judge(&mut report, &plan, run.wrong, run.unproven.as_ref());
    judge_feed(&mut report, &plan, run.unfollowed.as_ref());
    // The measurements are returned even if one of the files cannot be written.
    let json = json.map(|output| report.write_json(output));
    let html = html.map(|output| report.write_html(output));
    let written = [json, html].into_iter().flatten().chain([closed]);
    for error in written.filter_map(Result::err) {
        report.failures.push(format!("{error}."));
    }
    Ok(report)
}

struct Run {
    session: Session,
    report: Report,
    /// Wrong answers in stretches that are not part of the report.
    wrong: u64,
    /// Why the audit has no result.
    unproven: Option<Error>,
    /// Why nothing is proven about the feed of changes.
    unfollowed: Option<Error>,
}

impl Run {
    async fn phases(&mut self, plan: &Plan, watch: &mut Watch) -> Result<(), Error> {
        let go_on = if plan.is_search() {
            self.search(plan, watch).await?
        } else {
            self.measure(plan, watch).await?
        };
        if go_on {
            self.catch_up(plan, watch).await;
        }
        if let (Some(widgets_max), true) = (plan.audit, go_on) {
            watch.phase("audit: reading back what was acknowledged", None, false);
            let audited = tokio::select! {
                audited = self.session.audit(widgets_max, plan.audit_timeout) => audited,
                () = watch.stopped() => Err(Error::AuditInterrupted),
            };
            match audited {
                Ok(findings) => self.report.audit = Some(findings),
                // The measurements deserve a report all the same.
                Err(
                    error @ (Error::AuditInterrupted
                    | Error::AuditLate { .. }
                    | Error::AuditUnreachable { .. }),
                ) => self.unproven = Some(error),
                Err(error) => return Err(error),
            }
        }
        if go_on && self.unfollowed.is_none() {
            // Operations of unknown fate may have been applied in the meantime.
            self.catch_up(plan, watch).await;
        }
        if go_on && self.unfollowed.is_none() {
            self.report.changes = self.session.feed_findings();
        }
        Ok(())
    }

    /// Waits until the feed of changes has been read to its end, if it is followed.
    async fn catch_up(&mut self, plan: &Plan, watch: &mut Watch) {
        if !plan.session.follow_changes {
            return;
        }
        watch.phase("changes: reading the feed to its end", None, false);
        let reached = tokio::select! {
            reached = self.session.catch_up(plan.audit_timeout) => reached,
            () = watch.stopped() => Err(Error::AuditInterrupted),
        };
        self.unfollowed = reached.err();
    }

    /// Performs the warm-up and the measured stretch. Returns whether there is a server left to
    /// audit.
    async fn measure(&mut self, plan: &Plan, watch: &mut Watch) -> Result<bool, Error> {
        let arrivals = plan.arrivals();
        if !plan.warm_up.is_zero() {
            let warm_up = self
                .stretch(arrivals, plan.warm_up, None, watch, "warm-up")
                .await?;
            self.wrong += warm_up.total.wrong;
            if let Some(why) = warm_up.ended_early {
                self.report
                    .remarks
                    .push(format!("The warm-up ended early: {}.", why.text()));
                return Ok(why.server_is_there());
            }
        }
        let phase = "measured load";
        let stretch = self
            .stretch(arrivals, plan.duration, plan.requests, watch, phase)
            .await?;
        let there = stretch
            .ended_early
            .as_ref()
            .is_none_or(EndedEarly::server_is_there);
        self.report
            .stretches
            .push(StretchReport::new(arrivals, stretch));
        Ok(there)
    }

    /// Tries rates. Returns whether there is a server left to audit.
    async fn search(&mut self, plan: &Plan, watch: &mut Watch) -> Result<bool, Error> {
        let mut objectives = plan.objectives.clone();
        if !objectives.iter().any(Objective::is_about_errors) {
            objectives.push(Objective::FEW_ERRORS);
        }
        let warm_up = plan.warm_up.max(Duration::from_secs(1));
        let phase = "warm-up in closed loop";
        let closed = self
            .stretch(Arrivals::Closed, warm_up, None, watch, phase)
            .await?;
        self.wrong += closed.total.wrong;
        let reached = closed.total.requests() as f64 / closed.elapsed.as_secs_f64().max(1e-9);
        let mut search = FindMax::new(reached);
        let mut held_each = Vec::new();
        let mut there = closed
            .ended_early
            .as_ref()
            .is_none_or(EndedEarly::server_is_there);
        let mut early = closed.ended_early.is_some();
        while let (false, Some(rate)) = (early, search.next()) {
            let arrivals = plan.arrivals().with_rate(rate);
            let phase = format!("trying {} requests/s", rate_text(rate));
            let stretch = self
                .stretch(arrivals, plan.step, None, watch, &phase)
                .await?;
            early = stretch.ended_early.is_some();
            there = stretch
                .ended_early
                .as_ref()
                .is_none_or(EndedEarly::server_is_there);
            let step = StretchReport::new(arrivals, stretch);
            let held = !early && objectives.iter().all(|objective| objective.holds(&step));
            search.tell(rate, held);
            held_each.push(held);
            self.report.stretches.push(step);
        }
        if let Some((missed, held)) = search.noise() {
            let [missed, held] = [missed, held].map(rate_text);
            self.report.remarks.push(format!(
                "Chance decided: {missed} requests a second missed the objective, and {held} held. \
                 Something else took the machine's time, or the service itself has pauses: search again \
                 on a quiet machine, or with a longer --step."
            ));
        }
        self.report.search = Some(Search {
            objectives,
            rate_per_second: search.found(),
            held: held_each,
        });
        Ok(there)
    }

    async fn stretch(
        &mut self,
        arrivals: Arrivals,
        duration: Duration,
        requests: Option<u64>,
        watch: &mut Watch,
        phase: &str,
    ) -> Result<Stretch, Error> {
        watch.phase(phase, Some(duration), !phase.starts_with("warm-up"));
        let extent = Extent {
            duration: Some(duration),
            requests,
        };
        let stretch = self.session.load(arrivals, extent, watch).await?;
        if stretch.ended_early == Some(EndedEarly::AtOnce) {
            self.unproven = Some(Error::AuditInterrupted);
        }
        Ok(stretch)
    }
}

/// Adds a failure if the feed of changes was followed and something is wrong with it.
fn judge_feed(report: &mut Report, plan: &Plan, unfollowed: Option<&Error>) {
    let failure = match (&report.changes, unfollowed) {
        (Some(findings), _) if findings.faults() > 0 => format!(
            "The feed of changes has {} faults.",
            count_text(findings.faults())
        ),
        (None, Some(error)) => format!("Nothing is proven of the changes: {error}."),
        (None, None) if plan.session.follow_changes => {
            "Nothing is proven of the changes: there was no server to read them from.".into()
        }
        (Some(_), _) | (None, None) => return,
    };
    report.failures.push(failure);
}

/// Adds what limited the run, and why it failed, if it did.
fn judge(report: &mut Report, plan: &Plan, wrong_in_warm_up: u64, unproven: Option<&Error>) {
    let (workers, lanes) = (plan.session.workers, plan.session.lanes());
    if report.search.is_none() {
        let remarks = report.stretches.iter();
        let remarks: Vec<String> = remarks
            .flat_map(|each| each.remarks(workers, lanes))
            .collect();
        report.remarks.extend(remarks);
    } else if let Some(fastest) = report
        .stretches
        .iter()
        .max_by(|a, b| a.requests_per_second.total_cmp(&b.requests_per_second))
    {
        let generator = fastest.remarks(workers, lanes).into_iter();
        let generator = generator.filter(|text| text.starts_with("The generator"));
        report.remarks.extend(generator.collect::<Vec<_>>());
    }
    let is_wrong = |report: &Report| {
        let wrong = report.stretches.iter().any(|each| each.wrong > 0);
        wrong
            || report
                .audit
                .as_ref()
                .is_some_and(|audit| audit.faults() > 0)
    };
    if let Some((dataset, _)) = plan.session.dataset
        && (wrong_in_warm_up > 0 || is_wrong(report))
    {
        report.remarks.push(format!(
            "Only a sample of the dataset {dataset} was checked to be as it was generated: if \
             another run or somebody else changed a part of it, that looks like a fault of the \
             service. Use a fresh dataset to be sure."
        ));
    }
    let mut failures = Vec::new();
    let wrong = wrong_in_warm_up + report.stretches.iter().map(|each| each.wrong).sum::<u64>();
    if wrong > 0 {
        failures.push(format!("{} answers were wrong.", count_text(wrong)));
    }
    match &report.audit {
        Some(audit) if audit.faults() > 0 => {
            failures.push(format!(
                "The audit found {} faults.",
                count_text(audit.faults())
            ));
        }
        Some(audit) if audit.forgotten > 0 => report.remarks.push(format!(
            "{} widgets were no longer remembered at the audit: raise --audit-widgets-max.",
            count_text(audit.forgotten)
        )),
        None if plan.audit.is_some() => failures.push(match unproven {
            Some(error) => format!("No audit: {error}."),
            None => "There was no server to audit.".into(),
        }),
        Some(_) | None => {}
    }
    failures.extend(true_conditions(&plan.fail_if, &report.stretches));
    if report
        .search
        .as_ref()
        .is_some_and(|search| search.rate_per_second.is_none())
    {
        failures.push("No rate that was tried held the objectives.".into());
    }
    report.failures = failures;
}

/// Returns a failure for each condition that is true of a stretch. One that cannot be checked, because
/// its figure was not measured, is a failure too.
fn true_conditions(fail_if: &[Objective], stretches: &[StretchReport]) -> Vec<String> {
    let mut failures = Vec::new();
    for objective in fail_if {
        let observed: Vec<_> = stretches
            .iter()
            .filter_map(|stretch| Some((objective.observed(stretch)?, objective.holds(stretch))))
            .collect();
        if observed.is_empty() {
            failures.push(format!(
                "{objective} cannot be checked: nothing was measured."
            ));
        }
        let held = observed.into_iter().filter(|(_, holds)| *holds);
        failures.extend(held.map(|(observed, _)| format!("{objective} is true: {observed}.")));
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Percentiles;

    #[test]
    fn a_condition_on_a_figure_that_was_not_measured_is_a_failure() {
        let fail_if = ["p99>10ms", "errors>0%", "rate<1"].map(|text| text.parse().unwrap());
        let unchecked = |text: &str| format!("{text} cannot be checked: nothing was measured.");
        assert_eq!(true_conditions(&fail_if, &[]).len(), 3);
        let nothing = StretchReport::default();
        assert_eq!(
            true_conditions(&fail_if, &[nothing]),
            [
                unchecked("p99>10ms"),
                unchecked("errors>0%"),
                "rate<1 is true: 0.".into()
            ]
        );
        let measured = StretchReport {
            requests: 1,
            requests_per_second: 1.0,
            latency: Percentiles {
                count: 1,
                p99_us: 20_000.0,
                ..Default::default()
            },
            ..Default::default()
        };
        assert_eq!(
            true_conditions(&fail_if, &[measured]),
            ["p99>10ms is true: 20.0 ms."]
        );
    }

    #[test]
    fn a_rate_is_a_number_or_max() {
        assert_eq!("2500".parse(), Ok(Rate::PerSecond(2500.0)));
        assert_eq!("max".parse(), Ok(Rate::Max));
        for text in ["0", "-1", "NaN", "inf", "fast"] {
            let refused = text.parse::<Rate>().unwrap_err();
            assert!(
                refused.contains(&format!("`{text}` was given")),
                "{refused}"
            );
        }
    }
}
