"""How long clients wait for a broker that hangs."""

from __future__ import annotations

from pipeline.config import Connection
from pipeline.kafka.settings import group_settings, producer_settings, reader_settings, writer_settings


def timeouts_ms(connection: Connection) -> list[int | str]:
    small = reader_settings(connection), writer_settings(connection)
    data = group_settings(connection, "g", "consumer"), producer_settings(connection, "lz4", 1_000_000)
    return [settings["socket.timeout.ms"] for settings in (*small, *data)]


def test_a_broker_that_hangs_is_left_after_less_than_librdkafkas_minute_unless_the_profile_says_otherwise() -> None:
    assert timeouts_ms(Connection(bootstrap="b:1", registry="http://r:1")) == [10_000, 10_000, 30_000, 30_000]
    own = Connection.model_validate({"bootstrap": "b:1", "registry": "http://r:1", "kafka": {"socket.timeout.ms": "7000"}})
    assert timeouts_ms(own) == ["7000"] * 4
