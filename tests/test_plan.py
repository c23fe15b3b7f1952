"""The capacity planner: exact small cases, refusals, the page, predictions against measured rows."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from lxml import html as lxml_html
from transformers import AutoModel, Gemma3TextConfig, MistralConfig
from typer.testing import CliRunner

from ragkit import capacity, forecast, operations
from ragkit.capacity import Cluster, Workload, plan
from ragkit.cli import app
from ragkit.cli_plan import size
from ragkit.constants import constants, devices

GB = 1e9
BILLION = ("plan", "--passages", "1e9", "--dimension", "4096")


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


# ---------------------------------------------------------------------- constants and operations


def test_every_constant_says_where_it_comes_from():
    for one in [*constants().values(), *(device.peak for device in devices().values())]:
        assert one.value > 0 and one.unit and len(one.source) > 5, one
        assert one.kind != "published" or "https://" in one.source
    assert {"assumed", "measured", "published", "counted"} == {one.kind for one in constants().values()}


@pytest.mark.parametrize("config", [
    MistralConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                  num_key_value_heads=2, vocab_size=100),
    Gemma3TextConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
                     num_key_value_heads=1, head_dim=48, vocab_size=100),
])  # fmt: skip
def test_weights_are_those_of_the_model(config):
    import torch

    with torch.device("meta"):
        model = AutoModel.from_config(config)
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    shape = operations.shape_of(config.to_dict(), "tiny")
    assert shape.linear == linear and shape.dimension == 64
    assert shape.parameters == linear + 100 * 64
    assert operations.forward(shape, 10) == 2 * linear * 10 + operations.attention(shape.layers, shape.width, [10])


def test_mini_is_counted_as_its_configuration_says():
    config = {"hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 4,
              "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262_144}  # fmt: skip
    shape = operations.shape_of(config, "mini")
    assert (shape.linear, shape.width) == (operations.MINI.linear, operations.MINI.width)
    assert shape.parameters == operations.MINI.parameters


# ---------------------------------------------------------------------- memory, disk, nodes


def test_memory_is_the_sum_of_qdrant_s_formulas():
    work = Workload(1e6, 1024, quantization="scalar", payload_bytes=1000, terms=100)
    made = plan(work, Cluster())
    each = 1024 * 1 + 16 * 2 * 4 * 1.2 + 100 * 4 * 1.5 + 2 * 96 + 52
    assert made["memory"] == pytest.approx(1e6 * each * 1.2)
    assert made["disk"] == pytest.approx(1e6 * (each + 1024 * 4 + 100 * 8 + 1000 * 1.5) * 1.2)
    assert made.settings["RAGKIT_QDRANT_VECTORS_ON_DISK"] == "true"
    kept = plan(Workload(1e6, 1024, quantization="scalar", originals_in_memory=True), Cluster())
    assert kept["memory: original vectors"] == 1e6 * 4096
    assert "memory: original vectors" not in made.figures and made["disk: original vectors"] == 1e6 * 4096


def test_wide_vectors_agree_with_the_one_line_formula():
    made = plan(Workload(1e6, 4096), Cluster())
    assert made["memory"] == pytest.approx(made["memory, Qdrant's one-line formula"], rel=0.1)


@pytest.mark.parametrize(("quantization", "bits", "bytes_"), [("none", 4, 0), ("scalar", 4, 768), ("turbo", 4, 384),
                                                            ("turbo", 1.5, 144), ("binary", 4, 96)])  # fmt: skip
def test_codes_have_their_published_sizes(quantization, bits, bytes_):
    assert capacity.code_bytes(quantization, bits, 768) == bytes_


def test_every_node_has_room_for_its_copies():
    for replicas in (1, 2, 3):
        for shards in (None, 25, 40):
            made = plan(Workload(2e8, 768, replicas=replicas), Cluster(shards=shards))
            nodes, count = made["nodes"], made["shards"]
            assert made["memory a node"] <= 64 * GB and made["disk a node"] <= 2000 * GB
            assert nodes >= (3 if replicas > 1 else 1)
            copies = capacity.copies_a_node(int(count), replicas, int(nodes))
            assert made["memory a node"] == pytest.approx(made["memory"] * copies / (count * replicas))


def test_more_copies_never_take_fewer_nodes_and_more_room_never_more():
    sizes = [plan(Workload(1e9, 1024, replicas=r), Cluster())["nodes"] for r in (1, 2, 3)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2]
    rooms = [plan(Workload(1e9, 1024), Cluster(memory=m * GB))["nodes"] for m in (32, 64, 256)]
    assert rooms == sorted(rooms, reverse=True) and rooms[0] > rooms[2]


def test_embedding_is_operations_by_rate():
    made = plan(Workload(1e9, 4096), Cluster())
    capacity.embedding(made, operations.shape_of_size(7e9), "a100", gpus=10)
    hours = 2 * 7e9 * 200 * 1e9 / (312e12 * 0.4) / 3600
    assert made["GPU hours"] == pytest.approx(hours) and made["embedding"] == pytest.approx(hours / 10)
    assert [one.kind for one in made.figures["GPU hours"].used] == ["datasheet", "assumed"]
    capacity.cost(made, capacity.prices(["gpu-hour=1.5", "node-month=100", "disk-gb-month=0.1"]))
    assert made["cost of embedding"] == pytest.approx(hours * 1.5)
    assert made["cost of nodes"] == 100 * made["nodes"]
    assert made["cost of disk"] == pytest.approx(made["disk"] / GB * 0.1)


def test_no_price_no_cost():
    made = plan(Workload(1e6, 640), Cluster())
    capacity.cost(made, capacity.prices([]))
    assert not [name for name in made.figures if "cost" in name]


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("arguments", "told"), [
    (["plan", "--dimension", "640"], "there is nothing to plan for"),
    (["plan", "--passages", "1e6"], "give --dimension"),
    ([*BILLION, "--quantization", "zip"], "use none, scalar, turbo or binary"),
    ([*BILLION, "--quantization", "turbo", "--bits", "3"], "TurboQuant has 1, 1.5, 2, 4 and 8"),
    ([*BILLION, "--model-parameters", "7e9", "--gpu", "z900"], "use one of t4, v100"),
    ([*BILLION, "--model-parameters", "7e9"], "give both or neither"),
    ([*BILLION, "--model-parameters", "7e10", "--gpu", "h100"], "choose a larger GPU"),
    ([*BILLION, "--model-parameters", "7e9", "--gpu", "h100", "--utilization", "40"], "0 to 1"),
    ([*BILLION, "--model", "no/such"], "there is no"),
    ([*BILLION, "--shards", "3"], "or more, or larger nodes"),
    ([*BILLION, "--node-memory", "64"], "write 64GB, not 64"),
    ([*BILLION, "--price", "gpu=2"], "there are gpu-hour"),
    ([*BILLION, "--price", "gpu-hour=2"], "give --gpu too"),
    ([*BILLION, "--price", "gpu-hour=much"], "write NAME=NUMBER"),
    ([*BILLION, "--replicas", "0"], "one copy at least"),
    (["plan", "--passages", "inf", "--dimension", "640"], "passages is inf: give a number"),
    (["plan", "--passages", "nan", "--dimension", "640"], "passages is nan: give a number"),
    (["plan", "--passages", "1e305", "--dimension", "640"], "give a number below 1e18"),
    ([*BILLION, "--tokens-per-passage", "inf"], "tokens_per_passage is inf: give a number"),
    ([*BILLION, "--queries-per-second", "inf"], "queries_per_second is inf: give a number"),
])  # fmt: skip
def test_nonsense_is_refused_with_advice(arguments, told):
    result = run(*arguments)
    assert result.exit_code == 1 and told in result.stderr, result.stderr


@pytest.mark.parametrize("text", ["lots", "1.2.3GB", "..GB", "1e999GB", "64 apples"])
def test_a_size_without_meaning_is_wrong_usage(text: str):
    result = run(*BILLION, "--node-memory", text)
    assert result.exit_code == 2 and "64GB" in result.stderr


def test_sizes_in_bytes():
    assert [size(text) for text in ("64GB", " 1.5 tib ", ".5MB", "2e3")] == [64e9, 1.5 * 2**40, 5e5, 2e3]


def test_the_advised_number_of_shards_is_enough():
    result = run(*BILLION, "--shards", "3")
    advised = result.stderr.partition("--shards ")[2].split()[0]
    assert run(*BILLION, "--shards", advised).exit_code == 0


# ---------------------------------------------------------------------- the command and the page

SMALL = ("plan", "--passages", "2e6", "--model", "mini", "--gpu", "l4", "--queries-per-second", "50", "--replicas", "2",
         "--node-memory", "16GB", "--node-cores", "2")  # fmt: skip


def test_a_plan_as_text_json_and_page(tmp_path: Path):
    file = tmp_path / "plan.html"
    result = run(*SMALL, "--html", str(file), "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout.splitlines()[-1])
    figures = {figure["name"]: figure for figure in document["figures"]}
    assert (
        figures["search, p99"]["value"] > figures["search, p50"]["value"] > figures["search of a shard, p50"]["value"]
    )
    assert all(figure["used"] or figure["how"] for figure in figures.values())
    page = lxml_html.fromstring(file.read_text("utf-8"))
    assert not page.xpath("//script") and all(s.startswith("data:") for s in page.xpath("//img/@src"))
    targets = set(page.xpath("//li/@id"))
    links = [link.removeprefix("#") for link in page.xpath("//a/@href") if link.startswith("#")]
    assert links and set(links) == targets  # every number's source is there, and no source stands for nothing
    assert "assumed]" in page.text_content()
    assert len(page.xpath("//picture")) == 1
    text = run(*SMALL[:7], *SMALL[9:]).stdout  # no load, no simulation
    assert "ASSUMED, not measured" in text and "RAGKIT_QDRANT_REPLICAS=2" in text


def test_too_many_queries_are_told():
    busy = run("plan", "--passages", "1e7", "--dimension", "640", "--queries-per-second", "1e5", "--node-cores", "1")
    assert busy.exit_code == 0 and "cannot keep up" in busy.stdout and "busy searching" in busy.stdout


# ---------------------------------------------------------------------- predictions and measurements


def row(points: int, **changes):
    each = 4 * 640 + 153.6 + 350 * 6 + 192 + 52
    return {
        "store": "engine", "quantization": "none", "points": points, "dimension": 640, "payload_bytes": 2458,
        "terms": 350, "m": 16, "memory_bytes": 115e6 + points * each, "disk_bytes": points * 10_000,
        "p50_ms": 0.1 * math.log(points), "p95_ms": 0.2 * math.log(points), "upsert_s": 1e-4 * points,
        "index_s": 1e-5 * points * math.log(points), "recall@10": 1.0, "cores": 2,
    } | changes  # fmt: skip


def written(file: Path, rows) -> Path:
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return file


def test_what_follows_the_formulas_has_no_error(tmp_path: Path):
    rows = forecast.read_rows(written(tmp_path / "rows.jsonl", [row(10_000), row(100_000), row(1_000_000)]))
    found = {(one.row, one.quantity): one for one in forecast.compare(rows)}
    exact = [one for (_, quantity), one in found.items() if quantity != "disk"]
    assert len(exact) == 3 + 2 * 4 and all(abs(one.error) < 1e-6 for one in exact)
    assert {one.measured for one in found.values() if one.quantity == "disk"} == {100.0, 1000.0, 10_000.0}
    result = run("plan", "--check", str(tmp_path / "rows.jsonl"))
    assert "| engine:none 1,000,000 x 640 | p50 |" in result.stdout and "+0%" in result.stdout
    assert "memory 115 MB + 5,058 bytes a point" in result.stdout


def test_a_wrong_prediction_shows_its_error():
    twice = row(100_000, p50_ms=2 * 0.1 * math.log(100_000))
    errors = {one.quantity: one.error for one in forecast.compare([row(10_000), twice])}
    assert errors["p50"] == pytest.approx(-0.5) and errors["p95"] == pytest.approx(0)


def test_measured_rows_replace_packaged_constants(tmp_path: Path):
    file = written(tmp_path / "rows.jsonl", [row(100_000, p50_ms=9.0, p95_ms=12.0), row(10_000)])
    result = run("plan", "--passages", "100000", "--dimension", "640", "--measured", str(file), "--json")
    figures = {f["name"]: f for f in json.loads(result.stdout.splitlines()[-1])["figures"]}
    assert figures["search of a shard, p50"]["value"] == pytest.approx(9.0)
    assert "engine, 100,000 x 640" in figures["search of a shard, p50"]["used"][0]["source"]
    wrong = run("plan", "--passages", "1e5", "--dimension", "640", "--quantization", "binary", "--measured", str(file))
    assert wrong.exit_code == 1 and "only none: measure it" in wrong.stderr


@pytest.mark.parametrize("text", ["", "no json\n", '{"points": 5}\n', "[1]\n"])
def test_what_is_no_row_is_refused(tmp_path: Path, text: str):
    file = tmp_path / "rows.jsonl"
    file.write_text(text)
    result = run("plan", "--check", str(file))
    assert result.exit_code == 1 and "benchmarks/store.py --out" in result.stderr


# ---------------------------------------------------------------------- the benchmark's data


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    monkeypatch.delitem(sys.modules, "store", raising=False)
    import store  # type: ignore[import-not-found]

    return store


def test_exact_neighbours_by_blocks_are_those_of_the_whole(store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "BLOCK", 64)
    rows = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    job = store.Job("engine", "none", 300, 16, 20, 7, "x")
    queries, nearest = store.questions(rows, job)
    points = np.concatenate([block for _, block in store.blocks(rows, 300, 7)])
    assert points.shape == (300, 16) and np.allclose(points[:50], rows, atol=1e-6)
    whole = np.argsort(-(queries @ points.T), axis=1)[:, :10]
    assert [set(a) for a in nearest] == [set(b) for b in whole]


@pytest.mark.parametrize("name", ["engine", "ragkit", "llama-index", "local"])
def test_every_store_finds_what_was_stored(store, name: str, tmp_path: Path):
    texts = [{"text": "Das Lager schließt um acht.", "lang": "de", "title": "Lager"},
             {"text": "ቤተ መጻሕፍቱ መቼ ይከፈታል?", "lang": "am", "title": ""}]  # fmt: skip
    made = store.STORES[name](tmp_path / "store", 8, "none")
    made.upsert(made.prepare(store.passages_of(texts, 0, 8), np.eye(8, dtype=np.float32)))
    made.optimize()
    assert made.search(np.eye(8, dtype=np.float32)[5])[0] == store.point_id(5)
    made.close()
    if name != "local":
        again = store.STORES[name](tmp_path / "store", 8, "none")
        assert again.search(np.eye(8, dtype=np.float32)[2])[0] == store.point_id(2)
        again.close()
