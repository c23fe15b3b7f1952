"""What is asked: templates, slots, shares, and the plan that any machine makes alike."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import chisquare

from ragkit.endpoint import Endpoint
from trainer.languages import LANGUAGES, PUBLISHED, XLMR, language, language_shares
from trainer.prompts import FIELDS, brainstorm_messages, example_messages, schema
from trainer.request_plan import (
    Plan,
    SynthesisConfig,
    brainstorms_for,
    config_from,
    parse_shard,
    read_passages,
    read_tasks,
)
from trainer.slots import ASYMMETRIC, KIND_WEIGHTS, KINDS, SETTINGS, draw_slots

ROOT = str(Path(__file__).parent.parent)
FULL = os.environ.get("RAGKIT_PROVE") == "1"
TASKS = {kind: [f"Given {kind} {n}, retrieve something." for n in range(50)] for kind in ASYMMETRIC}
ENDPOINTS = (Endpoint("gpt-35-turbo", share=0.25), Endpoint("gpt-4", share=0.75))


def config(**knobs: Any) -> SynthesisConfig:
    return SynthesisConfig(**{"endpoints": ENDPOINTS, **knobs})


def filled(kind: str, slots: dict[str, Any]) -> dict[str, Any]:
    languages = {"src_lang": "Thai", "tgt_lang": "Zulu"} if kind == "bitext" else {"language": "Amharic"}
    return {**slots, **languages, **({"task": "Match {this} with that."} if kind in ASYMMETRIC else {})}


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_says_every_slot_and_every_key(kind: str):
    slots = filled(kind, draw_slots(kind, SETTINGS["paper"], random.Random(1)))
    [message] = example_messages(kind, slots, SETTINGS["paper"], random.Random(1))
    for value in slots.values():
        assert str(value) in message["content"]
    for key in FIELDS[kind]:
        assert f'"{key}"' in message["content"]
    assert "JSON" in message["content"]  # json_object is refused without the word


def test_every_slot_of_the_paper_is_there():
    drawn = {name for kind in KINDS for name in SETTINGS["paper"].slots[kind]}
    assert drawn == {
        "query_type", "query_length", "clarity", "difficulty", "num_words", "unit", "high_score", "low_score"
    }  # fmt: skip
    values = SETTINGS["paper"].slots
    assert set(values["sts"]["low_score"]) == {2.5, 3, 3.5} and set(values["bitext"]["low_score"]) == {1.5, 2, 2.5}
    assert set(values["short-long"]["num_words"]) == {50, 100, 200, 300, 400, 500}
    assert "less than 10" in values["long-short"]["num_words"] and "at least 200" in values["long-short"]["num_words"]


@pytest.mark.parametrize("kind", ASYMMETRIC)
def test_a_brainstorm_asks_for_about_twenty(kind: str):
    [message] = brainstorm_messages(kind, SETTINGS["weighted"], random.Random(1))
    assert "about 20" in message["content"] and '"tasks"' in message["content"]


def test_weighted_shuffles_the_guidelines_and_paper_does_not():
    slots = filled("short-long", draw_slots("short-long", SETTINGS["paper"], random.Random(1)))
    for name, many in (("weighted", True), ("paper", False)):
        texts = {
            example_messages("short-long", slots, SETTINGS[name], random.Random(n))[0]["content"] for n in range(9)
        }
        assert (len(texts) > 1) == many
        assert len({"\n".join(sorted(text.splitlines())) for text in texts}) == 1


@pytest.mark.parametrize(("name", "share"), [("paper", 1.0), ("weighted", 0.5)])
def test_the_difficulty_is_said_in_half_of_the_weighted_prompts(name: str, share: float):
    plan = Plan(config(setting=name, kinds={"short-long": 1}), "examples", TASKS)
    said = ["Schooling" in r.messages[0]["content"] for r in plan.requests(1000)]
    assert sum(said) == 1000 if share == 1 else 440 < sum(said) < 560
    for request, is_said in zip(plan.requests(1000), said, strict=True):
        assert ("difficulty" in request.slots) == is_said


def test_schemas_are_strict():
    assert schema("tasks")["properties"]["tasks"] == {"type": "array", "items": {"type": "string"}}
    for kind in KINDS:
        made = schema(kind)
        assert made["required"] == list(made["properties"]) == list(FIELDS[kind])
        assert made["additionalProperties"] is False


def test_languages_are_xlm_r_s_with_the_published_shares():
    assert len(XLMR) == 98 and {"Hindi Romanized", "Western Frisian", "Xhosa"} <= set(XLMR)
    assert len({known.code for known in LANGUAGES.values()}) == len(LANGUAGES)
    shares = language_shares()
    assert sum(shares.values()) == pytest.approx(1)
    for name, percent in PUBLISHED.items():
        assert shares[name] == pytest.approx(percent / 100)
    tail = [share for name, share in shares.items() if name not in PUBLISHED]
    assert sum(tail) == pytest.approx(0.198) and max(tail) == pytest.approx(min(tail))


def test_languages_can_be_weighed_anew():
    shares = language_shares({"Zulu": 0.2, "English": 0.1, "Thai": 0.0})
    assert shares["Zulu"] == pytest.approx(0.2) and shares["English"] == pytest.approx(0.1) and "Thai" not in shares
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["Polish"] / shares["Japanese"] == pytest.approx(3.0 / 2.9)
    assert set(language_shares({"Thai": 0.5, "Lao": 0.5})) == {"Thai", "Lao"}
    assert language("zu").name == "Zulu" and language("hi-Latn").name == "Hindi Romanized"
    with pytest.raises(ValueError, match="'Klingon' is not known"):
        language_shares({"Klingon": 0.1})
    with pytest.raises(ValueError, match="share -1"):
        language_shares({"Thai": -1})


def agrees(counts: Counter[Any], shares: dict[Any, float]) -> float:
    total, weight = sum(counts.values()), sum(shares.values())
    assert set(counts) <= set(shares)
    return float(chisquare([counts[k] for k in shares], [total * s / weight for s in shares.values()]).pvalue)


def test_the_plan_has_the_published_shares():
    """Seeded, so it either holds or does not: p above 0.001 for each of the distributions."""
    count = 100_000 if FULL else 10_000
    kinds: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    endpoints: Counter[str] = Counter()
    slots: dict[tuple[str, str], Counter[Any]] = {}
    for request in Plan(config(), "examples", TASKS).requests(count):
        kinds[request.kind] += 1
        endpoints[request.endpoint] += 1
        languages[request.slots.get("language") or request.slots["src_lang"]] += 1
        if request.kind == "bitext":
            assert request.slots["src_lang"] != request.slots["tgt_lang"]
        for name in SETTINGS["weighted"].slots[request.kind]:
            if name in request.slots:
                slots.setdefault((request.kind, name), Counter())[request.slots[name]] += 1
    found = {
        "kinds": agrees(kinds, dict(KIND_WEIGHTS)),
        "languages": agrees(languages, language_shares()),
        "endpoints": agrees(endpoints, {"gpt-35-turbo": 0.25, "gpt-4": 0.75}),
        **{
            f"{kind} {name}": agrees(counts, dict(SETTINGS["weighted"].slots[kind][name]))
            for (kind, name), counts in slots.items()
        },
    }
    print(f"{count} requests:", {name: round(p, 3) for name, p in found.items()})
    assert min(found.values()) > 0.001, found


def test_another_machine_makes_the_same_plan():
    """Another process, with another hash seed: ids carry a hash of all that is asked."""
    count = 100_000 if FULL else 2_000
    code = f"""
import hashlib
from ragkit.endpoint import Endpoint
from trainer.request_plan import Plan, SynthesisConfig
from trainer.slots import ASYMMETRIC
tasks = {{kind: [f"Given {{kind}} {{n}}, retrieve something." for n in range(50)] for kind in ASYMMETRIC}}
config = SynthesisConfig((Endpoint("gpt-35-turbo", share=0.25), Endpoint("gpt-4", share=0.75)))
digest = hashlib.sha256()
for stage in ("tasks", "examples"):
    for r in Plan(config, stage, tasks).requests({count}):
        digest.update(f"{{r.id}} {{r.endpoint}}".encode())
print(digest.hexdigest())
"""
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": ROOT, "LC_ALL": locale},
            capture_output=True, check=True, text=True,
        ).stdout
        for seed, locale in (("1", "C"), ("2", "C.UTF-8"))
    }  # fmt: skip
    assert len(seen) == 1 and len(seen.pop().strip()) == 64


def test_shards_are_the_plan_cut_up():
    plan = Plan(config(), "examples", TASKS)
    whole = [r.id for r in plan.requests(101)]
    parts = [r.id for k in range(1, 9) for r in plan.requests(101, shard=(k, 8))]
    assert sorted(parts) == sorted(whole) and len(set(whole)) == 101
    by_endpoint = [r.id for e in ENDPOINTS for r in plan.requests(101, endpoint=e.label)]
    assert sorted(by_endpoint) == sorted(whole)
    done = bytearray([1, 0, 1])
    assert [r.number for r in plan.requests(5, skip=done)] == [1, 3, 4]


def test_a_request_is_of_its_seed_number_and_tasks_alone():
    plan = Plan(config(), "examples", TASKS)
    assert plan.request(7) == plan.request(7) == Plan(config(), "examples", TASKS).request(7)
    assert plan.request(7).id != Plan(config(seed=2), "examples", TASKS).request(7).id
    assert plan.fingerprint != Plan(config(), "examples", {**TASKS, "short-long": ["Another."]}).fingerprint
    # Changes too small to be seen in a few draws are seen all the same.
    kinds = {**KIND_WEIGHTS, "long-long": 17.01}
    for knobs in ({"languages": {"Zulu": 0.001}}, {"kinds": kinds}, {"cross_lingual": 0.001}):
        assert plan.fingerprint != Plan(config(**knobs), "examples", TASKS).fingerprint
    assert Plan(config(), "tasks").fingerprint == Plan(config(languages={"Zulu": 0.9}), "tasks").fingerprint
    assert plan.fingerprint == Plan(config(endpoints=[Endpoint("other")]), "examples", TASKS).fingerprint


def test_even_a_small_run_has_tasks_of_every_kind():
    plan = Plan(config(), "tasks")
    assert {r.kind for r in plan.requests(4)} == set(ASYMMETRIC)
    assert brainstorms_for(10, KIND_WEIGHTS) == 4
    assert 7000 < brainstorms_for(507_000, KIND_WEIGHTS) < 8000  # the paper: about 150,000 instructions of 20 a call


def test_cross_lingual_slots_are_an_option():
    plan = Plan(config(cross_lingual=0.33, kinds={"short-long": 1}), "examples", TASKS)
    crossed = [r for r in plan.requests(2000) if "document_language" in r.slots]
    assert 580 < len(crossed) < 740
    for request in crossed:
        slots, said = request.slots, request.messages[0]["content"]
        assert slots["query_language"] == slots["language"] != slots["document_language"]
        assert f"The query is in {slots['query_language']}; both documents are in {slots['document_language']}." in said
    assert not any("query_language" in r.slots for r in Plan(config(setting="paper"), "examples", TASKS).requests(500))


def test_questions_take_the_passages_in_turn():
    passages = read_passages(
        [
            {"title": "बैकाल", "text": "सबसे गहरी झील", "lang": "hi"},
            {"text": "O lago", "lang": "pt_BR"},
            {"text": "1", "lang": "x"},
        ]
    )
    assert [p.language for p in passages] == ["Hindi", "Portuguese", ""] and passages[0].text == "बैकाल सबसे गहरी झील"
    knobs: dict[str, Any] = {"languages": {"Hindi": 1, "Amharic": 1}, "cross_lingual": 1}
    plan = Plan(config(**knobs), "questions", passages=passages)
    requests = list(plan.requests(60))
    assert set(Counter(r.slots["passage"] for r in requests).values()) == {20}
    assert len({r.slots["passage"] for r in requests[:3]}) == 3
    assert {r.slots["query_language"] for r in requests} == {"Hindi", "Amharic"}
    for request in requests:
        assert request.slots.get("document_language") != request.slots["query_language"]
        [message] = request.messages
        for said in (request.slots["passage"], request.slots["query_language"], request.slots["query_length"]):
            assert said in message["content"]
        assert list(request.schema["properties"]) == ["user_query"]
    assert {r.slots["query_language"] for r in requests if r.slots["passage"] == passages[0].text} == {"Amharic"}
    same = Plan(config(languages=knobs["languages"]), "questions", passages=passages)
    assert any(r.slots["query_language"] == r.slots.get("document_language") for r in same.requests(60))
    fewer = Plan(config(**knobs), "questions", passages=passages[:2])
    assert len({plan.fingerprint, same.fingerprint, fewer.fingerprint}) == 3
    with pytest.raises(ValueError, match="no passage is given"):
        Plan(config(), "questions")
    with pytest.raises(ValueError, match="holds records with a text"):
        read_passages([{"title": "", "text": " "}])


def test_a_passage_can_be_sent():
    """JSON may hold half of a pair of surrogates, which UTF-8 has no place for."""
    [passage] = read_passages([{"title": "ባሕር \ud83d", "text": "\ud83d\ude00 大海", "lang": "am"}])
    assert passage.text == "ባሕር \ufffd 😀 大海"


def test_a_kind_without_tasks_is_left_out_and_named():
    plan = Plan(config(), "examples", {"short-long": ["Given this, find that."]})
    assert plan.without_tasks == ["long-short", "short-short", "long-long"]
    assert {r.kind for r in plan.requests(300)} == {"short-long", "sts", "bitext"}
    with pytest.raises(ValueError, match="run stage 'tasks' first"):
        Plan(config(kinds={"short-long": 1}), "examples", {})


def test_one_language_alone_is_asked_for_no_pairs():
    alone = config(languages={"Hindi": 1.0})
    plan = Plan(alone, "examples", TASKS)
    assert plan.fingerprint and plan.without_pair == ["bitext"]
    assert {(r.kind, r.slots["language"]) for r in plan.requests(300)} == {(k, "Hindi") for k in (*ASYMMETRIC, "sts")}
    assert not Plan(config(languages={"Hindi": 1.0, "Thai": 1.0}), "examples", TASKS).without_pair
    with pytest.raises(ValueError, match="bitext takes two languages, and one alone has a share"):
        Plan(config(languages={"Hindi": 1.0}, kinds={"bitext": 1}), "examples", TASKS)
    crossed = config(languages={"Hindi": 1.0}, cross_lingual=0.1)
    passages = read_passages([{"text": "O lago", "lang": "pt"}] * 99 + [{"text": "सबसे गहरी झील", "lang": "hi"}])
    for stage in ("tasks", "examples", "questions"):  # before anything is asked, wherever the passage stands
        with pytest.raises(ValueError, match="takes two languages, and Hindi alone has a share: give a second one"):
            Plan(crossed, stage, TASKS, passages)
    assert Plan(crossed, "questions", passages=passages[:99]).request(0).slots["query_language"] == "Hindi"


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"endpoints": []}, "give at least one"),
        ({"endpoints": [Endpoint("m"), Endpoint("m")]}, "each with a name of its own"),
        ({"setting": "papre"}, "use paper or weighted"),
        ({"kinds": {"short": 1}}, "give weights of 0 or more to short-long"),
        ({"cross_lingual": 2}, "a share, from 0 to 1"),
        ({"budget_tokens": -1}, "give 0 \\(no bound\\) or more"),
        # Without prices nothing would ever be spent, and the budget never stop.
        (
            {"budget_money": 5, "endpoints": [Endpoint("a", price_in=1, price_out=1), Endpoint("b", price_in=1)]},
            "what b costs is not known",
        ),
    ],
)
def test_wrong_knobs_are_named(knobs: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        config(**knobs)


def test_a_config_is_read_from_yaml(tmp_path: Path):
    file = tmp_path / "c.yaml"
    file.write_text("endpoints:\n  - {model: gpt-4, share: 3}\nseed: 4\nlanguages: {Zulu: 0.5}\n", "utf-8")
    made = config_from(file, seed=None, cross_lingual=0.5)
    assert (made.seed, made.cross_lingual, made.endpoints[0].share) == (4, 0.5, 3)
    assert SynthesisConfig.read(json.loads(json.dumps(made.to_dict()))) == made
    file.write_text("endpoints: [{model: m, name: null, price_in: null}]\ncross_lingual: 1\n", "utf-8")
    assert repr(config_from(file).cross_lingual) == "1" and config_from(file).endpoints[0].label == "m"
    file.write_text("seeds: 4\n", "utf-8")
    with pytest.raises(ValueError, match="the config sets seeds, which is not known: use endpoints"):
        config_from(file)
    for text, message in (
        ("a: [", "c.yaml: not YAML"),
        ("- 1\n", "c.yaml is no config: write lines of"),
        ("endpoints: {model: x}\n", "endpoints of the config is a dict: write a list"),
        ("endpoints: [{share: 2}]\n", "endpoint 1 of the config does not set model"),
        ("endpoints: [{model: x, share: much}]\n", "endpoint 1 of the config sets share to 'much': it must be float"),
    ):
        file.write_text(text, "utf-8")
        with pytest.raises(ValueError, match=message):
            config_from(file)


def test_shards_and_tasks_files_are_checked():
    assert parse_shard("2/8") == (2, 8)
    for wrong in ("0/8", "9/8", "2", "a/b", "2/8/3"):
        with pytest.raises(ValueError, match="not of the form 2/8"):
            parse_shard(wrong)
    with pytest.raises(ValueError, match="holds records of kind and task"):
        read_tasks([{"kind": "sts", "task": "x"}])


def test_shipped_configs_can_be_read():
    for file in (Path(__file__).parent.parent / "trainer" / "recipes" / "synthesise").glob("*.yaml"):
        assert config_from(file).endpoints
