"""seccomp: no new processes or programs (threads are allowed), no sockets, no shared memory, no rare kernel interfaces.

Unlike limits on the number of processes, this also applies to root. Signals reach only the process that sends them.
Source: Linux kernel documentation, userspace-api/seccomp_filter. The numbers from 424 on are the same on every machine.
"""

import ctypes
import os
import struct

EVERYWHERE = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_open": 434, "clone3": 435,
    "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443, "memfd_secret": 447,
    "process_mrelease": 448,
}  # fmt: skip
MACHINES = {  # by machine: seccomp's architecture, numbers of clone, socketpair, kill, tgkill, and of refused calls
    "x86_64": (0xC000003E, 56, 53, 62, 234, {
        "shmget": 29, "shmat": 30, "shmctl": 31, "socket": 41, "fork": 57, "vfork": 58, "execve": 59, "semget": 64,
        "semop": 65, "semctl": 66, "msgget": 68, "msgsnd": 69, "msgrcv": 70, "msgctl": 71, "ptrace": 101,
        "rt_sigqueueinfo": 129, "personality": 135, "pivot_root": 155, "chroot": 161, "mount": 165, "umount2": 166,
        "init_module": 175, "quotactl": 179, "tkill": 200, "kexec_load": 246, "mq_open": 240, "mq_unlink": 241,
        "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "rt_tgsigqueueinfo": 297,
        "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308,
        "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "memfd_create": 319,
        "kexec_file_load": 320, "bpf": 321, "execveat": 322, "userfaultfd": 323,
    }),
    "aarch64": (0xC00000B7, 220, 199, 129, 131, {
        "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "quotactl": 60, "personality": 92, "unshare": 97,
        "kexec_load": 104, "init_module": 105, "ptrace": 117, "tkill": 130, "rt_sigqueueinfo": 138, "mq_open": 180,
        "mq_unlink": 181, "msgget": 186, "msgctl": 187, "msgrcv": 188, "msgsnd": 189, "semget": 190, "semctl": 191,
        "semop": 193, "shmget": 194, "shmctl": 195, "shmat": 196, "socket": 198, "add_key": 217, "request_key": 218,
        "keyctl": 219, "execve": 221, "rt_tgsigqueueinfo": 240, "perf_event_open": 241, "fanotify_init": 262,
        "name_to_handle_at": 264, "open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270,
        "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "memfd_create": 279, "bpf": 280, "execveat": 281,
        "userfaultfd": 282, "kexec_file_load": 294,
    }),
}  # fmt: skip
LOAD, EQUAL, AT_LEAST, ANY_OF, END = 0x20, 0x15, 0x35, 0x45, 0x06
REFUSE, UNKNOWN, ALLOW = 0x00050000 | 1, 0x00050000 | 38, 0x7FFF0000  # EPERM; ENOSYS, so that libc takes clone
FIRST_ARGUMENT = 16
AF_UNIX, CLONE_THREAD = 1, 0x10000


def forbid():
    """Installs the filter for this process, irrevocably."""
    arch, clone, socketpair, kill, tgkill, refused = MACHINES[os.uname().machine]
    lines = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, arch), (END, 0, 0, REFUSE), (LOAD, 0, 0, 0)]
    lines += [(AT_LEAST, 0, 1, 0x40000000), (END, 0, 0, REFUSE)]  # x86's second set of numbers
    for name, number in {**refused, **EVERYWHERE}.items():
        lines += [(EQUAL, 0, 1, number), (END, 0, 0, UNKNOWN if name == "clone3" else REFUSE)]
    for number, test, argument in (
        (clone, ANY_OF, CLONE_THREAD),
        (socketpair, EQUAL, AF_UNIX),
        (kill, EQUAL, os.getpid()),
        (tgkill, EQUAL, os.getpid()),
    ):
        lines += [(EQUAL, 0, 4, number), (LOAD, 0, 0, FIRST_ARGUMENT), (test, 1, 0, argument), (END, 0, 0, REFUSE)]
        lines += [(END, 0, 0, ALLOW)]
    lines += [(END, 0, 0, ALLOW)]
    code = b"".join(struct.pack("=HBBI", *line) for line in lines)
    kept = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(lines), ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
        os._exit(1)
