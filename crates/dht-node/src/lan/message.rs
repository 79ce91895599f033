//! Messages of nodes on a local network: service discovery (RFC 6763) over multicast DNS (RFC 6762). docs/extensions.md says what
//! is in a message.

use std::net::Ipv4Addr;

use dht_core::{Network, PublicKey};
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, SimpleDnsError, TYPE,
    rdata::{A, PTR, RData, SRV, TXT},
};

use crate::dns_packet::is_plausible;

/// Longest message that is read. One of ours has about 400 bytes.
pub(super) const MAX_MESSAGE_BYTES: usize = 1_400;
/// Seconds for which others may remember a record.
const TTL: u32 = 120;
/// Attribute of the TXT record that holds the public key, in hexadecimal digits.
const KEY: &str = "key";

/// The service of nodes of one network, which all others ignore.
#[derive(Clone, Debug)]
pub(super) struct LanService {
    /// Its name, as `_dht-esmeralda._tcp.local`.
    name: String,
}

/// A node that says where it listens: at this port of the address that the message came from. Addresses in the message are not
/// read, so that nobody can point at others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announcement {
    pub(super) key: PublicKey,
    pub(super) port: u16,
}

/// A message of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LanMessage {
    /// Somebody asks for nodes.
    Question,
    Announcement(Announcement),
}

impl LanService {
    pub(super) fn of(network: Network) -> Self {
        Self {
            name: format!("_dht-{network}._tcp.local"),
        }
    }

    /// Asks for the nodes of the network.
    pub(super) fn question(&self) -> Result<Vec<u8>, SimpleDnsError> {
        let mut packet = Packet::new_query(0);
        let (kind, class) = (QTYPE::TYPE(TYPE::PTR), QCLASS::CLASS(CLASS::IN));
        let question = Question::new(Name::new(&self.name)?, kind, class, false);
        packet.questions.push(question);
        packet.build_bytes_vec()
    }

    /// Announces the node `key`, which listens on a port of this address.
    pub(super) fn announcement(
        &self,
        key: &PublicKey,
        ip: Ipv4Addr,
        port: u16,
    ) -> Result<Vec<u8>, SimpleDnsError> {
        let id = key.node_id();
        let (host, instance) = (format!("{id}.local"), format!("{id}.{}", self.name));
        let (host, instance) = (Name::new(&host)?, Name::new(&instance)?);
        let of_instance = |name: &Name<'_>, data| {
            ResourceRecord::new(name.clone().into_owned(), CLASS::IN, TTL, data).into_owned()
        };
        let mut text = TXT::new();
        text.add_string("txtvers=1")?;
        text.add_attribute(KEY, Some(key.to_string().as_bytes()))?;
        let service = SRV {
            priority: 0,
            weight: 0,
            port,
            target: host.clone(),
        };
        let mut packet = Packet::new_reply(0);
        packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        // The service is shared with other nodes, the other names are this node's own.
        let shared = RData::PTR(PTR(instance.clone()));
        packet.answers = vec![
            of_instance(&Name::new(&self.name)?, shared),
            of_instance(&instance, RData::SRV(service)).with_cache_flush(true),
            of_instance(&instance, RData::TXT(text)).with_cache_flush(true),
            of_instance(&host, RData::A(A::from(ip))).with_cache_flush(true),
        ];
        packet.build_bytes_vec()
    }

    /// Reads a message, if it is one of the service. Of several announcements the first counts.
    pub(super) fn read(&self, message: &[u8]) -> Option<LanMessage> {
        if message.len() > MAX_MESSAGE_BYTES || !is_plausible(message) {
            return None;
        }
        let packet = Packet::parse(message).ok()?;
        if !packet.has_flags(PacketFlag::RESPONSE) {
            let asks = |question: &Question<'_>| {
                let kind = question.qtype;
                matches!(kind, QTYPE::TYPE(TYPE::PTR) | QTYPE::ANY)
                    && self.is_service(&question.qname)
            };
            return packet
                .questions
                .iter()
                .any(asks)
                .then_some(LanMessage::Question);
        }
        let records = packet.answers.iter().chain(&packet.additional_records);
        // A time of zero takes a record back.
        let mut records = records.filter(|record| record.ttl > 0 && self.is_instance(&record.name));
        let all = records.clone();
        let (instance, port) = records.find_map(|record| match &record.rdata {
            RData::SRV(service) if service.port != 0 => Some((&record.name, service.port)),
            _ => None,
        })?;
        let key = all
            .filter(|record| is_same(&record.name, instance))
            .find_map(|record| match &record.rdata {
                RData::TXT(text) => key_of(text),
                _ => None,
            })?;
        Some(LanMessage::Announcement(Announcement { key, port }))
    }

    fn is_service(&self, name: &Name<'_>) -> bool {
        Name::new(&self.name).is_ok_and(|service| is_same(name, &service))
    }

    /// Whether a name is that of one node of the service.
    fn is_instance(&self, name: &Name<'_>) -> bool {
        let labels = name.get_labels();
        let service = labels.get(1..).map(Name::new_with_labels);
        service.is_some_and(|service| self.is_service(&service))
    }
}

/// Whether names are the same, whatever their case (RFC 6762, section 16).
fn is_same(one: &Name<'_>, other: &Name<'_>) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    one.map(<[u8]>::to_ascii_lowercase)
        .eq(other.map(<[u8]>::to_ascii_lowercase))
}

/// The public key that a TXT record names.
fn key_of(text: &TXT<'_>) -> Option<PublicKey> {
    let mut attributes = text.iter_raw();
    let is_key = |name: &[u8]| name.eq_ignore_ascii_case(KEY.as_bytes());
    let (_, value) = attributes.find(|(name, _)| is_key(name))?;
    std::str::from_utf8(value?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use dht_core::test_util::public_key;
    use proptest::prelude::*;
    use simple_dns::rdata::NULL;

    use super::*;

    const IP: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 7);

    fn service() -> LanService {
        LanService::of(Network::Esmeralda)
    }

    fn key(seed: u8) -> PublicKey {
        public_key(seed.into())
    }

    fn announced(seed: u8, port: u16) -> Option<LanMessage> {
        let key = key(seed);
        Some(LanMessage::Announcement(Announcement { key, port }))
    }

    /// Changes one of our announcements.
    fn changed(change: impl FnOnce(&mut Packet<'_>)) -> Option<LanMessage> {
        let message = service().announcement(&key(1), IP, 5).unwrap();
        let mut packet = Packet::parse(&message).unwrap();
        change(&mut packet);
        service().read(&packet.build_bytes_vec_compressed().unwrap())
    }

    fn text(text: &str) -> RData<'static> {
        RData::TXT(TXT::new().with_string(text).unwrap().into_owned())
    }

    #[test]
    fn messages_are_read_back() {
        assert_eq!(
            service().read(&service().question().unwrap()),
            Some(LanMessage::Question)
        );
        let message = service().announcement(&key(1), IP, 18_189).unwrap();
        assert!(message.len() < 512, "{}", message.len());
        assert_eq!(service().read(&message), announced(1, 18_189));
    }

    #[test]
    fn other_networks_are_ignored() {
        for network in Network::ALL {
            let other = LanService::of(network);
            // RFC 6763, section 7.2.
            assert!(
                other.name.split('.').next().unwrap().len() <= 16,
                "{other:?}"
            );
            if network != Network::Esmeralda {
                assert_eq!(service().read(&other.question().unwrap()), None);
                let message = other.announcement(&key(1), IP, 5).unwrap();
                assert_eq!(service().read(&message), None);
            }
        }
    }

    #[test]
    fn hostile_announcements_are_refused() {
        assert_eq!(changed(|_| ()), announced(1, 5));
        let taken_back = changed(|packet| packet.answers.iter_mut().for_each(|it| it.ttl = 0));
        assert_eq!(taken_back, None);
        let portless = changed(|packet| {
            for record in &mut packet.answers {
                if let RData::SRV(service) = &mut record.rdata {
                    service.port = 0;
                }
            }
        });
        assert_eq!(portless, None);
        let zeros = format!("key={}", "0".repeat(64));
        let longer = format!("key={}00", key(2));
        let other = format!("name={}", key(2));
        for wrong in ["key", "key=", "=", "key=x", &zeros, &longer, &other] {
            let refused = changed(|packet| {
                for record in &mut packet.answers {
                    if matches!(record.rdata, RData::TXT(_)) {
                        record.rdata = text(wrong);
                    }
                }
            });
            assert_eq!(refused, None, "{wrong}");
        }
    }

    /// The key of one node and the port of another are no announcement, nor is a second one of a message.
    #[test]
    fn records_of_others_are_not_mixed() {
        let stranger = format!("other.{}", service().name);
        let stranger = Name::new(&stranger).unwrap().into_owned();
        let mixed = changed(|packet| {
            for record in &mut packet.answers {
                if matches!(record.rdata, RData::TXT(_)) {
                    record.name = stranger.clone();
                }
            }
        });
        assert_eq!(mixed, None);
        let second = service().announcement(&key(2), IP, 6).unwrap();
        let second = Packet::parse(&second).unwrap().answers.into_iter();
        let second = second.map(ResourceRecord::into_owned).collect();
        let both = changed(|packet| packet.additional_records = second);
        assert_eq!(both, announced(1, 5));
    }

    /// Names are the same in either case, and records of other kinds and names beside them mean nothing.
    #[test]
    fn other_records_are_skipped() {
        let upper = service().announcement(&key(1), IP, 5).unwrap();
        let upper: Vec<u8> = upper
            .windows(5)
            .position(|at| at == b"_dht-")
            .map(|at| {
                let mut upper = upper.clone();
                upper[at..at + 14].make_ascii_uppercase();
                upper
            })
            .unwrap();
        assert_eq!(service().read(&upper), announced(1, 5));
        let noisy = changed(|packet| {
            let name = Name::new("printer._ipp._tcp.local").unwrap();
            let data = RData::NULL(10, NULL::new(&[1, 2, 3]).unwrap().into_owned());
            let record = ResourceRecord::new(name, CLASS::IN, 5, data);
            packet.answers.insert(0, record);
        });
        assert_eq!(noisy, announced(1, 5));
    }

    proptest! {
        /// Neither bytes nor a changed announcement panic, and no message that is too long is parsed.
        #[test]
        fn any_bytes_are_read(
            bytes in prop::collection::vec(any::<u8>(), 0..2_000),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let read = service().read(&bytes);
            prop_assert!(bytes.len() <= MAX_MESSAGE_BYTES || read.is_none());
            let mut message = service().announcement(&key(1), IP, 5).unwrap();
            let index = at.index(message.len());
            message[index] = byte;
            let _any = service().read(&message);
        }
    }
}
