//! The HTTP client for buckets: it uses the cryptography and the certificate authorities of all our
//! clients, trusts no length that a server claims, and follows no redirect.

use super::{REQUEST_TIME_MAX, names};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use reqwest::header::LOCATION;
use std::time::Duration;

/// The timeout for making a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// How much of an error's body is read. A few hundred bytes say what is wrong.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// The maximum size of other responses: a page of a list has a thousand names of at most a kilobyte
/// each, and their metadata.
const ANSWER_BYTES_MAX: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct Connector(pub(super) rustls::ClientConfig);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(self.0.clone())
            .connect_timeout(CONNECT_TIME_MAX)
            .timeout(REQUEST_TIME_MAX)
            // A bucket's own endpoint does not redirect, and a redirect could lead anywhere in this network.
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let client = client.map_err(|error| object_store::Error::Generic {
            store: "archive",
            source: Box::new(error),
        })?;
        Ok(HttpClient::new(Bounded(client)))
    }
}

/// Limits how much of a response is read. Otherwise it would be read whole, into as much memory as
/// it claims at first.
#[derive(Debug)]
struct Bounded<S>(S);

#[async_trait]
impl<S: HttpService> HttpService for Bounded<S> {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_list = is_list(request.uri().query());
        let is_object = request.method() == "GET" && !is_list;
        let answer = self.0.call(request).await?;
        let (parts, body) = answer.into_parts();
        let location = parts.headers.get(LOCATION);
        if let Some(location) = location.filter(|_| parts.status.is_redirection()) {
            let status = parts.status.as_u16();
            let to = String::from_utf8_lossy(location.as_bytes());
            let error = std::io::Error::other(format!(
                "it answered {status} and sends elsewhere, which is not followed: {to}"
            ));
            return Err(HttpError::new(HttpErrorKind::Unknown, error));
        }
        let body = if !parts.status.is_success() {
            beginning(body).await.into()
        } else if is_object {
            // The caller reads it piece by piece.
            body
        } else if is_list {
            names::passing_over(whole(body).await?).into()
        } else {
            whole(body).await?.into()
        };
        Ok(HttpResponse::from_parts(parts, body))
    }
}

/// Returns whether a response is a list, by the query with which S3 and Google, or Azure, are asked
/// for one.
fn is_list(query: Option<&str>) -> bool {
    let mut asked = query.unwrap_or_default().split('&');
    asked.any(|each| each.starts_with("list-type=") || each == "comp=list")
}

/// Reads the beginning of an error's body, up to the limit, without waiting for the rest.
async fn beginning(body: HttpResponseBody) -> Bytes {
    let mut pieces = body.bytes_stream();
    let mut read = Vec::new();
    while read.len() < ERROR_BYTES_MAX
        && let Some(Ok(piece)) = pieces.next().await
    {
        let room = ERROR_BYTES_MAX - read.len();
        read.extend_from_slice(&piece[..piece.len().min(room)]);
    }
    read.into()
}

async fn whole(body: HttpResponseBody) -> Result<Bytes, HttpError> {
    let mut pieces = body.bytes_stream();
    let mut read = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if piece.len() > ANSWER_BYTES_MAX - read.len() {
            let error =
                std::io::Error::other(format!("the answer has more than {ANSWER_BYTES_MAX} bytes"));
            return Err(HttpError::new(HttpErrorKind::Decode, error));
        }
        read.extend_from_slice(&piece);
    }
    Ok(read.into())
}
