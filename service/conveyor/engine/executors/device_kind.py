"""What kind of device a plan is for: machines of one kind run one plan."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

__all__ = ["cpu_flags", "cpu_kind", "device_kind", "device_name", "has_fast_bfloat16", "lesser_kinds"]

_CPUINFO = Path("/proc/cpuinfo")
_VENDORS = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}
_OTHER = "other"
# The instructions that decide which kernels the libraries choose, best first, as the kernel spells them.
_LEVELS = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx2")
_BFLOAT16 = ("amx_bf16", "avx512_bf16")


def device_kind(device: torch.device) -> str:
    """`cpu-<vendor>-<instructions>` or `cuda-<name>-sm<capability>`, in lower case letters, digits, `_` and `-`."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        name = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower()).strip("-")
        return f"cuda-{name}-sm{major}{minor}"
    return cpu_kind(_cpuinfo(), platform.machine())


def device_name(device: torch.device) -> str:
    """What the device calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _field(_cpuinfo(), "model name") or platform.machine()


def cpu_kind(cpuinfo: str, machine: str) -> str:
    """The kind of a CPU.

    Args:
        cpuinfo: What `/proc/cpuinfo` says; empty where there is none.
        machine: The architecture, such as `x86_64`, which stands for what is not known better.
    """
    flags = _field(cpuinfo, "flags").split()
    vendor = _field(cpuinfo, "vendor_id")
    level = next((level for level in _LEVELS if level in flags), machine.lower())
    return f"cpu-{_VENDORS.get(vendor, _OTHER)}-{level}"


def lesser_kinds(kind: str) -> Sequence[str]:
    """The kinds of CPUs of which one of this kind has all instructions: the most instructions first, of those with the
    same its own vendor's."""
    device, _, rest = kind.partition("-")
    vendor, _, level = rest.partition("-")
    if device != "cpu" or level not in _LEVELS:
        return []
    vendors = sorted([*_VENDORS.values(), _OTHER], key=lambda each: each != vendor)
    kinds = [f"cpu-{each}-{lesser}" for lesser in _LEVELS[_LEVELS.index(level) :] for each in vendors]
    return [each for each in kinds if each != kind]


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16; others emulate it, slower than float32."""
    return not cpu_flags().isdisjoint(_BFLOAT16)


def cpu_flags() -> frozenset[str]:
    """What this CPU can do, as `/proc/cpuinfo` spells it; nothing where that can't be told."""
    return frozenset(_field(_cpuinfo(), "flags").split())


@cache
def _cpuinfo() -> str:
    return _CPUINFO.read_text(encoding="utf-8") if _CPUINFO.exists() else ""


def _field(cpuinfo: str, name: str) -> str:
    """A field of the first CPU."""
    found = re.search(rf"^{name}\s*:(.*)$", cpuinfo, flags=re.MULTILINE)
    return found[1].strip() if found else ""
