"""The cluster launcher's files, by Ray's own schema and validation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deploy import ROOT

CLUSTERS = sorted((ROOT / "deploy" / "cluster").glob("*.yaml"))


def read(path: Path) -> dict[str, Any]:
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree


def prepared(tree: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` makes of a file before it starts anything."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(copy.deepcopy(tree))
    validate_config(config)
    return config


def test_there_is_what_the_readme_names():
    assert [path.name for path in CLUSTERS] == ["aws.yaml", "gcp.yaml"]


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_ray_takes_the_file(path):
    types = prepared(read(path))["available_node_types"]
    assert {name: (node["min_workers"], node["max_workers"]) for name, node in types.items()} == {
        "head": (0, 0),
        "gpu-spot": (1, 4),
    }
    assert types["gpu-spot"]["resources"] == {"CPU": 8, "GPU": 1}
    assert types["head"]["resources"] == {"CPU": 0}


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_a_misspelt_key_would_be_found(path):
    with pytest.raises(jsonschema.ValidationError, match="max_wrokers"):
        prepared({**read(path), "max_wrokers": 3})


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_the_workers_are_spot_nodes_and_nothing_is_installed_on_them(path):
    tree = read(path)
    node = tree["available_node_types"]["gpu-spot"]["node_config"]
    spot = {
        "aws": lambda: node["InstanceMarketOptions"] == {"MarketType": "spot"},
        "gcp": lambda: node["scheduling"][0]["provisioningModel"] == "SPOT",
    }
    assert spot[tree["provider"]["type"]]()
    assert tree["setup_commands"] == []


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_the_job_server_is_not_open_to_the_network(path):
    (start,) = [command for command in read(path)["head_start_ray_commands"] if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in start
