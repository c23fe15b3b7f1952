"""The layers of the house, read from the imports."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RAGKIT = sorted((ROOT / "ragkit").glob("*.py"))
TRAINER = sorted((ROOT / "trainer").glob("*.py"))

# Lower first: a module imports only from lines above its own.
LAYERS = [
    {
        "extras",
        "limits",
        "context",
        "forward",
        "fused",
        "int8",
        "constants",
        "operations",
        "page",
        "pictures",
        "search_load",
    },
    {
        "types",
        "task",
        "around",
        "settings",
        "owner",
        "metrics",
        "pace",
        "endpoint",
        "markers",
        "batching",
        "keys",
        "progress",
        "capacity",
    },
    {"names"},
    {
        "forecast",
        "plan_report",
        "language",
        "sparse",
        "mini",
        "llm",
        "references",
        "wire",
        "machine",
        "files",
        "markup",
        "archive",
    },
    {"records", "client"},
    {
        "plan_page",
        "split",
        "office",
        "tables",
        "nodes",
        "edge_models",
        "filters",
        "tenant",
        "rerank",
        "guard",
        "dialects",
    },
    {"readers", "lora"},
    {"layout", "parsing"},
    {"documents"},
    {"encoder", "edge", "qdrant", "generations", "shards"},
    {"remote", "faults", "runtimes", "cluster"},
    {"embedding", "store"},
    {"ingest", "retrieve", "answer", "reindex", "server", "bulk"},
    {"evaluate", "live", "grounded", "doctor", "watch", "retriever", "backup", "bulk_ray", "load"},
    {"commands"},
    {"cli_operate", "cli_plan", "cli_keep", "cli_bulk"},
    {"cli"},
]


def imports(path: Path, *, everywhere: bool = True) -> set[str]:
    """Modules imported by a file, those for type checking left out; at its top level only, if asked."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not everywhere:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text("utf-8")))
    return found


def uses(path: Path, package: str, **kwargs: bool) -> bool:
    return any(name == package or name.startswith(f"{package}.") for name in imports(path, **kwargs))


@pytest.mark.parametrize("path", RAGKIT, ids=lambda p: p.stem)
def test_ragkit_imports_downwards(path: Path):
    assert not uses(path, "trainer") and not uses(path, "apps")
    if path.stem == "__init__":
        return
    [level] = [n for n, names in enumerate(LAYERS) if path.stem in names]
    below = set[str]().union(*LAYERS[:level])
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("ragkit.")}
    known = {p.stem for p in RAGKIT}
    assert ours & known <= below, f"{path.stem} reaches up to {ours & known - below}"


@pytest.mark.parametrize("path", RAGKIT, ids=lambda p: p.stem)
def test_heavy_libraries_have_their_homes(path: Path):
    assert not uses(path, "torch") or path.stem in {
        "encoder", "forward", "fused", "int8", "lora",
        "mini", "faults", "runtimes"
    }  # fmt: skip
    assert not uses(path, "transformers") or path.stem in {"encoder", "forward", "mini"}
    assert not uses(path, "llama_index") or path.stem in {"embedding", "nodes", "retriever"}
    assert not uses(path, "qdrant_client") or path.stem in {
        "generations", "cluster",
        "store", "edge", "edge_models", "filters", "qdrant", "tenant"
    }  # fmt: skip
    assert not uses(path, "fastapi") or path.stem == "server"
    assert not uses(path, "prometheus_client") or path.stem in {"server", "guard"}
    assert not uses(path, "qdrant_edge") or path.stem in {"edge", "edge_models", "sparse"}
    assert not uses(path, "openai") or path.stem == "llm"
    assert not uses(path, "pyarrow") or path.stem in {"shards", "tables"}
    assert not uses(path, "ray") or path.stem == "bulk_ray"


@pytest.mark.parametrize("path", TRAINER, ids=lambda p: p.stem)
def test_the_trainer_needs_no_server_and_no_app(path: Path):
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("ragkit.")}
    allowed = {
        "extras",
        "types",
        "task",
        "around",
        "encoder",
        "endpoint",
        "llm",
        "owner",
        "Task",
        "TASKS",
        "operations",
        "page",
        "pictures",
    }
    if path.stem == "evaluate":
        allowed |= {"store", "retrieve", "metrics", "language", "evaluate"}
    if path.stem == "mteb_store":
        allowed |= {"store", "retrieve", "settings", "sparse", "split", "language"}
    if path.stem == "harness":
        allowed |= {"metrics"}
    if path.stem == "evaluate_cli":
        allowed |= {"settings"}
    if path.stem in ("embedder", "loop"):
        allowed |= {"forward"}
    if path.stem == "layers":
        allowed |= {"fused"}
    if path.stem == "peers":
        allowed |= {"remote", "sparse", "references", "settings"}
    if path.stem in ("teacher", "mteb_tasks", "request_plan"):
        allowed |= {"sparse"}
    if path.stem == "teacher":
        allowed |= {"settings"}
    if path.stem == "report_cli":
        allowed |= {"context"}
    if path.stem == "export":
        allowed |= {"mini", "references", "faults", "runtimes"}
    if path.stem == "model_card":
        allowed |= {"runtimes"}
    assert ours <= allowed
    assert not uses(path, "apps")


def test_the_app_s_numbers_and_drawings_know_no_page():
    charts, *numbers = (ROOT / "apps" / f"{name}.py" for name in ("charts", "languages", "maps"))
    assert not {name for name in imports(charts) if name.partition(".")[0] not in sys.stdlib_module_names}
    for path in numbers:
        assert not any(uses(path, package) for package in ("apps", "trainer", "gradio", "torch"))


def test_the_command_lines_start_light():
    for path in (
        *(
            ROOT / "ragkit" / f"{name}.py"
            for name in ("cli", "cli_operate", "cli_plan", "cli_keep", "cli_bulk", "commands")
        ),
        ROOT / "trainer" / "cli.py",
        ROOT / "trainer" / "synthesise_cli.py",
        ROOT / "trainer" / "evaluate_cli.py",
        ROOT / "trainer" / "report_cli.py",
    ):
        heavy = {
            "torch",
            "transformers",
            "llama_index",
            "qdrant_client",
            "ragkit.encoder",
            "ragkit.store",
            "ragkit.reindex",
            "ragkit.backup",
            "ragkit.server",
            "ragkit.doctor",
            "ragkit.bulk",
            "ragkit.load",
            "ray",
            "pyarrow",
            "fastapi",
            "trainer.train",
            "trainer.synthesise",
            "ragkit.llm",
            "openai",
            "aiohttp",
            "yaml",
            "trainer.export",
            "trainer.evaluate",
            "mteb",
            "datasets",
            "numpy",
            "pydantic_settings",
            "ragkit.settings",
            "trainer.evaluation_report",
            "trainer.passkey",
            "matplotlib",
            "simpy",
            "scipy",
        }
        assert not {h for h in heavy if uses(path, h, everywhere=False)}


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh Python holds after ``code``."""
    code += "; import json, sys; print('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout.splitlines()[-1]))


HEAVY = {"torch", "transformers", "llama_index", "qdrant_client", "qdrant_edge", "numpy", "pydantic"}


def test_importing_ragkit_loads_nothing_heavy():
    assert not loaded_by("import ragkit") & HEAVY


def test_help_loads_nothing_heavy():
    code = "import contextlib; from ragkit.cli import app\nwith contextlib.suppress(SystemExit): app(['--help'])\npass"
    assert not loaded_by(code) & (HEAVY | {"httpx", "regex", "platformdirs"})


def test_searching_loads_no_llama_index():
    loaded = loaded_by("import ragkit.store, ragkit.retrieve, ragkit.answer, ragkit.rerank, ragkit.remote")
    assert "qdrant_client" in loaded and not loaded & {"llama_index", "torch", "transformers", "peft"}
