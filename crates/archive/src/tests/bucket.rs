//! A bucket in memory that fails on demand: before a request, after it, or from some request on for
//! good, as when a process dies.

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, memory::InMemory, path::Path,
};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::Notify;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not done.
    Fails,
    /// It is done, and the answer is an error.
    AnswersLate,
    /// It is refused because permissions are missing.
    Refused,
    /// It is done only when the bucket [lets it go on](FaultyBucket::let_go).
    Waits,
}

type Decide = Box<dyn FnMut(usize) -> Option<Fault> + Send>;

/// The bucket.
#[derive(Clone)]
pub(super) struct FaultyBucket {
    inside: Arc<InMemory>,
    plan: Arc<Mutex<Plan>>,
    gate: Arc<Notify>,
}

struct Plan {
    requests: usize,
    decide: Decide,
}

impl fmt::Debug for FaultyBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyBucket")
    }
}

impl fmt::Display for FaultyBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyBucket")
    }
}

impl Default for FaultyBucket {
    fn default() -> Self {
        let plan = Plan {
            requests: 0,
            decide: Box::new(|_| None),
        };
        Self {
            inside: Arc::default(),
            plan: Arc::new(Mutex::new(plan)),
            gate: Arc::default(),
        }
    }
}

impl FaultyBucket {
    pub(super) fn bucket(&self) -> crate::Bucket {
        crate::Bucket::on(Arc::new(self.clone()))
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().expect("nobody panics in it")
    }

    /// Sets how requests fail from now on, by their number counted from 0.
    pub(super) fn fail(&self, decide: impl FnMut(usize) -> Option<Fault> + Send + 'static) {
        let mut plan = self.plan();
        plan.requests = 0;
        plan.decide = Box::new(decide);
    }

    /// Lets nothing happen after this request. `is_done` says whether this request itself happens.
    pub(super) fn die_at(&self, request: usize, is_done: bool) {
        self.fail(move |number| {
            if number == request && is_done {
                Some(Fault::AnswersLate)
            } else {
                (number >= request).then_some(Fault::Fails)
            }
        });
    }

    pub(super) fn be_well(&self) {
        self.fail(|_| None);
    }

    /// Lets a request that waits go on.
    pub(super) fn let_go(&self) {
        self.gate.notify_one();
    }

    /// Returns how many requests there were since it was set how they fail.
    pub(super) fn requests(&self) -> usize {
        self.plan().requests
    }

    /// Returns the same objects in a separate bucket.
    pub(super) fn copy(&self) -> Self {
        Self {
            inside: Arc::new(self.inside.fork()),
            ..Self::default()
        }
    }

    /// Before this request, replaces the objects with those of another bucket, as if others had
    /// written and removed them.
    pub(super) fn turn_into(&self, other: &Self, before: usize) {
        let (own, other) = (self.inside.clone(), other.inside.clone());
        self.fail(move |number| {
            if number == before {
                let (own, other) = (own.clone(), other.clone());
                // On another thread, because this one is in the middle of a request.
                let turned = std::thread::spawn(move || turn_into(&own, &other));
                turned.join().expect("turned");
            }
            None
        });
    }

    /// Returns the objects.
    pub(super) fn inside(&self) -> &InMemory {
        &self.inside
    }

    fn fault(&self) -> Option<Fault> {
        let mut plan = self.plan();
        let request = plan.requests;
        plan.requests += 1;
        (plan.decide)(request)
    }

    async fn ask<T>(&self, asked: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let fault = self.fault();
        match fault {
            None => asked.await,
            Some(Fault::Waits) => {
                self.gate.notified().await;
                asked.await
            }
            Some(Fault::Fails) => Err(failure()),
            Some(Fault::AnswersLate) => {
                drop(asked.await);
                Err(failure())
            }
            Some(Fault::Refused) => Err(Error::PermissionDenied {
                path: "somewhere".into(),
                source: "403".into(),
            }),
        }
    }
}

fn turn_into(own: &InMemory, other: &InMemory) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let names = async |store: &InMemory| {
            let listed = store.list(None).map(|object| object.map(|it| it.location));
            listed.try_collect::<Vec<_>>().await.expect("listed")
        };
        for name in names(own).await {
            own.delete(&name).await.expect("removed");
        }
        for name in names(other).await {
            let object = other.get(&name).await.expect("there");
            let bytes = object.bytes().await.expect("read");
            own.put(&name, bytes.into()).await.expect("written");
        }
    });
}

fn failure() -> Error {
    Error::Generic {
        store: "faulty",
        source: "as told".into(),
    }
}

#[async_trait]
impl ObjectStore for FaultyBucket {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.ask(self.inside.put_opts(location, payload, options))
            .await
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(failure())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.ask(self.inside.get_opts(location, options)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    let location = location?;
                    let one = futures_util::stream::iter([Ok(location.clone())]).boxed();
                    let delete = async {
                        this.inside.delete_stream(one).collect::<Vec<_>>().await;
                        Ok(location)
                    };
                    this.ask(delete).await
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fault() {
            None => self.inside.list(prefix),
            Some(_) => futures_util::stream::iter([Err(failure())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(failure())
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(failure())
    }
}
