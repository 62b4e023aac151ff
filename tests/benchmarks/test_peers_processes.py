"""Servers as processes, and what h2load says of them."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest
from peers import load, processes

# A server that leaves a child behind: in a session of its own, deaf to SIGTERM, and busy for a moment.
_SERVER = """
import subprocess, sys, time
child = '''
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sum(range(10**7))
print("deaf", flush=True)
time.sleep(600)
'''
process = subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
print("child", process.pid, flush=True)
time.sleep(600)
"""


def logged(started: processes.Started, pattern: str) -> str:
    """Waits for a line of the log; returns its group."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if found := re.search(pattern, started.log.read_text()):
            return found[1]
        time.sleep(0.01)
    raise AssertionError(started.log.read_text())


def runs(pid: int) -> bool:
    """Whether there is such a process; one that ended and that nobody waited for does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_server_is_measured_and_stopped_with_all_it_started(tmp_path: Path) -> None:
    """Also with a child that does not end when told to."""
    with processes.start([sys.executable, "-c", _SERVER], tmp_path, tmp_path / "log", os.environ) as started:
        child = int(logged(started, r"child (\d+)"))
        logged(started, "(deaf)")
        assert started.cpu_s() > 0.02
        assert runs(child)
    assert started.process.returncode is not None
    end = time.monotonic() + 60
    while runs(child):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    """With the end of its log."""
    command = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    with (
        processes.start(command, tmp_path, tmp_path / "log", os.environ) as started,
        pytest.raises(processes.ServerFailed, match="no such model"),
    ):
        processes.wait_ready(started, processes.free_ports(1)[0], b"", timeout_s=60)


H2LOAD = """
finished in 2.00s, 3024.00 req/s, 190.00KB/s
requests: 6064 total, 6064 started, 6048 done, 6048 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 6050 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 800.00KB (819200) total, 100.00KB (102400) headers (space savings 90.00%), 502.03KB (514080) data
"""


def test_calls_count_if_their_answers_have_the_right_size() -> None:
    """A call that failed has no message, though HTTP/2 says 200."""
    assert (6048, 3024.0) == load.read_h2load(H2LOAD, 85)
    for output, size in (
        (H2LOAD, 120),
        (H2LOAD.replace("514080", "0"), 85),
        (H2LOAD.replace(" 0 failed", " 99 failed"), 85),
    ):
        with pytest.raises(load.LoadError, match="calls failed"):
            load.read_h2load(output, size)
    with pytest.raises(load.LoadError, match="no figures"):
        load.read_h2load("Could not connect", 85)
