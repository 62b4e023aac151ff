"""Keys are found, and places are handed out, whatever comes and goes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conveyor.engine.sessions.index import ABSENT, KeyIndex
from conveyor.engine.sessions.slots import Slots
from conveyor.engine.sessions.table import SessionTable, as_keys, key_bytes
from conveyor.engine.sessions.waiting import WaitingSteps


def _keys(numbers: range) -> list[bytes]:
    return [(number // 7).to_bytes(8, "little") + bytes([number % 7]) * 8 for number in numbers]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=40), st.randoms(use_true_random=False))
def test_a_key_is_found_while_it_is_inside_and_not_longer(changes: list[tuple[bool, int]], chance: object) -> None:
    """Through growth and removals, many keys at a time, with keys that differ in one word only."""
    table, inside, unused = SessionTable(1), dict[bytes, int](), 0
    for adding, count in changes:
        if adding:
            keys = _keys(range(unused, unused + count))
            unused += count
            rows = table.add(as_keys(np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 16)), 0.0)
            assert len(set(rows.tolist())) == count
            inside |= dict(zip(keys, rows.tolist(), strict=True))
        elif inside:
            gone = chance.sample(sorted(inside), min(count, len(inside)))  # type: ignore[attr-defined]
            table.remove(np.array([inside.pop(key) for key in gone], dtype=np.int32))
        assert len(inside) == len(table) == int(table.live.sum())
    everything = _keys(range(unused + 3))
    keys = as_keys(np.frombuffer(b"".join(everything), dtype=np.uint8).reshape(-1, 16))
    assert everything == key_bytes(keys)
    assert [inside.get(key, ABSENT) for key in everything] == table.find(keys).tolist()


def test_an_index_does_not_grow_by_keys_that_come_and_go() -> None:
    """Removed keys leave no trace for ever."""
    index = KeyIndex()
    keys = np.arange(200_000, dtype=np.uint64).reshape(-1, 2)
    for first in range(0, len(keys), 10):
        rows = np.arange(first, first + 10, dtype=np.int32)
        index.add(rows, keys)
        index.remove(rows, keys)
    assert 64 == len(index._cells)


@given(st.lists(st.integers(1, 20), max_size=20), st.data())
def test_a_place_is_in_use_once(sizes: list[int], data: st.DataObject) -> None:
    """Whatever is taken, given back and added."""
    slots, used = Slots(), set[int]()
    for size in sizes:
        if slots.available < size:
            slots.grow(size)
        taken = slots.take(size).tolist()
        assert not used & set(taken)
        used |= set(taken)
        back = data.draw(st.lists(st.sampled_from(sorted(used)), unique=True))
        slots.give_back(np.array(back, dtype=np.int32))
        used -= set(back)
        assert len(used) == slots.capacity - slots.available
    assert used <= set(range(slots.capacity))


@given(st.data())
def test_each_session_has_its_rows_run_in_order(data: st.DataObject) -> None:
    """One at a time, the earliest first; dropped ones are gone, and those put back come first again."""
    waiting, expected, next_id = WaitingSteps(1), list[tuple[int, int]](), 0
    running = np.zeros(5, dtype=np.bool_)
    for _ in range(data.draw(st.integers(1, 12))):
        match data.draw(st.sampled_from(["add", "take", "take and put back", "drop", "end"])):
            case "add":
                sessions = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
                rows = np.zeros(len(sessions), dtype=waiting.dtype)
                rows["id"] = range(next_id, next_id + len(sessions))
                rows["session"], rows["length"], rows["deadline"] = sessions, 1, np.inf
                waiting.add(rows, np.ones((len(sessions), 1)))
                expected += zip(range(next_id, next_id + len(sessions)), sessions, strict=True)
                next_id += len(sessions)
            case "drop":
                gone = set(data.draw(st.lists(st.integers(0, next_id))))
                assert sorted(gone & {row for row, _ in expected}) == sorted(waiting.drop(gone)["id"].tolist())
                expected = [row for row in expected if row[0] not in gone]
            case "end":
                session = data.draw(st.integers(0, 4))
                waiting.drop_sessions(np.array([session], dtype=np.int32))
                expected = [row for row in expected if row[1] != session]
            case kind:
                running[:] = data.draw(st.lists(st.booleans(), min_size=5, max_size=5))
                firsts = dict(reversed([(session, row) for row, session in expected]))
                ready = [row for row, session in expected if firsts[session] == row and not running[session]]
                places = waiting.next_of_each(running)
                count = data.draw(st.integers(0, len(places)))
                taken = waiting.take(places[:count])
                assert ready[:count] == taken["id"].tolist()
                if kind == "take":
                    expected = [row for row in expected if row[0] not in ready[:count]]
                else:
                    waiting.put_back(taken)
                    front = [row for row in expected if row[0] in ready[:count]]
                    expected = front + [row for row in expected if row not in front]
        assert [row for row, _ in expected] == waiting.ids()
        assert (len(expected), len(expected)) == (len(waiting), waiting.num_steps)
