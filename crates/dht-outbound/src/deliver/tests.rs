use super::*;

const FAILED: Result<(), DeliveryError> =
    Err(DeliveryError::DialFailed(dht_core::DialFailure::Lookup));

fn states(n: u64) -> (Vec<DeliveryReply>, Deliveries) {
    let (replies, states): (Vec<_>, Vec<_>) = (0..n)
        .map(|tag| DeliveryReply::pair(MessageTag(tag), NodeId::default()))
        .unzip();
    (replies, states.into())
}

fn counts((ok, failed): (Vec<MessageTag>, Vec<MessageTag>)) -> (usize, usize) {
    (ok.len(), failed.len())
}

fn answered(results: impl IntoIterator<Item = Result<(), DeliveryError>>) -> Deliveries {
    let results: Vec<_> = results.into_iter().collect();
    let (replies, states) = states(results.len() as u64);
    for (reply, result) in replies.into_iter().zip(results) {
        reply.send(result);
    }
    states
}

fn four_failed_then_six() -> Deliveries {
    answered((0..10).map(|n| if n < 4 { FAILED } else { Ok(()) }))
}

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn b092_deliveries_are_empty_without_copies() {
    assert!(Deliveries::default().is_empty());
    assert!(!states(1).1.is_empty());
}

#[tokio::test]
async fn b093_single_success_and_single_failure() {
    assert!(answered([Ok(())]).wait_single().await);
    assert!(!answered([FAILED]).wait_single().await);
    assert_eq!(answered([FAILED]).wait_single_result().await, FAILED);
    assert_eq!(
        Deliveries::default().wait_single_result().await,
        Err(DeliveryError::Dropped)
    );
    assert!(!answered([Ok(()), FAILED]).wait_single().await);
}

#[tokio::test(start_paused = true)]
async fn b094_waits_for_four_of_ten() {
    let before = tokio::time::Instant::now();
    assert_eq!(
        counts(four_failed_then_six().wait_n_timeout(HOUR, 4).await),
        (4, 4)
    );
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn b095_ends_when_all_is_decided() {
    let states = answered((0..10).map(|n| if n < 4 { Ok(()) } else { FAILED }));
    let before = tokio::time::Instant::now();
    assert_eq!(counts(states.wait_n_timeout(HOUR, 5).await), (4, 6));
    assert_eq!(
        before.elapsed(),
        Duration::ZERO,
        "everything was decided before the timeout"
    );
}

#[tokio::test]
async fn b096_a_reply_dropped_unanswered_reports_dropped() {
    let (reply, state) = DeliveryReply::pair(MessageTag(1), NodeId::default());
    drop(reply);
    assert_eq!(state.wait_for_result().await, Err(DeliveryError::Dropped));
}

#[tokio::test]
async fn waiting_for_a_share() {
    assert_eq!(
        counts(four_failed_then_six().wait_percentage_success(0.3).await),
        (3, 4)
    );
    assert_eq!(counts(four_failed_then_six().wait_all().await), (6, 4));
    let none = Deliveries::default();
    assert_eq!(counts(none.wait_percentage_success(0.5).await), (0, 0));
    // Checked after failures as well.
    assert_eq!(
        counts(four_failed_then_six().wait_percentage_success(0.0).await),
        (0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn one_timeout_keeps_known_outcomes() {
    let (mut replies, states) = states(3);
    replies.remove(0).send(Ok(()));
    let (_replies, undecided) = self::states(2);
    let before = tokio::time::Instant::now();
    assert_eq!(
        counts(states.wait_n_timeout(Duration::from_secs(5), 3).await),
        (1, 0)
    );
    assert_eq!(before.elapsed(), Duration::from_secs(5));
    let none = Deliveries::default();
    assert_eq!(counts(none.wait_n_timeout(HOUR, 1).await), (0, 0));
    assert_eq!(counts(undecided.wait_n_timeout(HOUR, 0).await), (0, 0));
    assert_eq!(before.elapsed(), Duration::from_secs(5));
}

#[tokio::test]
async fn copies_keep_their_order() {
    let (_replies, states) = states(3);
    assert_eq!(
        states.to_tags(),
        [MessageTag(0), MessageTag(1), MessageTag(2)]
    );
    assert_eq!(states.get(2).unwrap().tag(), MessageTag(2));
    assert!(states.get(3).is_none());
    assert_eq!(states.into_inner().len(), 3);
}

#[tokio::test]
async fn outcomes_come_as_decided() {
    let (mut replies, states) = states(2);
    let mut deliveries = states.into_stream();
    replies.remove(1).send(Ok(()));
    assert_eq!(deliveries.next().await.unwrap().tag, MessageTag(1));
    replies.remove(0).send(FAILED);
    assert_eq!(deliveries.next().await.unwrap().result, FAILED);
    assert_eq!(deliveries.next().await, None);
}
