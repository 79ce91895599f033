use axum::{body::Body, routing::get};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::{Mutex, mpsc},
    time::{Instant, timeout},
};

use super::*;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A listening socket in memory.
struct Sockets(Mutex<mpsc::UnboundedReceiver<DuplexStream>>);

impl Listen for Sockets {
    type Socket = DuplexStream;

    async fn accept(&self) -> io::Result<DuplexStream> {
        let socket = self.0.lock().await.recv().await;
        socket.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

/// Bytes of a large answer.
const LARGE: usize = 8 << 20;

/// Serves four routes: `/` answers, `/large` does with [`LARGE`] bytes, `/slow` after a minute, `/stream` never ends.
struct Server {
    sockets: mpsc::UnboundedSender<DuplexStream>,
    _serving: JoinSet<()>,
    _stopping: watch::Sender<bool>,
}

impl Server {
    fn start(token: Option<&str>, limits: Limits) -> Self {
        Self::of(token, true, limits)
    }

    fn of(token: Option<&str>, keep_alive: bool, limits: Limits) -> Self {
        let (sockets, listener) = mpsc::unbounded_channel();
        let (_stopping, stop) = watch::channel(false);
        let stream = || async { Body::from_stream(futures::stream::pending::<io::Result<&str>>()) };
        let slow = || async {
            Body::from_stream(futures::stream::once(async {
                sleep(Duration::from_secs(60)).await;
                io::Result::Ok("late")
            }))
        };
        let service = Service {
            router: Router::new()
                .route("/", get(|| async { "answer" }))
                .route("/large", get(|| async { vec![0; LARGE] }))
                .route("/slow", get(slow))
                .route("/stream", get(stream)),
            token: token.map(Token::of),
            keep_alive,
            limits,
        };
        let mut _serving = JoinSet::new();
        _serving.spawn(serve(Sockets(Mutex::new(listener)), service, stop));
        Self {
            sockets,
            _serving,
            _stopping,
        }
    }

    fn connect(&self) -> DuplexStream {
        let (near, far) = duplex(4096);
        self.sockets.send(far).unwrap();
        near
    }
}

/// Asks, and reads nothing yet.
async fn send(socket: &mut DuplexStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
}

/// Asks and reads the answer, but for a body without an announced length; the status.
async fn ask(socket: &mut DuplexStream, path: &str) -> String {
    send(socket, path).await;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(socket.read_u8().await.unwrap()));
    }
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    if let Some(length) = lines.find_map(|line| line.strip_prefix("content-length: ")) {
        let mut body = vec![0; length.parse().unwrap()];
        socket.read_exact(&mut body).await.unwrap();
    }
    status
}

/// Reads until the server closes the connection; the seconds that took.
async fn closed(socket: &mut DuplexStream) -> u64 {
    let start = Instant::now();
    socket.read_to_end(&mut Vec::new()).await.unwrap();
    start.elapsed().as_secs()
}

fn patient(connections: usize) -> Limits {
    Limits {
        connections,
        first_request_seconds: 2 * HOUR.as_secs(),
        head_seconds: 2 * HOUR.as_secs(),
        ..Limits::default()
    }
}

#[tokio::test(start_paused = true)]
async fn silent_connections_are_closed_early() {
    let server = Server::start(None, Limits::default());
    assert_eq!(closed(&mut server.connect()).await, 5);
    let mut served = server.connect();
    assert_eq!(ask(&mut served, "/").await, "200");
    assert_eq!(closed(&mut served).await, 30);
}

#[tokio::test(start_paused = true)]
async fn slow_heads_are_cut_off() {
    let limits = Limits {
        head_seconds: 3,
        ..Limits::default()
    };
    let server = Server::start(None, limits);
    let mut slow = server.connect();
    slow.write_all(b"GET / HT").await.unwrap();
    assert_eq!(closed(&mut slow).await, 3);
}

/// A connection without a token is closed, no matter what it sends.
#[tokio::test(start_paused = true)]
async fn requests_without_token_admit_nobody() {
    let server = Server::start(Some("0123456789abcdef"), patient(1));
    let mut stranger = server.connect();
    assert_eq!(ask(&mut stranger, "/").await, "401");
    assert_eq!(closed(&mut stranger).await, 0);
}

#[tokio::test(start_paused = true)]
async fn oldest_newcomer_makes_room() {
    let server = Server::start(None, patient(3));
    let mut admitted = server.connect();
    assert_eq!(ask(&mut admitted, "/").await, "200");
    let (mut old, young) = (server.connect(), server.connect());
    let mut next = server.connect();
    assert_eq!(ask(&mut next, "/").await, "200");
    assert_eq!(closed(&mut old).await, 0);
    for mut kept in [admitted, young] {
        assert_eq!(ask(&mut kept, "/").await, "200");
    }
}

#[tokio::test(start_paused = true)]
async fn longest_idle_connection_makes_room() {
    let server = Server::start(None, patient(2));
    let (mut first, mut second) = (server.connect(), server.connect());
    for socket in [&mut first, &mut second] {
        assert_eq!(ask(socket, "/").await, "200");
    }
    assert_eq!(ask(&mut first, "/").await, "200");
    let mut operator = server.connect();
    assert_eq!(ask(&mut operator, "/").await, "200");
    assert_eq!(closed(&mut second).await, 0);
    assert_eq!(ask(&mut first, "/").await, "200", "only one is closed");
}

/// The one that was to be closed has just asked for a stream, which does not end: another one is closed.
#[tokio::test(start_paused = true)]
async fn a_late_stream_holds_nobody_up() {
    let server = Server::start(None, patient(2));
    let (mut first, mut second) = (server.connect(), server.connect());
    for socket in [&mut first, &mut second] {
        assert_eq!(ask(socket, "/").await, "200");
    }
    // Both are there before the server runs again.
    let mut operator = server.connect();
    let (streams, answers) = tokio::join!(ask(&mut first, "/stream"), ask(&mut operator, "/"));
    assert_eq!((streams.as_str(), answers.as_str()), ("200", "200"));
    assert_eq!(closed(&mut second).await, 0);
}

/// The place of a connection whose answer was not read to the end when another one came.
#[tokio::test(start_paused = true)]
async fn connections_idle_later_make_room() {
    let server = Server::start(None, patient(1));
    let mut slow = server.connect();
    assert_eq!(ask(&mut slow, "/slow").await, "200");
    let mut operator = server.connect();
    assert_eq!(ask(&mut operator, "/").await, "200");
    assert_eq!(closed(&mut slow).await, 0);
}

#[tokio::test(start_paused = true)]
async fn connections_over_the_limit_wait() {
    let server = Server::start(None, patient(2));
    let mut streams = [server.connect(), server.connect()];
    for stream in &mut streams {
        assert_eq!(ask(stream, "/stream").await, "200");
    }
    let mut third = server.connect();
    let mut asking = Box::pin(ask(&mut third, "/"));
    let early = timeout(HOUR, &mut asking).await;
    assert!(early.is_err(), "two streams take both places");
    drop(streams);
    assert_eq!(asking.await, "200");
}

/// A byte now and then does not keep the place, and the memory, of a page.
#[tokio::test(start_paused = true)]
async fn trickling_readers_lose_their_places() {
    let server = Server::start(None, patient(1));
    let mut trickling = server.connect();
    send(&mut trickling, "/large").await;
    // The server has begun to answer.
    trickling.read_u8().await.unwrap();
    let start = Instant::now();
    let mut operator = server.connect();
    let reading = async {
        while trickling.read_u8().await.is_ok() {
            sleep(Duration::from_secs(29)).await;
        }
    };
    let (asked, ()) = tokio::join!(
        async { (ask(&mut operator, "/").await, start.elapsed().as_secs()) },
        // The socket still has bytes from before the end.
        async { drop(timeout(HOUR, reading).await) },
    );
    assert_eq!(asked, ("200".to_owned(), 30));
}

#[tokio::test(start_paused = true)]
async fn unread_answers_are_not_idle() {
    let server = Server::start(None, patient(2));
    let (mut unread, mut idle) = (server.connect(), server.connect());
    send(&mut unread, "/large").await;
    // The server has begun to answer.
    unread.read_u8().await.unwrap();
    assert_eq!(ask(&mut idle, "/").await, "200");
    let (start, mut operator) = (Instant::now(), server.connect());
    assert_eq!(ask(&mut operator, "/").await, "200");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(closed(&mut idle).await, 0);
    let mut rest = Vec::new();
    let reading = timeout(Duration::from_secs(1), unread.read_to_end(&mut rest));
    assert!(reading.await.is_err(), "its connection stays");
    assert!(rest.len() > LARGE);
}

/// As the one of the metrics.
#[tokio::test(start_paused = true)]
async fn single_requests_hold_no_place() {
    let limits = Limits::default();
    let connections = limits.connections;
    let server = Server::of(None, false, limits);
    let mut unread = Vec::new();
    for _ in 0..connections {
        let mut socket = server.connect();
        send(&mut socket, "/large").await;
        socket.read_u8().await.unwrap();
        unread.push(socket);
    }
    let (start, mut operator) = (Instant::now(), server.connect());
    assert_eq!(ask(&mut operator, "/").await, "200");
    assert_eq!(start.elapsed(), Duration::ZERO);
    for socket in &mut unread[1..] {
        assert!(socket.read_u8().await.is_ok());
    }
    // In the first, what was in the socket is left.
    unread[0].read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}
