"""Headrace: streaming pipelines on Kafka. Records packed small, in order per key across resharding, exactly once into tables.

    from pipeline import Producer, Consumer

    with Producer("flights") as producer:
        receipt = producer.put({"flight_id": "…"}, key="N14228")
        receipt.result(timeout=5)
"""

from pipeline import errors, reshard
from pipeline.config import Config, load_config
from pipeline.consume.consumer import Consumer
from pipeline.consume.rewind import rewind
from pipeline.model.record import OrderToken, Receipt, Record
from pipeline.produce.producer import Producer
from pipeline.produce.receipt import PendingReceipt

__all__ = [
    "Config",
    "Consumer",
    "OrderToken",
    "PendingReceipt",
    "Producer",
    "Receipt",
    "Record",
    "errors",
    "load_config",
    "reshard",
    "rewind",
]
