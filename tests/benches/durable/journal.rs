//! The records of effects alone: the journal's layer over a store, and a performer that takes no time.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use windlass_effects::{
    Answer, CancelToken, Command, Effect, Entry, Exit, HttpRequest, HttpResponse, JournalStore, Journaled, Outcome,
    Performer, Program, Promise, SessionHandle, Stdin,
};
use windlass_store::{
    Batch, Disk, EmbeddedOptions, EmbeddedStore, Key, MemoryStore, RealDisk, SegmentFile, Store, Table,
};

use crate::Anything;

const JOURNAL: Table<Entry> = Table::new("journal", 1);
/// Effects of one run, of which the journal's limit allows more.
const EFFECTS: u64 = 2000;

/// A disk that counts its syncs.
struct Counting(Arc<AtomicU64>);
struct CountingFile(Box<dyn SegmentFile>, Arc<AtomicU64>);

impl Disk for Counting {
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(CountingFile(RealDisk.open(path)?, Arc::clone(&self.0))))
    }
}

impl SegmentFile for CountingFile {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
    fn sync_data(&mut self) -> io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.sync_data()
    }
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
}

/// Records as the engine writes them: what may wait goes with the next.
struct Records {
    store: Arc<dyn Store>,
    run: u64,
    waiting: Mutex<Batch>,
}

#[async_trait]
impl JournalStore for Records {
    async fn record(&self, entry: &Entry, promise: Promise) -> Result<(), String> {
        let mut batch = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let key = Key::of_id(self.run).id(entry.index);
        JOURNAL.put(&mut batch, key, entry).map_err(|error| error.to_string())?;
        match promise {
            Promise::Later => {
                *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = batch;
                return Ok(());
            }
            Promise::Ordered => batch.relaxed(),
            Promise::Durable => &mut batch,
        };
        self.store.commit(batch).await.map(|_| ()).map_err(|error| error.to_string())
    }

    async fn local(&self, _: Entry, effect: &Effect) -> Result<Answer, String> {
        Err(format!("{} is not measured here", effect.name()))
    }
}

/// A world that answers at once.
struct AtOnce;

#[async_trait]
impl Performer for AtOnce {
    async fn perform(&self, _: u64, effect: &Effect, _: &CancelToken) -> Answer {
        Ok(match effect {
            Effect::Http { .. } => {
                Outcome::Http(HttpResponse { status: 200, headers: Vec::new(), body: Vec::new(), truncated: false })
            }
            _ => Outcome::Exit(Exit { stdout: b"done\n".to_vec(), ..Exit::default() }),
        })
    }
}

fn command() -> Effect {
    let program = Program::Script { interpreter: "sh".into(), text: "echo done".into(), args: Vec::new() };
    let command = Command {
        program,
        env: Default::default(),
        stdin: Stdin::Empty,
        cwd: None,
        timeout_ms: None,
        capture: 1 << 10,
        quiet: false,
    };
    Effect::Run { session: SessionHandle(1), command }
}

fn request() -> Effect {
    let request = HttpRequest {
        method: "POST".into(),
        url: "http://127.0.0.1/".into(),
        headers: Vec::new(),
        body: b"x".to_vec(),
        timeout_ms: 1000,
        max_body: 1 << 10,
        idempotency_key: None,
    };
    Effect::Http { request }
}

/// Prints what the records of effects cost.
pub async fn measure(folder: &Path, quick: bool) -> Anything<()> {
    let time = Duration::from_millis(if quick { 700 } else { 3000 });
    for (what, effect, name) in [
        ("a command, whose ticket the machine knows: no sync of its own", command(), "commands"),
        ("a request to a stranger: synced before and after", request(), "requests"),
    ] {
        println!("records of {what}");
        for runs in [1, 10, 100] {
            let syncs = Arc::<AtomicU64>::default();
            let options =
                EmbeddedOptions { disk: Arc::new(Counting(Arc::clone(&syncs))), ..EmbeddedOptions::default() };
            let opened = EmbeddedStore::open(&folder.join(format!("{name}-{runs}")), &options)?;
            let store: Arc<dyn Store> = Arc::new(opened);
            let (before, first) = (syncs.load(Ordering::Relaxed), store.last_seq().0);
            let (effects, took) = play(&store, &effect, runs, time).await?;
            let (commits, syncs) = (store.last_seq().0 - first, syncs.load(Ordering::Relaxed) - before);
            let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let (plain, plain_took) = play(&memory, &effect, runs, time).await?;
            let each = |effects: u64, took: Duration| took.as_secs_f64() * 1e6 * runs as f64 / effects.max(1) as f64;
            println!(
                "  {runs:>3} runs: {:>8.1} µs of a run's time an effect (in memory {:>6.1} µs), {:>8.0} effects/s, {:>6.1} commits a sync",
                each(effects, took),
                each(plain, plain_took),
                effects as f64 / took.as_secs_f64(),
                commits as f64 / syncs.max(1) as f64,
            );
            store.close().await?;
        }
    }
    Ok(())
}

/// So many runs do the effect again and again. Tells how often they did, and how long that took.
async fn play(store: &Arc<dyn Store>, effect: &Effect, runs: u64, time: Duration) -> Anything<(u64, Duration)> {
    let begin = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for run in 0..runs {
        let (store, effect) = (Arc::clone(store), effect.clone());
        all.spawn(async move {
            let (cancel, mut done) = (CancelToken::new(), 0);
            for life in 0.. {
                let run = run * 1_000_000 + life;
                let records = Records { store: Arc::clone(&store), run, waiting: Mutex::default() };
                let journal = Journaled::new(records, AtOnce, windlass_effects::Masker::default(), []);
                for _ in 0..EFFECTS {
                    if begin.elapsed() >= time {
                        return Ok(done);
                    }
                    journal.call(&effect, &cancel).await.map_err(|stop| format!("{stop:?}"))?.map_err(|e| e.message)?;
                    done += 1;
                }
            }
            Ok::<u64, String>(done)
        });
    }
    let mut effects = 0;
    while let Some(done) = all.join_next().await {
        effects += done??;
    }
    Ok((effects, begin.elapsed()))
}
