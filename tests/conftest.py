"""What every test may use."""

from __future__ import annotations

from typing import Final

import hypothesis
import pytest
import structlog

# No test asserts on speed, and the machine that runs them may be busy.
hypothesis.settings.register_profile("conveyor", deadline=None)
hypothesis.settings.load_profile("conveyor")

# structlog's own way to show an exception, with colours and all variables, takes a tenth of a second each, and property
# tests provoke thousands.
structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()])


# Fixtures whose every form is a server of its own, which takes ten seconds to start.
_SERVERS: Final = ("tiny_server", "shipped_server")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests, those that use one form of a server go to one of them, and else those
    of a file."""
    for item in items:
        form = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        servers = [f"{name} {form[name]}" for name in _SERVERS if name in form]
        item.add_marker(pytest.mark.xdist_group(servers[0] if servers else item.nodeid.partition("::")[0]))


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, as the server does."""
    return "asyncio"
