//! Floods of HTTP/2 from outside: the edge's memory stays what it was, and others are served.

use anyhow::{Result, ensure};
use bastide_testkit::{
    edge::Scene,
    floods::{Attack, FLOODS, Flood},
    load::Load,
};
use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// What all floods together may add to the edge's memory, in KiB: buffers of a few connections.
const GROWTH_KIB_MAX: u64 = 24 * 1024;
const ATTACKERS: usize = 4;
/// How often each flood comes.
const CONNECTIONS: u64 = 12;
/// Generous: only an edge that hangs takes this long.
const PATIENCE: Duration = Duration::from_mins(5);

fn origin() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(&stream).lines();
                while let Some(Ok(line)) = lines.next() {
                    if line.is_empty() {
                        // The edge hangs up when it likes.
                        let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    }
                }
            });
        }
    });
    Ok(url)
}

/// One flood until it came often enough.
async fn flood(scene: &Scene, flood: Flood) -> Result<()> {
    let attack = Attack::start(&scene.target("/")?, flood, ATTACKERS, Duration::ZERO);
    let begun = Instant::now();
    let times = || attack.tally.cut.load(Ordering::Relaxed) + attack.tally.borne.load(Ordering::Relaxed);
    while times() < CONNECTIONS {
        ensure!(begun.elapsed() < PATIENCE, "{} goes on and on", flood.name);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let tally = attack.end().await?;
    if flood.is_cut {
        // The last ones of all were ended by the attackers.
        let borne = tally.borne.load(Ordering::Relaxed);
        ensure!(borne <= ATTACKERS as u64, "{}: {borne} connections were not cut", flood.name);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_leave_the_memory_of_the_edge_flat_and_others_served() -> Result<()> {
    let scene = Scene::new(env!("CARGO_BIN_EXE_bastide").as_ref(), &origin()?, &["--no-waf", "--no-cache"])?;
    let edge = scene.start()?;
    let load = Load::start(&scene.target("/")?, 1, |status, body| status == 200 && &body[..] == b"ok");
    // The first of each kind fills pools and buffers that stay.
    for one in FLOODS {
        flood(&scene, one).await?;
    }
    let before = edge.memory_kib()?;
    for one in FLOODS {
        edge.forget_peak()?;
        flood(&scene, one).await?;
        let peak = edge.peak_kib()?;
        ensure!(peak <= before + GROWTH_KIB_MAX, "{}: {before} KiB before, {peak} KiB at most", one.name);
    }
    let report = load.end().await;
    assert_eq!((report.lost, &report.faults), (0, &Vec::new()), "others are served");
    assert!(report.answered > 0);
    Ok(())
}
