"""The child side of the sandbox. Run by path with `python -I`; it imports nothing of journeyman.

It takes away, in this order: output, memory, processor time, processes and files (resource limits), the
network (a network namespace of its own, or Landlock), and every path outside the scratch folder and the
Python installation (Landlock). Where bubblewrap has built these walls around it already, Landlock stands inside
them as a second one, if the kernel has it. Then it says through a pipe that foreign code is about to run, executes
the sources of the JSON document on standard input in one namespace, and writes the document's nonce to standard output:
a run that did not reach the very end of the last source does not know it.

Landlock: Linux kernel documentation, userspace-api/landlock; system calls 444 to 446.
"""

import ctypes
import json
import os
import resource
import stat
import struct
import sys

CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_MOST_HANDLES = 64
_READ_FILE, _READ_DIR, _EXECUTE = 1 << 2, 1 << 3, 1 << 0


def limit_resources(memory_bytes, cpu_s, file_bytes):
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, _MOST_HANDLES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def close_network(libc):
    """Namespaces of its own for network and processes: no interface is up, no other process can be signalled."""
    apart = CLONE_NEWPID | CLONE_NEWNET
    return libc.unshare(CLONE_NEWUSER | apart) == 0 or libc.unshare(apart) == 0


def become_first_process():
    """Forks into the new process namespace. When its first process ends, the kernel ends all the others."""
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            sys.stderr.write(f"killed by signal {os.WTERMSIG(status)} (memory, time or output limit)")
            sys.stderr.flush()
            os._exit(1)
        os._exit(os.WEXITSTATUS(status))


def close_files(libc, readable, writable):
    """Landlock: read below `readable`, anything below `writable`, nothing elsewhere, no TCP."""
    version = libc.syscall(444, None, 0, 1)
    if version < 1:
        return False
    all_files = (1 << {1: 13, 2: 14}.get(version, 15)) - 1
    network = 3 if version >= 4 else 0
    rules = (ctypes.c_uint64 * 2)(all_files, network)
    ruleset = libc.syscall(444, ctypes.byref(rules), 16 if version >= 4 else 8, 0)
    if ruleset < 0:
        return False
    for path, access in [(p, _READ_FILE | _READ_DIR | _EXECUTE) for p in readable] + [(writable, all_files)]:
        if not os.path.exists(path):
            continue
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = access if os.path.isdir(path) else access & (_READ_FILE | _EXECUTE)
        rule = ctypes.create_string_buffer(allowed.to_bytes(8, "little") + handle.to_bytes(4, "little"), 12)
        libc.syscall(445, ruleset, 1, rule, 0)
        os.close(handle)
    libc.prctl(38, 1, 0, 0, 0)
    return libc.syscall(446, ruleset, 0) == 0


SYSCALLS = {  # by machine: seccomp's name for it, clone, and those that are refused
    "x86_64": (0xC000003E, 56, {
        "fork": 57, "vfork": 58, "clone3": 435, "ptrace": 101, "pivot_root": 155, "chroot": 161, "mount": 165,
        "umount2": 166, "init_module": 175, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250,
        "unshare": 272, "perf_event_open": 298, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
        "finit_module": 313, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425,
    }),
    "aarch64": (0xC00000B7, 220, {
        "clone3": 435, "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "unshare": 97, "kexec_load": 104,
        "init_module": 105, "ptrace": 117, "add_key": 217, "request_key": 218, "keyctl": 219, "perf_event_open": 241,
        "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "finit_module": 273, "bpf": 280,
        "userfaultfd": 282, "io_uring_setup": 425,
    }),
}  # fmt: skip


def forbid_processes(libc):
    """seccomp: no new process (threads are free), none of the calls that reach deep into the kernel.

    Limits on processes do not bind root; this does. Linux kernel documentation, userspace-api/seccomp_filter.
    """
    if os.uname().machine not in SYSCALLS:
        return
    arch, clone, refused = SYSCALLS[os.uname().machine]
    load, equal, at_least, any_of, end = 0x20, 0x15, 0x35, 0x45, 0x06
    refuse, unknown, allow = 0x00050000 | 1, 0x00050000 | 38, 0x7FFF0000  # EPERM; ENOSYS, so libc takes clone
    lines = [(load, 0, 0, 4), (equal, 1, 0, arch), (end, 0, 0, refuse), (load, 0, 0, 0)]
    lines += [(at_least, 0, 1, 0x40000000), (end, 0, 0, refuse)]  # x86's second set of numbers
    for name, number in refused.items():
        lines += [(equal, 0, 1, number), (end, 0, 0, unknown if name == "clone3" else refuse)]
    lines += [(equal, 0, 3, clone), (load, 0, 0, 16), (any_of, 1, 0, 0x10000), (end, 0, 0, refuse), (end, 0, 0, allow)]
    code = b"".join(struct.pack("=HBBI", *line) for line in lines)
    kept = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(lines), ctypes.addressof(kept))
    libc.prctl(38, 1, 0, 0, 0)
    libc.prctl(22, 2, program, 0, 0)


def drop_capabilities(libc):
    """All of them: in a user namespace of its own the child would hold every one, and root holds the real ones."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3: two words of each set
    libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


def main():
    scratch = sys.argv[1]
    memory_bytes, cpu_s, ready = (int(given) for given in sys.argv[2:])
    job = json.load(sys.stdin)
    os.chdir(scratch)
    libc = ctypes.CDLL(None, use_errno=True)
    linux = sys.platform == "linux"
    network = job["walled"] or (linux and close_network(libc))
    readable = ["/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom", sys.prefix, sys.base_prefix]
    files = (linux and close_files(libc, readable, scratch)) or job["walled"]
    if not (network and files) and not job["unsafe"]:
        missing = [name for name, closed in (("network", network), ("files", files)) if not closed]
        sys.stderr.write("no sandbox: this kernel cannot close off " + " and ".join(missing))
        sys.exit(1)
    if not job["walled"]:
        become_first_process()  # the parent that waits keeps `ready` open; only a written byte counts
    drop_capabilities(libc)
    forbid_processes(libc)
    limit_resources(memory_bytes, cpu_s, 1 << 20)
    # Root is exempt from this limit; seccomp binds it.
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    # Bound before foreign code runs, which may put its own in their place.
    run, build, write, read, look, is_pipe = exec, compile, os.write, os.read, os.fstat, stat.S_ISFIFO
    flush = sys.stdout.flush
    sources, namespace = job.pop("sources"), {"__name__": "answer"}
    os.write(ready, b"1")
    os.close(ready)
    hide(job.pop("nonce"))
    for name, source in sources:
        run(build(source, name, "exec"), namespace)
    flush()  # what was printed comes before the proof
    for handle in range(3, _MOST_HANDLES):
        try:
            if is_pipe(look(handle).st_mode):
                write(1, read(handle, 64))
        except OSError:
            pass  # not open


def hide(nonce):
    """Into a pipe of a random number: no frame and no object that foreign code could look at holds it."""
    readable, writable = os.pipe()
    os.write(writable, nonce.encode())
    os.close(writable)
    place = 3 + int.from_bytes(os.urandom(4), "little") % (_MOST_HANDLES - 3)
    if place != readable:
        os.dup2(readable, place)
        os.close(readable)


if __name__ == "__main__":
    main()
