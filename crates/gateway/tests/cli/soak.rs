//! The soak, short: the binary between clients of `pulsegate.v1` on lines that fail in every way.

use std::time::Duration;

use pulsegate_soak::{Plan, run};

fn plan(messages: u64, faults: bool) -> Plan {
    Plan {
        binary: env!("CARGO_BIN_EXE_pulsegate").into(),
        clients: 20,
        messages,
        time: Duration::from_secs(12),
        quiet: Duration::from_secs(1),
        seed: 1,
        faults,
        unmodified: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_out_of_order_on_bad_lines() {
    let report = run(&plan(u64::MAX, true), |line| println!("{line}")).await.unwrap();
    println!("{report}");
    assert_eq!(report.complaints, 0);
    assert!(report.faults.len() >= 5, "{:?} are no bad lines", report.faults);
    assert!(report.totals.resumes >= 20, "{} resumes are no test", report.totals.resumes);
    let arrived = report.totals.arrived;
    assert!(arrived.iter().all(|&count| count >= 20 * 500), "{arrived:?} messages are no test");
}

/// The control run: without faults nobody loses a connection, and all get all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_good_lines_nobody_comes_back_and_everybody_gets_everything() {
    let report = run(&plan(2000, false), |line| println!("{line}")).await.unwrap();
    println!("{report}");
    assert_eq!((report.complaints, report.totals.resumes), (0, 0));
    assert_eq!(report.totals.arrived, [20 * 2000; 2]);
}
