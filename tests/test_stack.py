"""docker-compose.yml and .env.example, held to what they promise and to what ragkit reads."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import check_jsonschema
import jsonschema
import pytest
import typer
import yaml
from compose import PINNED, PROJECT, ROOT, SECRET, Missing, has_app, instructions, interpolate, load

from ragkit.cli import app
from ragkit.settings import Settings

SERVICES = load()
KEYS = {"QDRANT_API_KEY", "EMBEDDER_API_KEY", "LLM_API_KEY", "APP_AUTH"}
VALUES = dict.fromkeys(KEYS, "x:x")


def example() -> list[str]:
    return (ROOT / ".env.example").read_text("utf-8").splitlines()


def test_the_file_follows_the_compose_specification():
    """Its JSON schema, as the package check-jsonschema carries it."""
    vendored = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    validator = jsonschema.Draft202012Validator(json.loads(vendored.read_text("utf-8")))
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    assert [f"{list(error.path)}: {error.message}" for error in validator.iter_errors(document)] == []
    document["services"]["qdrant"]["healthcheck"]["retry"] = 1
    assert not validator.is_valid(document)


def test_docker_compose_reads_it(tmp_path: Path):
    """Where the Compose plugin is, it must agree; reading needs no engine."""
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("the docker compose plugin is not installed")
    made = tmp_path / "made.env"
    made.write_text("".join(f"{name}={value}\n" for name, value in VALUES.items()))
    for profile in ("", "cpu", "gpu"):
        command = ["docker", "compose", "--profile", profile, "--env-file", str(made), "config", "--format", "json"]
        told = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)["services"]
        wanted = {name for name, one in SERVICES.items() if profile in one.get("profiles", [profile])}
        assert set(told) == wanted
        filled = load(VALUES)
        assert all(told[name].get("environment", {}) == filled[name].get("environment", {}) for name in told)


def test_variables_are_filled_in_as_compose_does():
    values = {"A": "a", "B": ""}
    text = "${A}-${B}-${C}-${A:-d}-${B:-d}-${C:-http://d:1}-${A:?why}-$${A}"
    assert interpolate(text, values) == "a---a-d-http://d:1-a-${A}"
    for unread in ("$A", "${A-d}", "${A:+d}"):
        with pytest.raises(AssertionError, match="only"):
            interpolate(unread, values)


@pytest.mark.parametrize("name", sorted(KEYS))
def test_it_refuses_to_start_without_a_key(name: str):
    load(VALUES)
    for value in ({}, {name: ""}):
        with pytest.raises(Missing, match=rf"^{name}: \w+.*\.env\.example"):
            load({key: given for key, given in VALUES.items() if key != name} | value)


def test_keys_are_made_as_env_example_says(tmp_path: Path):
    [command] = [line.lstrip("# ") for line in example() if "openssl" in line]
    shutil.copy(ROOT / ".env.example", tmp_path)
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    lines = [line for line in (tmp_path / ".env").read_text("utf-8").splitlines() if line and line[0] != "#"]
    made = dict(line.split("=", 1) for line in lines)
    assert set(made) == KEYS and len(set(made.values())) == len(KEYS)
    assert re.fullmatch(r"demo:[0-9a-f]{48}", made.pop("APP_AUTH"))
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in made.values())


def test_env_example_names_every_variable_and_no_value():
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text("utf-8")))
    offered = {match[1]: match[2] for line in example() if (match := re.fullmatch(r"#?([A-Z]\w+)=(.*)", line))}
    assert set(offered) == used | {"COMPOSE_PROFILES"}
    assert {name for name, value in offered.items() if not value} == KEYS
    assert not [name for name in offered if name.startswith("RAGKIT_")], (
        "a ragkit outside the containers reads .env too"
    )


def test_no_secret_is_written_anywhere():
    for service, settings in SERVICES.items():
        for name, value in settings.get("environment", {}).items():
            assert not SECRET.search(name) or re.fullmatch(r"\$\{\w+:\?[^{}]+\}", value), f"{service}: {name}"
    for name in ("docker-compose.yml", "Dockerfile", ".env.example"):
        assert not re.search(r"\b([0-9a-f]{16,}|(sk|hf|pk)[-_]\w{8,})\b", (ROOT / name).read_text("utf-8")), name


def test_who_is_waited_for_says_when_it_is_ready():
    healthy: set[str] = set()
    for service, settings in SERVICES.items():
        for other, wish in settings.get("depends_on", {}).items():
            needed = SERVICES[other]
            assert wish.get("required", True) == ("profiles" not in needed), f"{service} waits for {other}"
            if wish["condition"] == "service_healthy":
                healthy.add(other)
                assert needed["restart"] != "no"
            else:
                assert wish["condition"] == "service_completed_successfully" and needed["restart"] == "no"
    checked = {name for name, one in SERVICES.items() if not one["healthcheck"].get("disable")}
    assert checked - {"app"} == healthy  # nothing waits for the app but people
    assert all(SERVICES[name]["restart"] == "unless-stopped" for name in checked)
    assert {name for name in SERVICES if name not in checked} == {"ingest"}


def test_ports_are_published_on_loopback_alone():
    published = {name: one["ports"] for name, one in SERVICES.items() if "ports" in one}
    for ports in published.values():
        [(outside, inside)] = [re.fullmatch(r"127\.0\.0\.1:(\d+):(\d+)", port).groups() for port in ports]  # type: ignore[union-attr]
        assert outside == inside
    assert set(published) == set(SERVICES) - {"ingest"}


def test_uploads_outlive_the_container():
    """The versions before lie beside them, so the volume is the folder above; it takes its owner from the image."""
    uploads = PurePosixPath(SERVICES["app"]["environment"]["RAGKIT_APP_UPLOADS"])
    [(volume, there)] = [one.split(":") for one in SERVICES["app"]["volumes"] if not one.startswith(".")]
    assert volume in yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["volumes"]
    assert there == str(uploads.parent)
    [user] = [rest for name, rest in instructions() if name == "USER"]
    assert [rest for name, rest in instructions() if name == "RUN" and f"--owner={user} --mode=0700 {there}" in rest]


def test_images_are_pinned():
    for service, settings in SERVICES.items():
        tag = settings["image"].rpartition(":")[2]
        assert re.search(r"\d", tag) and "latest" not in tag, f"{service}: {settings['image']}"
    ours = {name for name, one in SERVICES.items() if one["image"] == f"ragkit:{PROJECT['version']}"}
    assert ours == {"embedder", "ingest", "app"}
    assert {name for name in SERVICES if "build" in SERVICES[name]} == {"embedder"}
    assert all(SERVICES[name]["pull_policy"] == "never" for name in ours - {"embedder"})
    [server] = re.findall(r"^qdrant/qdrant:v(\d+\.\d+)\.\d+-unprivileged$", SERVICES["qdrant"]["image"])
    assert PINNED["qdrant-client"].rpartition(".")[0] == server


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_confined(service: str):
    settings = SERVICES[service]
    assert not settings.keys() & {"privileged", "network_mode", "pid", "ipc", "cap_add", "userns_mode", "devices"}
    assert settings["cap_drop"] == ["ALL"] and settings["security_opt"] == ["no-new-privileges:true"]
    assert settings["read_only"] or settings["image"].startswith("vllm/")
    assert settings["mem_limit"] and settings["pids_limit"] and settings["restart"] in ("no", "unless-stopped")
    assert all(volume.endswith(":ro") for volume in settings.get("volumes", []) if volume.startswith((".", "/")))
    user = str(settings.get("user", ""))
    ours = settings["image"].startswith("ragkit:")  # its USER is tested below
    assert ours or settings["image"].endswith("-unprivileged") or int(user.partition(":")[0]) > 0


def test_ragkit_reads_every_setting_that_is_set(monkeypatch: pytest.MonkeyPatch):
    """A name that Settings does not know changes nothing in it."""
    filled = load(VALUES | {"EMBEDDER_FOLDER": "/models/e5", "LLM_MODEL": "llm"})
    given = {name: value for one in filled.values() for name, value in one.get("environment", {}).items()}
    named = {name: value for name, value in given.items() if name.startswith("RAGKIT_")}
    assert len(named) >= 9
    if not has_app():
        named.pop("RAGKIT_APP_AUTH")
    without = Settings(_env_file=None).model_dump()  # pyright: ignore[reportCallIssue]
    for name, value in named.items():
        with monkeypatch.context() as one:
            one.setenv(name, value)
            assert Settings(_env_file=None).model_dump() != without, name  # pyright: ignore[reportCallIssue]


def parse(words: list[str]) -> typer.Context:
    """A command line read by the real commands, and not run."""
    group: Any = typer.main.get_command(app)
    program, *rest = words
    assert program == "ragkit"
    context = group.make_context(program, rest)
    name, command, arguments = group.resolve_command(context, [*context._protected_args, *context.args])
    return command.make_context(name, arguments, parent=context)


def test_every_command_is_one_of_ragkits():
    commands = {name: one["command"] for name, one in SERVICES.items() if one["image"].startswith("ragkit:")}
    [server] = [json.loads(rest) for name, rest in instructions() if name == "CMD" and rest.startswith("[")]
    if not has_app():
        assert commands.pop("app")[1] == "app"
    read = {name: parse(words).params for name, words in {**commands, "image": server}.items()}
    assert (read["embedder"]["host"], read["embedder"]["port"], read["embedder"]["model"]) == ("0.0.0.0", 8765, "mini")
    assert (read["image"]["host"], read["image"]["port"]) == ("0.0.0.0", 8765)
    assert read["ingest"]["corpus"] == "selvara" and all((ROOT / path).exists() for path in read["ingest"]["paths"])
    with pytest.raises(Exception, match="No such option"):
        parse(["ragkit", "serve", "--hosts", "0.0.0.0"])


def test_llama_cpp_knows_the_options():
    """As the library of the same project, packaged for Python, has them compiled in."""
    import xllamacpp

    library = next(Path(xllamacpp.__file__).parent.glob("*.so")).read_bytes()
    used = [word for word in SERVICES["llm-cpu"]["command"] if word.startswith("--")]
    assert len(used) >= 8
    for word in [*used, *(name for name in SERVICES["llm-cpu"]["environment"])]:
        assert b"\0" + word.encode() + b"\0" in library, word
