"""docker/, checked without a Docker engine: the compose file by compose-go's loader, the rest by its own tools."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyspark
import pytest
import yaml

from jobs.session import AVRO_LIMITS
from pipeline.config import load_config

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
OURS = "headrace:local"
ONCE = {"folders", "streams", "producer"}  # run once and end


def run(*command: str, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Every service, as `docker compose` would see it with all profiles."""
    go = shutil.which("go") or shutil.which("go", path=Path(sys.executable).parent)
    assert go, "go is missing: run `make tools`, or install Go 1.23 or newer; it runs compose-go's loader"
    return dict(json.loads(run(go, "run", ".", "../compose.yaml", "three", "demo", cwd=DOCKER / "check"))["services"])


def test_the_parts_of_the_issue_are_all_there(services: dict[str, Any]) -> None:
    wanted = {"kafka", "kafka-2", "kafka-3", "registry", "s3", "spark-master", "spark-worker", "jobs", "producer", "exporter"}
    assert wanted | {"prometheus", "alertmanager", "grafana"} <= set(services)
    assert [name for name, one in services.items() if "three" in one.get("profiles", [])] == ["kafka-2", "kafka-3"]


def test_every_service_keeps_the_projects_rules(services: dict[str, Any]) -> None:
    for name, one in services.items():
        image = one["image"]
        assert image == OURS or re.search(r":(v?\d+\.\d+\.\d+|RELEASE\.[\w-]+)$", image), f"{name}: {image} is not pinned"
        limits = one["deploy"]["resources"]["limits"]
        assert limits["memory"], name
        assert limits["cpus"], name
        assert name in ONCE or one["healthcheck"]["test"], f"{name} has no health check"
        assert name in ONCE or one["restart"] == "unless-stopped", name
        assert one["user"].split(":")[0] != "0" or name == "folders", f"{name} runs as root"
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        for port in one.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", f"{name}: {port} is open to the network"
        for other, how in (one.get("depends_on") or {}).items():
            expected = "service_completed_successfully" if other in ONCE else "service_healthy"
            assert how["condition"] == expected, f"{name} → {other}"
        for volume in one.get("volumes", []):
            assert volume["type"] == "volume" or Path(volume["source"]).exists(), f"{name}: {volume['source']} is not there"


def test_secrets_have_defaults_for_local_use_only() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    for key, value in re.findall(r"(\w*(?:PASSWORD|SECRET|ACCESS_KEY|ROOT_USER)\w*): *(.+)", text):
        assert re.fullmatch(r"\$\{[A-Z0-9_]+:-headrace-local\}", value), f"{key}: {value}"


def test_the_three_broker_settings_name_the_three_brokers(services: dict[str, Any]) -> None:
    settings = dict(line.split("=", 1) for line in (DOCKER / "three.env").read_text().splitlines() if not line.startswith("#"))
    brokers = ["kafka", "kafka-2", "kafka-3"]
    assert settings["KAFKA_VOTERS"] == ",".join(f"{number}@{name}:9093" for number, name in enumerate(brokers, 1))
    assert [services[name]["environment"]["KAFKA_NODE_ID"] for name in brokers] == ["1", "2", "3"]
    used = set(re.findall(r"\$\{(KAFKA_\w+):-", (DOCKER / "compose.yaml").read_text()))
    assert set(settings) - {"COMPOSE_PROFILES"} <= used


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    tool = Path(sys.executable).parent / "hadolint"
    assert tool.exists(), "hadolint is missing: run `make install`"
    run(str(tool), str(DOCKER / "Dockerfile"))


def test_the_tools_accept_their_configuration_files(tmp_path: Path) -> None:
    for tool in ("promtool", "amtool"):
        assert shutil.which(tool), (
            f"{tool} is missing: run `apt-get update && apt-get install -y prometheus prometheus-alertmanager`"
        )
    run("promtool", "check", "config", str(DOCKER / "prometheus" / "prometheus.yml"))
    run("amtool", "check-config", str(DOCKER / "alertmanager" / "alertmanager.yml"))
    sources = yaml.safe_load((DOCKER / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert [(one["type"], one["url"]) for one in sources] == [("prometheus", "http://prometheus:9090")]
    (provider,) = yaml.safe_load((DOCKER / "grafana" / "provisioning" / "dashboards" / "headrace.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"


def test_addresses_in_the_configuration_are_services_and_ports_of_the_compose_file(services: dict[str, Any]) -> None:
    config = load_config(DOCKER / "headrace.yml", {})
    for stream in config.streams.values():
        assert stream.schema_path.exists()
    assert all(table.sql is None or table.sql.exists() for table in config.tables.values())
    assert config.connection.bootstrap == "kafka:19092"
    assert "INSIDE://kafka:19092" in services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert config.connection.registry == "http://registry:8081"
    assert services["registry"]["environment"]["SCHEMA_REGISTRY_LISTENERS"].endswith(":8081")
    assert f":{config.metrics.port}/metrics" in " ".join(services["exporter"]["healthcheck"]["test"])
    scraped = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    (files,) = scraped["scrape_configs"][0]["file_sd_configs"]
    mounted = {volume["target"] for volume in services["prometheus"]["volumes"]}
    assert files["files"] == ["/headrace/metrics/*.json"]
    assert {"/headrace", "/etc/prometheus/rules"} <= mounted


def test_what_spark_is_given_is_what_the_project_is_locked_to(services: dict[str, Any]) -> None:
    command = services["jobs"]["command"]
    packages = command[command.index("--packages") + 1].split(",")
    locked = {one["name"]: one["version"] for one in json.loads((ROOT / "pipeline/local/jars.lock.json").read_text())["spark"]}
    for package in packages:
        _, name, version = package.split(":")
        if name == "hadoop-aws":
            jars = {path.name for path in (Path(pyspark.__file__).parent / "jars").glob("hadoop-client-api-*.jar")}
            assert jars == {f"hadoop-client-api-{version}.jar"}
        else:
            assert locked.get(name) == version, package
    assert "".join(f"-D{key}={value} " for key, value in AVRO_LIMITS.items()).strip() in " ".join(command)


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (DOCKER / "Dockerfile").read_text())
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line and not line.startswith("#")]


def test_the_dockerfiles_own_steps_make_a_folder_from_which_every_command_of_ours_starts(
    services: dict[str, Any], tmp_path: Path
) -> None:
    app, site = tmp_path / "app", tmp_path / "site"
    app.mkdir()
    installed = False
    for name, rest in instructions():
        if name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                copy(ROOT / source, app / target, as_folder=target.endswith("/") or target == "./")
        elif name == "RUN" and rest.startswith("python -m pip install") and rest.endswith(" ."):
            arguments = rest.removeprefix("python -m pip install").split()
            run(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site), *arguments, cwd=app)
            installed = True
    assert installed
    assert {path.name for path in site.iterdir()} >= {"pipeline", "connectors", "jobs"}
    for name, one in services.items():
        for command in commands(one) if one["image"] == OURS else []:
            start(command, app, site, name)


def copy(source: Path, target: Path, *, as_folder: bool) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        return
    if as_folder:
        target.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def commands(service: dict[str, Any]) -> list[list[str]]:
    command = service["command"]
    return [part.split() for part in command[2].split("&&")] if command[:2] == ["sh", "-c"] else [command]


def start(command: list[str], app: Path, site: Path, service: str) -> None:
    """Each of our commands with --help, from the installed folder; of others, the program has to be there."""
    paths = {"PYTHONPATH": str(site), "HEADRACE_CONFIG": str(app / "docker" / "headrace.yml")}
    program = command[0]
    if program == "headrace":
        words = [word for word in command[1:] if not word.startswith("-")]
        run(sys.executable, "-m", "pipeline.cli.main", *words, "--help", cwd=app.parent, **paths)
    elif command[:2] == ["python", "-m"]:
        run(sys.executable, "-m", command[2], "--help", cwd=app.parent, **paths)
    elif "/pyspark/bin/" in program:
        inside = program.split("/site-packages/pyspark/")[1]
        assert (Path(pyspark.__file__).parent / inside).exists(), program
        for argument in command[1:]:
            if argument.startswith("/app/"):
                assert (app / argument.removeprefix("/app/")).exists(), argument
            if argument.endswith(".py"):
                run(sys.executable, str(app / argument.removeprefix("/app/")), "--help", cwd=app.parent, **paths)
    else:
        assert program in ("mkdir", "chown"), f"{service}: {program} is not checked by anything"


def test_what_the_image_installs_is_part_of_what_is_tested() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9._-]+==[^ \\]+", (ROOT / "requirements" / name).read_text(), re.MULTILINE))

    assert pins("run.lock") <= pins("all.lock"), "make it anew, see CONTRIBUTING.md"
    assert len(pins("run.lock")) > 20


def test_the_image_gets_every_path_that_the_dockerfile_copies() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name, rest in instructions():
        if name == "COPY":
            for source in rest.split()[:-1]:
                assert any(source == one or source.startswith(f"{one}/") for one in kept), (
                    f"{source} is left out by .dockerignore"
                )
