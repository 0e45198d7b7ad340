"""deploy/compose.yaml and the Dockerfile: by the Compose specification's schema, and closed off as far as their text can say it."""

from __future__ import annotations

import copy
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
SCHEMA = json.loads((files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text(encoding="utf-8"))
"""The specification's own, as the package check-jsonschema brings it (Apache-2.0)."""

each_service = pytest.mark.parametrize("name", SERVICES)


def mistakes(compose: dict[str, Any]) -> list[str]:
    return [error.json_path for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(compose)]


@pytest.mark.long
def test_the_file_is_one_of_the_compose_specification() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert mistakes(COMPOSE) == []
    wrong = copy.deepcopy(COMPOSE)
    wrong["services"]["server"]["read_onyl"] = True
    assert mistakes(wrong), "it looks"


@each_service
def test_a_container_is_closed_off(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    user = str(service["user"]).partition(":")[0]
    assert user.isdigit()
    assert user != "0"


@each_service
def test_a_container_has_bounds(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[1-9]\d*g", service["mem_limit"])
    assert 0 < service["pids_limit"] <= 2048
    assert all("size=" in mount for mount in service["tmpfs"])
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert service["restart"] in ("unless-stopped", "on-failure")
    assert "healthcheck" in service


@each_service
def test_an_image_names_its_version_to_the_last_digit(name: str) -> None:
    image, _, version = SERVICES[name]["image"].partition(":")
    assert image == "rllib-policy-server" or re.fullmatch(r"\d+\.\d+\.\d+", version)


def test_our_image_runs_as_the_user_of_compose_from_a_base_of_an_exact_version() -> None:
    base = re.search(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert base
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", base[1])
    assert re.search(r"^FROM \$\{BASE\}$", DOCKERFILE, re.MULTILINE)
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users == [SERVICES["server"]["user"]]
    assert f"useradd --uid {users[0].partition(':')[0]} " in DOCKERFILE
    after = DOCKERFILE.partition("\nUSER ")[2]
    assert not re.search(r"^(RUN|COPY|ADD) ", after, re.MULTILINE), "what the user could change is made by root before"
    installs = re.findall(r"pip install .*", DOCKERFILE)
    assert all("--constraint requirements.txt" in line or "requirements.txt)" in line for line in installs)
