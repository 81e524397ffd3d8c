"""The sandbox of render processes: the possibilities of code that a hostile image makes one of them run."""

from __future__ import annotations

import errno
import os
import platform
import re
import struct
import time
from pathlib import Path

import anyio
import msgspec
import numpy as np
import pytest
import pyvips

from service.errors import TooCostlyError
from service.rendering.fork_server import environment
from service.rendering.protocol import Sandbox
from service.worker import sandbox
from service.worker.sandbox import supported
from tests.promises.figures import RecordFigure
from tests.support import images
from tests.support.renders import ready, render_pool, rendered, running_first, written
from tests.support.server import darkroom, reported_sandbox
from tests.support.waiting import PATIENCE_SECONDS

needs_sandbox = pytest.mark.skipif(bool(supported().missing), reason=f"this kernel has no {' and '.join(supported().missing)}")

SECRET = "a-secret-of-the-server"

# Runs in a render process in the middle of a job, when it maps the file of the job.
ATTACK = """
import ctypes, os, resource, socket, subprocess, sys, threading

STORE, SECRET = sys.argv_of_test

def outcome(attempt):
    try:
        return f"done {attempt()!r:.60}"
    except OSError as error:
        return type(error).__name__ + (f" {error.errno}" if type(error) is OSError else "")

def call(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return result

def attempts(handed):
    server = os.getppid()
    yield "read the store", lambda: open(STORE + "/originals/one", "rb").read()
    yield "list the store", lambda: os.listdir(STORE)
    yield "write to the store", lambda: open(STORE + "/originals/two", "wb")
    yield "change the store", lambda: open(STORE + "/originals/one", "r+b")
    yield "truncate in the store", lambda: os.truncate(STORE + "/originals/one", 0)
    yield "remove from the store", lambda: os.unlink(STORE + "/originals/one")
    yield "rename in the store", lambda: os.rename(STORE + "/originals/one", STORE + "/originals/two")
    yield "make a folder", lambda: os.mkdir(STORE + "/new")
    yield "make a link", lambda: os.link(STORE + "/originals/one", STORE + "/new")
    yield "change a mode", lambda: os.chmod(STORE + "/originals/one", 0o777)
    yield "change a time", lambda: os.utime(STORE + "/originals/one")
    yield "read accounts", lambda: open("/etc/passwd").read()
    yield "read the machine", lambda: open("/proc/cpuinfo").read()
    yield "write a temporary file", lambda: open("/tmp/escaped", "w")
    yield "write the handed file", lambda: os.write(handed, b"x")
    yield "open the handed file for writing", lambda: open(f"/proc/self/fd/{handed}", "r+b")
    yield "open a socket", lambda: socket.socket()
    yield "open a Unix socket", lambda: socket.socket(socket.AF_UNIX)
    yield "open a raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW)
    yield "pair sockets", socket.socketpair
    yield "connect its socket", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=os.dup(0)).connect("/tmp/other")
    yield "become a program", lambda: os.execv("/bin/true", ["true"])
    yield "start a program", lambda: subprocess.run(["/bin/true"])
    yield "spawn a program", lambda: os.posix_spawn("/bin/true", ["true"], {})
    yield "fork", os.fork
    yield "read the server's environment", lambda: open(f"/proc/{server}/environ").read()
    yield "read the server's memory", lambda: open(f"/proc/{server}/mem", "rb").read(1)
    yield "read the server's map", lambda: open(f"/proc/{server}/maps").read()
    yield "open the server's files", lambda: os.listdir(f"/proc/{server}/fd")
    yield "trace the server", lambda: call(PTRACE, ctypes.c_long(16), ctypes.c_long(server), 0, 0)
    yield "copy the server's memory", lambda: call(PROCESS_VM_READV, ctypes.c_long(server), None, 0, None, 0, 0)
    yield "signal the server", lambda: os.kill(server, 0)
    yield "signal a thread of the server", lambda: call(TGKILL, ctypes.c_long(server), ctypes.c_long(server), 0)
    yield "limit the server", lambda: resource.prlimit(server, resource.RLIMIT_NOFILE)
    yield "slow the server down", lambda: os.setpriority(os.PRIO_PROCESS, server, 19)
    yield "open an io_uring", lambda: call(425, 1, None)
    yield "make a namespace", lambda: call(UNSHARE, ctypes.c_long(0))
    yield "watch page faults", lambda: call(USERFAULTFD, ctypes.c_long(0))

def found():
    held = [name for name in os.environ if SECRET in os.environ[name]]
    return f"its environment has {sorted(set(os.environ) - {'PYTHONPATH'})} {held}"

def hook(event, arguments):
    global hook
    if event == "open" and arguments[0] == "/proc/self/statm":
        os.write(2, f"threads before: {len(os.listdir('/proc/self/task'))}\\n".encode())
    if event != "mmap.__new__":
        return
    active, hook = hook, lambda event, arguments: None
    lines = [f"{name}: {outcome(attempt)}" for name, attempt in attempts(arguments[0])]
    # The sandbox applies to new threads as well.
    thread = threading.Thread(target=lambda: lines.append("in a new thread: " + outcome(lambda: os.listdir(STORE))))
    thread.start()
    thread.join()
    lines.append(found())
    for line in lines:
        os.write(2, line.encode() + b"\\n")

sys.addaudithook(lambda event, arguments: hook(event, arguments))
"""

NUMBERS = {"PTRACE": "ptrace", "PROCESS_VM_READV": "process_vm_readv", "UNSHARE": "unshare", "USERFAULTFD": "userfaultfd"}


def script_for(store: Path) -> str:
    """Return `ATTACK` with the store as its target, and with the numbers of this machine's system calls."""
    column = 1 if platform.machine() == "aarch64" else 0
    numbers = "\n".join(f"{name} = {sandbox._REFUSED[call][column]}" for name, call in NUMBERS.items())
    tgkill = f"TGKILL = {131 if column else 234}"
    return f"import sys\nsys.argv_of_test = {(str(store), SECRET)!r}\n{numbers}\n{tgkill}\n{ATTACK}"


# Attempts that fail with another error: the descriptor is open only for reading.
EXCEPTIONS = {"write the handed file": f"OSError {errno.EBADF}"}


@pytest.mark.anyio
@needs_sandbox
async def test_code_in_a_render_process_cannot_reach_store_network_programs_or_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[dict[str, object]], record_figure: RecordFigure
) -> None:
    """Runs code in a real render process in the middle of a job; the server that started the process has secrets."""
    store = tmp_path / "store"
    (store / "originals").mkdir(parents=True)
    original = written(store / "originals", images.photo_jpeg(400, 300), "one")
    before = original.read_bytes(), original.stat().st_mtime_ns, original.stat().st_mode
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("DARKROOM_KEYS", SECRET)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    running_first(monkeypatch, tools, script_for(store))
    async with render_pool() as pool:
        assert (await rendered(pool, original, "width=100")).width == 100
        assert pool.sandbox == supported()
        lines: list[str] = []
        with anyio.fail_after(PATIENCE_SECONDS):
            while not any(line.startswith("its environment") for line in lines):
                await anyio.sleep(0.01)
                lines = [str(event["line"]) for event in logged if event["event"] == "a render process wrote to its standard error"]
    assert lines[0] == "threads before: 1"
    outcomes = dict(line.split(": ", 1) for line in lines[1:-1])
    assert len(outcomes) == 39
    expected = {name: EXCEPTIONS.get(name, "PermissionError") for name in outcomes}
    assert outcomes == expected
    record_figure("{:.0f} attempts refused", len(outcomes))
    names = sorted({*environment(os.environ), "MALLOC_ARENA_MAX", "VIPS_CONCURRENCY", "VIPS_DISC_THRESHOLD"} | shell_variables())
    assert lines[-1] == f"its environment has {names} []"
    assert (original.read_bytes(), original.stat().st_mtime_ns, original.stat().st_mode) == before
    assert list(store.rglob("*")) == [store / "originals", original]


def shell_variables() -> set[str]:
    """Return the variables that the shell of `running_first` adds, and those that Python adds if no locale is set."""
    return {"PWD", "LC_CTYPE"} if "LANG" not in os.environ else {"PWD"}


def test_environment_of_a_render_process_has_only_variables_of_libvips_and_the_allocator() -> None:
    given = {"PATH": "/bin", "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "2", "VIPS_WARNING": "0"}
    secret = {
        "DARKROOM_KEYS": SECRET,
        "DARKROOM_TOKENS": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "HOME": "/root",
        "LD_PRELOAD": "/tmp/evil.so",
        "PYTHONPATH": "/tmp",
        "XVIPS_": "no",
    }
    assert environment(given | secret) == given


@needs_sandbox
def test_render_processes_of_a_server_are_sandboxed_and_have_no_secret(tmp_path: Path) -> None:
    with darkroom(tmp_path / "data", keys="ab" * 16, AWS_SECRET_ACCESS_KEY=SECRET) as server:
        assert reported_sandbox(server) == msgspec.to_builtins(supported())
        processes = server.render_processes()
        assert processes
        assert SECRET in Path(f"/proc/{server.worker().pid}/environ").read_text("utf-8")
        for process in processes:
            variables = Path(f"/proc/{process.pid}/environ").read_bytes().decode().strip("\0").split("\0")
            names = {variable.partition("=")[0] for variable in variables}
            assert all(name in {"PATH", "LANG"} or name.startswith(("MALLOC_", "VIPS_")) for name in names)
            wait_for_filter(process.pid)
            for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
                assert (field(status, "NoNewPrivs"), field(status, "Seccomp")) == ("1", "2")


def wait_for_filter(process_id: int) -> None:
    """Wait until a render process has installed its seccomp filter, which is its last step before it is ready."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while field(Path(f"/proc/{process_id}/status"), "Seccomp") == "0" and time.monotonic() < deadline:
        time.sleep(0.01)


def field(status: Path, name: str) -> str:
    """Return a field of a file in /proc (proc(5), status)."""
    return next(line.split(":")[1].strip() for line in status.read_text("ascii").splitlines() if line.startswith(f"{name}:"))


# Acts like a container runtime whose seccomp profile does not allow Landlock: render processes inherit the filter.
RUNTIME_WITHOUT_LANDLOCK = """
import ctypes, os, platform, struct
if os.environ.get("DARKROOM_HOST"):
    from service.worker import sandbox
    steps = [
        sandbox._instruction(sandbox._LOAD, sandbox._NUMBER_OFFSET),
        sandbox._instruction(sandbox._IF_EQUAL, sandbox._LANDLOCK_CREATE_RULESET, 0, 1),
        sandbox._instruction(sandbox._RETURN, sandbox._REFUSE),
        sandbox._instruction(sandbox._RETURN, sandbox._ALLOW),
    ]
    program = ctypes.create_string_buffer(b"".join(steps))
    number = sandbox._ARCHITECTURES[platform.machine()].seccomp
    sandbox._libc.prctl(38, 1, 0, 0, 0)
    sandbox._call(number, 1, 0, struct.pack("@HP", len(steps), ctypes.addressof(program)))
"""


@needs_sandbox
def test_server_without_landlock_serves_and_reports_it_in_health_and_once_in_the_log(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    written(tools, RUNTIME_WITHOUT_LANDLOCK.encode(), "sitecustomize.py")
    with darkroom(tmp_path / "data", PYTHONPATH=tools, host="127.0.0.1") as server, server.client() as client:
        assert reported_sandbox(server) == {"landlock": 0, "seccomp": True, "no_new_privs": True}
        report = client.get("/health").json()
        assert report["status"] == "ok"
        (warning,) = report["warnings"]
        assert warning.startswith("Render processes run without Landlock: ")
        document = client.post("/v1/images", content=images.photo_jpeg(64, 48)).json()
        assert client.get(document["src"]).status_code == 200
        assert server.log().count("render processes are not fully confined") == 1


@pytest.mark.parametrize("without", ["landlock", "seccomp", "no_new_privs"])
def test_sandbox_lists_its_missing_parts(without: str) -> None:
    whole = Sandbox(7, seccomp=True, no_new_privs=True)
    assert whole.missing == []
    assert [name.lower() for name in msgspec.structs.replace(whole, **{without: 0}).missing] == [without]


# The filter, interpreted for both architectures, on any machine.

ARCHITECTURES = list(sandbox._ARCHITECTURES.items())
PROCESS_ID = 4_711


def verdict(program: bytes, audit: int, number: int, first_argument: int = 0) -> int:
    """Return the action of the filter for a system call, by interpreting it as the kernel would (bpf(4))."""
    data = struct.pack("<IIQQ", number, audit, 0, first_argument) + bytes(40)
    steps = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        code, if_true, if_false, value = steps[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x15:
                at += if_true if accumulator == value else if_false
            case 0x35:
                at += if_true if accumulator >= value else if_false
            case 0x45:
                at += if_true if accumulator & value else if_false
            case 0x06:
                return int(value)
            case _:
                raise ValueError(f"step {code:#x}")


REFUSED, ALLOWED, NO_SUCH_CALL, KILLED = 0x50000 | errno.EPERM, 0x7FFF0000, 0x50000 | errno.ENOSYS, 0x80000000


@pytest.mark.parametrize(("name", "architecture"), ARCHITECTURES, ids=[name for name, _ in ARCHITECTURES])
def test_filter_refuses_exactly_the_listed_calls(name: str, architecture: sandbox._Architecture) -> None:
    program = sandbox._program(architecture, PROCESS_ID)
    assert len(program) // 8 < 4_096
    column = architecture.column
    listed = {numbers[column] for numbers in sandbox._REFUSED.values()}
    special = {architecture.clone, architecture.tgkill, architecture.prlimit64, 435}
    for number in set(range(600)) - special:
        assert verdict(program, architecture.audit, number) == (REFUSED if number in listed else ALLOWED)
    assert verdict(program, architecture.audit, 0x40000000 | 1) == REFUSED
    assert verdict(program, 0x40000003, 11) == KILLED


@pytest.mark.parametrize(("name", "architecture"), ARCHITECTURES, ids=[name for name, _ in ARCHITECTURES])
def test_filter_allows_threads_and_signals_and_limits_for_the_process_itself(name: str, architecture: sandbox._Architecture) -> None:
    program = sandbox._program(architecture, PROCESS_ID)

    def of(number: int, first_argument: int) -> int:
        return verdict(program, architecture.audit, number, first_argument)

    thread_flags, process_flags = 0x3D0F00, 0x1200011
    assert of(architecture.clone, thread_flags) == ALLOWED
    assert of(architecture.clone, process_flags) == REFUSED
    # The C library uses `clone` if `clone3` does not exist.
    assert of(435, 0) == NO_SUCH_CALL
    assert of(architecture.tgkill, PROCESS_ID) == ALLOWED
    assert of(architecture.tgkill, 1) == REFUSED
    assert of(architecture.prlimit64, 0) == ALLOWED
    assert of(architecture.prlimit64, 1) == REFUSED


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h").exists(), reason="no headers"
)
def test_system_call_numbers_equal_those_in_the_kernel_headers() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h").read_text("ascii")
    numbers = {
        line.split()[1].removeprefix("__NR_"): int(line.split()[2]) for line in header.splitlines() if line.startswith("#define __NR_")
    }
    generic = Path("/usr/include/asm-generic/unistd.h").read_text("ascii")
    for name, (x86, arm) in sandbox._REFUSED.items():
        assert numbers.get(name, x86) == x86
        # Some names have a suffix for the word size in this header.
        if arm is not None and (found := re.search(rf"#define __NR_{name} (\d+)\n", generic)):
            assert int(found[1]) == arm
    assert (numbers["clone"], numbers["tgkill"], numbers["prlimit64"], numbers["seccomp"]) == (56, 234, 302, 317)


# Abilities that a sandboxed process must keep.


@pytest.mark.anyio
async def test_text_in_an_svg_is_drawn_with_system_fonts(tmp_path: Path) -> None:
    """It has the same pixels as in a process without a sandbox, because it finds the same fonts."""
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="200" height="60"><rect width="200" height="60" fill="#fff"/>'
        '<text x="10" y="40" font-size="30" font-family="sans-serif">Hamburg</text></svg>'
    )
    async with render_pool() as pool:
        result = await rendered(pool, written(tmp_path, drawing.encode()), "full", "png")
    free = pyvips.Image.svgload_buffer(drawing.encode()).flatten(background=255).numpy()
    drawn = np.asarray(images.decode(result.body).convert("RGB"))
    assert drawn.shape == free.shape
    assert np.abs(drawn.astype(int) - free).max() <= 2


@pytest.mark.anyio
async def test_process_that_aborts_out_of_memory_ends_by_sigabrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server recognizes a lack of memory by this signal, which abort(3) sends to its own thread."""
    script = "import os, sys\nsys.addaudithook(lambda event, arguments: os.abort() if event == 'mmap.__new__' else None)\n"
    tools = tmp_path / "tools"
    tools.mkdir()
    running_first(monkeypatch, tools, script)
    async with render_pool() as pool:
        with pytest.raises(TooCostlyError):
            await rendered(pool, written(tmp_path, images.photo_jpeg(40, 30)), "width=10")
        await ready(pool)
