//! What the node stands on: its zones with their ways out, as the operator chose them and the host allows.

use super::members::Ground;
use crate::{Error, config, files};
use bastide_isolation::{Caps, Installation, Outside, Uplink, ZoneNet, address};
use serde::{Deserialize, Serialize};
use std::{fs, net::Ipv4Addr, path::Path};

/// Blocks of addresses for links to the host.
const SLOTS: u16 = 8192;

/// The installation that keeps its things in this directory.
pub(crate) fn installation(state_dir: &Path) -> Installation {
    // The same by whichever way one comes to it.
    let real = state_dir.canonicalize();
    Installation::of(&real.as_deref().unwrap_or(state_dir).to_string_lossy())
}

/// Zones and ways out. On a host, `routes_already` says whether it forwards packets for others.
pub(crate) fn ground(
    config: &config::Linux,
    state_dir: &Path,
    routes_already: bool,
) -> Result<Ground, Error> {
    let installation = installation(state_dir);
    let (zones, outside) = match &config.outside {
        config::Outside::Host => {
            let slot = slot(&installation, state_dir)?;
            let zones = config.zones.iter().zip(0..).map(|(zone, ordinal)| {
                let (outer, inner) = address::uplink(slot, ordinal);
                ZoneNet { zone: zone.name.clone(), uplink: Uplink { inner, outer, public: zone.public } }
            });
            (zones.collect(), Outside::Host { routes_already })
        }
        config::Outside::Namespace { router, .. } => {
            let zones = config.zones.iter().map(|zone| {
                let inner = zone.public.ok_or_else(|| {
                    Error::Network(format!("zone {} has no address in the namespace to go out by", zone.name))
                })?;
                let uplink = Uplink { inner, outer: *router, public: None };
                Ok(ZoneNet { zone: zone.name.clone(), uplink })
            });
            (zones.collect::<Result<_, Error>>()?, Outside::Given)
        }
    };
    Ok(Ground { installation, zones, outside, blocked: config.blocked.clone(), caps: Caps::default() })
}

#[derive(Serialize, Deserialize)]
struct Kept {
    slot: u16,
}

/// The block for our links to the host: kept once it was chosen, since open connections go by it.
fn slot(installation: &Installation, state_dir: &Path) -> Result<u16, Error> {
    let path = state_dir.join("uplink.json");
    if let Some(Kept { slot }) = files::read(&path)? {
        return Ok(slot % SLOTS);
    }
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let slot = free_slot(installation, &routes);
    files::write(&path, &Kept { slot })?;
    Ok(slot)
}

/// The first block, from one that the installation's name decides, that no route of others leads into.
fn free_slot(installation: &Installation, routes: &str) -> u16 {
    let prefix = installation.prefix();
    let taken: Vec<u16> = routes
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (link, to) = (fields.next()?, fields.next()?);
            // The kernel writes the address as a number of its own byte order.
            let to = Ipv4Addr::from(u32::from_str_radix(to, 16).ok()?.to_ne_bytes());
            if link.starts_with(&prefix) { None } else { address::slot_of(to) }
        })
        .collect();
    let first = prefix.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    let first = (first % u32::from(SLOTS)) as u16;
    (0..SLOTS).map(|step| (first + step) % SLOTS).find(|slot| !taken.contains(slot)).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_others_route_into_is_not_taken() {
        let here = Installation::of("/data/runtime");
        let free = free_slot(&here, "");
        let (outer, inner) = address::uplink(free, 1);
        assert_eq!((address::slot_of(outer), address::slot_of(inner)), (Some(free), Some(free)));
        let line = |link: &str, to: Ipv4Addr| {
            format!(
                "{link}\t{:08X}\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n",
                u32::from_ne_bytes(to.octets())
            )
        };
        assert_ne!(free_slot(&here, &line("bothersuxxxxxxx", inner)), free);
        let ours = format!("{}uaaaaaaaa", here.prefix());
        assert_eq!(free_slot(&here, &line(&ours, inner)), free);
        assert_eq!(free_slot(&here, &line("eth0", Ipv4Addr::new(100, 64, 1, 1))), free);
    }

    #[test]
    fn the_choice_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = slot(&Installation::of("/x"), dir.path()).unwrap();
        assert_eq!(slot(&Installation::of("/another"), dir.path()).unwrap(), first);
    }
}
