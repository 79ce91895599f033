//! Asks name servers for the texts of a name (RFC 1035): over UDP, and over TCP when an answer is too long for it.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE,
    rdata::{OPT, RData},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::dns_packet::is_plausible;

/// File in which the operating system names its servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Port of name servers.
const PORT: u16 = 53;
/// Most name servers that are asked.
pub(super) const MAX_SERVERS: usize = 3;
/// Rounds in which all of them are asked, as a datagram may be lost.
const ROUNDS: usize = 2;
/// Time that one has to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest answer over UDP, which passes every network in one piece.
const MAX_DATAGRAM: usize = 1232;
/// Longest answer over TCP.
const MAX_ANSWER: usize = 16 * 1024;

/// Asks name servers, one after another.
#[derive(Debug)]
pub(super) struct Resolver {
    /// Servers of the settings; those of the operating system if there are none.
    servers: Vec<SocketAddr>,
}

/// Why the texts of a name are not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookUpError {
    /// The operating system names no server.
    #[error("no name server in {RESOLV_CONF}; set dns_servers")]
    NoServer,
    /// The settings of the operating system cannot be read.
    #[error("cannot read {path}: {error}; set dns_servers")]
    Unreadable {
        path: &'static str,
        error: io::Error,
    },
    /// The text looked up is no name.
    #[error("it is no name")]
    Name,
    /// No server answered in time.
    #[error("no name server answers")]
    TimedOut,
    /// The network failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The answer is no answer to the question.
    #[error("the answer of the name server is malformed")]
    Malformed,
    /// The server says that it failed.
    #[error("the name server answers {0:?}")]
    Refused(RCODE),
}

impl Resolver {
    pub(super) const fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers }
    }

    /// The texts of a name; none if the name does not exist. `random` makes the ids of questions.
    pub(super) async fn texts(
        &self,
        name: &str,
        mut random: impl FnMut() -> u32,
    ) -> Result<Vec<String>, LookUpError> {
        let servers = match &*self.servers {
            [] => system_servers(RESOLV_CONF).await?,
            servers => servers.to_vec(),
        };
        let mut outcome = Err(LookUpError::NoServer);
        let servers = servers.get(..MAX_SERVERS).unwrap_or(&servers);
        for server in std::iter::repeat_n(servers, ROUNDS).flatten() {
            let [high, low, ..] = random().to_be_bytes();
            let id = u16::from_be_bytes([high, low]);
            let asked = timeout(PATIENCE, ask(*server, name, id)).await;
            outcome = asked.unwrap_or(Err(LookUpError::TimedOut));
            match &outcome {
                Ok(_) | Err(LookUpError::Name) => break,
                Err(error) => tracing::debug!(%server, name, %error, "name server failed"),
            }
        }
        outcome
    }
}

/// The name servers of the operating system.
pub(super) async fn system_servers(path: &'static str) -> Result<Vec<SocketAddr>, LookUpError> {
    let read = tokio::task::spawn_blocking(move || fs::read(path)).await;
    let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
    let text = read.map_err(|error| LookUpError::Unreadable { path, error })?;
    let config = resolv_conf::Config::parse(text).ok();
    let servers = config.map(|config| config.nameservers).unwrap_or_default();
    let servers = servers.iter().map(|server| match server {
        resolv_conf::ScopedIp::V4(ip) => IpAddr::V4(*ip),
        resolv_conf::ScopedIp::V6(ip, _) => IpAddr::V6(*ip),
    });
    Ok(servers.map(|ip| SocketAddr::new(ip, PORT)).collect())
}

async fn ask(server: SocketAddr, name: &str, id: u16) -> Result<Vec<String>, LookUpError> {
    let question = question(name)?;
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(question.clone());
    *packet.opt_mut() = Some(OPT {
        opt_codes: Vec::new(),
        udp_packet_size: u16::try_from(MAX_DATAGRAM).unwrap_or(u16::MAX),
        version: 0,
    });
    let query = packet.build_bytes_vec().map_err(|_| LookUpError::Name)?;
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    };
    let socket = UdpSocket::bind(any).await?;
    // Datagrams of others are not received.
    socket.connect(server).await?;
    socket.send(&query).await?;
    let mut datagram = [0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut datagram).await?;
        let answer = datagram.get(..length).unwrap_or_default();
        match read_answer(answer, id, &question) {
            // Somebody guesses; the server may still answer.
            Err(LookUpError::Malformed) => {}
            Ok(None) => break,
            Ok(Some(texts)) => return Ok(texts),
            Err(error) => return Err(error),
        }
    }
    let answer = over_tcp(server, &query).await?;
    read_answer(&answer, id, &question)?.ok_or(LookUpError::Malformed)
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> Result<Vec<u8>, LookUpError> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(|_| LookUpError::Name)?;
    stream
        .write_all(&[&length.to_be_bytes(), query].concat())
        .await?;
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_ANSWER {
        return Err(LookUpError::Malformed);
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

pub(super) fn question(name: &str) -> Result<Question<'_>, LookUpError> {
    let name = Name::new(name).map_err(|_| LookUpError::Name)?;
    let (kind, class) = (QTYPE::TYPE(TYPE::TXT), QCLASS::CLASS(CLASS::IN));
    Ok(Question::new(name, kind, class, false))
}

/// The texts of an answer; `None` if it is cut.
pub(super) fn read_answer(
    bytes: &[u8],
    id: u16,
    question: &Question<'_>,
) -> Result<Option<Vec<String>>, LookUpError> {
    if !is_plausible(bytes) {
        return Err(LookUpError::Malformed);
    }
    let packet = Packet::parse(bytes).map_err(|_| LookUpError::Malformed)?;
    let is_same = |asked: &Question<'_>| {
        asked.qname == question.qname
            && asked.qtype == question.qtype
            && asked.qclass == question.qclass
    };
    let is_answer = packet.has_flags(PacketFlag::RESPONSE) && packet.id() == id;
    if !is_answer || !packet.questions.iter().all(is_same) || packet.questions.len() != 1 {
        return Err(LookUpError::Malformed);
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Ok(None);
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Ok(Some(Vec::new())),
        code => return Err(LookUpError::Refused(code)),
    }
    let texts = packet
        .answers
        .into_iter()
        .filter_map(|record| match record.rdata {
            // A text that is no UTF-8 is as malformed as any other that is no seed.
            RData::TXT(text) => Some(String::try_from(text).unwrap_or_default()),
            _ => None,
        });
    Ok(Some(texts.collect()))
}
