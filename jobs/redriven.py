"""Redriven records in bronze: each once, under the identity and the order token of its first life (DESIGN.md §5).

A record that comes back from the dead letters lies in the log again, in a message of a redrive, and its header tells of its
first life (pipeline/consume/redriven.py). The table may have it already: the first message was good and only somebody's
handler failed; or two groups buried it, and both letters were redriven. So where a micro-batch holds messages of a redrive,
and only there, their records are looked up in the table and in the micro-batch, by (producer, sequence) of their first lives,
or by their first place where a foreign producer gave them none. What is new becomes a row as it would have been at first:
``_meta`` tells of the first life, and ``_meta.redriven`` where in the log the record came from.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.tables import META, REDRIVEN, REJECTED
from pipeline.consume.redriven import HEADER_BYTES_MAX
from pipeline.model.shards import ShardMap
from pipeline.model.stamp import REDRIVE_PRODUCER

HEADER = "_redrive"
_LIFE = "_life"
_IDENTITY = "_identity"
_TOLD = "order array<bigint>, producer string, seq bigint, `from` array<string>"
_PRODUCERS_MAX = 1_000


def is_redrive(producer: str) -> Column:
    """Whether a message is a redrive's, by the column that names its producer."""
    return F.col(producer).startswith(REDRIVE_PRODUCER)


def first_life(header: Column) -> Column:
    """What a header's value tells of a first life, null where it is not one of ours: by the rules of
    pipeline.consume.redriven.first_life."""
    small = F.when(F.length(header) <= HEADER_BYTES_MAX, header.cast("string"))
    told = F.from_json(small, _TOLD, {"allowSingleQuotes": "false"})
    order, seq, place = told["order"], told["seq"], told["from"]
    fits = (F.size(order) == 3) & F.forall(order, lambda one: one >= 0) & (seq >= -1) & told["producer"].isNotNull()
    partition = F.when(F.size(place) == 2, F.get(place, F.lit(1)).try_cast("int"))
    named = (seq >= 0) & (told["producer"] != "")
    life = F.struct(
        F.get(order, F.lit(0)).cast("int").alias("generation"),
        F.get(order, F.lit(1)).alias("offset"),
        F.get(order, F.lit(2)).cast("int").alias("index"),
        F.when(named, told["producer"]).alias("producer"),
        F.when(named, seq).alias("seq"),
        F.when(partition.isNotNull(), F.get(place, F.lit(0))).alias("topic"),
        partition.alias("partition"),
    )
    return F.when(F.coalesce(fits, F.lit(False)), life)


def taken_in(rows: DataFrame, stored: DataFrame, shard_map: ShardMap) -> DataFrame:
    """The rows of a micro-batch with redriven messages (as jobs.decode.rows gives them), without those redriven records that
    ``stored``, the table, or the micro-batch itself has already. Reads of the table what may be the same record only."""
    rows = rows.withColumn(_LIFE, first_life(F.col(HEADER))).drop(HEADER)
    rows = rows.withColumn(META, _first_meta(shard_map)).drop(_LIFE)
    back = F.col(f"{META}.{REDRIVEN}")
    copies, others = rows.where(back.isNotNull()), rows.where(back.isNull())
    narrow = _narrow(copies)
    if narrow is None:
        return rows
    good = F.col(f"{REJECTED}.reason").isNull()
    known = [one.where(good & narrow).select(_identity()) for one in (stored, others)]
    first = Window.partitionBy(_IDENTITY).orderBy(*(F.col(f"{META}.{REDRIVEN}.{name}") for name in _PLACE))
    copies = copies.withColumn(_IDENTITY, _identity()).withColumn("_nth", F.row_number().over(first)).where("_nth = 1")
    new = copies.join(known[0].union(known[1]), _IDENTITY, "left_anti")
    return others.unionByName(new.drop("_nth", _IDENTITY))


_PLACE = ("topic", "partition", "offset", "index")


def _narrow(copies: DataFrame) -> Column | None:
    """What every row has that may be one of these; None where there are none."""
    meta = f"{META}."
    producer, seq, offset = F.col(meta + "producer"), F.col(meta + "seq"), F.col(meta + "order.offset")
    found = copies.agg(
        F.count(F.lit(1)), F.collect_set(producer), F.min(seq), F.max(seq), F.min(offset), F.max(offset)
    ).collect()[0]
    if not found[0]:
        return None
    named = seq.between(found[2], found[3])
    if len(found[1]) <= _PRODUCERS_MAX:
        named = named & producer.isin(found[1])
    return named | (producer.isNull() & offset.between(found[4], found[5]))


def _identity() -> Column:
    """(producer, sequence), or the first place of a record that has none."""
    meta = {name: F.col(f"{META}.{name}") for name in ("producer", "seq", "topic", "partition", "order.offset", "order.index")}
    named = meta["producer"].isNotNull()
    kept = [F.when(named, meta["producer"]), F.when(named, meta["seq"])]
    kept += [F.when(~named, meta[name]) for name in ("topic", "partition", "order.offset", "order.index")]
    return F.struct(*(column.alias(f"c{number}") for number, column in enumerate(kept))).alias(_IDENTITY)


def _first_meta(shard_map: ShardMap) -> Column:
    """``_meta`` with what the first life says in place of what the message does."""
    life, own = F.col(_LIFE), F.col(META)
    topic, partition = (F.coalesce(life[name], own[name]) for name in ("topic", "partition"))
    order = F.struct(*(life[name].alias(name) for name in ("generation", "offset", "index")))
    come_back = F.struct(
        own["topic"].alias("topic"),
        own["partition"].alias("partition"),
        own["order"]["offset"].alias("offset"),
        own["order"]["index"].alias("index"),
    )
    first = own
    for name, column in (
        ("shard", _shard(shard_map, topic, partition, order)),
        ("order", order),
        ("partition", partition),
        ("producer", life["producer"]),
        ("seq", life["seq"]),
        ("topic", topic),
        (REDRIVEN, come_back),
    ):
        first = first.withField(name, column)
    return F.when(life.isNotNull(), first).otherwise(own.withField(REDRIVEN, F.when(F.lit(False), come_back)))


def _shard(shard_map: ShardMap, topic: Column, partition: Column, order: Column) -> Column:
    """The shard that had a place at an order token."""
    found = F.lit(None).cast("string")
    for shard in shard_map.shards.values():
        here = (topic == shard.topic) & (partition == shard.partition) & (order["generation"] == shard.generation)
        found = F.when(here, F.lit(shard.id)).otherwise(found)
    return found
