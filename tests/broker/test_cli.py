"""The command line on a real broker: what it prints, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from pipeline.model.keys import HASH_SPACE, hash_key

Make = Callable[..., Any]


def run(config: Any, *arguments: str, stdin: str = "", code: int = 0) -> str:
    """Standard output of a command; where it should fail, standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", "--config", str(config.path), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if code else done.stdout


def lines(count: int) -> str:
    return "".join(json.dumps({"item": f"k{n % 10}", "number": n, "note": None}) + "\n" for n in range(count))


def test_records_go_in_and_come_out_as_json_lines(order_config: Make) -> None:
    config, stream = order_config()
    done = json.loads(run(config, "produce", stream, "--from", "-", "--json", stdin=lines(30)))
    assert done == {"stream": stream, "acknowledged": 30}
    printed = [json.loads(line) for line in run(config, "consume", stream, "--group", "g", "--max", "30").splitlines()]
    assert sorted(row["value"]["number"] for row in printed) == list(range(30))
    assert printed[0].keys() >= {"key", "value", "id", "order", "shard", "producer", "seq"}


def test_a_bad_line_is_named_and_those_before_it_are_in_the_stream(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    said = run(config, "produce", stream, stdin=lines(3) + '{"item": "x", "number": "NaN", "note": null}\n', code=1)
    assert "-:4" in said
    assert "number" in said
    assert len(run(config, "consume", stream, "--group", "g", "--max", "3").splitlines()) == 3


def test_describe_gives_every_shard_after_a_split_and_a_merge(order_config: Make) -> None:
    config, stream = order_config(shards=2)
    run(config, "stream", "create", stream)
    run(config, "produce", stream, stdin=lines(100))
    cut = hash_key("k3")
    shard = "s0" if cut < HASH_SPACE // 2 else "s1"
    split = json.loads(run(config, "stream", "split", stream, shard, "--key", "k3", "--json"))
    assert split["parents"] == [shard]
    merged = json.loads(run(config, "stream", "merge", stream, *split["children"], "--json"))
    shards = {s["id"]: s for s in json.loads(run(config, "stream", "describe", stream, "--json"))["shards"]}
    assert int(shards[split["children"][1]]["low"]) == cut
    assert shards[shard]["state"] == "sealed"
    assert shards[shard]["seal"] == split["seals"][shard]
    assert shards[merged["children"][0]] | {"end_offset": 0} == {
        "id": "s4",
        "low": shards[shard]["low"],
        "high": shards[shard]["high"],
        "topic": stream,
        "partition": 3,
        "generation": 2,
        "parents": split["children"],
        "children": [],
        "state": "open",
        "seal": None,
        "end_offset": 0,
    }
    tree = run(config, "stream", "history", stream)
    assert "s4" in tree
    assert "merged from s2 and s3" in tree


def test_the_median_halves_the_records(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    run(config, "produce", stream, stdin=lines(100))
    run(config, "stream", "split", stream, "s0", "--median")
    hashes = sorted(hash_key(f"k{n}") for n in range(10))
    shards = {s["id"]: s for s in json.loads(run(config, "stream", "describe", stream, "--json"))["shards"]}
    assert int(shards["s2"]["low"]) == hashes[5]


def test_what_is_wrong_is_one_sentence_and_exit_code_1(order_config: Make) -> None:
    config, stream = order_config()
    for arguments, word in (
        (("stream", "describe", "nosuch"), "no stream 'nosuch'"),
        (("consume", stream, "--group", "g"), "headrace stream create"),
        (("stream", "split", stream, "s0"), "headrace stream create"),
        (("produce", stream, "--from", "/nosuch/file"), "cannot be read"),
    ):
        said = run(config, *arguments, code=1)
        assert word in said
        assert len(said.strip().splitlines()) == 1, said


def test_list_tells_which_streams_are_created(order_config: Make) -> None:
    config, stream = order_config(shards=3)
    [row] = json.loads(run(config, "stream", "list", "--json"))["streams"]
    assert (row["stream"], row["created"]) == (stream, False)
    run(config, "stream", "create", stream)
    [row] = json.loads(run(config, "stream", "list", "--json"))["streams"]
    assert (row["created"], row["shards"]) == (True, 3)


def test_advise_finds_the_hot_key_and_gives_it_a_shard_of_its_own(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    cold = lines(60)
    hot = "".join(json.dumps({"item": "hot", "number": n, "note": None}) + "\n" for n in range(100))
    run(config, "produce", stream, stdin=cold + hot)
    before = json.loads(run(config, "stream", "advise", stream, "--json"))
    (found,) = before["hot_keys"]
    assert (found["shard"], found["key"], found["hash_key"]) == ("s0", "hot", str(hash_key("hot")))
    assert found["share"] == 100 / 160
    assert before["applied"] == []
    assert "No key has 90% or more" in run(config, "stream", "advise", stream, "--share", "0.9")
    (applied,) = json.loads(run(config, "stream", "advise", stream, "--apply", "--json"))["applied"]
    assert len(applied["children"]) == 3
    run(config, "produce", stream, stdin=cold + hot)
    after = json.loads(run(config, "stream", "advise", stream, "--json"))["hot_keys"]
    assert [(one["key"], one["alone"]) for one in after if one["key"] == "hot"] == [("hot", True)]
