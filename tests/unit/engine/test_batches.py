"""Rows into a padded batch."""

import numpy as np

from conveyor.engine.batches import assemble
from conveyor.engine.batching.backlog import Row
from conveyor.engine.batching.costs import uniform_costs
from conveyor.engine.batching.policy import plan_batch
from conveyor.wire.messages import NO_DEADLINE


def test_rows_without_steps_are_in_the_batch() -> None:
    """However many there are beside rows with steps."""
    lengths = [0, 4, 0, 0, 2, 0, 0, 0]
    rows = [
        Row(0.0, number, length, NO_DEADLINE, 0.0, np.full((length, 1), 7, dtype=np.int32))
        for number, length in enumerate(lengths)
    ]
    plan = plan_batch(rows, uniform_costs(row_step_s=1e-6, call_s=1e-4))
    batch = assemble(plan)

    assert [4, 2, 0, 0, 0, 0, 0, 0] == batch.lengths.tolist()
    assert (batch.stairs[0].rows, sum(stair.steps for stair in batch.stairs)) == batch.inputs.shape[:2]
    assert 7 * 6 == batch.inputs.sum()
