"""Compiles the kernel where the package is installed or its wheel is built. Without a compiler there is none, and the
server computes by its libraries."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_BUILD = "service/conveyor/engine/executors/kernel/build.py"


class KernelHook(BuildHookInterface[Any]):
    """Runs before a wheel is put together."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Compiles into the source tree, from where an editable install runs and a wheel is filled."""
        if self.target_name != "wheel":
            return
        # Loaded by its path: the package itself can't be imported while it is built.
        spec = importlib.util.spec_from_file_location("kernel_build", Path(self.root) / _BUILD)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look for their names
        spec.loader.exec_module(module)
        for variant, reason in module.build().items():
            self.app.display_warning(f"kernel {variant} is left out: {reason}")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
