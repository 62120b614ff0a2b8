//! Content by digest.

use crate::house::*;
use bastide_bus::{BusError, blob};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

const PIECE: u64 = 256 * 1024;

fn content(bytes: usize) -> Bytes {
    (0..bytes).map(|at| (at * 31 % 251) as u8).collect::<Vec<u8>>().into()
}

#[tokio::test]
async fn a_blob_goes_on_after_a_cut_where_it_stopped() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (_, agent) = house.stage(&platform).await;
    let whole = content(3 * 1024 * 1024 + 17);
    let digest = fake.put(whole.clone(), None);
    let to = house.path("layer");

    *fake.pieces_left.lock().unwrap() = Some(5);
    let cut = blob::fetch(&agent, &digest, u64::MAX, &to, Duration::from_millis(300)).await;
    assert!(matches!(cut, Err(BusError::TimedOut(_))), "{cut:?}");
    assert!(!to.exists(), "nothing half is in place");
    let kept = std::fs::metadata(house.path("layer.part")).unwrap().len();
    assert!(kept > 0 && kept <= 5 * PIECE, "{kept}");

    *fake.pieces_left.lock().unwrap() = None;
    fake.offsets.lock().unwrap().clear();
    let bytes = blob::fetch(&agent, &digest, u64::MAX, &to, LONG).await.unwrap();
    assert_eq!(bytes, whole.len() as u64);
    assert_eq!(std::fs::read(&to).unwrap(), whole);
    assert_eq!(fake.offsets.lock().unwrap().iter().min(), Some(&kept), "what was there is not fetched again");
    assert!(!house.path("layer.part").exists());
}

#[tokio::test]
async fn a_spoilt_part_is_thrown_away_and_fetched_anew() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (_, agent) = house.stage(&platform).await;
    let whole = content(600_000);
    let digest = fake.put(whole.clone(), None);
    for spoilt in [vec![9; 1000], vec![9; 700_000]] {
        std::fs::write(house.path("layer.part"), spoilt).unwrap();
        blob::fetch(&agent, &digest, u64::MAX, &house.path("layer"), LONG).await.unwrap();
        assert_eq!(std::fs::read(house.path("layer")).unwrap(), whole);
    }
}

#[tokio::test]
async fn knowing_a_digest_is_not_enough_and_wrong_or_huge_content_is_not_kept() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (stage, agent) = house.stage(&platform).await;
    let (_, stranger) = house.stage(&platform).await;
    let own = fake.put(content(1000), Some(&stage.account));
    let to = house.path("layer");
    assert_eq!(blob::fetch(&agent, &own, 1000, &to, LONG).await.unwrap(), 1000);
    let refused = blob::fetch_bytes(&stranger, &own, 1000, LONG).await;
    assert!(matches!(refused, Err(BusError::NoContent(_))), "{refused:?}");
    let huge = blob::fetch_bytes(&agent, &own, 999, LONG).await;
    assert!(matches!(huge, Err(BusError::TooLarge { bytes: 1000, bytes_max: 999 })), "{huge:?}");

    let promised = sha256(b"what was promised");
    fake.blobs.lock().unwrap().insert(promised, (content(300_000), None));
    let to = house.path("other");
    let wrong = blob::fetch(&agent, &promised, u64::MAX, &to, LONG).await;
    assert!(matches!(wrong, Err(BusError::Malformed(_))), "{wrong:?}");
    assert!(!to.exists() && !house.path("other.part").exists());

    let empty = fake.put(Bytes::new(), None);
    assert_eq!(blob::fetch_bytes(&agent, &empty, 10, LONG).await.unwrap(), Vec::<u8>::new());
}

/// `BASTIDE_BARS=1` measures: at least 100 MB/s, as `bench/blobs` asks. Otherwise the way is only walked.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_arrives_fast() {
    let bars = std::env::var_os("BASTIDE_BARS").is_some();
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (_, agent) = house.stage(&platform).await;
    let whole = content(if bars { 512 } else { 8 } * 1024 * 1024 + 1);
    let digest = fake.put(whole.clone(), None);
    let mut best = 0.0_f64;
    for round in 0..if bars { 3 } else { 1 } {
        let to = house.path(&format!("layer-{round}"));
        let begun = std::time::Instant::now();
        let bytes = blob::fetch(&agent, &digest, u64::MAX, &to, LONG).await.unwrap();
        best = best.max(bytes as f64 / 1e6 / begun.elapsed().as_secs_f64());
        assert_eq!(bytes, whole.len() as u64);
    }
    println!("{best:.0} MB/s over the broker, checked and on disk");
    assert!(!bars || best >= 100.0, "{best}");
}
