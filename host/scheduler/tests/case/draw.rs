//! Drawing a case from a seed.

use windlass_model::{
    MachineName, PoolName, RunCondition, StartTrigger, StepName,
    manifest::{LockMode, LockNeed, LockScope},
};
use windlass_scheduler::{
    Approval, Choice as Answers, Isolation, OnDeadlock, Parent, RunKey, Settings, StepPlan, TaskPlan, Unavailable,
    Where,
};

use super::{Case, Choice};
use crate::common::{deploy, machine};

/// A small generator, the same everywhere: splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }
}

impl Case {
    pub fn of_seed(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let small = |dice: &mut Dice| 1 + dice.below(3) as u32;
        let settings = Settings {
            task_cap: small(&mut dice),
            script_cap: small(&mut dice),
            steps_at_once: small(&mut dice),
            targets_at_once: small(&mut dice),
            runs_at_once: if dice.percent(30) { 2 } else { 100 },
            acquisitions_at_once: small(&mut dice),
            lock_wait_ms: if dice.percent(50) { 100 } else { 100_000 },
            pool_wait_ms: 60,
            grace_ms: 10,
            kill_ms: 20,
            guided_retries: 2,
            draining: dice.percent(3),
        };
        // Some cases are about locks and their circles: little else happens there.
        let tight = dice.percent(40);
        let tasks = 1 + dice.below(7);
        let plans = (0..tasks).map(|_| a_plan(&mut dice, tight)).collect();
        let count = dice.below(120);
        let choices = (0..count).map(|_| Choice(dice.roll() as u8, dice.roll() as u8, dice.roll() as u8)).collect();
        Self { settings, plans, choices, salt: dice.roll() }
    }
}

fn a_plan(dice: &mut Dice, tight: bool) -> TaskPlan {
    let steps = dice.below(if tight { 4 } else { 6 });
    let mut all: Vec<StepPlan> = Vec::new();
    for index in 0..steps {
        let above = all.last().map(|step| step.place.clone());
        all.push(a_step(dice, index, above, tight));
    }
    let project = dice.below(if tight { 6 } else { 4 });
    let mut plan = match dice.below(8) {
        0 => TaskPlan::script("script", StepName::new("script").unwrap()),
        _ => deploy(&format!("p{project}"), "1.0", all),
    };
    // A project may choose its own tag, share one with others, or have none.
    match dice.below(12) {
        0 => plan.concurrency_tag = None,
        1 => plan.concurrency_tag = Some("machine-set/blue".to_owned()),
        _ => {}
    }
    plan.priority = dice.below(3) as i32 - 1;
    plan.start_at_ms = dice.percent(8).then(|| dice.below(60));
    plan.expires_ms = dice.percent(8).then(|| dice.below(80));
    plan.supersede = dice.percent(15).then(|| format!("p{project}"));
    let run = RunKey { task: windlass_model::TaskId(0), step: 0, place: dice.below(8) as u32 };
    plan.parent = dice.percent(25).then(|| Parent { run, detached: dice.percent(20) });
    plan.max_parallelism = dice.percent(15).then(|| 1 + dice.below(3) as u32);
    plan.max_runs = dice.percent(15).then(|| 1 + dice.below(3) as u32);
    plan.max_acquisitions = dice.percent(15).then(|| 1 + dice.below(2) as u32);
    plan.lock_wait_ms = dice.percent(15).then(|| dice.below(60));
    plan.guided = dice.percent(30);
    plan.unavailable = dice.one_of(&[Unavailable::Fail, Unavailable::Skip, Unavailable::Exclude]);
    plan.on_deadlock = dice.one_of(&[OnDeadlock::Fail, OnDeadlock::Ask]);
    plan
}

fn a_step(dice: &mut Dice, index: u64, above: Option<Where>, tight: bool) -> StepPlan {
    let child = above.is_some() && dice.percent(20);
    let names: &[&str] = if tight { &["a", "b"] } else { &["a", "b", "c", "d"] };
    let machines: Vec<MachineName> = names.iter().filter(|_| dice.percent(60)).map(|name| machine(name)).collect();
    let place = match dice.below(10) {
        0 => Where::Server,
        1 => Where::Pool(PoolName::new("pool").unwrap()),
        _ => Where::Machines(machines),
    };
    let place = above.filter(|_| child).unwrap_or(place);
    let mut plan = StepPlan::new(StepName::new(format!("s{index}")).unwrap(), place);
    plan.child = child;
    plan.skip = dice.percent(8).then(|| "disabled".to_owned());
    plan.start = if dice.percent(45) { StartTrigger::WithPrevious } else { StartTrigger::AfterPrevious };
    plan.condition = match dice.below(8) {
        0 => RunCondition::Failure,
        1 => RunCondition::Always,
        _ => RunCondition::Success,
    };
    plan.asks_fact = dice.percent(10);
    plan.approval = (!child && dice.percent(8)).then(|| Approval {
        instructions: "look at it".to_owned(),
        responsible: Vec::new(),
        expires_ms: dice.percent(50).then_some(40),
        on_expiry: dice.one_of(&[Answers::Proceed, Answers::Abort]),
        keeps_tag: dice.percent(30),
    });
    plan.window = dice.percent(30).then(|| dice.below(4) as u32);
    plan.needs_packages = !tight && dice.percent(25);
    plan.isolation = an_isolation(dice);
    plan.hold = match dice.below(if tight { 4 } else { 10 }) {
        0 => LockScope::Deployment,
        1 => LockScope::Step,
        _ => LockScope::Call,
    };
    plan.timeout_ms = dice.percent(20).then_some(40);
    plan.required = dice.percent(20);
    plan.retries = if dice.percent(25) { dice.below(3) as u32 } else { 0 };
    plan.backoff_ms = dice.below(20);
    plan
}

fn an_isolation(dice: &mut Dice) -> Isolation {
    match dice.below(7) {
        0..=2 => Isolation::Exclusive,
        3 => Isolation::Shared,
        _ => {
            let count = 1 + dice.below(2);
            let needs = (0..count).map(|_| {
                let name = dice.one_of(&["iis", "dir", "global:licence", "global:gate"]);
                let mut need = LockNeed::new(name, dice.one_of(&[LockMode::Exclusive, LockMode::Shared]));
                need.scope = dice.one_of(&[LockScope::Call, LockScope::Call, LockScope::Step, LockScope::Deployment]);
                if need.mode == LockMode::Shared && dice.percent(50) {
                    (need.units, need.of) = (Some(1 + dice.below(2) as u32), Some(1 + dice.below(3) as u32));
                }
                need
            });
            let mut needs: Vec<_> = needs.collect();
            needs.sort_by(|a, b| a.resource.cmp(&b.resource));
            needs.dedup_by(|a, b| a.resource == b.resource);
            Isolation::Resources(needs)
        }
    }
}
