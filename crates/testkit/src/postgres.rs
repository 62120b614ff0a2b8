//! A PostgreSQL server of a test: Debian's programs, a fresh data directory, a port on loopback; gone with the
//! value. The server refuses to run as root, so under root it runs as nobody.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// Role that may do everything.
pub const ADMIN: &str = "admin";
/// Its password.
pub const ADMIN_PASSWORD: &str = "admin-password";

/// Only a start that fails waits this long.
const PATIENCE: Duration = Duration::from_mins(1);
const NOBODY: u32 = 65_534;

/// A running server.
pub struct Postgres {
    programs: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Postgres {
    /// Starts a server where passwords are asked for on every way. `settings` look like `log_statement=all`;
    /// `rules` come before the other lines of its `pg_hba.conf`.
    ///
    /// # Panics
    /// When PostgreSQL is not installed (`./test` does it) or does not start.
    pub fn start(settings: &[&str], rules: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Self {
            programs: programs(),
            dir,
            port: 0,
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            child: None,
        };
        give(server.dir.path());
        let password = server.file("password", ADMIN_PASSWORD);
        let made = server
            .program("initdb")
            .args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"])
            .args(["--username", ADMIN, "--pwfile"])
            .arg(password)
            .arg("--pgdata")
            .arg(server.data())
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let hba = server.data().join("pg_hba.conf");
        let others = fs::read_to_string(&hba).expect("pg_hba.conf");
        fs::write(&hba, format!("{}\n{others}", rules.join("\n"))).expect("pg_hba.conf");
        let mut server = server;
        server.resume();
        server
    }

    /// Writes a file that the server can read and nobody else.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
        give(&path);
        path
    }

    /// Starts it again, on the port that it had.
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&mut self) {
        // Another may take a port that was free a moment ago; then the next is tried.
        for _try in 0..5 {
            let port = if self.port == 0 { crate::free_port() } else { self.port };
            if self.launch(port) {
                self.port = port;
                return;
            }
        }
        panic!("PostgreSQL does not start: {}", fs::read_to_string(self.log()).unwrap_or_default());
    }

    /// Stops it at once.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // SIGQUIT: no waiting for clients.
        let _ = Command::new("kill").args(["-QUIT", &child.id().to_string()]).status();
        let begun = Instant::now();
        while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Address for the administrator.
    pub fn admin_url(&self) -> String {
        format!("postgres://{ADMIN}:{ADMIN_PASSWORD}@127.0.0.1:{}/postgres", self.port)
    }

    /// What it logged.
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Runs SQL as the administrator; what it answers, one row a line.
    ///
    /// # Panics
    /// When it fails.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let output = psql("127.0.0.1", self.port, ADMIN, ADMIN_PASSWORD, database, sql).output();
        let output = output.expect("psql runs");
        assert!(output.status.success(), "{sql}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Waits until a query has this answer.
    ///
    /// # Panics
    /// When it never has.
    pub fn until(&self, sql: &str, answer: &str) {
        let begun = Instant::now();
        loop {
            let found = self.sql("postgres", sql);
            if found == answer {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{sql}: {found}, never {answer}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn launch(&mut self, port: u16) -> bool {
        let log = fs::File::create(self.log()).expect("a log");
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &port.to_string()]);
        let sockets = format!("unix_socket_directories={}", self.dir.path().display());
        let small = ["listen_addresses=127.0.0.1", "fsync=off", "shared_buffers=16MB", "max_connections=40"];
        for setting in
            small.into_iter().chain([sockets.as_str()]).chain(self.settings.iter().map(String::as_str))
        {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let mut child = command.spawn().expect("postgres runs");
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && matches!(child.try_wait(), Ok(None)) {
            let asked =
                self.program("pg_isready").args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]).status();
            // Its own port file says that it is this server that answers.
            let own = fs::read_to_string(self.data().join("postmaster.pid"));
            let ours = own.is_ok_and(|text| text.lines().next() == Some(child.id().to_string().as_str()));
            if ours && asked.is_ok_and(|status| status.success()) {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    /// A program of the server, as the user that it runs as, ending with this thread.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT", "--"]).arg(self.programs.join(name));
        command.current_dir(self.dir.path());
        if is_root() {
            // The file mode of a new process is that of its user from the start.
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

/// A database of a test's own, gone with the value. It is on a server that all tests of this process share and that ends
/// with the process, however that ends.
pub struct Shared {
    server: &'static Postgres,
    name: String,
}

/// Role that owns such databases, and is bound by row-level security.
const OWNER: &str = "bastide";

/// Makes one.
///
/// # Panics
/// As [`Postgres::start`].
pub fn shared() -> Shared {
    static SERVER: OnceLock<(Postgres, Child)> = OnceLock::new();
    static MADE: AtomicU32 = AtomicU32::new(0);
    let (server, _) = SERVER.get_or_init(|| {
        // The server ends with the thread that starts it; this one ends with the process.
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let settings = ["max_connections=300", "full_page_writes=off"];
            drop(tell.send(Postgres::start(&settings, &[])));
            loop {
                std::thread::park();
            }
        });
        let server = told.recv().expect("a server");
        server.sql("postgres", &format!("CREATE ROLE {OWNER} LOGIN PASSWORD '{OWNER}'"));
        let cleaner = server.cleaned_up_after_us();
        (server, cleaner)
    });
    let name = format!("test_{}", MADE.fetch_add(1, Ordering::Relaxed));
    server.sql("postgres", &format!("CREATE DATABASE {name} OWNER {OWNER} TEMPLATE template0"));
    Shared { server, name }
}

impl Shared {
    /// Address for its owner.
    pub fn url(&self) -> String {
        self.url_as(OWNER, OWNER)
    }

    /// Address for the administrator, whom no row-level security binds.
    pub fn admin_url(&self) -> String {
        self.url_as(ADMIN, ADMIN_PASSWORD)
    }

    /// Ends every connection of its users, in the middle of whatever they do; says how many there were.
    pub fn cut(&self) -> usize {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND usename != current_user";
        self.server.sql(&self.name, end).trim().parse().expect("a count")
    }

    /// Runs SQL as the administrator; what it answers, one row a line.
    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql)
    }

    fn url_as(&self, user: &str, password: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{}", self.server.port, self.name)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        let _ = psql("127.0.0.1", self.server.port, ADMIN, ADMIN_PASSWORD, "postgres", &drop).output();
    }
}

impl Postgres {
    /// A process that waits for the end of this one, which runs no destructors of statics, and then tidies up.
    fn cleaned_up_after_us(&self) -> Child {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        let mut command = Command::new("sh");
        command.args(["-c", r#"cat; kill -QUIT "$1"; while kill -0 "$1"; do sleep 0.1; done; rm -rf "$0""#]);
        command.arg(self.dir.path()).arg(id).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("sh runs")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A client: `psql` that runs SQL and shows rows one a line. It asks for TLS and goes on without.
pub fn psql(host: &str, port: u16, user: &str, password: &str, database: &str, sql: &str) -> Command {
    let mut command = Command::new(programs().join("psql"));
    command.args(["-X", "-A", "-t", "-q", "-h", host, "-p", &port.to_string(), "-U", user, "-d", database]);
    command.env("PGPASSWORD", password).env("PGCONNECT_TIMEOUT", "30").arg("-c").arg(sql);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Puts the client `psql` with all that it needs into the directory of an app; its path there.
///
/// # Panics
/// When something cannot be copied.
pub fn put_psql(app: &Path) -> String {
    let psql = programs().join("psql");
    let needs = Command::new("ldd").arg(&psql).output().expect("ldd runs");
    let needs = String::from_utf8_lossy(&needs.stdout).into_owned();
    let libraries = needs.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    for file in libraries.chain([psql.clone()]) {
        let to = app.join(file.strip_prefix("/").expect("a whole path"));
        fs::create_dir_all(to.parent().expect("it has a directory")).expect("a directory");
        fs::copy(&file, &to).expect("a copy");
    }
    psql.display().to_string()
}

/// A certificate for this name that vouches for itself, and its key, both PEM.
///
/// # Panics
/// When there is no randomness.
pub fn certificate(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Everything that a program said, for messages.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Where Debian keeps the newest server.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok()).max();
    let newest = newest.expect("PostgreSQL is installed: ./test does it, or apt-get install postgresql");
    PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
}

/// Gives a file to the user that the server runs as.
fn give(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("root may give files away");
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
