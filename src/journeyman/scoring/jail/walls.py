"""Walls that the child builds itself: namespaces, its own root file system, Landlock.

The root is a small file system in memory with the system's libraries and Python, read-only, and a writable scratch
folder of limited size. The child has its own network, processes, shared memory and host name. Root becomes another
user. If a wall cannot be built, the child exits before it loads foreign code, and the check is unscored.

Sources: Linux manual pages unshare(2), pivot_root(2), mount_setattr(2), landlock(7), capabilities(7).
"""

import ctypes
import os
import signal
import sys

NEW_MOUNTS, NEW_NAMES, NEW_IPC, NEW_USER, NEW_PIDS, NEW_NETWORK = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
APART = NEW_MOUNTS | NEW_NAMES | NEW_IPC | NEW_PIDS | NEW_NETWORK
BIND, RECURSIVE, PRIVATE, DETACH = 1 << 12, 1 << 14, 1 << 18, 2
NOBODY = 65534
SCRATCH_BYTES, SCRATCH_FILES = 32 << 20, 4096
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
READ_FILE, READ_FOLDER, EXECUTE, WRITE_FILE = 1 << 2, 1 << 3, 1 << 0, 1 << 1
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
MOUNT_SETATTR = 442

libc = ctypes.CDLL(None, use_errno=True)


def readable():
    """The files and folders that an interpreter needs to read."""
    here = os.path.dirname(os.path.abspath(__file__))
    return dict.fromkeys(["/usr", "/lib", "/lib64", "/etc/ld.so.cache", sys.base_prefix, sys.prefix, here])


def must(result, what):
    """Exits if a wall cannot be built."""
    if result < 0:
        sys.stderr.write(f"no sandbox: {what}: {os.strerror(ctypes.get_errno())}\n")
        sys.stderr.flush()
        os._exit(1)
    return result


def build(scratch, report):
    """Continues in the first process of new namespaces; the process outside waits for it and dies with the parent."""
    known_machine()
    die_with_parent()
    root = os.geteuid() == 0 and libc.unshare(APART) == 0
    if not root:
        user, group = os.geteuid(), os.getegid()
        must(libc.unshare(NEW_USER | APART), "namespaces of its own")
        map_ids(user, group)
    inner = os.fork()
    if inner:
        os.write(report, b'{"child-pid": %d}\n' % inner)
        os.close(report)
        os.waitpid(inner, 0)
        os._exit(0)
    die_with_parent()
    own_root(scratch)
    if root:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        die_with_parent()  # again, because the kernel clears this setting when the user changes
    close_files(scratch)


def known_machine():
    if sys.platform != "linux" or os.uname().machine not in PIVOT_ROOT:
        sys.stderr.write(f"no sandbox: this system ({sys.platform}, {os.uname().machine}) is not known\n")
        sys.stderr.flush()
        os._exit(1)


def die_with_parent():
    must(libc.prctl(1, signal.SIGKILL, 0, 0, 0), "a death signal")


def map_ids(user, group):
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def mount(source, target, kind, flags, options=None):
    given = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    must(libc.mount(*given[:3], ctypes.c_ulong(flags), given[3]), f"mounting {target}")


def read_only(path, recursive=True):
    """No writing, no set-user-ID programs, no devices; by default also for everything mounted below it."""
    wanted = (ctypes.c_uint64 * 4)(1 | 2 | 4, 0, 0, 0)
    flags = 0x8000 if recursive else 0
    must(
        libc.syscall(MOUNT_SETATTR, -100, os.fsencode(path), flags, ctypes.byref(wanted), 32),
        f"a read-only {path}",
    )


def own_root(scratch):
    """Builds and enters the new root. Links such as /lib are recreated as links; their targets are mounted in place."""
    new = "/proc"  # a folder that always exists and contains nothing that is mounted here
    mount(None, "/", None, RECURSIVE | PRIVATE)
    mount("tmpfs", new, "tmpfs", 2 | 4, "size=1m,nr_inodes=512,mode=0755")
    for path in readable():
        if os.path.islink(path) and not os.path.lexists(new + path):
            os.makedirs(os.path.dirname(new + path), exist_ok=True)
            os.symlink(os.readlink(path), new + path)
        elif os.path.exists(path) and not os.path.lexists(new + path):
            place(path, new + path)
            read_only(new + path)
    for path in DEVICES:
        place(path, new + path)
    os.makedirs(new + scratch)
    mount("tmpfs", new + scratch, "tmpfs", 2 | 4, f"size={SCRATCH_BYTES},nr_inodes={SCRATCH_FILES},mode=0777")
    os.chdir(new)
    must(libc.syscall(PIVOT_ROOT[os.uname().machine], b".", b"."), "a root of its own")
    must(libc.umount2(b".", DETACH), "letting go of the old root")
    os.chdir("/")
    read_only("/", recursive=False)


def place(source, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, target, None, BIND | RECURSIVE)


def close_files(scratch):
    """Landlock, a second wall if the kernel has it: read access to readable(), full access to `scratch`, no TCP."""
    version = libc.syscall(444, None, 0, 1)
    if version < 1:
        return
    all_files = (1 << {1: 13, 2: 14}.get(version, 15)) - 1
    network = 3 if version >= 4 else 0
    rules = (ctypes.c_uint64 * 2)(all_files, network)
    ruleset = libc.syscall(444, ctypes.byref(rules), 16 if version >= 4 else 8, 0)
    if ruleset < 0:
        return
    reading, using = READ_FILE | READ_FOLDER | EXECUTE, READ_FILE | WRITE_FILE
    allowed = [*((path, reading) for path in readable()), *((path, using) for path in DEVICES), (scratch, all_files)]
    for path, access in allowed:
        if os.path.exists(path):
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            kept = access if os.path.isdir(path) else access & (READ_FILE | EXECUTE | WRITE_FILE)
            rule = ctypes.create_string_buffer(kept.to_bytes(8, "little") + handle.to_bytes(4, "little"), 12)
            libc.syscall(445, ruleset, 1, rule, 0)
            os.close(handle)
    libc.prctl(38, 1, 0, 0, 0)
    libc.syscall(446, ruleset, 0)


def drop_capabilities():
    """Drops all capabilities: in its own user namespace, the child would have every one."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3: two words for each set
    must(libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)())), "giving up capabilities")
    must(libc.prctl(4, 0, 0, 0, 0), "being closed to other processes")  # not dumpable: no ptrace, no pidfd_getfd
