"""`darkroom serve`: its output, its errors, and its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support import images
from tests.support.server import DARKROOM, END_SECONDS, Server, darkroom, environment, free_port, refused_start
from tests.support.waiting import CHECKS_SECONDS, PATIENCE_SECONDS, wait_until


def test_serve_logs_its_url_and_its_folders(server: Server) -> None:
    started = json.loads(server.log().splitlines()[0])
    assert started["event"] == f"Darkroom listens on {server.url}"
    assert (started["data"], started["store"]) == (str(server.data), f"file://{server.data}/store")


@pytest.mark.long
def test_serve_in_a_terminal_prints_its_url_its_folders_and_a_command_to_try(data: Path) -> None:
    port = free_port()
    ours, theirs = os.openpty()
    serving = subprocess.Popen(
        [DARKROOM, "serve", "--port", str(port), "--data", data], env=environment(), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while b"in a browser" not in shown:
        shown += os.read(ours, 4_096)
    message = shown.decode()
    assert f"Darkroom listens on http://127.0.0.1:{port}\r\n" in message
    assert f"  data   {data}\r\n" in message
    assert f"  store  file://{data}/store\r\n" in message
    assert f"curl --data-binary @photo.jpg http://127.0.0.1:{port}/v1/images" in message
    url = f"http://127.0.0.1:{port}/nothing"
    with httpx.Client(trust_env=False, verify=False) as client:

        def is_not_found() -> bool:
            with suppress(httpx.TransportError):
                return client.get(url).status_code == 404
            return False

        wait_until(is_not_found)
    # The log is for people too. What a terminal shows ends with the process.
    serving.send_signal(signal.SIGTERM)
    while True:
        try:
            shown += os.read(ours, 4_096)
        except OSError:
            break
    os.close(ours)
    assert serving.wait(END_SECONDS) == 0
    assert re.search(rb"\[.*info.*\].*request.*status.*404", shown)


def test_serve_on_an_occupied_port_is_refused(server: Server, data: Path) -> None:
    message = refused_start(data, "--port", str(server.port))
    assert f"Cannot listen on 127.0.0.1:{server.port}: Address already in use" in message
    assert "choose another --port" in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"store": "ftp://x"}, "expected file:///folder, memory:// or s3://bucket"),
        ({"store": "s3://"}, "BUCKET_NAME"),
        pytest.param({"max_pixel": "3"}, "Did you mean DARKROOM_MAX_PIXELS?", marks=pytest.mark.long),
        ({"max_pixels": "many"}, "DARKROOM_MAX_PIXELS is invalid: expected a whole number of at least 1, got 'many'."),
        pytest.param({"keys": "xyz"}, "DARKROOM_KEYS", marks=pytest.mark.long),
        (
            {"FLY_MACHINE_ID": "1857"},
            "this folder is not on a Fly volume, so the next deployment would lose it. Mount a volume there",
        ),
        pytest.param({"sources": "shop=s3://pictures"}, "s3://pictures/ in DARKROOM_SOURCES has no credentials.", marks=pytest.mark.long),
        ({"renditions_bytes": "5"}, "DARKROOM_RENDITIONS_BYTES is invalid: expected 0 for no limit, or at least 16777216, got 5."),
    ],
)
def test_serve_with_an_invalid_setting_is_refused_with_its_name(data: Path, settings: dict[str, str], message: str) -> None:
    assert message in refused_start(data, "--port", str(free_port()), **settings)


@pytest.mark.parametrize(("owned", "named"), [("store", "DARKROOM_STORE"), ("data", "DARKROOM_DATA")])
def test_serve_with_a_folder_of_another_user_is_refused_with_its_owner_and_a_remedy(tmp_path: Path, owned: str, named: str) -> None:
    """A volume on Fly belongs to root, and the container runs as user 10001."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a folder that is another user's")
    for name in ("store", "data"):
        (tmp_path / name).mkdir(mode=0o755)
    os.chown(tmp_path / owned, 10_001, 10_001)
    # Root without this capability is like any other user, but can still read its own Python.
    ended = subprocess.run(
        ["setpriv", "--bounding-set=-dac_override,-dac_read_search", DARKROOM, "serve", "--data", tmp_path / "data"],
        env=environment(store=(tmp_path / "store").as_uri(), port=free_port()),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert ended.returncode == 2
    folder = tmp_path / owned
    assert f"{named}: {folder} cannot be written: {folder} belongs to user 10001, and this process is user 0" in ended.stderr
    assert f"chown -R 0:0 {folder}" in ended.stderr


@pytest.mark.parametrize("ending", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_signal_during_a_render_responds_to_it_and_leaves_no_process(data: Path, ending: signal.Signals) -> None:
    with darkroom(data) as server, server.client() as client, ThreadPoolExecutor(1) as threads:
        digest = client.post("/v1/images", content=images.photo_jpeg(3000, 2000)).json()["digest"]
        url = client.post(f"/v1/images/{digest}/urls", json={"transform": {"width": 2900}, "format": "avif"}).json()["url"]
        processes = server.processes()
        response = threads.submit(client.get, url)
        wait_until_rendering(server)
        assert server.stop(ending) == 0
        assert response.result().status_code == 200
        _, alive = psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)
        assert alive == []


def test_kill_of_the_supervisor_ends_the_server(data: Path) -> None:
    with darkroom(data) as server:
        processes = server.processes()
        server.process.kill()
        _, alive = psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)
        assert alive == []


def test_server_that_was_killed_is_started_again_and_logs_why(data: Path) -> None:
    with darkroom(data) as server, server.client() as client:
        kill(server)

        def is_healthy() -> bool:
            with suppress(httpx.TransportError):
                return client.get("/health").status_code == 200
            return False

        wait_until(is_healthy)
        (restart,) = [line for line in map(json.loads, server.log().splitlines()) if "started again" in line["event"]]
        assert (restart["level"], restart["cause"]) == ("error", "signal 9 (Killed)")
        assert server.stop() == 0


def test_server_that_crashes_right_after_a_restart_is_not_started_again(data: Path) -> None:
    with darkroom(data) as server:
        kill(server)
        wait_until(lambda: len(psutil.Process(server.process.pid).children()) == 1)
        kill(server)
        assert server.process.wait(END_SECONDS) == 1
        assert "the server crashed again right after it was restarted" in server.log()


def test_server_that_does_not_end_in_time_is_killed() -> None:
    code = """
import signal
from service.cli import supervisor
supervisor.DRAIN_SECONDS = 1
supervisor.supervise()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as supervisor:
        assert supervisor.stdout is not None
        supervisor.stdout.readline()
        supervisor.terminate()
        assert supervisor.wait(END_SECONDS) == 0
        assert processes_of_session(supervisor.pid) == []


def kill(server: Server) -> None:
    """Kill the process that serves, and return when it has been reaped."""
    worker = server.worker()
    worker.kill()
    worker.wait(PATIENCE_SECONDS)


def processes_of_session(leader: int) -> list[psutil.Process]:
    """Return the descendants of `leader`, the first process of its session."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.Error):
            if os.getsid(process.pid) == leader and process.pid != leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def left_after_a_signal(data: Path, ending: signal.Signals, *, after_seconds: float | None) -> list[psutil.Process]:
    """Return the processes that outlive a supervisor that got the signal `ending` a given time after its start, or after its server's."""
    supervisor = subprocess.Popen(
        [DARKROOM, "serve", "--port", str(free_port()), "--data", data],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while after_seconds is None and not processes_of_session(supervisor.pid) and supervisor.poll() is None:
            time.sleep(0.001)
        time.sleep(after_seconds or 0)
        supervisor.send_signal(ending)
        supervisor.wait(END_SECONDS)
    finally:
        supervisor.kill()
        supervisor.wait()
        # A new process imports its modules before it notices that its parent has ended.
        _, alive = psutil.wait_procs(processes_of_session(supervisor.pid), timeout=END_SECONDS)
        left = [*alive, *processes_of_session(supervisor.pid)]
        for process in left:
            process.kill()
    return left


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signal_right_after_the_start_leaves_no_process(data: Path, ending: signal.Signals) -> None:
    assert left_after_a_signal(data, ending, after_seconds=None) == []


# `make promises` has twenty moments for each signal; CI, whose time is short, has every second one.
MOMENTS = [
    (ending, moment)
    for number, ending in enumerate([signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
    for moment in range(0 if CHECKS_SECONDS else number % 2, 20, 1 if CHECKS_SECONDS else 2)
]


@pytest.mark.long
@pytest.mark.parametrize(("ending", "moment"), MOMENTS)
def test_signal_at_any_moment_of_the_start_leaves_no_process(data: Path, ending: signal.Signals, moment: int) -> None:
    assert left_after_a_signal(data, ending, after_seconds=0.2 + moment * 0.06) == []


STARTING_APPLICATION = """
import asyncio, os, signal, sys, time
from service.process import end_at_once, hold_signals

def reached(phase):
    if phase != sys.argv[1]:
        return False
    # The supervisor leads the group.
    (os.kill if sys.argv[3] == "supervisor" else os.killpg)(os.getpgid(0), signal.Signals[sys.argv[2]])
    return True

if reached("import"):
    time.sleep(3_600)

def build():
    if reached("build"):
        time.sleep(3_600)
    hold_signals()
    return application

async def application(scope, receive, send):
    await receive()
    with end_at_once():
        if reached("startup"):
            await asyncio.sleep(3_600)
    if reached("end of startup"):
        await asyncio.sleep(0.1)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
"""


@pytest.mark.parametrize("phase", ["import", "build", "startup", "end of startup"])
@pytest.mark.parametrize(("ending", "to"), [("SIGTERM", "supervisor"), ("SIGTERM", "group"), ("SIGINT", "group")])
def test_signal_while_the_application_starts_ends_the_server_with_status_0(tmp_path: Path, phase: str, ending: str, to: str) -> None:
    (tmp_path / "starting.py").write_text(STARTING_APPLICATION)
    serve = (
        "from service.cli.supervisor import supervise; supervise()\n"
        f"from service.cli.serve import run_granian; run_granian('starting:build', '127.0.0.1', {free_port()})"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", serve, phase, ending, to], cwd=tmp_path, start_new_session=True)
    try:
        assert supervisor.wait(END_SECONDS) == 0
        assert processes_of_session(supervisor.pid) == []
    finally:
        for process in processes_of_session(supervisor.pid):
            process.kill()
        supervisor.kill()
        supervisor.wait()


def test_kill_of_the_server_leaves_no_render_process(data: Path) -> None:
    with darkroom(data) as server:
        processes, rendering = server.processes(), server.render_processes()
        for process in processes:
            if process not in rendering:
                process.kill()
        _, alive = psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)
        assert alive == []


def wait_until_rendering(server: Server) -> psutil.Process:
    """Return the render process that is rendering: its CPU time has grown by more than a start or a probe takes."""
    idle = {process: sum(process.cpu_times()[:2]) for process in server.render_processes()}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for process in server.render_processes():
            if sum(process.cpu_times()[:2]) > idle.get(process, 0.0) + 0.4:
                return process
        # Finding the processes takes 10 ms of CPU time, which the render needs too.
        time.sleep(0.05)
    raise AssertionError("no render process did anything")
