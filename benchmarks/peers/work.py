"""The texts that every server is asked about, and how each server is asked."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

__all__ = ["draw_texts", "http_get", "http_request", "read_file", "read_vocabulary", "write_file"]

# Zipf-Mandelbrot, as fitted to English by Piantadosi 2014: the few words at the top are less frequent than 1 / rank.
_SHIFT = 2.7


def draw_texts(vocabulary: Sequence[str], length_counts: Sequence[int], count: int, seed: int) -> list[str]:
    """Texts of words by Zipf's law, of lengths as they were counted; the same for a seed.

    Args:
        vocabulary: Words, the most frequent first.
        length_counts: How many real texts have 0, 1, 2, … words; texts without words are left out.
    """
    chance = random.Random(seed)
    reached = list(accumulate(1 / (rank + _SHIFT) for rank in range(len(vocabulary))))
    lengths = chance.choices(range(1, len(length_counts)), weights=length_counts[1:], k=count)
    return [" ".join(chance.choices(vocabulary, cum_weights=reached, k=length)) for length in lengths]


def read_vocabulary(package: Path) -> list[str]:
    """The words of a package, the most frequent first."""
    lines = (package / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return [line.partition("\t")[2] for line in lines]


def http_request(port: int, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole HTTP/1.1 request, as wrk and our own client send it."""
    fields = {"Host": f"127.0.0.1:{port}", "Content-Type": "application/json", **(headers or {})}
    fields["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def http_get(port: int, path: str) -> bytes:
    """The same without a body."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


def write_file(requests: Sequence[bytes], path: Path) -> None:
    """Requests for the load generators: each behind its size in eight hexadecimal digits."""
    path.write_bytes(b"".join(b"%08x" % len(request) + request for request in requests))


def read_file(path: Path) -> list[bytes]:
    """What `write_file` wrote."""
    content = path.read_bytes()
    requests = []
    at = 0
    while at < len(content):
        size = int(content[at : at + 8], 16)
        requests.append(content[at + 8 : at + 8 + size])
        at += 8 + size
    return requests
