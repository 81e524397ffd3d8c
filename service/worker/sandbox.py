"""The confinement of a render process: what is left to code that a hostile image has made it run.

Decoders are large programs in C that read strangers' bytes. Should one of them be taken over, it finds no secret in its environment, may
read libraries and fonts and the files it was handed, write nothing, reach no network, start no program and touch no other process:
by Landlock (landlock(7)) for files, by a seccomp filter (seccomp(2)) for system calls. What the kernel does not have is left out, and
reported.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from service.rendering.protocol import Sandbox

# Shared libraries that are loaded on demand (plug-ins of libvips, encodings of iconv); fonts, their configuration and its cache as Linux
# distributions have them; randomness. Files that do not exist are left out.
_SYSTEM_PATHS = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"),
    *("/etc/fonts", "/usr/share/fontconfig", "/usr/share/fonts", "/usr/local/share/fonts", "/var/cache/fontconfig"),
    "/dev/urandom",
)

# prctl(2).
_PR_GET_NO_NEW_PRIVS, _PR_SET_NO_NEW_PRIVS = 39, 38

# landlock(7): numbers of system calls, the same on every architecture, and linux/landlock.h.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# ABI → the bits of the rights over files that it knows: moving to other folders came with 2, truncating with 3, ioctl on devices with 5.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
_BIND_AND_CONNECT_TCP = 0b11
_NET_ABI = 4
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
_SCOPE_ABI = 6

# seccomp(2) and linux/audit.h: the number of the call itself, and how the kernel names the architecture.
_SECCOMP_SET_MODE_FILTER, _SECCOMP_GET_ACTION_AVAIL = 1, 2
_FILTER_FLAG_TSYNC = 1
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_REFUSE, _NOT_THERE = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS

# bpf(4), classic: load a word, jump if equal, if not less, if any bit is set; return. And where things lie in `struct seccomp_data`.
_LOAD, _IF_EQUAL, _IF_NOT_LESS, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16

# A call with this bit is one of x32, on x86-64 (seccomp(2), Caveats).
_X32_BIT = 0x40000000
_CLONE_THREAD = 0x10000


class _Architecture(NamedTuple):
    """How the kernel names an architecture, which column of `_REFUSED` is its own, and the calls that are looked at more closely."""

    audit: int
    column: int
    seccomp: int
    clone: int
    tgkill: int
    prlimit64: int


_ARCHITECTURES = {
    "x86_64": _Architecture(0xC000003E, 0, seccomp=317, clone=56, tgkill=234, prlimit64=302),
    "aarch64": _Architecture(0xC00000B7, 1, seccomp=277, clone=220, tgkill=131, prlimit64=261),
}
_CLONE3 = 435

# System calls that are refused → their numbers on x86-64 and arm64 (asm/unistd_64.h, asm-generic/unistd.h), `None` where there is none.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # Sockets: it has the one that it was started with.
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # Programs and processes; `clone` below.
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # Other processes of the same user: their memory, their descriptors, signals, priorities; `tgkill` and `prlimit64` below.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kcmp": (312, 272),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # Changes to files that Landlock does not know as rights: modes, owners, times, attributes.
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    # Ways around paths and to other views of the file system, should the server be root.
    "open_by_handle_at": (304, 265),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "setns": (308, 268),
    "unshare": (272, 97),
    # Large interfaces of the kernel in which faults are found again and again, and which no decoder needs.
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "fanotify_init": (300, 262),
    "memfd_secret": (447, 447),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    # The machine itself, should the server be root.
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "iopl": (172, None),
    "ioperm": (173, None),
    "vhangup": (153, 58),
}

_libc = ctypes.CDLL(None, use_errno=True)


def supported() -> Sandbox:
    """Return what the running kernel, and the container around this process, have for a confinement. Nothing is put in force."""
    action = ctypes.c_uint32(_REFUSE & 0xFFFF0000)
    architecture = _ARCHITECTURES.get(platform.machine())
    return Sandbox(
        landlock=max(0, _call(_LANDLOCK_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)),
        seccomp=architecture is not None and _call(architecture.seccomp, _SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0,
        no_new_privs=_libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) >= 0,
    )


def readable_paths(*module_folders: Path) -> list[Path]:
    """Return the files and folders that a render process may read: those of the system, Python's own modules, and `module_folders`."""
    candidates = (*map(Path, _SYSTEM_PATHS), Path(os.__file__).parent, *module_folders)
    return [path for path in candidates if path.exists()]


def restrict_files(readable: Iterable[Path]) -> int:
    """Let this process read what lies in `readable` and what it has open, write nothing, and use neither TCP nor abstract sockets.

    To be called while it has one thread: the others would keep their rights (landlock(7)). It sets PR_SET_NO_NEW_PRIVS as well, without
    which neither this nor `filter_system_calls` is allowed. Returns the version of Landlock's ABI, 0 where there is none.
    """
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    abi = supported().landlock
    if abi == 0:
        return 0
    rights = (1 << max(bits for since, bits in _FILE_RIGHTS.items() if since <= abi)) - 1
    attributes = [rights, _BIND_AND_CONNECT_TCP if abi >= _NET_ABI else 0, _ABSTRACT_SOCKETS_AND_SIGNALS if abi >= _SCOPE_ABI else 0]
    # A kernel knows the first of them only, or more (struct landlock_ruleset_attr).
    known = 3 if abi >= _SCOPE_ABI else 2 if abi >= _NET_ABI else 1
    ruleset = struct.pack(f"={known}Q", *attributes[:known])
    descriptor = _checked(_call(_LANDLOCK_CREATE_RULESET, ruleset, len(ruleset), 0), "landlock_create_ruleset")
    try:
        for path in readable:
            _allow_reading(descriptor, path)
        _checked(_call(_LANDLOCK_RESTRICT_SELF, descriptor, 0), "landlock_restrict_self")
    finally:
        os.close(descriptor)
    return abi


def filter_system_calls() -> bool:
    """Refuse the system calls of `_REFUSED` to all threads of this process and to those to come; return whether that is in force.

    Raises `OSError` where the kernel has seccomp and refuses the filter.
    """
    architecture = _ARCHITECTURES.get(platform.machine())
    if architecture is None or not supported().seccomp:
        return False
    program = _program(architecture, os.getpid())
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: how many instructions of eight bytes, and where they are.
    filter_program = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    # It returns the id of a thread that cannot be filtered, which none is that has no other filters than its process.
    return _checked(_call(architecture.seccomp, _SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_TSYNC, filter_program), "seccomp") == 0


def has_no_new_privs() -> bool:
    """Return whether PR_SET_NO_NEW_PRIVS is in force for this process."""
    return bool(_libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1)


def _allow_reading(ruleset: int, path: Path) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = _READ_FILE | (_READ_DIR if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 0)
        # struct landlock_path_beneath_attr, packed.
        beneath = struct.pack("=Qi", rights, descriptor)
        _checked(_call(_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, beneath, 0), "landlock_add_rule")
    finally:
        os.close(descriptor)


def _program(architecture: _Architecture, process_id: int) -> bytes:
    """Return the filter (bpf(4)) for one process.

    Refused calls fail with EPERM and do not end the process: libraries try some of them, and go on without (glib and fontconfig set times
    and modes of caches, a later version may try more). To hostile code it is the same. `clone3` does not exist, so that the C library
    takes `clone`, whose flags a filter can see: threads are allowed, processes are not. A process may send a signal to itself alone, as
    abort(3) does, and set no limits of others.
    """
    refused = [numbers[architecture.column] for numbers in _REFUSED.values()]
    steps = [
        _step(_LOAD, _ARCHITECTURE_AT),
        _step(_IF_EQUAL, architecture.audit, 1, 0),
        _step(_RETURN, _KILL_PROCESS),
        _step(_LOAD, _NUMBER_AT),
        _step(_IF_NOT_LESS, _X32_BIT, 0, 1),
        _step(_RETURN, _REFUSE),
    ]
    for number in refused:
        if number is not None:
            steps += [_step(_IF_EQUAL, number, 0, 1), _step(_RETURN, _REFUSE)]
    return b"".join(
        [
            *steps,
            *(_step(_IF_EQUAL, _CLONE3, 0, 1), _step(_RETURN, _NOT_THERE)),
            *_first_argument(architecture.clone, _step(_IF_ANY_BIT, _CLONE_THREAD, 1, 0)),
            *_first_argument(architecture.tgkill, _step(_IF_EQUAL, process_id, 1, 0)),
            *_first_argument(architecture.prlimit64, _step(_IF_EQUAL, 0, 1, 0)),
            _step(_RETURN, _ALLOW),
        ]
    )


def _first_argument(number: int, unless: bytes) -> list[bytes]:
    """Return the steps that refuse a call unless its first argument, the low 32 bits, passes the step `unless`, which jumps over one."""
    return [
        _step(_IF_EQUAL, number, 0, 4),
        _step(_LOAD, _FIRST_ARGUMENT_AT),
        unless,
        _step(_RETURN, _REFUSE),
        _step(_RETURN, _ALLOW),
    ]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return one instruction (struct sock_filter): `if_true` and `if_false` are how many of the next ones are jumped over."""
    return struct.pack("@HBBI", code, if_true, if_false, value)


def _call(number: int, *arguments: object) -> int:
    """Return the result of a system call, -1 for a failure, of which `ctypes.get_errno` has the reason (syscall(2))."""
    words = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return int(_libc.syscall(ctypes.c_long(number), *words))


def _checked(result: int, name: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result
