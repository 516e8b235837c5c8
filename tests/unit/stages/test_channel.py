"""What stands between two stages: channels, and the outboxes that fill them."""

from __future__ import annotations

import pytest

from clepsydra.model.clock import SystemClock
from clepsydra.stages.channel import Channel, Outbox
from clepsydra.stages.messages import DueEvent, ExecutionsDue, size_of

pytestmark = pytest.mark.anyio


async def test_a_batch_names_no_more_executions_than_a_batch_may_have() -> None:
    channel = Channel[list[DueEvent]]("due", 8, SystemClock())
    outbox = Outbox(channel, 64, size_of)
    for queue, executions in (("a", 64), ("b", 40), ("c", 24), ("d", 1)):
        outbox.add(ExecutionsDue(queue, [f"{queue}{number}" for number in range(executions)]))

    with channel.attended():
        outbox.flush()
        batches = [await channel.receive(0) or [] for _ in range(4)]

    queues = [[event.queue for event in batch if isinstance(event, ExecutionsDue)] for batch in batches]
    assert queues == [["a"], ["b", "c"], ["d"], []]
