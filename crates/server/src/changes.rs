//! `GET /changes`: what happened, as pages of JSON, as server-sent events, and as JSON Lines.
//!
//! A page is read and answered like anything else; one that finds nothing may wait for what comes. The
//! other two have no end: a task reads the feed and hands over pieces, one at a time, so that a
//! subscriber has a few hundred kilobytes at most, however slowly it reads. One that does not read at
//! all is disconnected like any connection on which nothing moves. A shutdown ends streams between two
//! changes; whoever resumes after the last position misses nothing.

mod asked;
mod encode;
mod stream;

pub(crate) use asked::Asked;
pub(crate) use stream::Subscribers;

use crate::{
    error::Error,
    making::{Making, Pace},
    pieces::{Pieces, time_left},
};
use asked::{After, Format};
use hyper::{
    HeaderMap,
    body::Bytes,
    header::{self, HeaderName, HeaderValue},
};
use std::{sync::Arc, time::Duration};
use widgets_clock::Clock;
use widgets_registry::{ChangeFilter, Event, Fault, Feed, Position, query::Asker};

/// After the last change that a page looked at: where the next one goes on.
pub(crate) const NEXT_POSITION: HeaderName = HeaderName::from_static("next-position");

/// Tells nginx not to hold pieces back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const PAGE_TYPE: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const EVENTS_TYPE: HeaderValue = HeaderValue::from_static("text/event-stream");
const LINES_TYPE: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// A page that looks for wanted changes among many answers after so long, with what it has.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// A page of changes.
pub(crate) struct Page {
    pub(crate) body: Bytes,
    pub(crate) next: Position,
}

/// What bounds a page of changes.
pub(crate) struct Bounds<'a> {
    pub(crate) making: &'a Arc<Making>,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) silences: Silences,
    pub(crate) bytes_max: usize,
}

/// What is answered to a request for changes.
pub(crate) enum Answer {
    Page(Page),
    Stream(Format, Pieces),
}

impl Answer {
    /// The headers of the answer.
    pub(crate) fn headers(&self, headers: &mut HeaderMap) {
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        let content_type = match self {
            Self::Page(page) => {
                if let Ok(next) = HeaderValue::try_from(page.next.to_string()) {
                    headers.insert(NEXT_POSITION, next);
                }
                PAGE_TYPE
            }
            Self::Stream(format, _) => {
                headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
                match format {
                    Format::Events => EVENTS_TYPE,
                    Format::Page | Format::Lines => LINES_TYPE,
                }
            }
        };
        headers.insert(header::CONTENT_TYPE, content_type);
    }
}

/// How long nothing may come: a connection on which nothing moves is taken for dead after a while.
#[derive(Clone, Copy)]
pub(crate) struct Silences {
    /// A page waits no longer for a change.
    pub(crate) of_pages: Duration,
    /// A stream says before that it is there.
    pub(crate) of_streams: Duration,
}

/// Answers a request for changes.
pub(crate) async fn answer(
    feed: Arc<dyn Feed>,
    asked: Asked,
    who: Asker,
    subscribers: &Arc<Subscribers>,
    bounds: &Bounds<'_>,
) -> Result<Answer, Error> {
    let after = match asked.after {
        After::Oldest => feed.oldest().await?,
        After::Now => feed.newest().await?,
        After::Position(position) => position,
    };
    if asked.format == Format::Page {
        return page(&*feed, asked, who, after, subscribers, bounds)
            .await
            .map(Answer::Page);
    }
    let subscriber = subscribers.join(who).map_err(busy)?;
    let filter = Arc::new(asked.filter);
    // Whether the position is one can only be said before the stream begins.
    feed.read(after, filter.clone(), 0).await?;
    let left = asked.ends.map(|ends| time_left(ends, &*bounds.clock));
    let stream = stream::start(
        feed,
        after,
        filter,
        asked.format,
        bounds.silences.of_streams,
        subscriber,
        stream::Ends {
            stopping: subscribers.stopping(),
            left,
        },
    );
    Ok(Answer::Stream(asked.format, stream))
}

async fn page(
    feed: &dyn Feed,
    asked: Asked,
    who: Asker,
    mut after: Position,
    subscribers: &Subscribers,
    bounds: &Bounds<'_>,
) -> Result<Page, Error> {
    let Bounds {
        making,
        clock,
        silences,
        bytes_max,
    } = *bounds;
    let wait_max = silences.of_pages;
    let filter: Arc<ChangeFilter> = Arc::new(asked.filter);
    let wait = asked.wait.min(wait_max);
    let (began, mut stopping) = (clock.now(), subscribers.stopping());
    let mut events: Vec<Event> = Vec::new();
    let mut turn = making.turn(who).await.map_err(busy)?;
    loop {
        let changes = feed
            .read(after, filter.clone(), asked.limit - events.len())
            .await?;
        events.extend(changes.events);
        after = changes.next;
        let took = clock.now().saturating_sub(began);
        let waits = wait.saturating_sub(took);
        if events.len() >= asked.limit {
            break;
        }
        // What is wanted may be rare.
        if !changes.is_end && took < LOOK_MAX.max(wait) {
            continue;
        }
        if !events.is_empty() || waits.is_zero() || *stopping.borrow() {
            break;
        }
        // Past the end, and with time left. Nothing is in the making.
        drop(turn);
        tokio::select! {
            biased;
            _ = stopping.wait_for(|&stopping| stopping) => {}
            () = feed.changed(after) => {}
            () = clock.timer(waits) => {}
        }
        turn = making.turn(who).await.map_err(busy)?;
    }
    let (body, told) = encode::page(&events, Pace::new(bytes_max)).await;
    drop(turn);
    let last = events.get(told.saturating_sub(1));
    let next = match last {
        Some(last) if told < events.len() => last.position,
        _ => after,
    };
    Ok(Page { body, next })
}

fn busy(limit: String) -> Fault {
    Fault::Busy {
        limit,
        retry_after_seconds: 1,
    }
}
