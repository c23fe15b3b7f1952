"""The doctor and its patients: real servers and exports with one thing wrong each, by HTTP and from files.

The first six are the issue's. A patient is the tiny Mistral with a tokenizer, a prompt or a pooling that was
spoiled where a deployment spoils it; what the doctor knows comes from ``reference.json`` alone.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from exporting import exported, no_eos
from pydantic import SecretStr
from serving import serving_model
from typer.testing import CliRunner

from ragkit import TASKS
from ragkit.cli import app
from ragkit.doctor import MEANS, check_export, check_server, diagnose, examine, health
from ragkit.encoder import LocalEncoder, Tokens
from ragkit.faults import FAULTS, HEALTHY
from ragkit.machine import check_room, check_versions, free_memory
from ragkit.types import Finding
from trainer.gguf_writer import write_gguf

KEY = "sesame-sesame-0123456789"
MAX_LENGTH = 128
BOS, EOS = 1, 2
PREFIXES = [task.prefix for task in TASKS.values()]


@pytest.fixture(scope="module")
def folder(mistral_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(
        mistral_folder, tmp_path_factory, "safetensors", "sentence-transformers", "gguf", max_length=MAX_LENGTH
    )


class Patient(LocalEncoder):
    """A served model with something wrong: what it reads, or what it pools."""

    ids: Callable[[list[int]], list[int]] = staticmethod(lambda ids: ids)
    text: Callable[[str], str] = staticmethod(lambda text: text)
    pool: Callable[[torch.Tensor], torch.Tensor] = staticmethod(lambda states: states[-1])
    normalise = True

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        healthy = super().tokenize([self.text(text) for text in texts])
        return Tokens([self.ids(row) for row in healthy.ids], healthy.truncated)

    @torch.inference_mode()
    def encode_rows(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        out = []
        for row in rows:
            states = self.model(input_ids=torch.tensor([list(row)]), use_cache=False).last_hidden_state[0]
            found = self.pool(states)
            out.append((found / found.norm() if self.normalise else found).numpy())
        return np.stack(out)


def bare(text: str) -> str:
    return next((text.removeprefix(prefix) for prefix in PREFIXES if text.startswith(prefix)), text)


def doubled(text: str) -> str:
    return next((prefix + text for prefix in PREFIXES if text.startswith(prefix)), text)


def stripped(text: str) -> str:
    return next((p.rstrip() + text.removeprefix(p) for p in PREFIXES if text.startswith(p)), text)


PATIENTS: dict[str, dict[str, Any]] = {
    "EOS lost": {"ids": lambda ids: ids[:-1]},
    "BOS lost": {"ids": lambda ids: ids[1:]},
    "prefix missing": {"text": bare},
    "prefix doubled": {"text": doubled},
    "wrong pooling (mean)": {"pool": lambda states: states.mean(0)},
    "missing normalisation": {"normalise": False},
    # beyond the six
    "wrong pooling (first token)": {"pool": lambda states: states[0]},
    "BOS and EOS lost": {"ids": lambda ids: ids[1:-1]},
    "EOS doubled": {"ids": lambda ids: [*ids, EOS]},
    "BOS doubled": {"ids": lambda ids: [BOS, *ids]},
    "prefix on passages": {"text": lambda text: text if bare(text) != text else TASKS["web-search"].prefix + text},
    "prefix without its last space": {"text": stripped},
    "line breaks lost": {"text": lambda text: text.replace("\n", " ")},
    "long texts cut otherwise": {"ids": lambda ids: ids if len(ids) < MAX_LENGTH else [*ids[:60], EOS]},
}


def patient(folder: Path, wrong: dict[str, Any]) -> Patient:
    sick = Patient.load(folder, device="cpu", dtype=torch.float32)
    for name, value in wrong.items():
        setattr(sick, name, value)
    return sick  # type: ignore[return-value]


def verdict(findings: Sequence[Finding]) -> Finding:
    [found] = [finding for finding in findings if finding.check.startswith("vectors")]
    return found


@pytest.mark.parametrize("fault", PATIENTS)
def test_each_sabotaged_server_is_named(folder: Path, fault: str):
    with serving_model(patient(folder, PATIENTS[fault])) as url:
        found = verdict(list(check_server(url, health(folder), folder=folder)))
    assert (found.status, found.cause) == ("failed", fault), found.text
    assert fault not in MEANS or MEANS[fault] in found.text


def test_a_healthy_server_is_healthy(folder: Path):
    with serving_model(patient(folder, {})) as url:
        findings = list(check_server(url, health(folder), folder=folder))
    assert verdict(findings).status == "ok" and verdict(findings).cause == "", findings
    assert "1.0000" in verdict(findings).text


def test_two_faults_at_once_and_other_weights_are_not_mistaken(folder: Path):
    """Both of a known fault and a length are told; what nothing explains is called unexplained."""
    with serving_model(patient(folder, {**PATIENTS["EOS lost"], "normalise": False})) as url:
        found = verdict(list(check_server(url, health(folder), folder=folder)))
    assert found.cause == "EOS lost" and "normalise them" in found.text
    other = patient(folder, {})
    torch.manual_seed(3)
    with torch.no_grad():
        other.model.embed_tokens.weight.normal_()  # type: ignore[union-attr,operator]
    with serving_model(other) as url:
        found = verdict(list(check_server(url, health(folder), folder=folder)))
    assert (found.status, found.cause) == ("failed", "") and "no known fault explains it" in found.text
    wide = diagnose(lambda texts, task: np.ones((len(texts), 63)), health(folder), where="x")
    assert wide.status == "failed" and "63 dimensions, the model has 64" in wide.text


def test_every_fault_has_its_vectors_and_its_advice(folder: Path):
    """Faults that this model could not tell apart would be named at random."""
    known = health(folder).faults
    assert set(known) == set(FAULTS) and set(MEANS) == set(FAULTS) - {HEALTHY}
    names = list(known)
    for n, one in enumerate(names):
        for other in names[:n]:
            assert (known[one] * known[other]).sum(axis=1).min() < 0.98, (one, other)


@pytest.mark.parametrize("lost", ["eos", "bos", "pooling", ""])
def test_llama_cpp_with_a_spoiled_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str):
    """The real program over real HTTP, its GGUF file without a flag."""
    real = gguf.GGUFWriter.add_key_value

    def forgetful(self: Any, key: str, value: Any, *types: Any) -> None:
        if lost and key.endswith(f"add_{lost}_token"):
            value = False
        if lost == "pooling" and key.endswith("pooling_type"):
            value = int(gguf.PoolingType.MEAN)
        real(self, key, value, *types)

    monkeypatch.setattr(gguf.GGUFWriter, "add_key_value", forgetful)
    model = LocalEncoder.load(folder, device="cpu", dtype=torch.float32, trainable=True)
    file = tmp_path / "model.gguf"
    write_gguf(model.model, model.tokenizer, file, name="t", max_length=MAX_LENGTH, precision="f32")
    xllamacpp: Any = import_module("xllamacpp")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.embedding = True
    parameters.n_ctx = MAX_LENGTH + 1
    parameters.n_parallel = 1
    parameters.verbosity = 0
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    findings = list(check_server(server.listening_address, health(folder), folder=folder))
    causes = {"eos": "EOS lost", "bos": "BOS lost", "pooling": "wrong pooling (mean)", "": ""}
    assert verdict(findings).cause == causes[lost], findings
    assert verdict(findings).status == ("failed" if lost else "ok")
    assert "speaks as llama.cpp" in findings[0].text


# ---- exports


def mean_pooling(folder: Path) -> None:
    file = folder / "1_Pooling" / "config.json"
    changes = {"pooling_mode": "mean", "pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": False}
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def no_normalize(folder: Path) -> None:
    file = folder / "modules.json"
    file.write_text(json.dumps(json.loads(file.read_text())[:2]))


@pytest.mark.parametrize(
    ("damage", "cause"),
    [(no_eos, "EOS lost"), (mean_pooling, "wrong pooling (mean)"), (no_normalize, "missing normalisation")],
)
def test_a_damaged_export_is_named_by_the_program_that_reads_it(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], cause: str
):
    broken = shutil.copytree(folder, tmp_path / "broken")
    damage(broken)
    found = {finding.check.split()[2]: finding for finding in check_export(broken, health(folder))}
    assert found["sentence-transformers"].cause == cause, found
    assert found["safetensors"].status == found["gguf"].status == "ok"  # ragkit writes BOS and EOS itself


@pytest.mark.parametrize("target", ["localhost:8765", "no-such-export", ""])
def test_what_was_not_compared_is_not_well(folder: Path, tmp_path: Path, target: str):
    found = list(examine(target or str(tmp_path), model=str(folder)))
    [failed] = [finding for finding in found if finding.status == "failed"]
    assert failed.check == "vectors" and "was not compared" in failed.text and "http://" in failed.text


# ---- the command


def run(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    done = CliRunner().invoke(app, ["doctor", *arguments, "--json"])
    return done.exit_code, json.loads(done.stdout.splitlines()[-1])["findings"], done.output


def test_the_command(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("RAGKIT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RAGKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAGKIT_EMBEDDER_API_KEY", KEY)
    monkeypatch.setenv("RAGKIT_PASSAGE_TOKENS", "100")
    (tmp_path / "a.txt").write_text("ቤተ መጻሕፍቱ መቼ ይከፈታል?", "utf-8")
    ingest = ["ingest", str(tmp_path / "a.txt"), "--corpus", "town", "--model", str(folder)]
    assert CliRunner().invoke(app, ingest).exit_code == 0

    code, findings, _ = run("--model", str(folder), "--corpus", "town")
    by = {finding["check"]: finding for finding in findings}
    assert code == 0 and {finding["status"] for finding in findings} == {"ok"}, findings
    assert "holds 1 passages of this model" in by["store"]["text"] and {"versions", "memory"} <= set(by)
    assert run(str(folder))[0] == 0  # an export carries its own proof

    with serving_model(patient(folder, {}), keys=[KEY]) as url:
        code, findings, output = run(url, "--model", str(folder))
        assert code == 0 and any("speaks as ragkit" in finding["text"] for finding in findings), findings
        monkeypatch.setenv("RAGKIT_EMBEDDER_API_KEY", f"{KEY}x")
        code, findings, more = run(url, "--model", str(folder))
        assert code == 1 and any("401" in finding["text"] for finding in findings)
        assert KEY not in output + more + caplog.text
        monkeypatch.setenv("RAGKIT_EMBEDDER_API_KEY", KEY)
        monkeypatch.setenv("RAGKIT_EMBEDDER_FOLDER", str(folder))
        assert run("--model", url)[0] == 0  # the server is the model
    with serving_model(patient(folder, PATIENTS["EOS lost"]), keys=[KEY]) as url:
        code, findings, _ = run(url, "--model", str(folder))
        assert code == 1 and "EOS lost" in {finding["cause"] for finding in findings}
    assert run("http://127.0.0.1:9", "--model", str(folder))[0] == 1
    assert run("--model", str(tmp_path / "nothing"))[0] == 1
    code, findings, _ = run("--model", str(folder), "--corpus", "nobody")
    assert code == 1 and any("no corpus 'nobody'" in finding["text"] for finding in findings)


def test_a_corpus_of_another_model(folder: Path, mistral_folder: Path, tmp_path: Path):
    from ragkit.encoder import ModelInfo
    from ragkit.store import open_store

    other = LocalEncoder.load(mistral_folder, max_length=64)
    with open_store(tmp_path, "town", other):
        findings = list(examine("", model=str(folder), corpus="town", store=str(tmp_path)))
        [store] = [finding for finding in findings if finding.check == "store"]
        assert store.status == "warning" and "is open in process" in store.text
    findings = list(examine("", model=str(folder), corpus="town", store=str(tmp_path)))
    assert ModelInfo.read(folder).max_length == MAX_LENGTH
    [store] = [finding for finding in findings if finding.check == "store"]
    assert store.status == "failed" and other.fingerprint in store.text


def test_a_model_without_a_reference_file_makes_its_own(mistral_folder: Path):
    """The book of faults is computed where the model itself is at hand."""
    known = health(mistral_folder)
    assert set(known.faults) == set(FAULTS) and len(known.references) == 19


def test_a_key_is_in_no_finding(folder: Path):
    findings = list(examine("http://127.0.0.1:9", model=str(folder), api_key=SecretStr(KEY)))
    assert KEY not in repr(findings) and any(finding.status == "failed" for finding in findings)


def test_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    [versions] = check_versions()
    assert versions.status == "ok", versions.text
    free = free_memory()
    assert free and free > 0
    small = {finding.check: finding.status for finding in check_room({"store": tmp_path / "not" / "yet"}, 0)}
    assert small == {"disk (store)": "ok", "memory": "ok"}
    large = {finding.check: finding for finding in check_room({}, 1 << 60)}
    assert large["memory"].status == "warning"
    import importlib.metadata as metadata

    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "numpy" else real(name))
    [versions] = check_versions()
    assert versions.status == "failed" and "numpy 0.1, wanted" in versions.text
