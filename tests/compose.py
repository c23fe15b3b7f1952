"""docker-compose.yml and Dockerfile as the tests read them: values filled in as Compose does, services as processes.

No Docker engine is needed. ``load`` fills in variables by the Compose Specification's rules, as far as the file
uses them, and refuses what it uses beyond. ``Stack`` runs a service's own command, in its own environment, as a
process: names of services become ports of loopback, and paths of the image become paths here. What only an engine
can show (the image's build, confinement, volumes) it cannot.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PINNED = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text("utf-8")))
SECRET = re.compile(r"KEY|AUTH|TOKEN|SECRET|PASSWORD")  # in a variable's name
VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?:(?P<rule>:[-?])(?P<rest>[^{}]*))?\}|(?P<other>))")


class Missing(ValueError):
    """A variable that the file demands is not set."""


def interpolate(text: str, values: Mapping[str, str]) -> str:
    def fill(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        assert match["name"], f"{text!r}: only $$, ${{NAME}}, ${{NAME:-default}} and ${{NAME:?reason}} are read here"
        value = values.get(match["name"], "")
        if not value and match["rule"] == ":?":
            raise Missing(f"{match['name']}: {match['rest']}")
        return value or (match["rest"] if match["rule"] == ":-" else "")

    return VARIABLE.sub(fill, text)


def load(values: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The file's services; with ``values``, filled in. Raises :class:`Missing`."""

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: walk(value) for key, value in node.items()}
        if isinstance(node, list):
            return [walk(value) for value in node]
        return interpolate(node, values) if isinstance(node, str) and values is not None else node

    return walk(yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8")))["services"]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, as (name, rest): comments dropped, continued lines joined."""
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", "")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def image_environment() -> dict[str, str]:
    """What the shipped stages set, but for the paths that exist only in the image."""
    rest = [rest for name, rest in instructions() if name == "ENV"]
    pairs = dict(pair.split("=", 1) for text in rest for pair in shlex.split(text))
    return {key: value for key, value in pairs.items() if "/" not in value and not key.startswith("PIP_")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stack:
    """The services of a filled-in file, as processes in ``folder``, which stands for the image's working directory."""

    def __init__(self, services: dict[str, Any], folder: Path, environment: Mapping[str, str]) -> None:
        self.services, self.folder, self.extra = services, folder, environment
        programs = Path(sys.executable).parent  # `ragkit` and `python` are this environment's
        self.base = {
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT), **image_environment(), **environment,
        }  # fmt: skip
        published = [port for one in services.values() for port in one.get("ports", [])]
        # container port -> port here; the two language models share one, since only one of them runs
        self.ports = {int(port.split(":")[-1]): free_port() for port in published}
        self.running: list[subprocess.Popen[bytes]] = []

    def place(self, text: str) -> str:
        """``http://embedder:8765`` and ``8765`` as they are here; nothing listens beyond loopback."""
        text = text.replace("0.0.0.0", "127.0.0.1")
        for port, here in self.ports.items():
            text = re.sub(rf"\b(?:llm|{'|'.join(self.services)}):{port}\b", f"127.0.0.1:{here}", text)
            text = re.sub(rf"(?<![\w.]){port}(?!\w)", str(here), text)
        return text

    def environment(self, service: str) -> dict[str, str]:
        own = self.services[service].get("environment", {})
        return self.base | {name: self.place(value) for name, value in own.items()}

    def run(self, service: str, command: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """What ``docker compose run SERVICE [COMMAND]`` does, to its end."""
        words = [self.place(word) for word in command or self.services[service]["command"]]
        return subprocess.run(
            words, env=self.environment(service), cwd=self.folder, capture_output=True, text=True, timeout=300
        )

    def start(self, service: str) -> subprocess.Popen[bytes]:
        words = [self.place(word) for word in self.services[service]["command"]]
        log = (self.folder / f"{service}.log").open("wb")
        process = subprocess.Popen(words, env=self.environment(service), cwd=self.folder, stdout=log, stderr=log)
        self.running.append(process)
        return process

    def healthy(self, service: str) -> bool:
        """One run of the service's own health check."""
        kind, *words = self.services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        command = [self.place(word) for word in words]
        return not subprocess.run(command, env=self.environment(service), capture_output=True, timeout=30).returncode

    def wait(self, service: str, process: subprocess.Popen[bytes] | None = None, seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while not self.healthy(service):
            log = self.folder / f"{service}.log"
            told = log.read_text("utf-8", "replace") if log.exists() else ""
            assert process is None or process.poll() is None, f"{service} ended: {told}"
            assert time.monotonic() < deadline, f"{service} is not healthy after {seconds} s: {told}"
            time.sleep(1)  # as `start_interval`: a check is a program, and takes its time from what it waits for

    def stop(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def has_app() -> bool:
    """Whether this ragkit has the app that the file starts."""
    program = str(Path(sys.executable).with_name("ragkit"))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return not subprocess.run([program, "app", "--help"], env=environment, capture_output=True).returncode
