"""Testing handlers without Kafka: a stream in memory, read by the real consumer.

    from pipeline.testing import MemoryStream

    def test_my_handler():
        stream = MemoryStream("schemas/order.avsc")
        stream.put({"item": "lamp", "number": 1, "note": None}, key="lamp")
        with stream.consumer() as consumer:
            consumer.run(my_handler, max_records=1)
        assert stream.dead_letters == []

Everything above the wire is the code that runs on a broker: aggregates, decoding, the lineage gate, marks, retries, dead
letters, commits. What stands for Kafka (logs, a group, its commits) is held to the real broker by one suite that runs on
both (tests/broker/test_contract.py).
"""

from pipeline.testing.stream import MemoryStream

__all__ = ["MemoryStream"]
