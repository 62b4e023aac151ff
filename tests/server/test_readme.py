"""What the README shows is what a reader gets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.server import ServerProcess

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def followed_by_answer(kind: str) -> list[tuple[str, str]]:
    """Blocks of one kind, each with the block after it, which shows its answer."""
    return [(text, BLOCKS[index + 1][1]) for index, (found, text) in enumerate(BLOCKS) if found == kind]


# Those of sessions follow one another: the second names the session that the first has opened.
CALLS = [(command, answer) for command, answer in followed_by_answer("bash") if "/v1/sessions" not in command]
SESSION_CALLS = [(command, answer) for command, answer in followed_by_answer("bash") if "/v1/sessions" in command]
SESSION = re.compile(r"forecast-electricity\.1\.[0-9a-f]{32}")


def call(http: httpx.Client, command: str) -> httpx.Response:
    """Sends what curl would send."""
    found = re.fullmatch(r"curl -s http://127\.0\.0\.1:8000(\S+) -d '(.*)'\n", command, re.DOTALL)
    assert found, command
    return http.post(found[1], content=found[2].encode())


def alike(shown: object, actual: object) -> bool:
    """Equal but for the digits that a plan for another processor may change: a probability by 0.01."""
    if isinstance(shown, dict) and isinstance(actual, dict):
        return set(shown) == set(actual) and all(alike(shown[key], actual[key]) for key in shown)
    if isinstance(shown, list) and isinstance(actual, list):
        return len(shown) == len(actual) and all(map(alike, shown, actual))
    if isinstance(shown, float):
        return actual == pytest.approx(shown, rel=1e-3, abs=0.01)
    return shown == actual


def test_there_is_a_curl_and_a_grpc_call_for_each_task() -> None:
    """Three of each, and two of sessions."""
    assert (3, 2) == (len(CALLS), len(SESSION_CALLS))
    assert 5 == len(followed_by_answer("python"))


@pytest.mark.parametrize(("command", "answer"), CALLS)
def test_the_curl_calls_give_the_answers_shown(shipped_http: httpx.Client, command: str, answer: str) -> None:
    """The request of each command, sent as curl would send it."""
    response = call(shipped_http, command)

    assert 200 == response.status_code, response.text
    assert alike(json.loads(answer), response.json()), response.text


def test_the_calls_of_a_session_give_the_answers_shown(shipped_http: httpx.Client) -> None:
    """One after the other, with the id that opening has answered."""
    session = ""
    for command, answer in SESSION_CALLS:
        response = call(shipped_http, SESSION.sub(session, command))
        assert 200 == response.status_code, response.text
        session = response.json()["session"]
        assert SESSION.fullmatch(session)
        assert alike(json.loads(SESSION.sub(session, answer)), response.json()), response.text


@pytest.mark.parametrize(("program", "answer"), followed_by_answer("python"))
def test_the_grpc_programs_print_what_is_shown(shipped_server: ServerProcess, program: str, answer: str) -> None:
    """Each program as it stands, but for the port."""
    program = program.replace("127.0.0.1:8001", shipped_server.grpc)
    program = program.replace("127.0.0.1:8000", shipped_server.http.removeprefix("http://"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert 0 == done.returncode, done.stderr
    shown, actual = (re.split(r"(\d+\.\d+)", text.strip()) for text in (answer, done.stdout))
    assert len(shown) == len(actual), done.stdout
    for left, right in zip(shown, actual, strict=True):
        if re.fullmatch(r"\d+\.\d+", left):
            assert float(right) == pytest.approx(float(left), rel=1e-3, abs=0.01)
        else:
            assert left == right
