"""The shard map over random control logs: valid reshards, lost races, late and foreign events, and nonsense."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ControlLogError, UpgradeRequiredError
from pipeline.model.keys import HASH_NAME, HASH_SPACE, even_ranges
from pipeline.model.record import OrderToken
from pipeline.model.shards import ABORT, CLAIM, COMMIT, CREATED, PING, PREPARE, Shard, ShardMap, ShardState, shard_event

property_settings = settings(max_examples=150, deadline=None, database=None, print_blob=True)
Event = dict[str, Any]
random_seeds = st.integers(0, 1 << 32)


def created(count: int) -> Event:
    shards = [Shard(f"s{i}", low, high, "t", i) for i, (low, high) in enumerate(even_ranges(count))]
    return {
        "type": CREATED,
        "shards": [shard_event(shard) for shard in shards],
        "hash": HASH_NAME,
        "subject": "t-value",
        "ordering": "strict",
    }


class Writer:
    """Writes a random control log, good events and bad ones, and knows of each whether it is valid."""

    def __init__(self, seed: int, steps: int) -> None:
        self.rng = random.Random(seed)
        self.map = ShardMap()
        self.log: list[Event | None] = []
        self.maps = [self.map]
        self.valid: list[bool] = []
        self._write(created(self.rng.randint(1, 4)), valid=True)
        for _ in range(steps):
            self._step()

    def _write(self, event: Event | None, *, valid: bool) -> None:
        offset = len(self.log)
        self.map = self.map.apply(event, offset)
        self.log.append(event)
        self.maps.append(self.map)
        self.valid.append(valid)

    def _step(self) -> None:
        rng = self.rng
        kinds: list[Callable[[], None]] = [self._prepare, self._commit, self._abort, self._bad, self._claim]
        kinds += [self._prepare, self._commit]
        rng.choice(kinds)()

    def prepare(self) -> Event | None:
        """A PREPARE that is valid now."""
        leaves = self.map.leaves
        start = self.rng.randrange(len(leaves))
        parents = [leaves[start]]
        if self.rng.random() < 0.5 and start + 1 < len(leaves):
            parents.append(leaves[start + 1])
        if any(p.state is not ShardState.OPEN for p in parents) or parents[-1].high - parents[0].low < 4:
            return None
        low, high = parents[0].low, parents[-1].high
        cuts = {self.rng.randrange(low + 1, high) for _ in range(self.rng.randint(0 if len(parents) > 1 else 1, 3))}
        bounds = [low, *sorted(cuts), high]
        number = 1 + max(int(s[1:]) for s in [*self.map.shards, *(c.id for r in self.map.pending.values() for c in r.children)])
        fresh = 1 + max(
            p for _, p in [*self.map.places, *(c.place for r in self.map.pending.values() for c in r.children)]
        )
        partitions = list(range(fresh, fresh + len(bounds)))
        if len(parents) == 1 and self.rng.random() < 0.5:
            partitions[self.rng.randrange(len(bounds) - 1)] = parents[0].partition
        children = [
            Shard(f"s{number + i}", bounds[i], bounds[i + 1], "t", partitions[i]) for i in range(len(bounds) - 1)
        ]
        self.rng.shuffle(children)
        return {
            "type": PREPARE,
            "reshard": f"r{len(self.log)}",
            "parents": [p.id for p in parents],
            "children": [shard_event(c) for c in children],
            "scan_from": {p.id: self.rng.randrange(100) for p in parents},
        }

    def _prepare(self) -> None:
        event = self.prepare()
        if event is not None:
            self._write(event, valid=True)

    def commit(self) -> Event | None:
        if not self.map.pending:
            return None
        reshard = self.rng.choice(list(self.map.pending.values()))
        seals = {p: reshard.scan_from[p] + self.rng.randrange(50) for p in reshard.parents}
        return {"type": COMMIT, "reshard": reshard.id, "seals": seals}

    def _commit(self) -> None:
        event = self.commit()
        if event is not None:
            self._write(event, valid=True)

    def _abort(self) -> None:
        if self.map.pending:
            self._write({"type": ABORT, "reshard": self.rng.choice(list(self.map.pending))}, valid=True)

    def _claim(self) -> None:
        current = self.map.claims.get("p")
        incarnation = (current.incarnation if current else 0) + 1
        right = self.rng.random() < 0.6
        wrong = self.rng.choice((incarnation - 1, incarnation + 1, 0))
        event = {"type": CLAIM, "producer": "p", "incarnation": incarnation if right else wrong, "token": f"t{len(self.log)}"}
        self._write(event, valid=right)

    def _bad(self) -> None:
        self._write(self.bad(), valid=False)

    def bad(self) -> Event | None:
        """Something that is not valid now: a rule of DESIGN.md §3 broken, an event again, or no event at all."""
        rng = self.rng
        prepared, committing = self.prepare(), self.commit()
        choices: list[Event | None] = [
            None,
            {},
            {"type": 7},
            created(2),
            {"type": PREPARE},
            {"type": COMMIT, "reshard": "never", "seals": {}},
            {"type": ABORT, "reshard": "never"},
            {"type": CLAIM, "producer": "p"},
        ]
        finished = [e for e in self.log if e and e.get("reshard") in self.map.finished]
        choices.extend(rng.sample(finished, min(2, len(finished))))
        if prepared is not None:
            choices.extend(self._spoiled(prepared))
        if committing is not None:
            seals = committing["seals"]
            reshard = self.map.pending[committing["reshard"]]
            choices.append(committing | {"seals": {}})
            choices.append(committing | {"seals": seals | {"other": 1}})
            choices.append(committing | {"seals": {p: reshard.scan_from[p] - 1 for p in seals}})
            choices.append(committing | {"seals": dict.fromkeys(seals, "x")})
        return rng.choice(choices)

    def _spoiled(self, event: Event) -> list[Event]:
        children = event["children"]
        first = children[0]
        used = next(iter(self.map.shards.values()))
        merged = len(event["parents"]) > 1
        return [
            event | {"parents": []},
            event | {"parents": [*event["parents"], event["parents"][0]]},
            event | {"parents": ["never"]},
            event | {"children": []},
            event | {"children": [*children, children[0]]},
            event | {"scan_from": {}},
            event | {"children": [first | {"id": used.id}, *children[1:]]},
            event | {"children": [first | {"id": ""}, *children[1:]]},
            event | {"children": [first | {"low": str(int(first["low"]) + 1)}, *children[1:]]},
            event | {"children": [first | {"high": str(int(first["high"]) - 1)}, *children[1:]]},
            event | {"children": [first | {"high": first["low"]}, *children[1:]]},
            event | {"children": [first | {"partition": -1}, *children[1:]]},
            event | {"children": [first | {"partition": "0"}, *children[1:]]},
            event | {"children": [{**first, "partition": self.map.shards[event["parents"][0]].partition}, *children[1:]]}
            if merged
            else event | {"children": [{**c, "partition": 0} for c in [*children, first]]},
        ]


def replay(log: list[Event | None]) -> ShardMap:
    shard_map = ShardMap()
    for offset, event in enumerate(log):
        shard_map = shard_map.apply(event, offset)
    return shard_map


@property_settings
@given(random_seeds)
def test_leaves_cover_the_space_once_after_every_event(seed: int) -> None:
    for shard_map in Writer(seed, 40).maps[1:]:
        bounds = [(leaf.low, leaf.high) for leaf in shard_map.leaves]
        assert bounds[0][0] == 0
        assert bounds[-1][1] == HASH_SPACE
        assert all(left[1] == right[0] for left, right in itertools.pairwise(bounds))
        assert all(low < high for low, high in bounds)
        assert {leaf.id for leaf in shard_map.leaves} == {
            s.id for s in shard_map.shards.values() if s.state is not ShardState.SEALED
        }


@property_settings
@given(random_seeds, st.integers(0, 40))
def test_replay_gives_the_same_map_when_resumed_from_any_prefix(seed: int, cut: int) -> None:
    writer = Writer(seed, 40)
    cut = min(cut, len(writer.log))
    resumed = replay(writer.log[:cut])
    for offset in range(cut, len(writer.log)):
        resumed = resumed.apply(writer.log[offset], offset)
    assert resumed == replay(writer.log) == writer.map


@property_settings
@given(random_seeds)
def test_an_event_changes_nothing_but_the_position_when_it_is_not_valid(seed: int) -> None:
    writer = Writer(seed, 40)
    for before, after, valid in zip(writer.maps, writer.maps[1:], writer.valid, strict=False):
        assert after.position == before.position + 1
        assert (after.ignored == before.ignored) == valid
        if not valid:
            same = ("created", "subject", "ordering", "shards", "pending", "finished", "claims", "topic_ids", "leaves")
            assert all(getattr(after, name) == getattr(before, name) for name in same)


@property_settings
@given(random_seeds, st.text(max_size=12), st.dictionaries(st.text(max_size=5), st.integers(), max_size=3))
def test_an_unknown_event_type_stops_the_replay(seed: int, name: str, rest: Event) -> None:
    shard_map = Writer(seed, 5).map
    if name in (CREATED, PREPARE, COMMIT, ABORT, CLAIM, PING):
        name = name.lower()
    with pytest.raises(UpgradeRequiredError, match="upgrade"):
        shard_map.apply(rest | {"type": name}, shard_map.position)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 70) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
field_names = st.sampled_from(
    ["reshard", "parents", "children", "scan_from", "seals", "producer", "incarnation", "token", "shards"]
)


@property_settings
@given(random_seeds, st.sampled_from([CREATED, PREPARE, COMMIT, ABORT, CLAIM]), st.dictionaries(field_names, json_values))
def test_an_event_of_hostile_values_is_ignored_and_never_raises(seed: int, kind: str, fields: Event) -> None:
    writer = Writer(seed, 10)
    event = fields | {"type": kind}
    after = writer.map.apply(event, writer.map.position)
    if kind != CLAIM:
        assert after.shards == writer.map.shards
        assert after.pending == writer.map.pending


@property_settings
@given(random_seeds, st.integers(0, 40), st.dictionaries(field_names, json_values, min_size=1, max_size=2))
def test_a_good_event_with_hostile_fields_never_breaks_the_cover(seed: int, steps: int, fields: Event) -> None:
    writer = Writer(seed, steps)
    event = writer.prepare() or writer.commit()
    if event is None:
        return
    after = writer.map.apply(event | fields, writer.map.position)
    assert next(leaf.low for leaf in after.leaves) == 0
    assert all(a.high == b.low for a, b in zip(after.leaves, after.leaves[1:], strict=False))


@property_settings
@given(random_seeds, st.lists(st.integers(0, HASH_SPACE - 1), min_size=1, max_size=30))
def test_routing_agrees_with_the_ranges(seed: int, hash_keys: list[int]) -> None:
    shard_map = Writer(seed, 40).map
    edges = [edge for leaf in shard_map.leaves for edge in (leaf.low, leaf.high - 1)]
    for hashed in [*hash_keys, *edges, 0, HASH_SPACE - 1]:
        holders = [leaf for leaf in shard_map.leaves if leaf.holds(hashed)]
        assert holders == [shard_map.route(hashed)]


@property_settings
@given(random_seeds, st.integers(0, HASH_SPACE - 1))
def test_order_tokens_rise_along_a_key_s_path(seed: int, hashed: int) -> None:
    """The shards that held a key, in the order in which they took its records, from first to last."""
    shard_map = Writer(seed, 60).map
    path = [shard_map.route(hashed)]
    while path[0].parents:
        before = [shard_map.shards[p] for p in path[0].parents if shard_map.shards[p].holds(hashed)]
        assert len(before) == 1, "a key has one way back"
        path.insert(0, before[0])
    tokens: list[OrderToken] = []
    last_at_place: dict[tuple[str, int], int] = {}
    for shard in path:
        # A child that stays in its parent's partition starts behind its END; elsewhere offsets start anew.
        first = last_at_place.get(shard.place, -1) + 1
        end = shard.seal if shard.seal is not None else first + 3
        last_at_place[shard.place] = max(end, first)
        offsets = [offset for offset in sorted({first, end - 1}) if first <= offset < end]
        tokens.extend(OrderToken(shard.generation, offset, index) for offset in offsets for index in (0, 1))
    assert tokens == sorted(tokens)
    assert [shard.generation for shard in path] == sorted({shard.generation for shard in path})


@property_settings
@given(random_seeds)
def test_lineage_holds_when_maps_grow(seed: int) -> None:
    shard_map = Writer(seed, 60).map
    seen: set[str] = set()
    for shard in shard_map.in_lineage_order():
        assert set(shard.parents) <= seen
        assert shard.generation == (1 + max(shard_map.shards[p].generation for p in shard.parents) if shard.parents else 0)
        assert all(shard.id in shard_map.shards[p].children for p in shard.parents)
        assert (shard.seal is not None) == (shard.state is ShardState.SEALED)
        assert shard_map.ancestors(shard.id) == set(shard.parents).union(*(shard_map.ancestors(p) for p in shard.parents))
        seen.add(shard.id)
    for place in shard_map.places:
        # One partition holds a line of single parents and one child each, never two shards at once.
        line = shard_map.at_place(place)
        assert all(younger.parents == (older.id,) for older, younger in itertools.pairwise(line))


@property_settings
@given(random_seeds, st.integers(1, 5))
def test_an_offset_read_before_is_refused(seed: int, back: int) -> None:
    shard_map = Writer(seed, 10).map
    with pytest.raises(ControlLogError):
        shard_map.apply({"type": PING}, shard_map.position - back)


@property_settings
@given(random_seeds, st.integers(1, 50))
def test_positions_jump_when_compaction_left_gaps(seed: int, gap: int) -> None:
    shard_map = Writer(seed, 10).map
    after = shard_map.apply({"type": PING}, shard_map.position + gap)
    assert after.position == shard_map.position + gap + 1
    assert after.shards == shard_map.shards
    assert shard_map.at_least(shard_map.position + gap).position == shard_map.position + gap
    assert shard_map.at_least(0) is shard_map
