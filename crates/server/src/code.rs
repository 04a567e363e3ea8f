//! Every code that an answer can have: its text, its status, and when it is given.

use hyper::StatusCode;
use widgets_registry::{Fault, Refusal};

macro_rules! codes {
    ($($(#[doc = $meaning:literal])+ $variant:ident = $word:literal, $status:ident;)+) => {
        /// What went wrong, for clients to branch on. Metrics and the API's document list exactly
        /// these.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[doc = $meaning])+ $variant,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// Returns the stable, SQLSTATE-shaped text of the answer's member `code`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// Returns the answer's status.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self {
                    $(Self::$variant => StatusCode::$status,)+
                }
            }

            /// Returns when it is given, as a sentence for the API's document.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($meaning),+).trim_ascii(),)+
                }
            }
        }
    };
}

codes! {
    /// The head of the request is malformed HTTP: it must have one `Host`, and no `Transfer-Encoding`
    /// but `chunked`.
    Head = "WG400", BAD_REQUEST;
    /// The request is for a host that is not this machine. The service listens on loopback and admits callers
    /// without a token, and therefore answers only to names of this machine.
    Misdirected = "WG421", MISDIRECTED_REQUEST;
    /// `Expect` asks for something other than `100-continue`.
    Expectation = "WG417", EXPECTATION_FAILED;
    /// A query parameter is unknown or malformed, or `Read-After` or `Last-Event-ID` is not a position. The
    /// arguments of operations belong in the body.
    QueryParameter = "PGRST100", BAD_REQUEST;
    /// An operation was called by a method other than POST.
    OperationMethod = "PGRST101", METHOD_NOT_ALLOWED;
    /// The body is not a JSON object, or its media type is not JSON.
    Body = "PGRST102", BAD_REQUEST;
    /// The body is compressed. `Accept-Encoding` names what is accepted.
    ContentEncoding = "PGRST102", UNSUPPORTED_MEDIA_TYPE;
    /// The body is longer than the service accepts.
    BodyTooLarge = "PGRST102", PAYLOAD_TOO_LARGE;
    /// The range selects no rows: it is inverted, negative, or begins after the last row.
    Range = "PGRST103", RANGE_NOT_SATISFIABLE;
    /// The profile header names a schema that is not exposed.
    Schema = "PGRST106", NOT_ACCEPTABLE;
    /// None of the media types in `Accept` is available. Nothing was applied.
    MediaType = "PGRST107", NOT_ACCEPTABLE;
    /// `Idempotency-Key` is given twice, is empty or longer than 255 bytes, or has characters that a
    /// header must not have. Nothing was applied.
    IdempotencyKey = "WG400", BAD_REQUEST;
    /// The body took longer to arrive than the service waits. Nothing was applied.
    BodyTimeout = "WG408", REQUEST_TIMEOUT;
    /// One row was asked for as an object, and there is none or more than one.
    NotSingular = "PGRST116", NOT_ACCEPTABLE;
    /// The path does not have this method.
    Method = "PGRST117", METHOD_NOT_ALLOWED;
    /// `Prefer` asks for strict handling and for an unknown preference.
    Preferences = "PGRST122", BAD_REQUEST;
    /// There is no such path.
    Path = "PGRST125", NOT_FOUND;
    /// The path has a `%` that is not followed by two hexadecimal digits.
    PathEncoding = "PGRST125", BAD_REQUEST;
    /// `Prefer` asks for strict handling and for `max-affected`, which no operation supports.
    MaxAffected = "PGRST128", BAD_REQUEST;
    /// The request asks to embed something, which is impossible: `slots` is a column.
    Embedding = "PGRST200", BAD_REQUEST;
    /// No operation has this name and these arguments.
    Function = "PGRST202", NOT_FOUND;
    /// There is no such path; PostgREST would look for a table of that name.
    Table = "PGRST205", NOT_FOUND;
    /// A token was sent, and the service has no keys to check one with.
    NoTokenKeys = "PGRST300", INTERNAL_SERVER_ERROR;
    /// The token is not a JWT, or no key of the service signed it.
    Token = "PGRST301", UNAUTHORIZED;
    /// A token is required, and none was sent.
    Anonymous = "PGRST302", UNAUTHORIZED;
    /// The token is not valid now, or not for this service.
    TokenClaim = "PGRST303", UNAUTHORIZED;
    /// GET and HEAD only read, and every operation writes.
    ReadOnlyTransaction = "25006", METHOD_NOT_ALLOWED;
    /// The token names a role that the service does not know.
    RoleUnknown = "22023", UNAUTHORIZED;
    /// A value has the wrong type, or a port type does not exist (case matters).
    InvalidText = "22P02", BAD_REQUEST;
    /// A required value is null.
    Null = "23502", BAD_REQUEST;
    /// The serial number is taken.
    SerialNumberTaken = "23505", CONFLICT;
    /// The table has no such column.
    ColumnUnknown = "42703", BAD_REQUEST;
    /// The role may not do this.
    Permission = "42501", FORBIDDEN;
    /// A web page of another site sent the request without a token, and its origin is not among
    /// `http.cors_origins`.
    ForeignPage = "42501", FORBIDDEN;
    /// This may not be done without a token.
    AnonymousPermission = "42501", UNAUTHORIZED;
    /// The list took longer than the service allows. Ask for less, or filter by something that an index serves.
    ReadTimeout = "57014", INTERNAL_SERVER_ERROR;
    /// A named widget does not exist.
    WidgetMissing = "WG001", NOT_FOUND;
    /// The widget has no free slot of that port type.
    NoFreeSlot = "WG002", CONFLICT;
    /// The two widgets are already associated over that port type.
    AlreadyAssociated = "WG003", CONFLICT;
    /// The two widgets are not associated over that port type.
    NotAssociated = "WG004", NOT_FOUND;
    /// A widget cannot be associated with itself.
    SelfAssociation = "WG005", BAD_REQUEST;
    /// There are more slots than a widget can have.
    TooManySlots = "WG006", BAD_REQUEST;
    /// A serial number or a name is empty, too long, or contains NUL, or a number is out of its limits.
    FieldLimit = "WG007", BAD_REQUEST;
    /// That order is not available: only by the serial number, or by widget and ordinal.
    Order = "WG010", BAD_REQUEST;
    /// The rows exceed the size of an answer: ask for fewer at a time.
    AnswerTooLong = "WG011", BAD_REQUEST;
    /// Another request with the same `Idempotency-Key` is in progress: this one applied nothing, and
    /// `Retry-After` says when to retry.
    KeyInUse = "WG409", CONFLICT;
    /// The changes after the position are no longer kept, or it belongs to another store or history:
    /// `details` names the oldest position that is kept, and with `Read-After` the newest.
    ChangesGone = "WG410", GONE;
    /// The `Idempotency-Key` was already used for a different request: nothing was applied.
    KeyReused = "WG422", UNPROCESSABLE_ENTITY;
    /// The store keeps no changes: on PostgreSQL `widgets migrate --changes` turns the feed on.
    NoChanges = "WG501", NOT_IMPLEMENTED;
    /// The service cannot back up its store: PostgreSQL has its own tools for that.
    NoBackup = "WG501", NOT_IMPLEMENTED;
    /// This client sends too many requests: nothing was applied, and `Retry-After` says when to retry.
    TooManyRequests = "WG429", TOO_MANY_REQUESTS;
    /// The service is too busy, or a standby does not have the position of `Read-After` yet, or a primary
    /// hands over to a standby: nothing was applied, and `Retry-After` says when to retry.
    Busy = "WG503", SERVICE_UNAVAILABLE;
    /// The store is read-only or cannot be reached: nothing was applied.
    Unavailable = "WG504", SERVICE_UNAVAILABLE;
    /// The operation may or may not have been applied: repeat it with its `Idempotency-Key`, or read
    /// before you repeat it.
    FateUnknown = "WG505", SERVICE_UNAVAILABLE;
    /// The keys to check the token with have not been fetched yet, or too many requests are waiting for newer
    /// ones: nothing was applied, and `Retry-After` says when to retry.
    KeysUnfetched = "WG506", SERVICE_UNAVAILABLE;
    /// This is a standby: nothing was applied, and `details` has the address of the primary, which takes
    /// operations.
    Standby = "WG507", SERVICE_UNAVAILABLE;
}

impl From<&Refusal> for Code {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::SerialNumberTaken { .. } => Self::SerialNumberTaken,
            Refusal::PortUnknown { .. } => Self::InvalidText,
            Refusal::TooManySlots { .. } => Self::TooManySlots,
            Refusal::FieldLimit { .. } => Self::FieldLimit,
            Refusal::WidgetMissing { .. } => Self::WidgetMissing,
            Refusal::NoFreeSlot { .. } => Self::NoFreeSlot,
            Refusal::AlreadyAssociated { .. } => Self::AlreadyAssociated,
            Refusal::NotAssociated { .. } => Self::NotAssociated,
            Refusal::SelfAssociation { .. } => Self::SelfAssociation,
            Refusal::KeyReused => Self::KeyReused,
            Refusal::KeyInUse => Self::KeyInUse,
            Refusal::Null { .. } => Self::Null,
        }
    }
}

impl From<&Fault> for Code {
    fn from(fault: &Fault) -> Self {
        match fault {
            Fault::Busy { .. } => Self::Busy,
            Fault::Unavailable { .. } => Self::Unavailable,
            Fault::FateUnknown { .. } => Self::FateUnknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Code;
    use std::collections::BTreeSet;

    /// Returns the codes and statuses in the first columns of a page's tables.
    fn rows(page: &str) -> BTreeSet<(&str, u16)> {
        page.lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| ")?.split(" | ");
                Some((cells.next()?, cells.next()?.parse().ok()?))
            })
            .collect()
    }

    fn check(name: &str, page: &str) {
        let codes = Code::ALL.map(|code| (code.as_str(), code.status().as_u16()));
        assert_eq!(rows(page), BTreeSet::from(codes), "the rows of {name}");
    }

    #[test]
    fn the_documentation_lists_exactly_the_existing_error_codes() {
        check("docs/api.md", include_str!("../../../docs/api.md"));
        check("docs/errors.md", include_str!("../../../docs/errors.md"));
    }
}
