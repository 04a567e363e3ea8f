//! `GET /changes`: the feed of changes, as pages of JSON, as server-sent events, and as JSON Lines.
//!
//! A page is read and answered like any other answer; if it finds nothing, it may wait for the next
//! change. Events and lines have no end: a task reads the feed and hands over one piece at a time,
//! so that a subscriber takes at most a few hundred kilobytes, however slowly it reads. A
//! subscriber that does not read at all is disconnected like any idle connection. A shutdown ends
//! streams between two changes, and a subscriber that resumes after its last position misses
//! nothing.

mod asked;
mod encode;
mod stream;

pub(crate) use asked::{Asked, ONLY_PAGES};
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

/// The position after the last change that a page examined: where the next page continues.
pub(crate) const NEXT_POSITION: HeaderName = HeaderName::from_static("next-position");

/// Tells nginx not to buffer the answer.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const PAGE_TYPE: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const EVENTS_TYPE: HeaderValue = HeaderValue::from_static("text/event-stream");
const LINES_TYPE: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// How long a page searches for matching changes among many others before it is answered with what
/// it has.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// A page of changes.
pub(crate) struct Page {
    pub(crate) body: Bytes,
    pub(crate) next: Position,
}

/// The limits for a page of changes.
pub(crate) struct Bounds<'a> {
    pub(crate) making: &'a Arc<Making>,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) silences: Silences,
    pub(crate) bytes_max: usize,
}

/// The answer to a request for changes.
pub(crate) enum Answer {
    Page(Page),
    Stream(Format, Pieces),
}

impl Answer {
    /// Sets the headers of the answer.
    pub(crate) fn headers(&self, headers: &mut HeaderMap) {
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

/// How long nothing may be sent. A connection on which nothing moves is eventually taken for dead.
#[derive(Clone, Copy)]
pub(crate) struct Silences {
    /// How long a page waits for a change at most.
    pub(crate) of_pages: Duration,
    /// How soon a stream without changes sends a sign of life.
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
    // An invalid position can be reported only before the stream begins.
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
        // Matching changes may be rare.
        if !changes.is_end && took < LOOK_MAX.max(wait) {
            continue;
        }
        if !events.is_empty() || waits.is_zero() || *stopping.borrow() {
            break;
        }
        // Past the end, and with time left. No answer is being made.
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
