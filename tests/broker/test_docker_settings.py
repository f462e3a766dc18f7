"""What docker/compose.yaml tells Kafka, against a real broker: every setting is one that it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

COMPOSE = Path(__file__).parents[2] / "docker" / "compose.yaml"
OF_THE_IMAGE = {"CLUSTER_ID", "KAFKA_HEAP_OPTS"}  # read by the image's own start script


def test_every_setting_of_the_compose_files_kafka_is_one_that_a_real_broker_knows(stack: Any) -> None:
    admin = AdminClient({"bootstrap.servers": stack.bootstrap})
    node = next(iter(admin.list_topics(timeout=10).brokers))
    resource = ConfigResource(ResourceType.BROKER, str(node))
    known = set(admin.describe_configs([resource])[resource].result(10))
    settings = set(yaml.safe_load(COMPOSE.read_text())["services"]["kafka"]["environment"]) - OF_THE_IMAGE
    assert settings
    assert {one.removeprefix("KAFKA_").lower().replace("_", ".") for one in settings} <= known
