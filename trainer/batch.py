"""Requests and responses as files, in the format of OpenAI's Batch API: half the price, and any model that
can fill in a file will do.

A line of a request file holds ``custom_id``, ``method``, ``url`` and ``body`` and nothing else. What was
asked beyond its words (kind, slots) is not in it: the plan gives that again, from the settings in
``requests.plan.json`` beside it, and the hash in each ``custom_id`` shows that it is the same plan.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import regex

from ragkit.endpoint import Endpoint, reply_of, request_body
from ragkit.owner import write_json
from trainer.answers import Log, Record, answer_record, dump
from trainer.data import read_records
from trainer.request_plan import STAGES, Plan, Request, SynthesisConfig, read_passages, read_tasks

URL = "/v1/chat/completions"
_ID = regex.compile(rf"(?P<stage>{'|'.join(STAGES)})-s(?P<seed>-?\d+)-(?P<number>\d+)-[0-9a-f]{{10}}")


def batch_line(request: Request, endpoint: Endpoint) -> Record:
    form = "json_schema" if endpoint.structured == "auto" else endpoint.structured
    body = request_body(endpoint, request.messages, request.schema, form)
    return {"custom_id": request.id, "method": "POST", "url": URL, "body": body}


def write_requests(
    plan: Plan, out: Path, count: int, *, shard: tuple[int, int] = (1, 1), source: Path | None = None
) -> dict[Path, int]:
    """The files written and their lines. One endpoint: ``out``; several: a file each, ``out`` with its name,
    since a batch is of one model. ``source`` is the file of tasks or passages that the plan was made of."""
    out.parent.mkdir(parents=True, exist_ok=True)
    written: dict[Path, int] = {}
    for endpoint in plan.config.endpoints:
        several = len(plan.config.endpoints) > 1
        name = regex.sub(r"[^\w.-]+", "-", endpoint.label)
        path = out.with_name(f"{out.stem}.{name}{out.suffix}") if several else out
        with path.open("wb") as file:
            written[path] = 0
            for request in plan.requests(count, shard=shard, endpoint=endpoint.label):
                file.write(dump(batch_line(request, endpoint)))
                written[path] += 1
        settings = {
            "stage": plan.stage, "requests": count, "fingerprint": plan.fingerprint,
            "source": str(source.resolve()) if source else None, "config": plan.config.to_dict(),
        }  # fmt: skip
        write_json(plan_file(path), settings)
    return written


def plan_file(requests: Path) -> Path:
    return requests.with_suffix(".plan.json")


def read_plan(file: Path, source: Path | None = None) -> Plan:
    """The plan that ``write_requests`` wrote from. Raises ValueError where it cannot be made again."""
    settings = json.loads(file.read_text("utf-8"))
    stage = settings["stage"]
    source = source or (Path(settings["source"]) if settings["source"] else None)
    if source is not None and not source.exists():
        option = "--passages" if stage == "questions" else "--tasks"
        raise ValueError(f"{file} was planned from {source}, which is not there: say where it is with {option}")
    plan = plan_from(SynthesisConfig.read(settings["config"]), stage, source)
    if plan.fingerprint != settings["fingerprint"]:
        raise ValueError(
            f"{file} describes another plan than this version makes of it: "
            "the file of tasks or passages, or the prompts' wording, has changed since"
        )
    return plan


def plan_from(config: SynthesisConfig, stage: str, source: Path | None) -> Plan:
    """The plan of a stage; ``source`` holds its tasks (stage examples) or its passages (stage questions).
    Raises ValueError where it is not there or holds something else."""
    if source is not None and not source.exists():
        raise ValueError(f"{source} is not there")
    if stage == "examples" and source:
        return Plan(config, stage, tasks=read_tasks(read_records(source)))
    if stage == "questions" and source:
        return Plan(config, stage, passages=read_passages(read_records(source)))
    return Plan(config, stage)


@dataclass
class Collected:
    answers: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # lines that became no answer, by reason


def collect_responses(lines: Iterable[str], plan: Plan, log: Log, answered: bytearray) -> Collected:
    """Append the answers of a Batch API response file to the log; each request once, the first answer stands."""
    result = Collected()
    endpoints = {endpoint.label: endpoint for endpoint in plan.config.endpoints}
    for line in lines:
        if not line.strip():
            continue
        try:
            custom_id, completion = _response(line)
            request = _request(custom_id, plan)
            reply = reply_of(completion, request.messages)
        except ValueError as error:
            result.dropped[_why(error)] += 1
            continue
        if request.number < len(answered) and answered[request.number]:
            result.dropped["answered before"] += 1
            continue
        answered.extend(bytes(max(0, request.number + 1 - len(answered))))
        answered[request.number] = 1
        cost = endpoints[request.endpoint].cost(reply.prompt_tokens, reply.completion_tokens)
        log.append(answer_record(request, reply, cost))
        result.answers += 1
    return result


def merge_answers(records: Iterator[Record], log: Log, answered: dict[str, bytearray]) -> Collected:
    """Append the answers of another log, a shard's, to this one."""
    result = Collected()
    for record in records:
        marks = answered[record["stage"]]
        number = record["number"]
        if number < len(marks) and marks[number]:
            result.dropped["answered before"] += 1
            continue
        marks.extend(bytes(max(0, number + 1 - len(marks))))
        marks[number] = 1
        log.append(record)
        result.answers += 1
    return result


class _Unusable(ValueError):
    pass


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, _Unusable) else "no chat completion"


def _response(line: str) -> tuple[str, Any]:
    """custom_id and body. What a hand-filled file may leave out (ids, usage, status) is not asked for."""
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise _Unusable("not JSON") from None
    if not isinstance(record, dict) or not isinstance(record.get("custom_id"), str):
        raise _Unusable("no custom_id")
    response: Any = record.get("response")
    if record.get("error") or not isinstance(response, dict):
        raise _Unusable("an error instead of a response")
    if response.get("status_code", 200) != 200:
        raise _Unusable(f"status {response['status_code']}")
    return record["custom_id"], response.get("body")


def _request(custom_id: str, plan: Plan) -> Request:
    match = _ID.fullmatch(custom_id)
    if match is None or match["stage"] != plan.stage or int(match["seed"]) != plan.config.seed:
        raise _Unusable("an id of another plan")
    request = plan.request(int(match["number"]))
    if request.id != custom_id:
        raise _Unusable("an id of another plan")
    return request
