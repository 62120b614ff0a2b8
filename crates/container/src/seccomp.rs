//! Which system calls an app may use. What is not named fails with ENOSYS, as on a kernel that does not
//! have it, so that libraries take their fallback; what is dangerous by name fails with EPERM.
//!
//! Compiled in Rust to two BPF programs (for the library engine) and written as an OCI profile (for runc)
//! from the same tables.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

type Call = (&'static str, i64);

macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name as i64)),*] };
}

/// What apps may do freely.
#[rustfmt::skip]
const ALLOWED: &[Call] = calls![
    // Files, which the mount flags and the user bound.
    SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64 SYS_preadv SYS_pwritev SYS_preadv2
    SYS_pwritev2 SYS_openat SYS_openat2 SYS_close SYS_close_range SYS_lseek SYS_fstat SYS_newfstatat SYS_statx
    SYS_statfs SYS_fstatfs SYS_faccessat SYS_faccessat2 SYS_readlinkat SYS_getdents64 SYS_getcwd SYS_chdir
    SYS_fchdir SYS_mkdirat SYS_unlinkat SYS_renameat2 SYS_linkat SYS_symlinkat SYS_fchmod SYS_fchmodat
    SYS_fchown SYS_fchownat SYS_utimensat SYS_truncate SYS_ftruncate SYS_fallocate SYS_fsync SYS_fdatasync
    SYS_sync SYS_syncfs SYS_sync_file_range SYS_fadvise64 SYS_readahead SYS_flock SYS_fcntl SYS_dup SYS_dup3
    SYS_pipe2 SYS_sendfile SYS_splice SYS_tee SYS_vmsplice SYS_copy_file_range SYS_umask SYS_memfd_create
    SYS_getxattr SYS_lgetxattr SYS_fgetxattr SYS_listxattr SYS_llistxattr SYS_flistxattr SYS_setxattr
    SYS_lsetxattr SYS_fsetxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr
    SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch
    SYS_io_setup SYS_io_destroy SYS_io_submit SYS_io_cancel SYS_io_getevents
    // Waiting.
    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_ppoll SYS_pselect6 SYS_eventfd2
    SYS_signalfd4 SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime SYS_nanosleep
    SYS_clock_nanosleep SYS_futex SYS_futex_waitv SYS_get_robust_list SYS_set_robust_list SYS_restart_syscall
    SYS_membarrier SYS_rseq
    // Time.
    SYS_clock_gettime SYS_clock_getres SYS_gettimeofday SYS_times SYS_getitimer SYS_setitimer SYS_timer_create
    SYS_timer_settime SYS_timer_gettime SYS_timer_getoverrun SYS_timer_delete
    // Memory.
    SYS_brk SYS_mmap SYS_munmap SYS_mremap SYS_mprotect SYS_madvise SYS_mincore SYS_msync SYS_mlock SYS_mlock2
    SYS_munlock SYS_mlockall SYS_munlockall SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_get_mempolicy
    SYS_process_madvise SYS_shmget SYS_shmat SYS_shmctl SYS_shmdt SYS_semget SYS_semop SYS_semctl
    SYS_semtimedop SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl
    // Sockets; which families is a rule below.
    SYS_socketpair SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect SYS_getsockname SYS_getpeername
    SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg SYS_setsockopt SYS_getsockopt
    SYS_shutdown
    // Processes, threads, signals; which flags of clone is a rule below.
    SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_wait4 SYS_waitid SYS_kill SYS_tkill SYS_tgkill
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigpending SYS_rt_sigreturn SYS_rt_sigsuspend
    SYS_rt_sigtimedwait SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_sigaltstack SYS_pidfd_open
    SYS_pidfd_send_signal SYS_getpid SYS_getppid SYS_gettid SYS_getpgid SYS_setpgid SYS_getsid SYS_setsid
    SYS_set_tid_address SYS_prctl SYS_seccomp
    SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self
    // Who and how much.
    SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups SYS_setuid
    SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setfsuid SYS_setfsgid SYS_setgroups
    SYS_capget SYS_capset SYS_getrlimit SYS_setrlimit SYS_prlimit64 SYS_getrusage SYS_getpriority
    SYS_setpriority SYS_sysinfo SYS_uname SYS_getrandom SYS_getcpu SYS_sched_yield SYS_sched_getaffinity
    SYS_sched_setaffinity SYS_sched_getparam SYS_sched_getscheduler SYS_sched_setscheduler
    SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_getattr SYS_ioprio_get
];

/// Older forms of the same that only this architecture has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[Call] = calls![
    SYS_open SYS_creat SYS_stat SYS_lstat SYS_access SYS_readlink SYS_getdents SYS_mkdir SYS_rmdir SYS_unlink
    SYS_rename SYS_renameat SYS_link SYS_symlink SYS_chmod SYS_chown SYS_lchown SYS_utime SYS_utimes
    SYS_futimesat SYS_dup2 SYS_pipe SYS_poll SYS_select SYS_epoll_create SYS_epoll_wait SYS_eventfd
    SYS_signalfd SYS_inotify_init SYS_time SYS_alarm SYS_pause SYS_fork SYS_vfork SYS_getpgrp SYS_arch_prctl
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[Call] = calls![SYS_renameat];

/// What nobody in a container needs and what ways out were made of.
#[rustfmt::skip]
const FORBIDDEN: &[Call] = calls![
    SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsconfig
    SYS_fsmount SYS_fspick SYS_mount_setattr SYS_unshare SYS_setns SYS_mknodat SYS_name_to_handle_at
    SYS_open_by_handle_at SYS_fanotify_init SYS_quotactl SYS_swapon SYS_swapoff SYS_acct
    SYS_bpf SYS_perf_event_open SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_kcmp SYS_pidfd_getfd
    SYS_userfaultfd SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register SYS_add_key SYS_keyctl
    SYS_request_key SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_reboot
    SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_adjtimex SYS_sethostname SYS_setdomainname
    SYS_syslog SYS_vhangup SYS_set_mempolicy SYS_mbind SYS_migrate_pages SYS_move_pages
];
#[cfg(target_arch = "x86_64")]
const FORBIDDEN_HERE: &[Call] =
    calls![SYS_mknod SYS_iopl SYS_ioperm SYS_modify_ldt SYS_kexec_file_load SYS_uselib SYS_ustat];
#[cfg(not(target_arch = "x86_64"))]
const FORBIDDEN_HERE: &[Call] = calls![];

/// Flags of `clone` that would make namespaces: mount, cgroup, uts, ipc, user, pid, net.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// Unix, IPv4, IPv6 and the routing socket that name resolution asks for addresses. Not vsock, which no
/// network namespace holds back, nor packet sockets or the kernel's crypto.
const FAMILIES: [u64; 4] = [1, 2, 10, 16];
/// Terminal requests that type into another's terminal.
const TYPE_INTO_TERMINAL: [u64; 2] = [0x5412, 0x541c];
/// Linux, and the question which one is set.
const PERSONALITIES: [u64; 2] = [0, 0xffff_ffff];

/// The two filters, in the order in which they must be installed.
#[derive(Debug, Clone)]
pub struct Filters(Vec<BpfProgram>);

impl Filters {
    /// Compiles them; some milliseconds.
    ///
    /// # Errors
    /// The compiler's, which would be a fault in the tables above.
    pub fn compile() -> Result<Self, seccompiler::Error> {
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        let mut allowed: BTreeMap<i64, Vec<SeccompRule>> =
            ALLOWED.iter().chain(ALLOWED_HERE).map(|(_, number)| (*number, Vec::new())).collect();
        let number = |value: i64| value;
        let clone = condition(0, SeccompCmpOp::MaskedEq(NEW_NAMESPACES), 0)?;
        allowed.insert(number(libc::SYS_clone), vec![SeccompRule::new(vec![clone])?]);
        allowed.insert(number(libc::SYS_socket), one_of(0, &FAMILIES)?);
        allowed.insert(number(libc::SYS_personality), one_of(0, &PERSONALITIES)?);
        let [sti, linux] = TYPE_INTO_TERMINAL;
        let ioctl = vec![condition(1, SeccompCmpOp::Ne, sti)?, condition(1, SeccompCmpOp::Ne, linux)?];
        allowed.insert(number(libc::SYS_ioctl), vec![SeccompRule::new(ioctl)?]);

        let mut forbidden: BTreeMap<i64, Vec<SeccompRule>> =
            FORBIDDEN.iter().chain(FORBIDDEN_HERE).map(|(_, number)| (*number, Vec::new())).collect();
        let flags = (0..64).map(|bit| 1u64 << bit).filter(|flag| NEW_NAMESPACES & flag != 0);
        let clones =
            flags.map(|flag| Ok(SeccompRule::new(vec![condition(0, SeccompCmpOp::MaskedEq(flag), flag)?])?));
        forbidden.insert(number(libc::SYS_clone), clones.collect::<Result<_, seccompiler::Error>>()?);

        let errno = |code: i32| SeccompAction::Errno(code.cast_unsigned());
        let allow = SeccompFilter::new(allowed, errno(libc::ENOSYS), SeccompAction::Allow, arch)?;
        let forbid = SeccompFilter::new(forbidden, SeccompAction::Allow, errno(libc::EPERM), arch)?;
        // Of two refusals the kernel takes that of the filter that came last.
        Ok(Self(vec![allow.try_into()?, forbid.try_into()?]))
    }

    /// Installs them for the calling thread and all that it starts, for ever; sets no-new-privileges.
    ///
    /// # Errors
    /// The kernel's.
    pub fn install(&self) -> Result<(), seccompiler::Error> {
        self.0.iter().try_for_each(|filter| seccompiler::apply_filter(filter))
    }
}

fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::Error> {
    // The kernel reads these arguments as 32 bits; clone's flags as 64.
    let width = if matches!(op, SeccompCmpOp::MaskedEq(_)) {
        SeccompCmpArgLen::Qword
    } else {
        SeccompCmpArgLen::Dword
    };
    Ok(SeccompCondition::new(argument, width, op, value)?)
}

fn one_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, seccompiler::Error> {
    values
        .iter()
        .map(|value| Ok(SeccompRule::new(vec![condition(argument, SeccompCmpOp::Eq, *value)?])?))
        .collect()
}

/// The same as an OCI profile.
pub(crate) fn profile() -> Value {
    let names = |tables: [&'static [Call]; 2]| -> Vec<&str> {
        tables.concat().iter().map(|(name, _)| name.trim_start_matches("SYS_")).collect()
    };
    let allow =
        |name: &str, args: Value| json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": args });
    let equal = |value: u64| json!([{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }]);
    let mut calls = vec![
        json!({ "names": names([ALLOWED, ALLOWED_HERE]), "action": "SCMP_ACT_ALLOW" }),
        json!({ "names": names([FORBIDDEN, FORBIDDEN_HERE]), "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EPERM }),
        allow(
            "clone",
            json!([{ "index": 0, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }]),
        ),
        allow(
            "ioctl",
            TYPE_INTO_TERMINAL
                .iter()
                .map(|value| json!({ "index": 1, "value": value, "op": "SCMP_CMP_NE" }))
                .collect(),
        ),
    ];
    calls.extend(FAMILIES.iter().map(|family| allow("socket", equal(*family))));
    calls.extend(PERSONALITIES.iter().map(|which| allow("personality", equal(*which))));
    let arch = if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::ENOSYS,
        "architectures": [arch],
        "syscalls": calls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_call_is_both_allowed_and_forbidden() {
        let numbers = |table: [&'static [Call]; 2]| -> BTreeSet<i64> {
            table.concat().iter().map(|(_, number)| *number).collect()
        };
        let allowed = numbers([ALLOWED, ALLOWED_HERE]);
        assert!(allowed.is_disjoint(&numbers([FORBIDDEN, FORBIDDEN_HERE])));
        // clone3 hides its flags behind a pointer: nobody can judge it, so libraries must use clone.
        for hidden in [libc::SYS_clone3, libc::SYS_clone, libc::SYS_socket, libc::SYS_ioctl] {
            assert!(!allowed.contains(&hidden));
        }
    }

    #[test]
    fn the_tables_compile_to_filters_that_the_kernel_takes() {
        let filters = Filters::compile().unwrap();
        assert_eq!(filters.0.len(), 2);
        // 4096 instructions are the kernel's limit for one filter.
        assert!(filters.0.iter().all(|filter| filter.len() < 4096));
        // On a thread of its own: filters cannot be taken off again.
        let forbidden = std::thread::spawn(move || {
            filters.install().unwrap();
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).unwrap_err()
        });
        assert_eq!(forbidden.join().unwrap(), nix::errno::Errno::EPERM);
    }
}
