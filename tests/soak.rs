//! Faults of the cluster and of processes, on three real brokers: the results must equal a model.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use support::broker::Cluster;
use support::case::{Case, PATIENCE, pause};
use support::clock::Clock;
use support::cluster::Instance;
use support::eventually;
use support::process::{Sample, growth};
use support::proxy::{Point, Request};

/// One cluster for all of them, one after another: three JVMs are enough.
#[test]
fn a_cluster_whose_brokers_restart_and_crash_and_a_zombie_lose_and_double_nothing() {
    let mut cluster = Cluster::start();
    let mut case = Case::new(cluster.brokers(), "faults");
    let mut instances = [case.start("a"), case.start("b")];
    for instance in &mut instances {
        instance.wait_ready();
    }

    // A rolling restart, orderly, under load.
    for node in &mut cluster.nodes {
        case.feed(3_000);
        node.restart();
    }
    case.feed(3_000);
    case.close_windows();
    case.check();

    // Brokers killed in the middle of transactions.
    for node in &mut cluster.nodes[..2] {
        case.move_on();
        case.feed(3_000);
        pause(Duration::from_millis(case.random.u64(50..400)));
        node.kill9();
        case.feed(1_000);
        node.run();
    }
    case.close_windows();
    case.check();

    // An instance that sleeps past its session, while the other takes its partitions over: what it commits when it
    // wakes up is refused.
    case.move_on();
    case.feed(3_000);
    instances[0].signal("-STOP");
    let other = &instances[1];
    eventually("the other instance owns all tasks", PATIENCE, || {
        (other.metric("sidestream_tasks_owned") >= 8.0).then_some(())
    });
    case.feed(3_000);
    instances[0].signal("-CONT");
    instances[0].wait_ready();
    case.feed(3_000);
    case.close_windows();
    case.check();
    for instance in &mut instances {
        assert!(instance.is_running(), "{}", instance.log_text());
        assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
    }
}

/// How long the random faults last, in minutes.
const MINUTES: &str = "SIDESTREAM_SOAK_MINUTES";
const MINUTES_BY_DEFAULT: u64 = 120;
/// Of each instance. State fills its share of it in the course of hours, so that it is counted by itself.
const MEMORY_MB: f64 = 96.0;
/// Of the samples, the first third is warm-up. Over the rest a process may grow, beside its state, by the larger one of these...
const GROWTH_OF_RSS: f64 = 0.05;
const GROWTH_OF_RSS_BYTES: f64 = 12e6;
/// ... and open more files by this many: connections to brokers come and go.
const GROWTH_OF_DESCRIPTORS: f64 = 12.0;

/// The witness is the instance that is never restarted; it sees everything else.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test that measures")]
fn random_faults_for_hours_lose_and_double_nothing_and_nothing_grows() {
    let minutes = std::env::var(MINUTES).ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(MINUTES_BY_DEFAULT);
    let began = Instant::now();
    let mut cluster = Cluster::start();
    let mut case = Case::new(cluster.brokers(), "soak");
    case.entrance = cluster.proxied_brokers();
    let memory = format!("{MEMORY_MB}MB");
    let mut witness = case.start_with("witness", &["--memory", &memory]);
    let clock = Clock::new();
    let mut others = ["a", "b"].map(|id| {
        let environment = clock.iter().flat_map(Clock::environment);
        let mut instance = case.instance(id, &["--memory", &memory]).with_environment(environment);
        instance.run();
        instance
    });
    witness.wait_ready();
    let mut samples = Vec::new();
    for round in 0_u64.. {
        if began.elapsed() > Duration::from_mins(minutes) {
            eprintln!("{round} rounds");
            break;
        }
        case.move_on();
        case.feed(2_000);
        strike(&mut case, &mut cluster, &mut others, clock.as_ref());
        case.feed(1_000);
        case.close_windows();
        case.check();
        assert!(witness.is_running(), "{}", witness.log_text());
        let mut sample = Sample::of(witness.pid(), began.elapsed());
        let state_bytes = witness.metric("sidestream_state_memory_bytes");
        eprintln!("{:?}: RSS {} MB, of it state {} MB", sample.at, sample.rss_bytes / 1e6, state_bytes / 1e6);
        assert!(state_bytes < MEMORY_MB * 1e6, "{state_bytes}");
        sample.rss_bytes -= state_bytes;
        samples.push(sample);
    }
    let warm = &samples[samples.len() / 3..];
    let mean = warm.iter().map(|sample| sample.rss_bytes).sum::<f64>() / warm.len() as f64;
    let (rss, descriptors) = (growth(warm, |sample| sample.rss_bytes), growth(warm, |sample| sample.descriptors));
    eprintln!("{} samples: {mean:.0} bytes, grown by {rss:.0}; descriptors by {descriptors:.1}", warm.len());
    assert!(rss <= (mean * GROWTH_OF_RSS).max(GROWTH_OF_RSS_BYTES), "{warm:?}");
    assert!(descriptors <= GROWTH_OF_DESCRIPTORS, "{warm:?}");
    for instance in others.iter_mut().chain([&mut witness]) {
        assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
    }
}

/// One fault, which is over when this returns.
fn strike(case: &mut Case, cluster: &mut Cluster, others: &mut [Instance; 2], clock: Option<&Clock>) {
    let victim = case.random.usize(..others.len());
    let node = case.random.usize(..cluster.nodes.len());
    let a_while = Duration::from_millis(case.random.u64(20..700));
    let fault = case.random.u32(..10);
    eprintln!("fault {fault}, instance {victim}, broker {node}, {a_while:?}");
    match fault {
        0 => {
            pause(a_while);
            others[victim].kill();
            pause(a_while);
            others[victim].run();
        }
        1 => {
            assert_eq!(others[victim].terminate(), 0, "{}", others[victim].log_text());
            case.feed(1_000);
            others[victim].run();
        }
        2 => {
            // A zombie: longer than its session.
            others[victim].signal("-STOP");
            case.feed(1_000);
            pause(Duration::from_secs(12));
            others[victim].signal("-CONT");
        }
        3 => cluster.nodes[node].restart(),
        4 => {
            pause(a_while);
            cluster.nodes[node].kill9();
            case.feed(1_000);
            cluster.nodes[node].run();
        }
        5 => {
            for _ in 0..5 {
                pause(a_while);
                cluster.nodes.iter().for_each(|node| node.proxy().cut());
            }
        }
        6 => {
            cluster.nodes.iter().for_each(|node| node.proxy().delay(Duration::from_millis(30)));
            case.feed(1_000);
            pause(Duration::from_secs(5));
        }
        7 => {
            cluster.nodes[node].proxy().swallow();
            case.feed(1_000);
            pause(a_while * 20);
        }
        8 => {
            let points = [
                Point::Before(Request::CommitOffsets),
                Point::After(Request::CommitOffsets),
                Point::Before(Request::EndTransaction),
                Point::After(Request::EndTransaction),
            ];
            let point = points[case.random.usize(..points.len())];
            cluster.nodes.iter().for_each(|node| node.proxy().trap(point));
            case.feed(1_000);
            eventually("a connection comes to the trap", PATIENCE, || {
                cluster.nodes.iter().any(|node| node.proxy().has_trapped()).then_some(())
            });
            if victim == 0 {
                others[victim].kill();
                others[victim].run();
            }
            cluster.nodes.iter().for_each(|node| node.proxy().cut());
        }
        _ => {
            // The wall clock of both, for longer than a session.
            if let Some(clock) = clock {
                clock.set_hours(case.random.i64(-100..100));
                case.feed(1_000);
                pause(Duration::from_secs(12));
            }
        }
    }
    cluster.nodes.iter().for_each(|node| node.proxy().heal());
}
