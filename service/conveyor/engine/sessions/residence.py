"""Where the states of a model's sessions lie: on the device, or, if used longest ago, in host memory or on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from conveyor.engine.executors.port import OutOfDeviceMemory, SessionStates
from conveyor.engine.sessions.slots import Slots
from conveyor.engine.sessions.table import NOWHERE, ON_DEVICE, ON_HOST, Rows, SessionTable

__all__ = ["Residence", "StateArray"]

StateArray = npt.NDArray[np.float32]

# Of a slab: large enough that few slabs hold a million states, small beside a device.
_SLAB_BYTES: Final = 64 * 2**20
_FEWEST_SLOTS: Final = 8
# States that leave the device together, as a part of those there: to look for the oldest costs a look at all of them.
_SPILLED_TOGETHER: Final = 64
# States that are written out of the host while others wait for the device.
_TRIMMED_TOGETHER: Final = 1024


class Residence:
    """The places of states. Same thread as the engine.

    Args:
        to_disk: Writes sessions, given with their states, to the state directory and forgets them; None where there is
            no such directory.
        in_use: The sessions that rows wait for, which must not be forgotten.
    """

    def __init__(
        self,
        states: SessionStates,
        table: SessionTable,
        device_bytes: int,
        host_bytes: int,
        to_disk: Callable[[Rows, StateArray], None] | None,
        in_use: Callable[[], Rows],
    ) -> None:
        self._states = states
        self._table = table
        self._to_disk = to_disk
        self._in_use = in_use
        self._state_bytes = 4 * states.width
        self._most_on_device = max(device_bytes // self._state_bytes, _FEWEST_SLOTS)
        self._most_on_host = host_bytes // self._state_bytes
        self._slab_slots = min(_SLAB_BYTES // self._state_bytes, self._most_on_device)
        self._device = Slots()
        self._host = Slots()
        self._host_states: StateArray = np.empty((0, states.width), dtype=np.float32)
        self.moved: Counter[str] = Counter()

    @property
    def most(self) -> float:
        """Sessions that there is room for."""
        return float("inf") if self._to_disk is not None else self._most_on_device + self._most_on_host

    @property
    def most_together(self) -> int:
        """Sessions whose states the device can have at once."""
        return self._most_on_device

    def bytes_by_tier(self) -> dict[str, int]:
        """Memory of the states there are."""
        return {
            name: (slots.capacity - slots.available) * self._state_bytes
            for name, slots in (("device", self._device), ("host", self._host))
        }

    def fetch(self, rows: Rows) -> None:
        """Sees to it that the states of these sessions are on the device together; `most_together` of them at most.

        Raises:
            OutOfDeviceMemory: There is no room for so many.
        """
        tiers = self._table.tier[rows]
        elsewhere = rows[tiers != ON_DEVICE]
        if len(elsewhere):
            states = self.read(elsewhere)
            self.moved["device"] += int((tiers == ON_HOST).sum())
            self._make_room(len(elsewhere), rows)
            self.release(elsewhere)
            slots = self._device.take(len(elsewhere))
            self._states.write(slots, states)
            self._table.slot[elsewhere] = slots
            self._table.tier[elsewhere] = ON_DEVICE

    def read(self, rows: Rows) -> StateArray:
        """Copies of states, wherever they lie: float32 [rows, width]."""
        found = np.zeros((len(rows), self._states.width), dtype=np.float32)
        tiers, slots = self._table.tier[rows], self._table.slot[rows]
        on_device, on_host = tiers == ON_DEVICE, tiers == ON_HOST
        if on_device.any():
            found[on_device] = self._states.read(slots[on_device])
        if on_host.any():
            found[on_host] = self._host_states[slots[on_host]]
        return found

    def put(self, rows: Rows, states: StateArray) -> None:
        """Gives sessions other states, where they lie; what lies nowhere goes to the host, for which there is always
        room, until it is used. states: float32 [rows, width]."""
        nowhere = self._table.tier[rows] == NOWHERE
        if nowhere.any():
            self._give_host_places(rows[nowhere])
        on_device = self._table.tier[rows] == ON_DEVICE
        slots = self._table.slot[rows]
        if on_device.any():
            self._states.write(slots[on_device], states[on_device])
        if not on_device.all():
            self._host_states[slots[~on_device]] = states[~on_device]

    def trim(self) -> None:
        """Leaves to the state directory, if there is one, some of what the host has beyond its room: states that were
        put there and not used since."""
        excess = -self._room_on_host()
        if excess > 0 and self._to_disk is not None:
            oldest = self._idle_longest(ON_HOST, min(excess, _TRIMMED_TOGETHER), self._in_use())
            self._write_out(oldest, self._host_states[self._table.slot[oldest]])

    def release(self, rows: Rows) -> None:
        """Frees the places of states."""
        for tier, slots in ((ON_DEVICE, self._device), (ON_HOST, self._host)):
            slots.give_back(self._table.slot[rows[self._table.tier[rows] == tier]])
        self._table.tier[rows] = NOWHERE

    def _make_room(self, count: int, keep: Rows) -> None:
        """Sees to it that so many slots on the device are free."""
        while self._device.available < count and self._device.capacity < self._most_on_device:
            slots = min(self._slab_slots, self._most_on_device - self._device.capacity)
            try:
                self._states.add_slab(slots)
            except OutOfDeviceMemory:
                if self._device.capacity == 0:
                    raise
                # It stays as it is from now on; what finds no room goes to the host.
                self._most_on_device = self._device.capacity
            else:
                self._device.grow(slots)
        short = count - self._device.available
        if short > 0:
            together = self._device.capacity // _SPILLED_TOGETHER
            if self._to_disk is None:
                together = min(together, self._room_on_host())
            self._to_host(self._idle_longest(ON_DEVICE, max(short, together), keep), keep)
        if self._device.available < count:
            raise OutOfDeviceMemory("no room for the states of so many sessions at once")

    def _to_host(self, rows: Rows, keep: Rows) -> None:
        states = self._states.read(self._table.slot[rows])
        short = len(rows) - self._room_on_host()
        if short > 0 and self._to_disk is not None:
            unused = np.concatenate([keep, self._in_use()])
            oldest = self._idle_longest(ON_HOST, short, unused)
            self._write_out(oldest, self._host_states[self._table.slot[oldest]])
            # What still finds no room goes straight to disk; only a session that rows wait for does not.
            left = short - len(oldest)
            direct = ~np.isin(rows, unused)
            direct &= np.cumsum(direct) <= left
            self._write_out(rows[direct], states[direct])
            rows, states = rows[~direct], states[~direct]
        self._device.give_back(self._table.slot[rows])
        self._give_host_places(rows)
        self._host_states[self._table.slot[rows]] = states
        self.moved["host"] += len(rows)

    def _room_on_host(self) -> int:
        return self._most_on_host - self._host.capacity + self._host.available

    def _write_out(self, rows: Rows, states: StateArray) -> None:
        if len(rows):
            assert self._to_disk is not None
            self.moved["disk"] += len(rows)
            # Which also frees their places.
            self._to_disk(rows, states)

    def _give_host_places(self, rows: Rows) -> None:
        missing = len(rows) - self._host.available
        if missing > 0:
            more = max(missing, self._host.capacity // 8)
            grown = np.empty((self._host.capacity + more, self._states.width), dtype=np.float32)
            grown[: self._host.capacity] = self._host_states
            self._host_states = grown
            self._host.grow(more)
        self._table.slot[rows] = self._host.take(len(rows))
        self._table.tier[rows] = ON_HOST

    def _idle_longest(self, tier: int, count: int, keep: Rows) -> Rows:
        table = self._table
        candidates = table.live & (table.tier == tier) & ~table.running
        candidates[keep] = False
        return table.least_recently_used(candidates, count)
