"""What is shipped for real clusters is well formed, and names what there is."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from adjoin.cli.app import app
from adjoin.settings import Settings

#: Of the environment that the tests run in, which need not be on PATH.
BIN = Path(sys.executable).parent
DEPLOY = Path(__file__).parent.parent / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSE = YAML(typ="safe").load((DEPLOY / "compose.yaml").read_text())


def _unit(path: Path) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    return unit


def _commands() -> dict[str, list[str]]:
    found = {unit.name: _unit(unit)["Service"]["ExecStart"].split() for unit in UNITS}
    return found | {name: each["command"] for name, each in COMPOSE["services"].items()}


@pytest.mark.parametrize("name", sorted(_commands()))
def test_commands_and_their_options_exist(name: str) -> None:
    program, verb, *rest = _commands()[name]
    known = _help(Path(program).name, verb)
    for option in (each for each in rest if each.startswith("--")):
        assert option in known, option


def _help(program: str, verb: str) -> str:
    if program == "adjoin":
        return CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"}).output
    command = [str(BIN / "dask"), verb, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_start_again_and_are_confined(path: Path) -> None:
    service = _unit(path)["Service"]
    assert service["Restart"] == "always"
    assert service["User"] == "adjoin"
    assert service["NoNewPrivileges"] == "yes"
    assert _unit(path)["Unit"]["StartLimitIntervalSec"] == "0"  # else systemd gives up after five


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for path in UNITS:
        text = path.read_text().replace("User=adjoin", "User=root")
        for program in ("adjoin", "dask"):  # where they are here
            text = text.replace(f"/opt/adjoin/bin/{program}", str(BIN / program))
        (tmp_path / path.name.replace("@", "@1")).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    ours = [line for line in done.stderr.splitlines() if "adjoin" in line]
    assert not ours, done.stderr


def test_the_composition_is_whole() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"scheduler", "worker", "serve"}
    for service in services.values():
        assert service["restart"] == "always"
        assert (DEPLOY / service["build"]["dockerfile"]).exists()
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        assert {v.partition(":")[0] for v in service["volumes"]} <= set(COMPOSE["volumes"])
    assert [port for s in services.values() for port in s.get("ports", ())] == [
        "127.0.0.1:8000:8000"
    ]


def test_settings_in_there_exist() -> None:
    lines = (DEPLOY / "systemd" / "adjoin.env").read_text().splitlines()
    names = {line.partition("=")[0] for line in lines if not line.startswith("#")}
    names |= set(COMPOSE["services"]["serve"]["environment"])
    assert {name.removeprefix("ADJOIN_").lower() for name in names} <= set(Settings.model_fields)
