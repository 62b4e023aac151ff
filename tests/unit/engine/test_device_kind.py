"""Machines of one kind run one plan."""

import re

import pytest
import torch

from conveyor.engine.executors.device_kind import cpu_kind, device_kind, lesser_kinds

AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni\n"
INTEL = "vendor_id\t: GenuineIntel\nflags\t\t: avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile\n"
OLD = "vendor_id\t: GenuineIntel\nflags\t\t: fpu sse2 avx avx2\n"


@pytest.mark.parametrize(
    ("expected", "cpuinfo", "machine"),
    [
        ("cpu-amd-avx512_bf16", AMD, "x86_64"),
        ("cpu-intel-amx_bf16", INTEL, "x86_64"),
        ("cpu-intel-avx2", OLD, "x86_64"),
        ("cpu-other-arm64", "", "arm64"),
    ],
)
def test_a_cpu_is_known_by_vendor_and_best_instructions(expected: str, cpuinfo: str, machine: str) -> None:
    """What decides which kernels the libraries choose decides the kind."""
    assert expected == cpu_kind(cpuinfo, machine)


def test_a_cpu_has_the_instructions_of_lesser_kinds() -> None:
    """Its own vendor first; what is not known by its instructions has none."""
    assert [
        "cpu-amd-avx512f",
        "cpu-other-avx512f",
        "cpu-intel-avx2",
        "cpu-amd-avx2",
        "cpu-other-avx2",
    ] == lesser_kinds("cpu-intel-avx512f")
    assert [] == lesser_kinds("cpu-other-aarch64")
    assert [] == lesser_kinds("cuda-nvidia-h100-sm90")


def test_this_machine_has_a_kind() -> None:
    """It can stand as a key in a plan.lock."""
    assert re.fullmatch(r"cpu-[a-z0-9_-]{1,64}", device_kind(torch.device("cpu")))
