"""The sandbox of a render process: limits the damage if a hostile image makes a decoder run foreign code.

Decoders are large C programs that read untrusted bytes. Code that takes one over finds no secret in its environment. It can read shared
libraries, fonts and the files of its jobs; it can write no file, open no network connection, start no program, and access no other process.
Landlock (landlock(7)) restricts files and a seccomp filter (seccomp(2)) restricts system calls. Parts that the kernel does not support are
skipped, and reported as missing.
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

# Shared libraries that are loaded on demand (plug-ins of libvips, encodings of iconv); fonts, their configuration and cache, in the places
# that Linux distributions use; and random numbers. Paths that do not exist are skipped.
_SYSTEM_PATHS = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"),
    *("/etc/fonts", "/usr/share/fontconfig", "/usr/share/fonts", "/usr/local/share/fonts", "/var/cache/fontconfig"),
    "/dev/urandom",
)

# prctl(2).
_PR_GET_NO_NEW_PRIVS, _PR_SET_NO_NEW_PRIVS = 39, 38

# landlock(7) and linux/landlock.h. The system calls have the same numbers on every architecture.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# ABI version → the number of access rights for files: 2 added moving between directories, 3 truncating, and 5 ioctl on devices.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
_BIND_AND_CONNECT_TCP = 0b11
_NET_ABI = 4
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
_SCOPE_ABI = 6

# seccomp(2).
_SECCOMP_SET_MODE_FILTER, _SECCOMP_GET_ACTION_AVAIL = 1, 2
_FILTER_FLAG_TSYNC = 1
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_REFUSE, _NO_SUCH_CALL = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS

# Classic BPF instructions: load a word; jump if equal, if not less, if any bit is set; return. And offsets in `struct seccomp_data`.
_LOAD, _IF_EQUAL, _IF_NOT_LESS, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _FIRST_ARGUMENT_OFFSET = 0, 4, 16

# Set in the numbers of x32 system calls on x86-64 (seccomp(2), Caveats).
_X32_BIT = 0x40000000
_CLONE_THREAD = 0x10000


class _Architecture(NamedTuple):
    """Constants of an architecture.

    audit: its number in linux/audit.h.
    column: its column in `_REFUSED`.
    seccomp, clone, tgkill, prlimit64: the numbers of these system calls.
    """

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

# Refused system calls → their numbers on x86-64 and arm64 (asm/unistd_64.h, asm-generic/unistd.h), `None` if an architecture has none.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # Sockets. Its own was open when it started.
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # Programs and processes. `clone` has a rule of its own.
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # Other processes of the same user: memory, descriptors, signals, priorities. `tgkill` and `prlimit64` have rules of their own.
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
    # Changes to files that Landlock does not restrict: modes, owners, times, attributes.
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
    # Access to files without a path, and to other views of the file system, in case the server runs as root.
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
    # Large kernel interfaces with a history of vulnerabilities, which no decoder needs.
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
    # Control of the machine, in case the server runs as root.
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
    """Return which parts of a sandbox the running kernel, and the container of this process, support. None is put in force."""
    action = ctypes.c_uint32(_REFUSE & 0xFFFF0000)
    architecture = _ARCHITECTURES.get(platform.machine())
    return Sandbox(
        landlock=max(0, _call(_LANDLOCK_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)),
        seccomp=architecture is not None and _call(architecture.seccomp, _SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0,
        no_new_privs=_libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) >= 0,
    )


def readable_paths(*module_directories: Path) -> list[Path]:
    """Return the files and directories that a render process may read: system paths, the standard library, and `module_directories`."""
    candidates = (*map(Path, _SYSTEM_PATHS), Path(os.__file__).parent, *module_directories)
    return [path for path in candidates if path.exists()]


def restrict_files(readable: Iterable[Path]) -> int:
    """Restrict this process with Landlock, and return the version of Landlock's ABI, or 0 if the kernel has none.

    The process can then read the paths in `readable` and the files that it has open. It can write no file, and use neither TCP nor
    abstract Unix sockets. It must have only one thread now, because others would keep their rights (landlock(7)). This also sets
    PR_SET_NO_NEW_PRIVS, which both Landlock and `filter_system_calls` require.

    Raises `OSError` if the kernel refuses the rules.
    """
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    abi = supported().landlock
    if abi == 0:
        return 0
    rights = (1 << max(bits for since, bits in _FILE_RIGHTS.items() if since <= abi)) - 1
    attributes = [rights, _BIND_AND_CONNECT_TCP if abi >= _NET_ABI else 0, _ABSTRACT_SOCKETS_AND_SIGNALS if abi >= _SCOPE_ABI else 0]
    # An older kernel accepts only the first one or two attributes (struct landlock_ruleset_attr).
    known = 3 if abi >= _SCOPE_ABI else 2 if abi >= _NET_ABI else 1
    ruleset = struct.pack(f"={known}Q", *attributes[:known])
    descriptor = _raise_on_failure(_call(_LANDLOCK_CREATE_RULESET, ruleset, len(ruleset), 0), "landlock_create_ruleset")
    try:
        for path in readable:
            _allow_reading(descriptor, path)
        _raise_on_failure(_call(_LANDLOCK_RESTRICT_SELF, descriptor, 0), "landlock_restrict_self")
    finally:
        os.close(descriptor)
    return abi


def filter_system_calls() -> bool:
    """Refuse the system calls of `_REFUSED` to all present and future threads of this process.

    Returns whether the filter is in force; it is not on other architectures, or on a kernel without seccomp. Raises `OSError` if the kernel
    refuses the filter. `restrict_files` must have been called.
    """
    architecture = _ARCHITECTURES.get(platform.machine())
    if architecture is None or not supported().seccomp:
        return False
    program = _program(architecture, os.getpid())
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, 8 bytes each, and their address.
    filter_program = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    # A positive result would be the id of a thread that could not be synchronized, which only happens if a thread has another filter.
    return _raise_on_failure(_call(architecture.seccomp, _SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_TSYNC, filter_program), "seccomp") == 0


def has_no_new_privs() -> bool:
    """Return whether PR_SET_NO_NEW_PRIVS is in force for this process."""
    return bool(_libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1)


def _allow_reading(ruleset: int, path: Path) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = _READ_FILE | (_READ_DIR if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 0)
        # struct landlock_path_beneath_attr, packed.
        beneath = struct.pack("=Qi", rights, descriptor)
        _raise_on_failure(_call(_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, beneath, 0), "landlock_add_rule")
    finally:
        os.close(descriptor)


def _program(architecture: _Architecture, process_id: int) -> bytes:
    """Return the filter program for a process.

    Refused calls fail with EPERM instead of ending the process, because some libraries try them and go on without (glib and fontconfig set
    times and modes of caches; later versions may try more). For hostile code it makes no difference. `clone3` fails with ENOSYS, so that
    the C library uses `clone`, whose flags a filter can examine: threads are allowed, processes are not. The process may send signals only
    to itself, as abort(3) does, and may not set limits of other processes.
    """
    refused = [numbers[architecture.column] for numbers in _REFUSED.values()]
    instructions = [
        _instruction(_LOAD, _ARCHITECTURE_OFFSET),
        _instruction(_IF_EQUAL, architecture.audit, 1, 0),
        _instruction(_RETURN, _KILL_PROCESS),
        _instruction(_LOAD, _NUMBER_OFFSET),
        _instruction(_IF_NOT_LESS, _X32_BIT, 0, 1),
        _instruction(_RETURN, _REFUSE),
    ]
    for number in refused:
        if number is not None:
            instructions += [_instruction(_IF_EQUAL, number, 0, 1), _instruction(_RETURN, _REFUSE)]
    return b"".join(
        [
            *instructions,
            *(_instruction(_IF_EQUAL, _CLONE3, 0, 1), _instruction(_RETURN, _NO_SUCH_CALL)),
            *_first_argument(architecture.clone, _instruction(_IF_ANY_BIT, _CLONE_THREAD, 1, 0)),
            *_first_argument(architecture.tgkill, _instruction(_IF_EQUAL, process_id, 1, 0)),
            *_first_argument(architecture.prlimit64, _instruction(_IF_EQUAL, 0, 1, 0)),
            _instruction(_RETURN, _ALLOW),
        ]
    )


def _first_argument(number: int, unless: bytes) -> list[bytes]:
    """Return the instructions that refuse a system call depending on the low 32 bits of its first argument.

    number: of the system call.
    unless: an instruction that skips the next one, the refusal, if the argument is acceptable.
    """
    return [
        _instruction(_IF_EQUAL, number, 0, 4),
        _instruction(_LOAD, _FIRST_ARGUMENT_OFFSET),
        unless,
        _instruction(_RETURN, _REFUSE),
        _instruction(_RETURN, _ALLOW),
    ]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return one instruction (struct sock_filter).

    if_true, if_false: how many of the following instructions a jump skips.
    """
    return struct.pack("@HBBI", code, if_true, if_false, value)


def _call(number: int, *arguments: object) -> int:
    """Return the result of a system call, -1 for a failure, whose reason `ctypes.get_errno` returns (syscall(2))."""
    words = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return int(_libc.syscall(ctypes.c_long(number), *words))


def _raise_on_failure(result: int, name: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result
