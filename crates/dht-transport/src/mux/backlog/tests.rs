use std::sync::atomic::AtomicBool;

use futures::task::{ArcWake, noop_waker_ref, waker};

use super::*;

const MIB: usize = 1024 * 1024;

fn backlog(shared: usize) -> Arc<Backlog> {
    Backlog::new(ByteBudget::new(shared))
}

/// Lets a frame in if there is room for it now.
fn admit(backlog: &Backlog, stream: u32, opens: bool, bytes: usize) -> bool {
    let frame = Incoming {
        stream,
        opens,
        bytes,
    };
    let cx = Context::from_waker(noop_waker_ref());
    backlog.poll_admit(&cx, frame, &mut None).is_ready()
}

fn open(backlog: &Arc<Backlog>, stream: u32, bytes: usize) -> Place {
    assert!(admit(backlog, stream, true, bytes));
    backlog.enter(stream)
}

fn read(place: &mut Place, bytes: usize) {
    place.took(bytes);
    place.done();
}

fn held(backlog: &Backlog) -> usize {
    backlog.shared.total() - backlog.shared.available()
}

#[test]
fn what_is_read_costs_nothing() {
    let backlog = backlog(MIB);
    let mut place = open(&backlog, 1, 10);
    read(&mut place, 10);
    for _ in 0..10_000 {
        assert!(admit(&backlog, 1, false, 64 * 1024));
        read(&mut place, 64 * 1024);
    }
    assert_eq!(held(&backlog), 0, "a frame at a time is free");
    // The places that a stream's queue ever had stay.
    assert!(backlog.state.lock().total <= 2 * PLACE_COST);
}

/// A connection holds no more than its bound, in any number of streams and frames.
#[test]
fn connection_bound_covers_streams_and_frames() {
    for bytes in [1, 100, 16 * 1024, 256 * 1024] {
        let backlog = backlog(64 * MIB);
        let mut places: Vec<_> = (0..32).map(|i| open(&backlog, 2 * i + 1, 1)).collect();
        let mut frames = 0;
        'full: loop {
            for i in 0..32 {
                if !admit(&backlog, 2 * i + 1, false, bytes) {
                    break 'full;
                }
                frames += 1;
            }
        }
        assert!(frames * (bytes + FRAME_COST) <= MAX_UNREAD_BYTES);
        assert!(frames * (bytes + FRAME_COST + PLACE_COST) >= MAX_UNREAD_BYTES / 2);
        assert!(held(&backlog) + FREE_UNREAD_BYTES >= backlog.state.lock().total);
        assert!(held(&backlog) <= MAX_UNREAD_BYTES);
        read(&mut places[0], 1);
        read(&mut places[0], bytes);
        assert!(admit(&backlog, 1, false, 1), "room again");
        drop(places);
        backlog.flushed();
        backlog.reads();
        assert_eq!((held(&backlog), backlog.state.lock().streams.len()), (0, 0));
    }
}

/// A queue that was long once keeps its capacity, which counts until the stream ends.
#[test]
fn queue_capacity_counts_until_stream_ends() {
    let backlog = backlog(MIB);
    let mut place = open(&backlog, 1, 1);
    for _ in 1..1_000 {
        assert!(admit(&backlog, 1, false, 1));
    }
    for _ in 0..1_000 {
        read(&mut place, 1);
    }
    assert_eq!(backlog.state.lock().total, 1_000 * PLACE_COST);
    assert!(admit(&backlog, 1, false, 1));
    assert_eq!(
        backlog.state.lock().total,
        1_000 * PLACE_COST + FRAME_COST + 1,
        "no further place"
    );
}

#[test]
fn stream_counts_until_multiplexer_drops_it() {
    let backlog = backlog(8 * MIB);
    let place = open(&backlog, 1, 200_000);
    drop(place);
    assert!(admit(&backlog, 1, false, 200_000), "still let in");
    backlog.reads();
    assert!(held(&backlog) >= 300_000, "not flushed: still there");
    backlog.flushed();
    let later = open(&backlog, 3, 200_000);
    drop(later);
    backlog.reads();
    assert!(held(&backlog) >= 100_000, "the later one stays");
    assert!(held(&backlog) < 300_000);
    backlog.flushed();
    backlog.reads();
    assert_eq!((held(&backlog), backlog.state.lock().total), (0, 0));
}

/// Frames that belong to no stream, and stream ids used again, leave nothing behind.
#[test]
fn stray_frames_leave_nothing_behind() {
    let backlog = backlog(8 * MIB);
    for stream in 0..1_000 {
        // Refused by the multiplexer, or for a stream it does not know.
        assert!(admit(&backlog, stream, stream % 2 == 0, 250_000));
    }
    assert_eq!(backlog.state.lock().streams.len(), 0);
    let before = open(&backlog, 7, 200_000);
    let again = open(&backlog, 7, 1_000);
    drop(before);
    backlog.flushed();
    backlog.reads();
    assert_eq!(
        backlog.state.lock().total,
        1_000 + FRAME_COST + PLACE_COST,
        "only the second of the name"
    );
    drop(again);
    backlog.flushed();
    backlog.reads();
    assert_eq!((held(&backlog), backlog.state.lock().total), (0, 0));
}

struct Woken(AtomicBool);

impl ArcWake for Woken {
    fn wake_by_ref(this: &Arc<Self>) {
        this.0.store(true, Ordering::SeqCst);
    }
}

/// A waiting connection is woken when its own reader makes room, and when another connection does.
#[test]
fn waiting_connection_is_woken() {
    let shared = ByteBudget::new(MIB);
    let (first, second) = (Backlog::new(shared.clone()), Backlog::new(shared.clone()));
    let frame = |stream, bytes| Incoming {
        stream,
        opens: false,
        bytes,
    };
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = waker(Arc::clone(&woken));
    let cx = Context::from_waker(&waker);
    let was_woken = || woken.0.swap(false, Ordering::SeqCst);

    // One connection takes all that is shared.
    let mut greedy = open(&first, 1, 1);
    while admit(&first, 1, false, 64 * 1024) {}
    assert_eq!(shared.available(), 0);
    // The free part is still there for the other, and its reading makes room.
    let mut modest = open(&second, 1, 64 * 1024);
    let mut waiting = None;
    let more = frame(1, 64 * 1024);
    assert!(second.poll_admit(&cx, more, &mut waiting).is_pending());
    read(&mut modest, 64 * 1024);
    assert!(was_woken());
    assert!(second.poll_admit(&cx, more, &mut waiting).is_ready());
    assert!(second.poll_admit(&cx, more, &mut waiting).is_pending());
    assert!(!was_woken());
    read(&mut greedy, 1);
    for _ in 0..8 {
        read(&mut greedy, 64 * 1024);
    }
    assert!(was_woken());
    assert!(second.poll_admit(&cx, more, &mut waiting).is_ready());
    drop((greedy, modest));
    for backlog in [&first, &second] {
        backlog.flushed();
        backlog.reads();
    }
    assert_eq!(shared.available(), shared.total());
}
