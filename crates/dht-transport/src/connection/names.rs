//! Names of hosts, looked up by the operating system or by what the owner brings.

use std::{io, net::IpAddr, sync::Arc, thread};

use tokio::sync::{Semaphore, oneshot};

use super::cause::DialCause;
use crate::{limits::MAX_LOOKUPS_PER_CAUSE, tasks::Panics};

/// Looks up the IP addresses of a name, and may block for as long as it likes.
pub(crate) type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Name lookups, each on a thread of its own: no disk or runtime waits for the server of a name that a peer claims.
///
/// A lookup cannot be interrupted. Its thread keeps its place until it is over, also when nothing waits for it any more,
/// so there are at most [`MAX_LOOKUPS_PER_CAUSE`] for each cause; a name that a peer chose delays no other dials.
pub(crate) struct Names {
    lookup: Lookup,
    /// Where a panic of `lookup` is counted.
    panics: Arc<Panics>,
    places: [Arc<Semaphore>; DialCause::ALL.len()],
}

impl Names {
    pub(crate) fn new(lookup: Lookup, panics: Arc<Panics>) -> Self {
        Self {
            lookup,
            panics,
            places: DialCause::ALL.map(|_| Arc::new(Semaphore::new(MAX_LOOKUPS_PER_CAUSE))),
        }
    }

    /// The addresses of a name. The caller limits the time.
    pub(crate) async fn lookup(&self, name: String, cause: DialCause) -> io::Result<Vec<IpAddr>> {
        let place = Arc::clone(cause.of(&self.places)).acquire_owned().await;
        let place = place.map_err(|_| io::ErrorKind::NotConnected)?;
        let (answer, found) = oneshot::channel();
        let (lookup, panics) = (Arc::clone(&self.lookup), Arc::clone(&self.panics));
        thread::Builder::new()
            .name("name lookup".to_owned())
            .spawn(move || {
                let _place = place;
                if let Some(found) = panics.catch_blocking(|| lookup(&name)) {
                    // Fails if the caller gave up.
                    let _gave_up = answer.send(found);
                }
            })?;
        // A lookup that panicked sends no answer.
        found.await.map_err(|_| io::ErrorKind::Other)?
    }
}

/// The resolver of the operating system.
pub(crate) fn system(name: &str) -> io::Result<Vec<IpAddr>> {
    let found = std::net::ToSocketAddrs::to_socket_addrs(&(name, 0))?;
    Ok(found.map(|socket| socket.ip()).collect())
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use parking_lot::Mutex;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn panicking_lookup_is_counted() {
        let panics = Arc::<Panics>::default();
        let broken: Lookup = Arc::new(|_: &str| panic!("a test"));
        let names = Names::new(broken, Arc::clone(&panics));
        for n in 1..=2 * MAX_LOOKUPS_PER_CAUSE as u64 {
            let found = names.lookup("name".to_owned(), DialCause::Peer).await;
            assert!(found.is_err());
            assert_eq!(panics.count(), n, "and its place is free again");
        }
    }

    /// Names whose servers never answer fill the places of their cause and no other; the lookups are bounded.
    #[tokio::test]
    async fn slow_names_delay_no_other_cause() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Mutex::new(held);
        let (begins, mut begun) = tokio::sync::mpsc::channel(16);
        let names = Names::new(
            Arc::new(move |name: &str| {
                if name == "fast" {
                    return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
                }
                begins.try_send(name.to_owned()).unwrap();
                let _released = held.lock().recv();
                Err(io::ErrorKind::NotFound.into())
            }),
            Arc::default(),
        );
        let slow = |n: usize| names.lookup(format!("slow{n}"), DialCause::Peer);
        let mut waiting: Vec<_> = (0..16).map(|n| Box::pin(slow(n))).collect();
        for lookup in &mut waiting {
            assert!(futures::poll!(lookup).is_pending());
        }
        drop(waiting);
        for _ in 0..MAX_LOOKUPS_PER_CAUSE {
            begun.recv().await.unwrap();
        }
        // The callers are gone, and the threads still hold their places.
        let mut stuck = Box::pin(names.lookup("fast".to_owned(), DialCause::Peer));
        assert!(futures::poll!(&mut stuck).is_pending());
        for cause in [
            DialCause::Operator,
            DialCause::Application,
            DialCause::Overlay,
        ] {
            let found = timeout(
                Duration::from_secs(60),
                names.lookup("fast".to_owned(), cause),
            );
            assert_eq!(
                found.await.unwrap().unwrap(),
                [IpAddr::from(Ipv4Addr::LOCALHOST)]
            );
        }
        drop(release);
        assert!(stuck.await.is_ok());
        assert!(begun.try_recv().is_err(), "a lookup too many");
    }
}
