"""Identity and ports of a stack over restarts, and the refusals."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from pipeline.errors import StackError
from pipeline.local import ports
from pipeline.local.paths import CACHE_VARIABLE, Home, cache_dir
from pipeline.local.plan import load_plan, save_plan


@pytest.fixture
def home(tmp_path: Path) -> Home:
    place = Home.find(tmp_path / "home")
    place.prepare()
    return place


def formatted(home: Home, node: int, cluster_id: str) -> None:
    folder = home.data / f"kafka-{node}"
    folder.mkdir()
    (folder / "meta.properties").write_text(f"#\nnode.id={node}\nversion=1\ncluster.id={cluster_id}\n")


def test_a_saved_plan_comes_back_the_same(home: Home) -> None:
    plan = load_plan(home, None)
    save_plan(home, plan)
    assert load_plan(home, None) == plan


def test_three_brokers_have_six_ports_of_their_own_and_are_remembered(home: Home) -> None:
    plan = load_plan(home, 3)
    save_plan(home, plan)
    assert len(plan.ports) == 7
    assert [node.name for node in load_plan(home, None).nodes] == ["kafka-1", "kafka-2", "kafka-3"]


def test_another_number_of_brokers_than_at_first_is_refused(home: Home) -> None:
    save_plan(home, load_plan(home, 1))
    with pytest.raises(StackError, match=r"made with 1 broker\(s\), not 3.*HEADRACE_HOME"):
        load_plan(home, 3)


@pytest.mark.parametrize("brokers", [0, 2, 4, -1])
def test_a_number_of_brokers_that_makes_no_quorum_is_refused(home: Home, brokers: int) -> None:
    with pytest.raises(StackError, match="1 or 3 brokers"):
        load_plan(home, brokers)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"brokers": []}', '{"cluster_id": "x", "brokers": [{}]}'])
def test_the_identity_is_recovered_from_the_data_when_the_plan_is_damaged(home: Home, content: str) -> None:
    formatted(home, 1, "the-old-one")
    home.cluster.write_text(content)
    assert load_plan(home, None).cluster_id == "the-old-one"


def test_data_of_another_cluster_is_refused(home: Home) -> None:
    save_plan(home, load_plan(home, 1))
    formatted(home, 1, "a-stranger")
    with pytest.raises(StackError, match="a-stranger"):
        load_plan(home, None)


def test_data_of_two_clusters_is_refused(home: Home) -> None:
    formatted(home, 1, "one")
    formatted(home, 2, "two")
    with pytest.raises(StackError, match="several clusters"):
        load_plan(home, None)


def test_only_taken_ports_are_replaced(home: Home) -> None:
    plan = load_plan(home, 3)
    other = plan.with_other_ports({plan.nodes[1].port})
    assert other.nodes[1].port != plan.nodes[1].port
    assert other.ports - plan.ports == {other.nodes[1].port}
    assert other.cluster_id == plan.cluster_id


def test_a_listened_port_is_not_free_and_a_released_one_is() -> None:
    with socket.create_server((ports.HOST, 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free(port)
        assert ports.answers(port)
    assert ports.is_free(port)
    assert not ports.answers(port)


def test_ports_are_chosen_below_those_of_outgoing_connections() -> None:
    """A client that reconnects for ever to a stopped broker would else be given the broker's port itself."""
    assert all(20_000 <= ports.choose() < 32_768 for _ in range(50))


def test_no_free_port_is_an_error_when_all_are_taken() -> None:
    with pytest.raises(StackError, match="no free port"):
        ports.choose(range(1, 65_536))


def test_the_home_is_refused_when_a_file_is_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(StackError, match=r"home.*HEADRACE_HOME"):
        Home.find(tmp_path / "home").prepare()


def test_the_home_is_the_named_then_the_variables_then_the_current_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADRACE_HOME", raising=False)
    assert Home.find().root == tmp_path / ".headrace"
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "b"))
    assert Home.find().root == tmp_path / "b"
    assert Home.find(tmp_path / "a").root == tmp_path / "a"


def test_the_cache_is_the_variables_or_the_virtual_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setattr("sys.prefix", str(tmp_path / "venv"))
    (tmp_path / "venv").mkdir()
    assert cache_dir() == tmp_path / "venv" / "share" / "headrace"
    monkeypatch.setattr("sys.prefix", "/nowhere-that-is-writable")
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    assert cache_dir() == tmp_path / "person" / ".cache" / "headrace"


def test_the_saved_plan_is_json_that_a_person_can_read(home: Home) -> None:
    plan = load_plan(home, 1)
    save_plan(home, plan)
    assert json.loads(home.cluster.read_text())["brokers"][0]["port"] == plan.nodes[0].port
