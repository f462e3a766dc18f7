"""Options of the registry's process: what is asked for, and what must never be shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.registry.__main__ import main, server_config
from pipeline.registry.options import parse

NEEDED = ["--bootstrap", "k:9092", "--port", "8081"]


def test_defaults_listen_on_loopback_only() -> None:
    options = parse(NEEDED, {})
    assert (options.host, options.port, options.topic) == ("127.0.0.1", 8081, "_schemas")
    assert options.kafka["bootstrap.servers"] == "k:9092"
    assert options.users == {}


def test_secrets_come_from_the_environment_and_are_not_shown(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("# people\nann:se:cret\n\n")
    environ = {"KAFKA_PASSWORD": "hidden1", "HEADRACE_REGISTRY_USERS": "bob:hidden2", "HEADRACE_REGISTRY_TLS_PASSWORD": "hidden3"}
    options = parse([*NEEDED, "--kafka", "sasl.password=${KAFKA_PASSWORD}", "--users-file", str(users)], environ)
    assert options.kafka["sasl.password"] == "hidden1"
    assert options.users == {"bob": "hidden2", "ann": "se:cret"}
    assert options.tls_password == "hidden3"
    for secret in ("hidden1", "hidden2", "hidden3", "se:cret"):
        assert secret not in repr(options)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--kafka", "sasl.password=${NOT_THERE}"], "NOT_THERE"),
        (["--kafka", "justaname"], "NAME=VALUE"),
        (["--tls-cert", "x"], "both"),
        (["--tls-cert", "/no/such", "--tls-key", "/no/such"], "no such file"),
        (["--users-file", "/no/such"], "/no/such"),
    ],
)
def test_a_wrong_option_is_refused_with_what_to_correct(more: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse([*NEEDED, *more], {})


def test_a_users_file_that_is_wrong_does_not_let_everybody_in(tmp_path: Path) -> None:
    users = tmp_path / "users"
    for text in ("", "# nobody\n", "hidden-without-colon\n", "ann:\n"):
        users.write_text(text)
        with pytest.raises(ConfigError) as caught:
            parse([*NEEDED, "--users-file", str(users)], {})
        assert "hidden" not in str(caught.value)


def test_a_wrong_option_ends_the_process_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*NEEDED, "--kafka", "nothing"]) == 2
    assert "NAME=VALUE" in capsys.readouterr().err


def test_the_server_does_not_log_requests_or_tell_what_it_is() -> None:
    config = server_config(parse(NEEDED, {}))
    assert config.access_log is False
    assert config.server_header is False
