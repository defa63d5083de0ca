//! The package barrier against machines that answer late, break off, stall and lie in wait.
//!
//! All time is virtual: tokio's clock is paused and jumps to the next timer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use windlass_packages::digest::{Blob, Sha256};
use windlass_packages::payload::{Form, PayloadSource};
use windlass_packages::transfer::{
    AcquireOptions, AcquireReport, Delivery, LinkError, Parcel, Progress, Receiver, Status, TransferEvent, acquire,
};

const SIZE: u64 = 4 << 20;

/// What a fake machine does with one try to send.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Take { millis: u64 },
    Break,
    BreakAfterTaking,
    DiskFull,
    Hang,
    HangAndIgnoreCancel,
}

#[derive(Default)]
struct Shared {
    busy: AtomicUsize,
    most_busy: AtomicUsize,
}

struct FakeMachine {
    cache: Mutex<HashSet<Sha256>>,
    acts: Mutex<Vec<Act>>,
    taken: Mutex<HashMap<Sha256, u32>>,
    shared: Arc<Shared>,
}

impl FakeMachine {
    fn new(mut acts: Vec<Act>, shared: &Arc<Shared>) -> Arc<Self> {
        acts.reverse();
        Arc::new(Self {
            cache: Mutex::default(),
            acts: Mutex::new(acts),
            taken: Mutex::default(),
            shared: shared.clone(),
        })
    }

    fn take(&self, source: &PayloadSource) {
        self.cache.lock().unwrap().insert(source.blob().sha256);
        *self.taken.lock().unwrap().entry(source.blob().sha256).or_default() += 1;
    }
}

fn link(reason: &str, retryable: bool) -> Result<(), LinkError> {
    Err(LinkError { reason: reason.to_owned(), retryable })
}

struct Busy<'a>(&'a Shared);

impl<'a> Busy<'a> {
    fn new(shared: &'a Shared) -> Self {
        let now = shared.busy.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_busy.fetch_max(now, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Receiver for FakeMachine {
    async fn has(&self, source: &PayloadSource) -> Result<bool, LinkError> {
        let _busy = Busy::new(&self.shared);
        sleep(Duration::from_millis(1)).await;
        Ok(self.cache.lock().unwrap().contains(&source.blob().sha256))
    }

    async fn receive(
        &self,
        source: &PayloadSource,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(), LinkError> {
        let _busy = Busy::new(&self.shared);
        let act = self.acts.lock().unwrap().pop().unwrap_or(Act::Take { millis: 10 });
        match act {
            Act::Take { millis } => {
                for _ in 0..8 {
                    sleep(Duration::from_millis(millis) / 8).await;
                    progress.advance(SIZE / 8);
                }
                self.take(source);
                Ok(())
            }
            Act::Break => link("the connection was reset", true),
            Act::BreakAfterTaking => {
                self.take(source);
                link("the connection was reset", true)
            }
            Act::DiskFull => link("its disk is full; free some space there", false),
            Act::Hang => {
                progress.advance(1000);
                cancel.cancelled().await;
                link("stopped", true)
            }
            Act::HangAndIgnoreCancel => std::future::pending().await,
        }
    }
}

fn parcel(number: u8) -> Parcel {
    let blob = Blob { sha256: Sha256::of(&[number]), size: SIZE };
    Parcel {
        package: format!("package-{number}").into(),
        source: PayloadSource::new(blob, Form::Gzip, Path::new("/nowhere")),
    }
}

fn delivery(name: &str, machine: &Arc<FakeMachine>, packages: &[u8]) -> Delivery {
    Delivery {
        machine: name.into(),
        receiver: machine.clone(),
        parcels: packages.iter().map(|number| parcel(*number)).collect(),
    }
}

async fn run(plan: Vec<Delivery>, window: usize) -> (AcquireReport, Vec<TransferEvent>) {
    let (sender, mut events) = mpsc::channel(4);
    let heard = tokio::spawn(async move {
        let mut heard = Vec::new();
        while let Some(event) = events.recv().await {
            heard.push(event);
        }
        heard
    });
    let options = AcquireOptions { window, ..AcquireOptions::default() };
    let report = acquire(plan, &options, sender, &CancellationToken::new()).await;
    (report, heard.await.unwrap())
}

fn statuses(report: &AcquireReport) -> Vec<Status> {
    let packages = report.machines.iter().flat_map(|machine| &machine.packages);
    packages.map(|package| package.status.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn one_failing_machine_does_not_stop_the_others() {
    let shared = Arc::default();
    let good = FakeMachine::new(vec![], &shared);
    let full = FakeMachine::new(vec![Act::DiskFull], &shared);
    let flaky = FakeMachine::new(vec![Act::Break, Act::Break], &shared);
    let dead = FakeMachine::new(vec![Act::Break; 9], &shared);
    let plan = vec![
        delivery("good", &good, &[1, 2]),
        delivery("full", &full, &[1, 2]),
        delivery("flaky", &flaky, &[1, 2]),
        delivery("dead", &dead, &[1]),
    ];
    let (report, events) = run(plan, 10).await;
    assert!(!report.is_complete());
    assert!(report.machines[0].is_complete() && report.machines[2].is_complete());
    let failures: Vec<_> = report.failures().map(|failure| failure.to_string()).collect();
    insta::assert_snapshot!(failures.join("\n"), @r"
    full did not get package-1 after 1 try: its disk is full; free some space there
    dead did not get package-1 after 4 tries: the connection was reset
    ");
    assert_eq!(statuses(&report)[3], Status::NotTried);
    assert_eq!(statuses(&report)[4], Status::Sent { attempts: 3 });
    assert_eq!(report.bytes_sent(), 4 * SIZE);
    let retries = events.iter().filter(|event| matches!(event, TransferEvent::Retrying { .. }));
    assert_eq!(retries.count(), 5);
    let settled = events.iter().filter(|event| matches!(event, TransferEvent::Settled { .. }));
    assert_eq!(settled.count(), 7, "every package of every machine is told about");
}

#[tokio::test(start_paused = true)]
async fn what_is_cached_is_not_sent_and_equal_bytes_are_sent_once() {
    let machine = FakeMachine::new(vec![], &Arc::default());
    machine.cache.lock().unwrap().insert(Sha256::of(&[1]));
    // One machine, named twice, with package 2 under both names.
    let plan = vec![delivery("web", &machine, &[1, 2]), delivery("web", &machine, &[2, 3])];
    let (report, _) = run(plan, 10).await;
    assert_eq!(report.machines.len(), 1);
    let sent = Status::Sent { attempts: 1 };
    assert_eq!(statuses(&report), [Status::Cached, sent.clone(), Status::Cached, sent]);
    assert_eq!(machine.taken.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_arrived_before_the_link_broke_are_not_sent_again() {
    let machine = FakeMachine::new(vec![Act::BreakAfterTaking], &Arc::default());
    let (report, _) = run(vec![delivery("web", &machine, &[1])], 10).await;
    assert_eq!(statuses(&report), [Status::Sent { attempts: 2 }]);
    assert_eq!(machine.taken.lock().unwrap()[&Sha256::of(&[1])], 1);
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_in_growing_counts_up_to_the_total() {
    let machine = FakeMachine::new(vec![Act::Take { millis: 800 }], &Arc::default());
    let (_, events) = run(vec![delivery("web", &machine, &[1])], 10).await;
    let counts: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            TransferEvent::Progress { done, total: SIZE, .. } => Some(*done),
            _ => None,
        })
        .collect();
    assert_eq!(counts, (1..=8).map(|part| part * SIZE / 8).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_stalls_is_tried_again_and_says_so() {
    let machine = FakeMachine::new(vec![Act::HangAndIgnoreCancel, Act::Hang], &Arc::default());
    let (report, events) = run(vec![delivery("web", &machine, &[1])], 10).await;
    assert_eq!(statuses(&report), [Status::Sent { attempts: 3 }]);
    let reasons: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            TransferEvent::Retrying { reason, .. } => Some(reason.as_str()),
            _ => None,
        })
        .collect();
    insta::assert_snapshot!(reasons.join("\n"), @r"
    no byte moved for 60 s after 0 of 4194304; check the network to the machine
    no byte moved for 60 s after 1000 of 4194304; check the network to the machine
    ");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_settles_everything_within_moments() {
    for (act, limit) in [(Act::Hang, 10), (Act::HangAndIgnoreCancel, 2100), (Act::Break, 10)] {
        let shared = Arc::default();
        let machines: Vec<_> = (0..30).map(|_| FakeMachine::new(vec![act; 9], &shared)).collect();
        let plan = machines.iter().enumerate();
        let plan = plan.map(|(at, machine)| delivery(&format!("m{at}"), machine, &[1, 2])).collect();
        let cancel = CancellationToken::new();
        // Nobody listens, and the channel fills up: that must not hold anything back either.
        let (sender, _events) = mpsc::channel(1);
        let start = Instant::now();
        let canceller = cancel.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(100)).await;
            canceller.cancel();
        });
        let report = acquire(plan, &AcquireOptions::default(), sender, &cancel).await;
        let took = start.elapsed().as_millis();
        assert!(took <= 100 + limit, "{act:?} took {took} ms");
        assert!(statuses(&report).iter().all(|status| *status == Status::Cancelled));
        assert_eq!(statuses(&report).len(), 60);
    }
}

#[tokio::test(start_paused = true)]
async fn the_window_slides_as_machines_finish() {
    let shared: Arc<Shared> = Arc::default();
    // One slow machine must not hold up the others, as it would with batches.
    let plan = (0..9)
        .map(|at| {
            let millis = if at == 0 { 8000 } else { 1000 };
            let machine = FakeMachine::new(vec![Act::Take { millis }], &shared);
            delivery(&format!("m{at}"), &machine, &[1])
        })
        .collect();
    let start = Instant::now();
    let (report, _) = run(plan, 2).await;
    assert!(report.is_complete());
    assert!(start.elapsed() < Duration::from_millis(8200), "{:?}", start.elapsed());
    assert_eq!(shared.most_busy.load(Ordering::SeqCst), 2);
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1u64..2000).prop_map(|millis| Act::Take { millis }),
        2 => Just(Act::Break),
        1 => Just(Act::BreakAfterTaking),
        1 => Just(Act::DiskFull),
        1 => Just(Act::Hang),
        1 => Just(Act::HangAndIgnoreCancel),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_sent_twice_and_the_window_holds(
        machines in prop::collection::vec(
            (0u8..6, prop::collection::vec(any_act(), 0..5), prop::collection::vec(0u8..5, 0..6)),
            0..20,
        ),
        window in 1usize..6,
        cancel_after in prop::option::of(0u64..200_000),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let shared: Arc<Shared> = Arc::default();
            let mut fakes: HashMap<u8, Arc<FakeMachine>> = HashMap::new();
            let mut plan = Vec::new();
            for (name, acts, packages) in &machines {
                let fake = fakes
                    .entry(*name)
                    .or_insert_with(|| FakeMachine::new(acts.clone(), &shared));
                plan.push(delivery(&format!("m{name}"), fake, packages));
            }
            let wanted: usize = plan.iter().map(|delivery| delivery.parcels.len()).sum();
            let (sender, mut events) = mpsc::channel(2);
            let listener = tokio::spawn(async move { while events.recv().await.is_some() {} });
            let cancel = CancellationToken::new();
            if let Some(millis) = cancel_after {
                let cancel = cancel.clone();
                tokio::spawn(async move {
                    sleep(Duration::from_millis(millis)).await;
                    cancel.cancel();
                });
            }
            let options = AcquireOptions { window, ..AcquireOptions::default() };
            let report = acquire(plan, &options, sender, &cancel).await;
            listener.await.unwrap();

            prop_assert!(shared.most_busy.load(Ordering::SeqCst) <= window);
            prop_assert_eq!(shared.busy.load(Ordering::SeqCst), 0, "all has settled");
            prop_assert_eq!(report.machines.len(), fakes.len());
            prop_assert_eq!(statuses(&report).len(), wanted);
            for fake in fakes.values() {
                prop_assert!(fake.taken.lock().unwrap().values().all(|times| *times == 1));
            }
            for machine in &report.machines {
                let name: u8 = machine.machine[1..].parse().unwrap();
                let cache = fakes[&name].cache.lock().unwrap();
                for package in &machine.packages {
                    if package.status.is_there() {
                        prop_assert!(cache.contains(&package.blob.sha256));
                    }
                }
            }
            if cancel_after.is_none() {
                prop_assert!(!statuses(&report).contains(&Status::Cancelled));
            }
            Ok(())
        })?;
    }
}
