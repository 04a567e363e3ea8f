//! The API: takes every request and makes every answer, in PostgREST's order of checks.

mod admission;
mod operations;
mod read_after;
mod reads;
mod replicas;

use crate::{
    Authentication, BrowserSettings, Caller, ClientCertificates, RateLimit, Settings,
    askers::asker,
    auth::{Object, Permission, Sender, TokenCache},
    backup::{self, Backup},
    body::{self, Bodies, ConnectionBodies},
    changes::{self, Subscribers},
    code::Code,
    connections::Resident,
    console, cors,
    document::{self, File, Security},
    error::{Error, Malformed},
    faults::FaultLog,
    given::{Given, Head},
    lists::{self, WantedList},
    making::{Making, Pace, Turn},
    metrics::{Metrics, Subject},
    negotiation::{self, Preferences},
    pieces::Pieces,
    proxies::Proxies,
    readiness::Readiness,
    replication::{self, Replication},
    request_id::{self, RequestIds, X_REQUEST_ID},
    responses::{
        self, ASK_AGAIN, VARY_ACCEPT, WidgetBody, alive, answer_applied, declare, json, of_type,
        page,
    },
    routes::Route,
};
use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body, Bytes},
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use ipnet::IpNet;
use prometheus::Registry;
use reads::{check_reads, probe, read, read_backup, read_changes, read_widget, service, table};
use std::{
    fmt::Display,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::Duration,
};
use widgets_clock::Clock;
use widgets_registry::{
    Attempt, Author, Fault, Feed, Lookup, Refusal, SerialNumber, Store,
    query::{Asker, NeighbourhoodQuery},
};

const SERVER: HeaderValue =
    HeaderValue::from_static(concat!("widgets/", env!("CARGO_PKG_VERSION")));
const CLOSE: HeaderValue = HeaderValue::from_static("close");
const METRICS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");
const OPENAPI_JSON: HeaderValue =
    HeaderValue::from_static("application/openapi+json; charset=utf-8");
const HTML: &str = "text/html";
const ROOT_MEDIA_TYPES: [&str; 3] = ["application/openapi+json", "application/json", HTML];

/// The API over a store. Clones share it.
#[derive(Clone)]
pub struct Api<S> {
    store: S,
    feed: Option<Arc<dyn Feed>>,
    backup: Option<Arc<dyn Backup>>,
    replication: Option<Arc<dyn Replication>>,
    shared: Arc<Shared>,
    authentication: Arc<Authentication>,
    tokens: Arc<Mutex<TokenCache>>,
    rate_limit: Option<Arc<RateLimit>>,
    proxies: Arc<Proxies>,
    browsers: Arc<BrowserSettings>,
    /// The document's description of authentication.
    security: Security,
    /// The API's document.
    document: Bytes,
}

struct Shared {
    settings: Settings,
    metrics: Metrics,
    faults: FaultLog,
    clock: Box<dyn Clock>,
    readiness: Readiness,
    bodies: Bodies,
    subscribers: Arc<Subscribers>,
    making: Arc<Making>,
    /// The number of operations that wait for a primary.
    awaiting: AtomicUsize,
    request_ids: RequestIds,
}

/// The allocator keeps blocks of up to this many bytes at hand, and has to search for larger ones.
const READ_BYTES_MAX: usize = 1024;

/// The target of the log's lines about requests: one for each, if enabled.
pub const REQUESTS: &str = "widgets_requests";

/// The position after the newest durable change, on answers that involve the store.
const POSITION: HeaderName = HeaderName::from_static("position");

/// What the log says about a request in addition to its answer.
struct Logged {
    method: Method,
    route: &'static str,
    author: Option<Author>,
    address: IpAddr,
}

/// The body of an answer: complete, or in pieces as they come.
pub type AnswerBody = Either<Full<Bytes>, Pieces>;

pub(crate) type Answer = Result<Response<Full<Bytes>>, Error>;

/// A request that was read.
struct Read {
    /// The CORS origin for the answer, if a page of another origin sent the request.
    allowed_origin: Option<(HeaderValue, bool)>,
    /// The request is a preflight.
    preflight: bool,
    /// What it is counted as, with its duration. Documents and probes are not counted.
    subject: Option<Subject>,
    /// Whether its sender sees the full details of errors.
    administers: bool,
    /// Its body was not read to the end, so the connection cannot be reused.
    last: bool,
    /// What the log says about it, if enabled.
    logged: Option<Box<Logged>>,
    /// Who asks, for dividing shared resources.
    who: Asker,
    wanted: Result<Wanted, Error>,
}

/// What remains to be done for a request that was read.
enum Wanted {
    /// Nothing: this is its answer.
    Answer(Response<Full<Bytes>>),
    /// The store must apply this operation.
    Operation(Attempt, Preferences),
    /// The client wants changes.
    Changes(changes::Asked),
    /// A standby wants the store.
    Replication(Box<replication::Asked>),
    /// The store must look this widget up.
    Widget(SerialNumber),
    /// The store must return these rows.
    List(Box<WantedList>),
    /// The store must return the surroundings of a widget.
    Neighbourhood(Box<NeighbourhoodQuery>),
    /// The client wants a backup of the whole store.
    Backup,
}

impl Wanted {
    /// Reports whether the store must answer it.
    const fn asks_store(&self) -> bool {
        match self {
            Self::Answer(_) | Self::Backup | Self::Replication(..) => false,
            Self::Operation(..)
            | Self::Changes(_)
            | Self::Widget(_)
            | Self::List(_)
            | Self::Neighbourhood(_) => true,
        }
    }
}

impl Logged {
    fn tell<B>(
        &self,
        response: &Response<B>,
        code: Option<Code>,
        request_id: &HeaderValue,
        duration: Duration,
    ) {
        tracing::info!(
            target: REQUESTS,
            method = self.method.as_str(),
            route = self.route,
            status = response.status().as_u16(),
            code = code.map(Code::as_str),
            duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            caller = self.author.as_deref(),
            address = %self.address,
            request_id = request_id::text(request_id),
        );
    }
}

impl<S: Store> Api<S> {
    /// Makes an API over `store`. `/metrics` shows everything in `registry`, to which the API adds
    /// its own metrics. It is an error if a name is already registered there.
    pub fn new(
        store: S,
        settings: Settings,
        registry: Registry,
        clock: impl Clock,
    ) -> prometheus::Result<Self> {
        let authentication = Authentication::off();
        let security = Security {
            proofs: authentication.proofs(),
            client_certificates: None,
        };
        let document = document::json(&settings, security);
        let bodies = Bodies::new(&settings);
        let subscribers = Subscribers::new(settings.changes_subscribers_max);
        subscribers.register(&registry)?;
        let making = Making::new(settings.making_max);
        making.register(&registry)?;
        let shared = Arc::new(Shared {
            settings,
            metrics: Metrics::new(registry)?,
            faults: FaultLog::default(),
            clock: Box::new(clock),
            readiness: Readiness::default(),
            bodies,
            subscribers,
            making,
            awaiting: AtomicUsize::new(0),
            request_ids: RequestIds::default(),
        });
        Ok(Self {
            feed: store.feed(),
            backup: None,
            store,
            replication: None,
            shared,
            authentication: Arc::new(authentication),
            tokens: Arc::default(),
            rate_limit: None,
            proxies: Arc::default(),
            browsers: Arc::default(),
            security,
            document,
        })
    }

    /// Returns the same API with this rate limit for each client.
    #[must_use]
    pub fn with_rate_limit(self, rate_limit: Arc<RateLimit>) -> Self {
        let rate_limit = Some(rate_limit);
        Self { rate_limit, ..self }
    }

    /// Returns the same API behind these trusted proxies: the last address in `X-Forwarded-For`
    /// that is not one of them is the client, for the rate limit and for dividing shared resources.
    #[must_use]
    pub fn with_trusted_proxies(self, proxies: Vec<IpNet>) -> Self {
        let proxies = Arc::new(Proxies(proxies));
        Self { proxies, ..self }
    }

    /// Returns the same API with these backups of the store.
    #[must_use]
    pub fn with_backup(self, backup: Arc<dyn Backup>) -> Self {
        let backup = Some(backup);
        Self { backup, ..self }
    }

    /// Returns the same API over a store that has standbys or is one.
    #[must_use]
    pub fn with_replication(self, replication: Arc<dyn Replication>) -> Self {
        let replication = Some(replication);
        Self {
            replication,
            ..self
        }
    }

    /// Returns the same API with these rules for web pages. Without them, pages of other sites need
    /// a token.
    #[must_use]
    pub fn with_browsers(self, browsers: BrowserSettings) -> Self {
        let browsers = Arc::new(browsers);
        Self { browsers, ..self }
    }

    /// Returns the same API with this authentication. Without it, everyone is admitted.
    #[must_use]
    pub fn with_authentication(self, authentication: Arc<Authentication>) -> Self {
        let proofs = authentication.proofs();
        let security = Security {
            proofs,
            ..self.security
        };
        let api = Self {
            authentication,
            ..self
        };
        api.documented(security)
    }

    /// Returns the same API behind connections that have client certificates.
    #[must_use]
    pub fn with_client_certificates(self, wanted: ClientCertificates) -> Self {
        let security = Security {
            client_certificates: Some(wanted),
            ..self.security
        };
        self.documented(security)
    }

    fn documented(self, security: Security) -> Self {
        let document = document::json(&self.shared.settings, security);
        Self {
            security,
            document,
            ..self
        }
    }

    /// Returns the same API with another way to ask the store, such as a worker's own client.
    #[must_use]
    pub fn with_store<T: Store>(&self, store: T) -> Api<T> {
        Api {
            feed: store.feed(),
            backup: self.backup.clone(),
            store,
            replication: self.replication.clone(),
            shared: self.shared.clone(),
            authentication: self.authentication.clone(),
            tokens: Arc::default(),
            rate_limit: self.rate_limit.clone(),
            proxies: self.proxies.clone(),
            browsers: self.browsers.clone(),
            security: self.security,
            document: self.document.clone(),
        }
    }

    /// Answers a request from this process.
    pub async fn respond<B>(&self, request: Request<B>) -> Response<AnswerBody>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Display,
    {
        let (mut head, body) = request.into_parts();
        // There is no connection, so the request need not name a host.
        let host = head.headers.entry(header::HOST);
        host.or_insert(HeaderValue::from_static("localhost"));
        self.respond_to(Caller::LOCAL, Box::new((head, body))).await
    }

    /// Answers a request with this head and body. Dropping the future gives up the answer, not the
    /// operation.
    ///
    /// Thousands of requests may wait for the store at a time, and the CPU caches have room for
    /// little of each. So this future is small, and everything that is needed to read a request is
    /// in boxes that are freed before the wait. Each of those boxes is small as well: the allocator
    /// keeps blocks of up to a kilobyte at hand, and has to search for larger ones.
    pub async fn respond_to<B>(
        &self,
        caller: Caller,
        request: Box<(Parts, B)>,
    ) -> Response<AnswerBody>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Display,
    {
        let start = self.shared.clock.now();
        let headers = &request.0.headers;
        let given = Given::of(headers);
        let request_id = self.shared.request_ids.of(given, headers);
        let Read {
            allowed_origin,
            preflight,
            subject,
            administers,
            last,
            logged,
            who,
            wanted,
        } = self.boxed_read(&caller, given, request).await;
        let asks_store = wanted.as_ref().is_ok_and(Wanted::asks_store);
        let answer = self.answer(wanted, who).await;
        let (code, mut response) = match answer {
            Ok(response) => (None, response),
            Err(error) => {
                if let Some(fault) = error.fault() {
                    let id = request_id::text(&request_id);
                    self.shared.faults.tell(fault, id, self.shared.clock.now());
                }
                (Some(error.code()), whole(error.response(administers)))
            }
        };
        if let Some(subject) = subject {
            let duration = self.shared.clock.now().saturating_sub(start);
            self.shared.metrics.observe(subject, code, duration);
        }
        if let Some(logged) = logged {
            let duration = self.shared.clock.now().saturating_sub(start);
            logged.tell(&response, code, &request_id, duration);
        }
        let headers = response.headers_mut();
        headers.insert(header::SERVER, SERVER);
        headers.insert(X_REQUEST_ID, request_id);
        declare(headers);
        if asks_store
            && let Some(newest) = self.feed.as_ref().and_then(|feed| feed.known_newest())
            && let Ok(newest) = HeaderValue::from_bytes(&newest.text())
        {
            headers.insert(POSITION, newest);
        }
        if let Some(allowed) = allowed_origin {
            cors::allow(headers, allowed);
            if !preflight {
                cors::expose(headers);
            }
        }
        if last {
            headers.insert(header::CONNECTION, CLOSE);
        }
        response
    }

    /// Returns the bodies of a connection with concurrent requests.
    pub(crate) fn connection_bodies(&self) -> ConnectionBodies {
        self.shared.bodies.connection()
    }

    /// Returns the answer to a request for which a limit of its connection, or of all connections,
    /// leaves no room.
    pub(crate) fn too_busy(limit: String) -> Response<AnswerBody> {
        let busy = Fault::Busy {
            limit,
            retry_after_seconds: 1,
        };
        let mut response = whole(Error::from(busy).response(false));
        declare(response.headers_mut());
        response
    }

    async fn answer(
        &self,
        wanted: Result<Wanted, Error>,
        who: Asker,
    ) -> Result<Response<AnswerBody>, Error> {
        let answer = match wanted? {
            Wanted::Changes(asked) => return Box::pin(self.changes(asked, who)).await,
            Wanted::Backup => return self.backup(),
            Wanted::Replication(asked) => return Box::pin(self.replicate(*asked)).await,
            Wanted::Answer(response) => Ok(response),
            Wanted::Operation(attempt, preferences) => {
                if !self.is_primary() {
                    Box::pin(self.wait_for_primary()).await?;
                }
                match self.store.ask(attempt).await {
                    Ok(applied) => Ok(answer_applied(applied, &preferences)),
                    Err(rejection) => return Err(self.turned_away(rejection).await),
                }
            }
            Wanted::Widget(serial_number) => self.widget(serial_number).await,
            // Boxed, so that the future in which most requests wait stays small.
            Wanted::List(wanted) => Box::pin(self.list(*wanted, who)).await,
            Wanted::Neighbourhood(query) => Box::pin(self.neighbourhood(*query, who)).await,
        };
        answer.map(whole)
    }

    async fn list(&self, mut wanted: WantedList, who: Asker) -> Answer {
        wanted.list.asker = who;
        let _turn = self.turn(who).await?;
        let page = self.in_time(self.store.ask(wanted.list.clone())).await?;
        let subject = Subject::List(wanted.list.table);
        self.shared
            .metrics
            .rows(subject, page.scanned, page.rows.len());
        wanted.answer(&page, self.pace()).await
    }

    /// Waits for permission to make an answer of many rows, for no longer than a list may take.
    async fn turn(&self, who: Asker) -> Result<Turn, Error> {
        let busy = |limit| Fault::Busy {
            limit,
            retry_after_seconds: 1,
        };
        let timeout = self.shared.settings.read_timeout;
        tokio::select! {
            biased;
            turn = self.shared.making.turn(who) => Ok(turn.map_err(busy)?),
            () = self.shared.clock.timer(timeout) => {
                let limit = format!("http.read_timeout_ms = {}", timeout.as_millis());
                Err(busy(limit).into())
            }
        }
    }

    fn pace(&self) -> Pace {
        Pace::new(self.shared.settings.answer_bytes_max)
    }

    async fn neighbourhood(&self, mut query: NeighbourhoodQuery, who: Asker) -> Answer {
        query.asker = who;
        let _turn = self.turn(who).await?;
        let serial_number = query.serial_number.clone();
        match self.in_time(self.store.ask(query)).await? {
            None => Err(Refusal::WidgetMissing { serial_number }.into()),
            Some(shown) => {
                let widgets = shown.widgets.len();
                let subject = Subject::Neighbourhood;
                self.shared.metrics.rows(subject, widgets as u64, widgets);
                lists::neighbourhood_response(&shown, self.pace()).await
            }
        }
    }

    /// Returns the store's answer if it arrives in time. Otherwise the query is also cancelled in
    /// the store.
    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, Fault>>) -> Result<T, Error> {
        let timeout = self.shared.settings.read_timeout;
        tokio::select! {
            answer = answer => Ok(answer?),
            () = self.shared.clock.timer(timeout) => Err(Error::ReadTimeout { timeout }),
        }
    }

    async fn changes(
        &self,
        asked: changes::Asked,
        who: Asker,
    ) -> Result<Response<AnswerBody>, Error> {
        let feed = self.feed.clone().ok_or(Error::NoChanges)?;
        let Shared {
            subscribers,
            making,
            clock,
            settings,
            ..
        } = &*self.shared;
        let silence_max = settings.idle_timeout / 2;
        let bounds = changes::Bounds {
            making,
            clock: &**clock,
            silences: changes::Silences {
                of_pages: silence_max.min(settings.request_timeout * 2 / 3),
                of_streams: silence_max,
            },
            bytes_max: settings.answer_bytes_max,
        };
        let answer = changes::answer(feed, asked, who, subscribers, &bounds).await?;
        let mut response = Response::new(AnswerBody::Left(Full::default()));
        answer.headers(response.headers_mut());
        *response.body_mut() = match answer {
            changes::Answer::Page(page) => AnswerBody::Left(page.body.into()),
            changes::Answer::Stream(_, stream) => AnswerBody::Right(stream),
        };
        Ok(response)
    }

    fn backup(&self) -> Result<Response<AnswerBody>, Error> {
        let stopping = self.shared.subscribers.stopping();
        let pieces = backup::give(self.backup.as_ref(), stopping)?;
        let mut response = Response::new(AnswerBody::Right(pieces));
        backup::headers(response.headers_mut());
        Ok(response)
    }

    /// Ends the streams of changes and backups, so that a shutdown need not wait for their clients.
    pub(crate) fn end_streams(&self) {
        self.shared.subscribers.stop();
    }

    /// Does the same as [`Self::read`], in its own box.
    fn boxed_read<B>(
        &self,
        caller: &Caller,
        given: Given,
        request: Box<(Parts, B)>,
    ) -> Pin<Box<impl Future<Output = Read>>>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Display,
    {
        let read = self.read(caller, given, request);
        debug_assert!(
            size_of_val(&read) <= READ_BYTES_MAX,
            "the allocator searches for {} bytes, for each request",
            size_of_val(&read)
        );
        Box::pin(read)
    }

    /// Reads a request to its end.
    async fn read<B>(&self, caller: &Caller, given: Given, mut request: Box<(Parts, B)>) -> Read
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Display,
    {
        let (head, body) = &mut *request;
        let mut body = Pin::new(body);
        let known = Head::new(head, given);
        let mut read = self.read_all(caller, &known, body.as_mut()).await;
        // HTTP/2 streams end independently of each other.
        if let Ok(Wanted::Replication(asked)) = &mut read.wanted
            && let Some(reported) = asked.reported.take()
        {
            // Over HTTP/1.1 this connection cannot be reused.
            read.last = head.version < Version::HTTP_2;
            tokio::spawn(replication::report(request.1, reported));
            return read;
        }
        if head.version < Version::HTTP_2 && !matches!(read.wanted, Ok(Wanted::Operation(..))) {
            let (headers, settings) = (&head.headers, &self.shared.settings);
            read.last = !Box::pin(body::drain(body, headers, settings)).await;
        }
        if let Ok(wanted) = &read.wanted
            && let Err(error) = self.read_after(wanted, &head.headers).await
        {
            read.wanted = Err(error);
        }
        read
    }

    async fn read_all<B>(&self, caller: &Caller, head: &Head<'_>, body: Pin<&mut B>) -> Read
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let cross_origin = cors::is_cross_origin(head);
        let allowed_origin = cross_origin.then(|| self.browsers.allowed_origin(&head.headers));
        let route = Route::of(head.uri.path());
        let preflight = cors::is_preflight(head);
        let asks_for_rights = head.method == Method::HEAD && matches!(route, Route::Operation(_));
        let subject = route.subject().filter(|_| !preflight && !asks_for_rights);
        let checked = self.check_sender(&route, head, preflight);
        let mut logged = self.shared.settings.log_requests.then(|| {
            Box::new(Logged {
                method: head.method.clone(),
                route: route.as_str(),
                author: None,
                // Behind proxies, the address of the connection would be the same for all clients.
                address: self.client(caller, head),
            })
        });
        let mut who = Asker::default();
        let (administers, wanted) = match checked {
            Err(error) => (false, Err(error)),
            Ok(()) if preflight => {
                let limited = self.check_rate(caller, head);
                let answer = || Wanted::Answer(cors::preflight(&head.headers));
                (false, limited.map(|()| answer()))
            }
            Ok(()) => match self.admit(caller, &route, head).await {
                Ok(sender) => {
                    let administers = sender.access.administers();
                    let is_kept = head.has(Given::IDEMPOTENCY_KEY);
                    if route.has_many_rows() || is_kept {
                        who = asker(&sender, self.client(caller, head));
                    }
                    if let Some(logged) = &mut logged {
                        logged.author.clone_from(&sender.author);
                    }
                    let wanted = self.wanted(&sender, who, &route, head, body).await;
                    (administers, wanted)
                }
                Err(error) => (false, Err(error)),
            },
        };
        Read {
            allowed_origin,
            preflight,
            subject,
            administers,
            last: false,
            logged,
            who,
            wanted,
        }
    }

    async fn wanted<B>(
        &self,
        sender: &Sender,
        who: Asker,
        route: &Route<'_>,
        head: &Head<'_>,
        body: Pin<&mut B>,
    ) -> Result<Wanted, Error>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let answer = match route {
            Route::Operation(operation) => {
                return self
                    .read_operation(*operation, sender, who, head, body)
                    .await;
            }
            Route::Widget(Ok(serial_number)) => {
                return read_widget(serial_number, sender.access, head);
            }
            Route::Changes => return read_changes(sender, head),
            Route::Backup => return read_backup(sender.access, head),
            Route::List(table) => {
                return read(sender.access, head, || {
                    let wanted = lists::read_list(*table, head, &self.shared.settings)?;
                    Ok(Wanted::List(Box::new(wanted)))
                });
            }
            Route::Neighbourhood(Ok(serial_number)) => {
                return read(sender.access, head, || {
                    let settings = &self.shared.settings;
                    let query = lists::read_neighbourhood(serial_number, head, settings)?;
                    Ok(Wanted::Neighbourhood(Box::new(query)))
                });
            }
            Route::Widget(Err(_)) | Route::Neighbourhood(Err(_)) => {
                let details = Some("a serial number is UTF-8, percent-encoded");
                Err(Malformed::Path { details }.into())
            }
            Route::UnknownFunction(function) => {
                Err(Box::pin(self.unknown_function(function, head, body)).await)
            }
            Route::Table(name) => Err(table(name, head).into()),
            Route::Invalid => Err(Malformed::Path { details: None }.into()),
            Route::Undecodable => Err(Malformed::PathEncoding.into()),
            Route::Service => service(head).map_err(Error::from),
            Route::Root => self.document(head),
            Route::PageFile(name) => probe(head, || match File::find(name) {
                Some(file) => Ok(page(file)),
                None => Err(Malformed::Path { details: None }.into()),
            }),
            Route::Console => probe(head, || Ok(console::redirect())),
            Route::ConsoleFile(name) => probe(head, || {
                console::file(name).ok_or_else(|| Malformed::Path { details: None }.into())
            }),
            Route::Live => probe(head, || Ok(alive())),
            Route::Metrics => probe(head, || {
                sender.access.require(Permission::Admin, Object::Metrics)?;
                Ok(self.metrics_text())
            }),
            Route::Replication => return self.read_replication(sender, head),
            Route::Role(what) => Box::pin(self.tell(*what, sender.access, head)).await,
            Route::Ready => {
                let store = self.store.clone();
                let look = || async move { store.ready().await };
                let ready = self.shared.readiness.ask(&*self.shared.clock, look);
                let ready = Box::pin(ready).await;
                probe(head, || {
                    let asks_for_primary = replication::asks_for_primary(head)?;
                    self.authentication.ready()?;
                    self.ready_in_role(asks_for_primary)?;
                    ready?;
                    let distributed = self.store.distributed();
                    let administers = sender.access.administers();
                    Ok(responses::ready(distributed.as_ref(), administers))
                })
            }
        };
        answer.map(Wanted::Answer)
    }

    async fn widget(&self, serial_number: SerialNumber) -> Answer {
        match self.store.ask(Lookup(serial_number.clone())).await? {
            None => Err(Refusal::WidgetMissing { serial_number }.into()),
            Some(widget) => Ok(json(&WidgetBody::from(&widget))),
        }
    }

    /// Returns the document for programs, or the page for browsers.
    fn document(&self, head: &Parts) -> Answer {
        negotiation::check_profile(&head.method, &head.headers)?;
        if let Some(answer) = check_reads(head)? {
            return Ok(answer);
        }
        let wanted = negotiation::media_type(&head.headers, &ROOT_MEDIA_TYPES)?;
        let mut response = if wanted == HTML {
            page(document::html())
        } else {
            let mut response = of_type(OPENAPI_JSON, self.document.clone());
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, ASK_AGAIN);
            response.extensions_mut().insert(Resident);
            response
        };
        response.headers_mut().insert(header::VARY, VARY_ACCEPT);
        Ok(response)
    }

    fn metrics_text(&self) -> Response<Full<Bytes>> {
        match self.shared.metrics.text() {
            Ok(text) => of_type(METRICS_TEXT, text.into()),
            // A collector of this process returned a metric that cannot be encoded.
            Err(error) => {
                let mut response = of_type(METRICS_TEXT, error.to_string().into());
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        }
    }
}

/// Wraps an answer that is complete.
fn whole(response: Response<Full<Bytes>>) -> Response<AnswerBody> {
    response.map(AnswerBody::Left)
}
