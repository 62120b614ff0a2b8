//! One installation's networks in the kernel.

use crate::{
    Error, Result,
    firewall::{self, Firewall, Known},
    look::{self, Seen},
    namespace::{self, OutsideNamespace, Traveller},
    netlink::Netlink,
    repair, settings,
};
use bastide_isolation::{
    Installation, NO_ROUTER, Namespace, Plan, TABLE,
    name::{self, LINK_GROUP},
    read_counters,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::{fd::AsFd, linux::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

/// What a call found to do.
#[derive(Debug, Default)]
#[must_use = "namespaces that failed are not there"]
pub struct Report {
    /// Namespaces made by this call. Whoever runs in an older one of the same name has no network any more.
    pub made: BTreeSet<String>,
    /// What was changed in namespaces that were there before, in words.
    pub changed: Vec<String>,
    /// The plan is the one of the call before, so what was changed or made is somebody else's doing.
    pub repair: bool,
    /// What the plan does not have and is gone now.
    pub removed: Vec<String>,
    /// Namespaces that could not be had as planned. They were taken away; the next call tries again.
    pub failed: BTreeMap<String, Error>,
}

impl Report {
    /// Whether the kernel was as planned already.
    pub fn is_quiet(&self) -> bool {
        self.made.is_empty() && self.changed.is_empty() && self.removed.is_empty() && self.failed.is_empty()
    }
}

/// The networks of one installation. Two calls, of this or another process, wait for each other.
pub struct Network {
    fixed: Arc<Fixed>,
    known: Arc<Mutex<Memory>>,
}

struct Fixed {
    installation: Installation,
    outside: OutsideNamespace,
    nft: PathBuf,
}

#[derive(Default)]
struct Memory {
    /// Rules as last read, by namespace; the open file keeps its number from being given to another namespace.
    rules: BTreeMap<String, (File, Option<Known>)>,
    /// What was planned last.
    plan: Option<Plan>,
}

impl Network {
    /// Makes sure that networks can be made here; changes nothing.
    ///
    /// # Errors
    /// [`Error::NotPermitted`], [`Error::NoNft`], [`Error::NoOutside`].
    pub async fn open(installation: Installation, outside: OutsideNamespace) -> Result<Self> {
        let fixed = Fixed { installation, outside, nft: firewall::program()? };
        let network = Self { fixed: Arc::new(fixed), known: Arc::default() };
        let guard = network.known.clone().lock_owned().await;
        network
            .with_thread(guard, |work| {
                let home = work.traveller.home().map_err(Error::of("open the own namespace"))?;
                let permitted = work.traveller.enter(&home).map(drop);
                permitted.map_err(Error::NotPermitted)?;
                work.enter(Plan::OUTSIDE, |_| Ok(()))
            })
            .await?;
        Ok(network)
    }

    /// Brings the kernel to the plan: makes what is missing, repairs what differs, removes what is too much, of
    /// this installation only. When nothing differs, it only looks.
    ///
    /// Namespaces and their rules come first, then links, addresses and routes, forwarding at last. A namespace
    /// that cannot be had as planned is taken away and named in the report; the others stay.
    ///
    /// # Errors
    /// When nothing could be tried at all.
    pub async fn reconcile(&self, plan: &Plan) -> Result<Report> {
        let (plan, guard) = (plan.clone(), self.known.clone().lock_owned().await);
        self.with_thread(guard, move |work| {
            let _locked = lock(&work.fixed.installation)?;
            let before = work.known.plan.replace(plan.clone());
            let mut pass = Pass::new(work, &plan);
            pass.report.repair = before.as_ref() == Some(&plan);
            pass.run()?;
            Ok(pass.report)
        })
        .await
    }

    /// Removes everything of this installation, whichever plan made it.
    ///
    /// # Errors
    /// When something could not be removed; the rest is.
    pub async fn clear(&self) -> Result<()> {
        let guard = self.known.clone().lock_owned().await;
        self.with_thread(guard, |work| {
            let locked = lock(&work.fixed.installation)?;
            let mut result = Ok(());
            // Routers first: all their links go at once, and with them those of the replicas.
            let mut names = namespace::all(&work.fixed.installation)?;
            names.sort_by_key(|name| !name[work.fixed.installation.prefix().len()..].starts_with('s'));
            for name in names {
                result = result.and(work.destroy(&name));
            }
            result = match work.clear_outside() {
                // Without it, nothing of ours is in it.
                Err(Error::NoOutside(_)) => result,
                other => result.and(other),
            };
            let _ = fs::remove_file(lock_path(&work.fixed.installation));
            drop(locked);
            result
        })
        .await
    }

    /// Packets that each rule of a namespace has stopped so far, by the rule's id.
    ///
    /// # Errors
    /// When the namespace is not there or nft fails.
    pub async fn counters(&self, namespace: &str) -> Result<BTreeMap<String, u64>> {
        let (name, guard) = (namespace.to_owned(), self.known.clone().lock_owned().await);
        self.with_thread(guard, move |work| {
            let table = work.table(&name);
            let listing = work.enter(&name, |work| work.firewall(&name).list(&table))?;
            Ok(listing.map(|listing| read_counters(&listing, &table)).unwrap_or_default())
        })
        .await
    }

    /// Brings these namespaces to the plan, and the links between them; all others are left as they are. `anew`
    /// is made anew, whatever is wrong with it.
    pub(crate) async fn mend(
        &self,
        plan: &Plan,
        only: BTreeSet<String>,
        anew: Option<String>,
    ) -> Result<Report> {
        let (plan, guard) = (plan.clone(), self.known.clone().lock_owned().await);
        self.with_thread(guard, move |work| {
            let _locked = lock(&work.fixed.installation)?;
            if let Some(name) = anew.filter(|name| work.fixed.installation.owns_namespace(name)) {
                work.destroy(&name)?;
            }
            let mut pass = Pass::new(work, &plan);
            pass.only = Some(only);
            pass.report.repair = true;
            pass.run()?;
            Ok(pass.report)
        })
        .await
    }

    /// Runs a short piece of work inside a namespace.
    pub(crate) async fn inside<T: Send + 'static>(
        &self,
        namespace: &str,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (name, guard) = (namespace.to_owned(), self.known.clone().lock_owned().await);
        self.with_thread(guard, move |work| {
            work.enter(&name, |_| job().map_err(Error::of(format!("read from {name}"))))
        })
        .await
    }

    /// Whether packets are forwarded between links of the namespace to go out by, for others than us.
    ///
    /// # Errors
    /// When the namespace is not there or nft fails.
    pub async fn routes_already(&self) -> Result<bool> {
        let guard = self.known.clone().lock_owned().await;
        self.with_thread(guard, |work| {
            work.enter(Plan::OUTSIDE, |work| {
                Ok(settings::is("ipv4/ip_forward", "1") && work.tables_that_switched_it_on()?.is_empty())
            })
        })
        .await
    }

    /// Runs `job` on a thread of its own, which ends with it even if nobody waits any more.
    async fn with_thread<T: Send + 'static>(
        &self,
        guard: OwnedMutexGuard<Memory>,
        job: impl FnOnce(&mut Work) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, wait) = oneshot::channel();
        let fixed = self.fixed.clone();
        let run = move || {
            let traveller = Traveller::new().map_err(Error::of("open the own namespace"));
            let done = traveller.and_then(|traveller| job(&mut Work { traveller, fixed, known: guard }));
            let _ = answer.send(done);
        };
        std::thread::Builder::new()
            .name("network".into())
            .spawn(run)
            .map_err(Error::of("start the network's thread"))?;
        wait.await.map_err(|_| Error::Thread)?
    }
}

/// A thread at work.
struct Work {
    traveller: Traveller,
    fixed: Arc<Fixed>,
    known: OwnedMutexGuard<Memory>,
}

impl Work {
    /// The namespace of this name; of the plan's word for the one to go out by, that one.
    fn open(&self, name: &str) -> Result<File> {
        if name != Plan::OUTSIDE {
            return namespace::open(name)?
                .ok_or_else(|| Error::of(format!("enter {name}"))(io::ErrorKind::NotFound.into()));
        }
        match &self.fixed.outside {
            OutsideNamespace::Host => self.traveller.home().map_err(Error::of("open the own namespace")),
            OutsideNamespace::Named(name) => {
                namespace::open(name)?.ok_or_else(|| Error::NoOutside(name.clone()))
            }
        }
    }

    fn enter<T>(&mut self, name: &str, job: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let file = self.open(name)?;
        // The guard must not borrow from what the job changes.
        let traveller = Traveller::new().map_err(Error::of("open the own namespace"))?;
        let _inside = traveller.enter(&file).map_err(Error::of(format!("enter {name}")))?;
        job(self)
    }

    /// Enters with a socket to the kernel.
    fn talk<T>(&mut self, name: &str, job: impl FnOnce(&mut Netlink) -> io::Result<T>) -> Result<T> {
        self.enter(name, |_| {
            Netlink::open()
                .and_then(|mut netlink| job(&mut netlink))
                .map_err(Error::of(format!("set up {name}")))
        })
    }

    fn table(&self, namespace: &str) -> String {
        if namespace == Plan::OUTSIDE { self.fixed.installation.table() } else { TABLE.into() }
    }

    fn firewall<'a>(&'a self, namespace: &'a str) -> Firewall<'a> {
        Firewall { nft: &self.fixed.nft, namespace, alone: namespace != Plan::OUTSIDE }
    }

    /// What was known of the rules of this namespace, if it still is the same one.
    fn recall(&mut self, name: &str) -> Result<Option<Known>> {
        let inode = |file: &File| {
            file.metadata().map(|found| found.st_ino()).map_err(Error::of("read a namespace's number"))
        };
        let here = self.open(name)?;
        match self.known.rules.remove(name) {
            Some((before, known)) if inode(&before)? == inode(&here)? => Ok(known),
            _ => Ok(None),
        }
    }

    fn remember(&mut self, name: &str, known: Option<Known>) -> Result<()> {
        let here = self.open(name)?;
        self.known.rules.insert(name.to_owned(), (here, known));
        Ok(())
    }

    /// Takes a namespace away, its links first: their other ends are gone when this returns.
    fn destroy(&mut self, name: &str) -> Result<()> {
        self.known.rules.remove(name);
        if namespace::open(name)?.is_some() {
            self.talk(name, |netlink| {
                repair::delete_group(netlink, LINK_GROUP)?;
                // Others than ours, if somebody made any.
                for link in look::links(netlink)?.values().filter(|link| link.veth) {
                    repair::delete_link(netlink, link.index)?;
                }
                Ok(())
            })?;
        }
        namespace::remove(name)
    }

    /// Takes our links and policies away from the namespace to go out by.
    fn cut(&mut self, installation: &Installation) -> Result<()> {
        self.talk(Plan::OUTSIDE, |netlink| {
            for (name, link) in look::links(netlink)? {
                if installation.owns_link(&name) {
                    repair::delete_link(netlink, link.index)?;
                }
            }
            let seen = look::look(netlink)?;
            repair::tend(netlink, &seen, &Namespace::default(), Some(installation)).map(drop)
        })
    }

    /// Takes away what is ours in the namespace to go out by: links first, then the rules that held them.
    fn clear_outside(&mut self) -> Result<()> {
        let installation = self.fixed.installation.clone();
        self.known.rules.remove(Plan::OUTSIDE);
        self.cut(&installation)?;
        self.enter(Plan::OUTSIDE, |work| {
            let table = installation.table();
            if work.tables_that_switched_it_on()? == [table.clone()] {
                settings::set("ipv4/ip_forward", "0").map_err(Error::of("switch forwarding off again"))?;
            }
            work.firewall(Plan::OUTSIDE).remove(&table)
        })
    }

    /// Tables, of whichever installation, that keep the host from forwarding for others, because it did not before.
    fn tables_that_switched_it_on(&self) -> Result<Vec<String>> {
        let firewall = self.firewall(Plan::OUTSIDE);
        let mut found = Vec::new();
        for (family, table) in firewall.tables()? {
            if family != "inet" || !table.starts_with("bastide_") {
                continue;
            }
            let listing = firewall.list(&table)?;
            if listing.is_some_and(|listing| read_counters(&listing, &table).contains_key(NO_ROUTER)) {
                found.push(table);
            }
        }
        Ok(found)
    }
}

/// One pass over a plan.
struct Pass<'a> {
    work: &'a mut Work,
    plan: &'a Plan,
    /// Namespaces that are as planned so far.
    alive: BTreeSet<String>,
    /// When not all of them are meant.
    only: Option<BTreeSet<String>>,
    /// Namespaces in which something was set up.
    unsettled: BTreeSet<String>,
    report: Report,
}

impl<'a> Pass<'a> {
    fn new(work: &'a mut Work, plan: &'a Plan) -> Self {
        let (alive, unsettled) = (BTreeSet::new(), BTreeSet::new());
        Self { work, plan, alive, only: None, unsettled, report: Report::default() }
    }
}

impl Pass<'_> {
    fn run(&mut self) -> Result<()> {
        // Without it nothing could go out, and what was there would be taken for broken.
        self.work.open(Plan::OUTSIDE)?;
        if self.only.is_none() {
            self.remove_leftovers()?;
        }
        self.each(Self::exists);
        self.each(Self::has_its_rules);
        let seen = self.cable();
        self.each(|pass, name| pass.has_its_addresses(name, seen.get(name)));
        self.each(Self::forwards);
        self.each(|pass, name| match seen.get(name) {
            Some(seen) if pass.unsettled.contains(name) => {
                pass.work.talk(name, |netlink| repair::settle(netlink, &seen.links))
            }
            _ => Ok(()),
        });
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        let meant = |name: &&String| self.only.as_ref().is_none_or(|only| only.contains(*name));
        self.plan.namespaces.keys().filter(meant).cloned().collect()
    }

    /// One step for every namespace that has come this far.
    fn each(&mut self, mut step: impl FnMut(&mut Self, &str) -> Result<()>) {
        for name in self.names() {
            if self.report.failed.contains_key(&name) {
                continue;
            }
            match step(self, &name) {
                Ok(()) => drop(self.alive.insert(name)),
                Err(error) => self.give_up(&name, error),
            }
        }
    }

    /// Fail closed: what is not as planned is not there.
    fn give_up(&mut self, name: &str, error: Error) {
        self.alive.remove(name);
        self.report.made.remove(name);
        let taken_away = if name == Plan::OUTSIDE {
            let installation = self.work.fixed.installation.clone();
            self.work.cut(&installation)
        } else {
            self.work.destroy(name)
        };
        if let Err(error) = taken_away {
            tracing::error!(namespace = name, %error, "a broken namespace cannot be taken away");
        }
        self.report.failed.insert(name.to_owned(), error);
    }

    fn change(&mut self, namespace: &str, changes: impl IntoIterator<Item = String>) {
        if self.report.made.contains(namespace) {
            return;
        }
        self.report.changed.extend(changes.into_iter().map(|change| format!("{namespace}: {change}")));
    }

    fn remove_leftovers(&mut self) -> Result<()> {
        for name in namespace::all(&self.work.fixed.installation)? {
            if !self.plan.namespaces.contains_key(&name) {
                self.work.destroy(&name)?;
                self.report.removed.push(name);
            }
        }
        Ok(())
    }

    fn exists(&mut self, name: &str) -> Result<()> {
        if name == Plan::OUTSIDE {
            return Ok(());
        }
        if namespace::open(name)?.is_none() {
            namespace::remove(name)?;
            self.work.traveller.make(name)?;
            self.report.made.insert(name.to_owned());
        }
        let changed = self.work.enter(name, |_| {
            settings::ensure_everywhere().map_err(Error::of(format!("write settings of {name}")))
        })?;
        self.change(name, changed.into_iter().map(|setting| format!("setting {setting}")));
        Ok(())
    }

    fn has_its_rules(&mut self, name: &str) -> Result<()> {
        let planned = &self.plan.namespaces[name];
        let Some(rules) = &planned.rules else { return Ok(()) };
        let mut known = self.work.recall(name)?;
        let changed = self.work.enter(name, |work| work.firewall(name).ensure(rules, &mut known));
        self.work.remember(name, known)?;
        if changed? {
            self.change(name, ["rules".to_owned()]);
        }
        // Only now: some are not there before rules have brought the kernel's module for connections.
        let changed = self.work.enter(name, |_| {
            settings::ensure(&planned.settings).map_err(Error::of(format!("write settings of {name}")))
        })?;
        self.change(name, changed.into_iter().map(|setting| format!("setting {setting}")));
        Ok(())
    }

    /// Links as planned and no others; what is in each namespace then.
    fn cable(&mut self) -> BTreeMap<String, Seen> {
        let mut seen = BTreeMap::new();
        self.each(|pass, name| {
            let all = pass.work.talk(name, look::look)?;
            seen.insert(name.to_owned(), all);
            Ok(())
        });
        let mut touched = BTreeSet::new();
        self.each(|pass, name| pass.no_other_links(name, &seen[name], &mut touched));
        for link in &self.plan.links {
            let (near, far) = (&link.near.0, &link.far.0);
            if !self.alive.contains(near) || !self.alive.contains(far) || paired(&seen, link) {
                continue;
            }
            touched.extend([near.clone(), far.clone()]);
            if let Err(error) = self.pair(link) {
                // The one with fewer depending on it.
                let blamed = if far == Plan::OUTSIDE { near } else { far };
                self.give_up(blamed, error);
            }
        }
        self.each(|pass, name| {
            if touched.contains(name) {
                seen.insert(name.to_owned(), pass.work.talk(name, look::look)?);
            }
            Ok(())
        });
        seen
    }

    fn no_other_links(&mut self, name: &str, seen: &Seen, touched: &mut BTreeSet<String>) -> Result<()> {
        let installation = self.work.fixed.installation.clone();
        let planned: BTreeSet<&str> = self
            .plan
            .links
            .iter()
            .flat_map(|link| [&link.near, &link.far])
            .filter(|(namespace, _)| namespace == name)
            .map(|(_, link)| link.as_str())
            .collect();
        let other = |link: &str| match name {
            Plan::OUTSIDE => installation.owns_link(link) && !planned.contains(link),
            _ => link != "lo" && !planned.contains(link),
        };
        let others: Vec<_> = seen.links.iter().filter(|(link, _)| other(link)).collect();
        if others.is_empty() {
            return Ok(());
        }
        let gone = self.work.talk(name, |netlink| {
            let mut gone = Vec::new();
            for (link, found) in others {
                if repair::delete_link(netlink, found.index).is_ok() {
                    gone.push(format!("link {link} is gone"));
                } else if found.up {
                    // Some belong to every namespace and cannot be deleted, such as a tunnel module's.
                    repair::switch(netlink, found.index, false)?;
                    gone.push(format!("link {link} is down"));
                }
            }
            Ok(gone)
        })?;
        if !gone.is_empty() {
            touched.insert(name.to_owned());
            self.change(name, gone);
        }
        Ok(())
    }

    /// Makes a pair in place of whatever has the names of its ends.
    fn pair(&mut self, link: &bastide_isolation::Link) -> Result<()> {
        for (namespace, name) in [&link.near, &link.far] {
            self.work.talk(namespace, |netlink| match look::links(netlink)?.get(name) {
                Some(found) => repair::delete_link(netlink, found.index),
                None => Ok(()),
            })?;
        }
        let there = self.work.open(&link.far.0)?;
        let groups = [group(&link.near), group(&link.far)];
        self.work.talk(&link.near.0, |netlink| {
            repair::make_pair(netlink, &link.near.1, &link.far.1, there.as_fd(), groups)
        })?;
        for (namespace, name) in [&link.near, &link.far] {
            let prepare =
                |_: &mut Work| settings::prepare_link(name).map_err(Error::of(format!("set up {name}")));
            self.work.enter(namespace, prepare)?;
        }
        for (namespace, name) in [&link.near, &link.far] {
            self.change(namespace, [format!("link {name}")]);
        }
        Ok(())
    }

    fn has_its_addresses(&mut self, name: &str, seen: Option<&Seen>) -> Result<()> {
        let Some(seen) = seen else { return Ok(()) };
        // Ends whose other end's namespace failed are not there; nothing of theirs can be set up.
        let mut planned = self.plan.namespaces[name].clone();
        let there = |link: &str| link == "lo" || seen.links.contains_key(link);
        planned.addresses.retain(|(link, _)| there(link));
        planned.routes.retain(|route| there(&route.link));
        let installation = self.work.fixed.installation.clone();
        let only = (name == Plan::OUTSIDE).then_some(&installation);
        let changed = self.work.talk(name, |netlink| repair::tend(netlink, seen, &planned, only))?;
        if !changed.is_empty() {
            self.unsettled.insert(name.to_owned());
        }
        self.change(name, changed);
        Ok(())
    }

    fn forwards(&mut self, name: &str) -> Result<()> {
        let planned = &self.plan.namespaces[name];
        if name == Plan::OUTSIDE && planned.rules.is_none() {
            return Ok(());
        }
        let forwards = planned.forwards || name == Plan::OUTSIDE;
        let changed = self.work.talk(name, |netlink| {
            let mut changed = Vec::new();
            if settings::set("ipv4/ip_forward", if forwards { "1" } else { "0" })? {
                changed.push(format!("forwarding is {}", if forwards { "on" } else { "off" }));
                if name != Plan::OUTSIDE {
                    // The kernel changes others along with it.
                    settings::ensure_everywhere()?;
                }
            }
            if forwards && name != Plan::OUTSIDE {
                for (link, _) in look::links(netlink)?.iter().filter(|(_, link)| !link.forwards) {
                    settings::set(&format!("ipv4/conf/{link}/forwarding"), "1")?;
                    changed.push(format!("link {link} forwards"));
                }
            }
            Ok(changed)
        })?;
        self.change(name, changed);
        Ok(())
    }
}

/// In the namespace to go out by, only the gateways' links may be forwarded for.
fn group((namespace, link): &(String, String)) -> u32 {
    if namespace == Plan::OUTSIDE && !name::is_uplink(link) { 0 } else { LINK_GROUP }
}

/// Whether both ends are there and each other's.
fn paired(seen: &BTreeMap<String, Seen>, link: &bastide_isolation::Link) -> bool {
    let end = |(namespace, name): &(String, String)| seen.get(namespace)?.links.get(name);
    match (end(&link.near), end(&link.far)) {
        (Some(near), Some(far)) => {
            let whole =
                near.veth && far.veth && near.group == group(&link.near) && far.group == group(&link.far);
            whole && near.peer == Some(far.index) && far.peer == Some(near.index)
        }
        _ => false,
    }
}

fn lock_path(installation: &Installation) -> PathBuf {
    Path::new("/run").join(format!("bastide-{}.lock", installation.prefix()))
}

/// Waits until no other process is at work on this installation's networks.
fn lock(installation: &Installation) -> Result<File> {
    let path = lock_path(installation);
    let failed = || format!("lock {}", path.display());
    loop {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::of(failed()))?;
        file.lock().map_err(Error::of(failed()))?;
        // Whoever cleared everything took the file away while we waited.
        let number = |found: io::Result<fs::Metadata>| found.map(|found| found.st_ino()).ok();
        if number(file.metadata()) == number(fs::metadata(&path)) {
            return Ok(file);
        }
    }
}
