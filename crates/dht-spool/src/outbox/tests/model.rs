//! Random histories against a plain model, with the file opened again in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MAX_ROWS: usize = 6;
/// Keys of messages are spread over these.
const RECIPIENTS: u64 = 4;
const ENDED_SECONDS: u64 = 30;
const TTL: u64 = 40;

#[derive(Clone, Debug)]
enum Step {
    Put(u64, u64),
    Update(EntryId, Transition),
    Expire,
    Pass(u64),
    Reopen,
    PowerFailure(u64),
}

#[derive(Debug)]
struct ModelEntry {
    key: u64,
    number: u64,
    expires_at: u64,
    progress: progress::EntryProgress,
}

#[derive(Default)]
struct Model {
    entries: BTreeMap<EntryId, ModelEntry>,
    next: EntryId,
}

impl Model {
    fn put(&mut self, key: u64, number: u64, now: u64) -> Result<Put, SpoolError> {
        let known = self.entries.iter().find(|(_, entry)| entry.key == key);
        if let Some((id, entry)) = known {
            return if entry.number == number {
                Ok(Put::Existing(*id))
            } else {
                Err(SpoolError::KeyReused)
            };
        }
        let entries = self.entries.values();
        let active = entries.filter(|entry| entry.progress.ended_at.is_none());
        let recipients: Vec<_> = active.map(|entry| entry.key % RECIPIENTS).collect();
        let own = recipients.iter().filter(|of| **of == key % RECIPIENTS);
        if recipients.len() >= MAX_ROWS {
            return Err(SpoolError::Full);
        }
        if recipients.len() >= MAX_ROWS / 2 && own.count() >= MAX_ROWS / 4 {
            return Err(SpoolError::RecipientFull);
        }
        self.next += 1;
        let entry = ModelEntry {
            key,
            number,
            expires_at: now + TTL,
            progress: progress::EntryProgress::queued(UnixSeconds(now)),
        };
        self.entries.insert(self.next, entry);
        Ok(Put::New(self.next))
    }

    fn expire(&mut self, now: u64) {
        for entry in self.entries.values_mut() {
            if entry.expires_at < now {
                entry.progress = entry.progress.expired(UnixSeconds(now));
            }
        }
        self.entries.retain(|_, entry| {
            let ended = entry.progress.ended_at;
            ended.is_none_or(|ended| ended.0 + ENDED_SECONDS >= now)
        });
    }
}

fn transition() -> impl Strategy<Value = Transition> {
    let at = || (1000..1100_u64).prop_map(UnixSeconds);
    let maybe = move || proptest::option::of(at());
    prop_oneof![
        3 => at().prop_map(|at| Transition::Retry { at, error: Some("busy".to_owned()) }),
        3 => maybe().prop_map(|retry_at| Transition::Sent { retry_at }),
        3 => (0..4_u32, maybe())
            .prop_map(|(holders, retry_at)| Transition::Stored { holders, retry_at }),
        2 => (0..4_u32).prop_map(|holders| Transition::Confirmed { holders }),
        2 => Just(Transition::Received),
        1 => Just(Transition::Failed { reason: "gone".to_owned() }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..8_u64, 0..2_u64).prop_map(|(key, number)| Step::Put(key, number)),
        6 => (1..15_u64, transition()).prop_map(|(id, transition)| Step::Update(id, transition)),
        2 => Just(Step::Expire),
        2 => (1..25_u64).prop_map(Step::Pass),
        1 => Just(Step::Reopen),
        1 => any::<u64>().prop_map(Step::PowerFailure),
    ]
}

fn open(disk: &FaultyDisk) -> Outbox {
    let config = OutboxConfig {
        max_rows: MAX_ROWS as u64,
        ended_seconds: ENDED_SECONDS,
        ..OutboxConfig::default()
    };
    on(disk, config)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn it_does_as_the_model(steps in proptest::collection::vec(step(), 1..60)) {
        let mut disk = FaultyDisk::default();
        let mut outbox = open(&disk);
        let mut model = Model::default();
        let mut now = 1000;
        for step in steps {
            let time = UnixSeconds(now);
            match step {
                Step::Put(key, number) => {
                    let mut new = named(number, &format!("key {key}"));
                    new.recipient = public_key(key % RECIPIENTS);
                    new.created_at = time;
                    new.options.ttl_seconds = TTL;
                    prop_assert_eq!(outbox.put(new).wait(), model.put(key, number, now));
                }
                Step::Update(id, transition) => {
                    let updated = outbox.update(id, transition.clone(), time).wait();
                    let expected = match model.entries.get_mut(&id) {
                        None => Err(SpoolError::UnknownId),
                        Some(entry) => entry.progress.after(&transition, time).map(|after| {
                            entry.progress = after;
                            after.kind
                        }),
                    };
                    prop_assert_eq!(updated, expected);
                }
                Step::Expire => {
                    outbox.expire(time).wait().unwrap();
                    model.expire(now);
                }
                Step::Pass(seconds) => now += seconds,
                Step::Reopen => {
                    drop(outbox);
                    outbox = open(&disk);
                }
                Step::PowerFailure(seed) => {
                    disk = disk.crash(seed);
                    outbox = open(&disk);
                }
            }
            let entries = outbox.list(EntryFilter::default(), None, usize::MAX).unwrap();
            prop_assert_eq!(entries.len(), model.entries.len());
            let (mut bytes, mut waiting) = (0, 0);
            for (entry, (id, expected)) in entries.iter().zip(&model.entries) {
                prop_assert_eq!(entry.id, *id);
                prop_assert_eq!(entry.state.kind(), expected.progress.kind);
                prop_assert_eq!(entry.attempts, expected.progress.attempts);
                prop_assert_eq!(entry.next_attempt, expected.progress.next_attempt);
                prop_assert_eq!(entry.ended_at, expected.progress.ended_at);
                waiting += u64::from(entry.next_attempt.is_some());
                let ended = expected.progress.ended_at.is_some();
                prop_assert_eq!(outbox.content(*id).unwrap().is_none(), ended);
                if !ended {
                    bytes += entry.payload_bytes;
                }
            }
            let stats = outbox.stats();
            prop_assert_eq!((stats.bytes, stats.waiting), (bytes, waiting));
        }
    }
}
