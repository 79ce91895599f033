//! A stack of one rate limit: two requests of a peer pass, the third is answered by the filter.

use std::{convert::Infallible, sync::Arc};

use dht_stack::{Check, FilterLayer, Rate, TokenBuckets};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

struct Request {
    peer: &'static str,
    second: u64,
}

#[derive(Clone)]
struct Limit(Arc<TokenBuckets<&'static str>>);

impl Check<Request> for Limit {
    type Out = Request;
    type Reject = &'static str;

    fn check(&self, request: Request) -> Result<Request, &'static str> {
        match self.0.try_take(&request.peer, 0, request.second) {
            true => Ok(request),
            false => Err("too many requests"),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let buckets = TokenBuckets::new([Rate::per_second(2)], 1_024, [7; 16]); // a random seed in a node
    let service = ServiceBuilder::new()
        .layer(FilterLayer::new(Limit(Arc::new(buckets))))
        .service(service_fn(|_: Request| async {
            Ok::<_, Infallible>("served")
        }));
    for expected in ["served", "served", "too many requests"] {
        let request = Request {
            peer: "alice",
            second: 100,
        };
        let answer = service.clone().oneshot(request).await;
        println!("{answer:?}");
        assert_eq!(answer, Ok(expected));
    }
}
