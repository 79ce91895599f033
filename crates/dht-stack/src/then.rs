//! Steps of a stack that await another service first, and then decide.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use tower::BoxError;

/// The question of a [`Then`] to another service, and the decision that follows from the answer.
pub trait Decide<In> {
    /// Request of the other service.
    type Question;
    /// Response of the other service.
    type Answer;
    /// The rest of the request, kept until the answer is there.
    type Rest;
    /// Request of the next service.
    type Out;
    /// Why a request ends here; becomes the response of the [`Then`].
    type Reject;

    /// Takes the question out of a request.
    fn ask(&self, request: In) -> (Ask<Self::Question, Self::Answer>, Self::Rest);

    /// Decides.
    ///
    /// # Errors
    /// If the request ends here.
    fn decide(&self, kept: Self::Rest, answer: Self::Answer) -> Result<Self::Out, Self::Reject>;
}

impl<In, D: Decide<In> + ?Sized> Decide<In> for Arc<D> {
    type Question = D::Question;
    type Answer = D::Answer;
    type Rest = D::Rest;
    type Out = D::Out;
    type Reject = D::Reject;

    fn ask(&self, request: In) -> (Ask<D::Question, D::Answer>, D::Rest) {
        D::ask(self, request)
    }

    fn decide(&self, kept: D::Rest, answer: D::Answer) -> Result<D::Out, D::Reject> {
        D::decide(self, kept, answer)
    }
}

/// A question, or its answer if that is known without asking.
#[derive(Clone, Copy, Debug)]
pub enum Ask<Q, A> {
    /// The other service has to answer.
    Service(Q),
    /// There is nothing to wait for.
    Known(A),
}

/// Puts a [`Decide`] and the service that it asks in front of a service.
#[derive(Clone, Copy, Debug)]
pub struct ThenLayer<A, D> {
    asked: A,
    decide: D,
}

/// Service produced by [`ThenLayer`].
///
/// Ready once both the next service and the asked one are. The next service, made ready, is held until the answer is
/// there.
#[derive(Clone, Copy, Debug)]
pub struct Then<A, D, S> {
    asked: A,
    decide: D,
    inner: S,
}

pin_project! {
    /// Response future of [`Then`]; `W` is the future of the asked service.
    pub struct ThenFuture<In, W, D, S>
    where
        D: Decide<In>,
        S: Service<D::Out>,
    {
        #[pin]
        state: State<W, Waiting<D, D::Rest, S>, S::Future, S::Response>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<W, N, F, R> {
        Asking { #[pin] answer: W, waiting: Option<N> },
        Inner { #[pin] inner: F },
        Rejected { response: Option<R> },
    }
}

/// The decision, the rest of the request, and the next service, made ready.
struct Waiting<D, K, S> {
    decide: D,
    kept: K,
    inner: S,
}

impl<A, D> ThenLayer<A, D> {
    /// Asks `asked`, and does what `decide` makes of the answer.
    pub const fn new(asked: A, decide: D) -> Self {
        Self { asked, decide }
    }
}

impl<A: Clone, D: Clone, S> Layer<S> for ThenLayer<A, D> {
    type Service = Then<A, D, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Then {
            asked: self.asked.clone(),
            decide: self.decide.clone(),
            inner,
        }
    }
}

impl<In, A, D, S> Service<In> for Then<A, D, S>
where
    D: Decide<In> + Clone,
    A: Service<D::Question, Response = D::Answer>,
    A::Error: Into<BoxError>,
    S: Service<D::Out> + Clone,
    S::Response: From<D::Reject>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ThenFuture<In, A::Future, D, S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        ready!(self.inner.poll_ready(cx)).map_err(Into::into)?;
        self.asked.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: In) -> Self::Future {
        let (ask, kept) = self.decide.ask(request);
        let state = match ask {
            Ask::Service(question) => {
                // `poll_ready` readied *this* inner: take it along, and leave an unready clone behind.
                let unready = self.inner.clone();
                let waiting = Waiting {
                    decide: self.decide.clone(),
                    kept,
                    inner: mem::replace(&mut self.inner, unready),
                };
                State::Asking {
                    answer: self.asked.call(question),
                    waiting: Some(waiting),
                }
            }
            Ask::Known(answer) => match self.decide.decide(kept, answer) {
                Ok(request) => State::Inner {
                    inner: self.inner.call(request),
                },
                Err(reject) => State::Rejected {
                    response: Some(reject.into()),
                },
            },
        };
        ThenFuture { state }
    }
}

impl<In, W, E, D, S> Future for ThenFuture<In, W, D, S>
where
    W: Future<Output = Result<D::Answer, E>>,
    E: Into<BoxError>,
    D: Decide<In>,
    S: Service<D::Out>,
    S::Response: From<D::Reject>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let then = match state.as_mut().project() {
                StateProj::Asking { answer, waiting } => {
                    let answer = ready!(answer.poll(cx)).map_err(Into::into)?;
                    // Taken once: the state is replaced right below.
                    let Some(mut next) = waiting.take() else {
                        return Poll::Pending;
                    };
                    match next.decide.decide(next.kept, answer) {
                        Ok(request) => State::Inner {
                            inner: next.inner.call(request),
                        },
                        Err(reject) => return Poll::Ready(Ok(reject.into())),
                    }
                }
                StateProj::Inner { inner } => return inner.poll(cx).map_err(Into::into),
                // Taken once: a future is not polled again after it is ready.
                StateProj::Rejected { response } => {
                    return response
                        .take()
                        .map_or(Poll::Pending, |response| Poll::Ready(Ok(response)));
                }
            };
            state.set(then);
        }
    }
}

impl<In, W, D, S> fmt::Debug for ThenFuture<In, W, D, S>
where
    D: Decide<In>,
    S: Service<D::Out>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThenFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceExt as _, service_fn};

    use super::*;

    /// Passes even numbers on, halved by the asked service; zero asks no service.
    #[derive(Clone)]
    struct Halve;

    impl Decide<u32> for Halve {
        type Question = u32;
        type Answer = Option<u32>;
        type Rest = ();
        type Out = u32;
        type Reject = &'static str;

        fn ask(&self, n: u32) -> (Ask<u32, Option<u32>>, ()) {
            match n {
                0 => (Ask::Known(Some(0)), ()),
                n => (Ask::Service(n), ()),
            }
        }

        fn decide(&self, (): (), half: Option<u32>) -> Result<u32, &'static str> {
            half.ok_or("odd")
        }
    }

    #[tokio::test]
    async fn answer_decides_what_follows() {
        let halve = service_fn(|n: u32| async move {
            tokio::task::yield_now().await;
            match n {
                13 => Err("unlucky"),
                n => Ok(n.is_multiple_of(2).then_some(n / 2)),
            }
        });
        let inner = service_fn(|n: u32| async move {
            Ok::<_, Infallible>(if n == 0 { "nothing" } else { "half" })
        });
        let service = ThenLayer::new(halve, Halve).layer(inner);
        let answer = async |n| service.clone().oneshot(n).await.map_err(|e| e.to_string());
        assert_eq!(answer(4).await, Ok("half"));
        assert_eq!(answer(5).await, Ok("odd"));
        assert_eq!(answer(0).await, Ok("nothing"));
        assert_eq!(answer(13).await, Err("unlucky".to_owned()));
    }

    #[tokio::test]
    async fn both_services_must_be_ready() {
        let (asked, mut asked_handle) = tower_test::mock::pair::<u32, Option<u32>>();
        let layer = ThenLayer::new(asked, Halve);
        let (mut service, mut inner) = tower_test::mock::spawn_layer::<u32, &str, _>(layer);
        inner.allow(0);
        asked_handle.allow(1);
        tokio_test::assert_pending!(service.poll_ready());
        inner.allow(1);
        asked_handle.allow(0);
        tokio_test::assert_pending!(service.poll_ready());
        asked_handle.allow(1);
        tokio_test::assert_ready_ok!(service.poll_ready());
    }
}
