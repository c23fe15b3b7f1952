"""Dockerfile and .dockerignore: what the image holds, who runs in it, and that no secret gets in. Nothing is built."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from compose import PINNED, PROJECT, ROOT, SECRET, has_app, instructions, load
from test_layers import imports

STEPS = instructions()


def of(kind: str, word: str = "") -> list[str]:
    """The rests of one kind of instruction that hold a word."""
    return [rest for name, rest in STEPS if name == kind and word in rest]


def test_hadolint_finds_nothing():
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_stages_base_and_user():
    stages = {name: base for base, name in (rest.split(" AS ") for rest in of("FROM"))}
    assert list(stages)[-1] == "cpu"  # what `docker build .` makes
    assert stages["cpu"] == stages["cuda"] == "runtime" and stages["runtime"] == "${PYTHON_IMAGE}"
    assert load()["embedder"]["build"]["target"] in stages
    [argument] = of("ARG")
    base = re.fullmatch(r"PYTHON_IMAGE=python:(3\.\d+)\.\d+-slim-[a-z]+", argument)
    assert base and base[1] == PROJECT["requires-python"].lstrip(">=")  # the Python that CI tests with
    shipped = STEPS[STEPS.index(("FROM", "${PYTHON_IMAGE} AS runtime")) :]
    assert [rest for name, rest in shipped if name == "USER"] == ["10001"]
    [run] = [rest for name, rest in shipped if name == "RUN"]  # nothing else is made there, so no tool stays
    assert run.startswith("useradd ") and "--uid 10001" in run


def test_nothing_comes_from_an_address_and_no_secret_is_kept():
    assert not of("ADD")
    addresses = {word for _, rest in STEPS for word in rest.split() if "://" in word}
    assert addresses == {"https://download.pytorch.org/whl/cpu"}
    for rest in [*of("ARG"), *of("ENV")]:
        assert not [pair for pair in shlex.split(rest) if SECRET.search(pair.partition("=")[0])]
    assert not of("RUN", "type=secret") and not of("COPY", ".env")


def test_it_has_what_its_services_need():
    [install] = of("RUN", "'.[")
    extras = set(re.findall(r"'\.\[([\w,]+)\]'", install)[0].split(","))
    assert extras == {"app", "llm", "mini", "serve"}
    assert extras - {"app"} <= set(PROJECT["optional-dependencies"])
    assert "app" in PROJECT["optional-dependencies"] or not has_app()
    [uninstall] = of("RUN", "gemma3")
    assert set(re.findall(r"gemma3\S+", uninstall)) == {name for name in PINNED if name.startswith("gemma3-270m")}


def test_the_weights_layer_has_all_that_unpacks_them():
    [copy] = of("COPY", "/unpack/")
    needed, found = {"__init__", "mini"}, set[str]()
    while needed - found:
        one = min(needed - found)
        found.add(one)
        ours = {name.split(".")[1] for name in imports(ROOT / "ragkit" / f"{one}.py") if name.startswith("ragkit.")}
        needed |= {name for name in ours if (ROOT / "ragkit" / f"{name}.py").exists()}
    assert sorted(copy.split()[:-1]) == sorted(f"ragkit/{name}.py" for name in needed)


def test_the_build_sees_what_it_copies_and_nothing_else():
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"  # what follows lets in
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = [rest.split()[:-1] for rest in of("COPY") if "--from=" not in rest]
    assert {word.partition("/")[0] for words in copied for word in words} == allowed
    assert all((ROOT / name).exists() for name in allowed)
    assert {line for line in lines[1:] if line[0] != "!"} == {"**/__pycache__", "**/.env*"}
    assert {".env", "/models/"} <= set((ROOT / ".gitignore").read_text("utf-8").splitlines())
