"""Compiles the kernel for each set of instructions. Nothing but the standard library: the package's own build runs it.

It is compiled when the package is installed or its wheel is built, not where it runs, which may have no compiler, and
once for each set, not for the machine at hand, which may be another kind than the one that serves. So what is loaded
was put there by whoever installed the package, and is read-only to a server without rights.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDER", "VARIANTS", "Variant", "build", "library"]

FOLDER = Path(__file__).parent
# One more whenever the functions take other arguments: a part of the name, so that what an earlier version compiled is
# never called.
_INTERFACE = 2
_SOURCES = (FOLDER / "lstm.c", FOLDER / "readout.c")

# Without contraction: it may differ from tile to tile, and with it a row's bits.
_FLAGS = ("-O3", "-std=gnu11", "-ffp-contract=off", "-shared", "-fPIC")
_AVX2 = ("avx2", "fma")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl")


@dataclass(frozen=True, slots=True)
class Variant:
    """A set of instructions: its name, and what a CPU must have, as the kernel (`/proc/cpuinfo`) spells it."""

    name: str
    needs: Collection[str]

    @property
    def options(self) -> Sequence[str]:
        """How the compiler is told."""
        return [f"-m{flag.replace('_', '')}" for flag in self.needs]


_X86 = (
    Variant("avx512_bf16", (*_AVX512, "avx512_vnni", "avx512_bf16")),
    Variant("avx512_vnni", (*_AVX512, "avx512_vnni")),
    Variant("avx512", _AVX512),
    Variant("avx2", _AVX2),
)
# Best first; the last runs on every CPU of this architecture.
VARIANTS = (*(_X86 if platform.machine() == "x86_64" else ()), Variant("baseline", ()))


def library(variant: Variant, folder: Path = FOLDER) -> Path:
    """Where a variant lies."""
    return folder / f"lstm-{_INTERFACE}-{variant.name}.so"


def build(folder: Path = FOLDER) -> dict[str, str]:
    """Compiles every variant that the compiler (`CC`, else `cc`) knows; what lay there before goes.

    Returns:
        For each variant that there is not, why.
    """
    failed = {}
    places = {library(variant, folder) for variant in VARIANTS}
    for stale in set(folder.glob("lstm-*.so")) - places:
        stale.unlink()
    for variant in VARIANTS:
        place = library(variant, folder)
        # Complete or not at all: another process may load it meanwhile.
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            unfinished = Path(temporary) / place.name
            command = [*shlex.split(os.environ.get("CC", "cc")), *_FLAGS, *variant.options, "-o", unfinished, *_SOURCES]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)
                unfinished.replace(place)
            except FileNotFoundError as error:
                failed[variant.name] = f"no C compiler: {error}"
            except subprocess.CalledProcessError as error:
                failed[variant.name] = error.stderr.strip().partition("\n")[0]
        if variant.name in failed:
            place.unlink(missing_ok=True)
    return failed
