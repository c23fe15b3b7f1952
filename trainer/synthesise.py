"""Ask: a stage's requests to the endpoints, each answer on disk before its asker asks again.

Every endpoint has as many askers as it takes requests at a time. An asker draws the next request of its
endpoint's share from the plan, waits for the answer, appends it to the log, and only then draws again;
so at any moment at most ``concurrency`` answers are on their way, and that many are all that ``kill -9``
can cost. Requests that failed for good are listed in ``failed.jsonl`` and asked again by the next run,
but for those that the server refused for what they say.

A run stops cleanly when the plan is done, when a budget is spent, when an endpoint can answer no more,
or at Ctrl-C: the first lets what was asked come in, a second does not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ragkit.endpoint import Reply
from ragkit.llm import Chat, ChatError, EndpointDown
from ragkit.owner import write_json
from trainer.answers import ANSWERS, FAILED, Index, Log, Whole, answer_record, load
from trainer.request_plan import Plan, Request, SynthesisConfig

log = logging.getLogger(__name__)

# Seconds between the askers' first requests. Begun together they stay in step for as long as a server takes equally
# long for each, and wait for one another: 0.74 of the ideal rate at 64 at once and 200 ms, against 0.93.
_APART = 0.003
GRACE = 60.0  # seconds that answers on their way are waited for after Ctrl-C


@dataclass
class Outcome:
    """What a stage came to. ``stopped``: why not all was asked, or "" where it was."""

    asked: int = 0
    answered: int = 0
    failed: int = 0
    skipped: int = 0  # answered by an earlier run
    torn: int = 0  # bytes of a cut-off line
    tokens: int = 0  # of all runs in the folder
    money: float = 0.0
    stopped: str = ""
    down: dict[str, str] = field(default_factory=dict)  # endpoint -> why it answers no more
    tries: Counter[int] = field(default_factory=Counter)


def claim(folder: Path, plan: Plan) -> None:
    """The folder belongs to this plan from now on. Raises ValueError where it has answers of another: answers to
    different questions do not mix."""
    _claim(folder, {plan.stage: plan.fingerprint}, plan.config.to_dict())


def claim_like(folder: Path, other: Path) -> None:
    """The same for answers that come from another run's folder, where that says whose they are."""
    if (other / "run.json").exists():
        known = json.loads((other / "run.json").read_text("utf-8"))
        _claim(folder, known["plans"], known["config"])


def _claim(folder: Path, plans: Mapping[str, str], config: Mapping[str, Any]) -> None:
    file = folder / "run.json"
    known = json.loads(file.read_text("utf-8")) if file.exists() else {"plans": {}}
    for stage, fingerprint in plans.items():
        # Without an answer there is nothing to mix: a run cut off there may have more tasks when it goes on.
        if known["plans"].get(stage, fingerprint) != fingerprint and any(Index(folder / ANSWERS).answered(stage)):
            raise ValueError(
                f"{folder} belongs to another plan of stage {stage!r} (seed, setting, languages, kinds, tasks or the "
                "prompts' wording differ): give an --out of its own, or repeat what it was begun with"
            )
        known["plans"][stage] = fingerprint
    write_json(file, {**known, "config": config})


def ask(plan: Plan, folder: Path, count: int, *, shard: tuple[int, int] = (1, 1)) -> Outcome:
    """Have requests 0 to ``count`` - 1 (of the shard) answered. Call with the folder locked and claimed."""
    return asyncio.run(_Run(plan, folder, count, shard).run())


class _Run:
    def __init__(self, plan: Plan, folder: Path, count: int, shard: tuple[int, int]) -> None:
        self.plan, self.count, self.shard = plan, count, shard
        self.config: SynthesisConfig = plan.config
        self.answers = Log(folder / ANSWERS)
        index = Index(folder / ANSWERS)
        self.done = index.answered(plan.stage)
        self.outcome = Outcome(tokens=index.tokens, money=index.money, torn=self.answers.torn)
        self.outcome.skipped = sum(self.done[n] for n in range(shard[0] - 1, min(count, len(self.done)), shard[1]))
        self.failures = self._reopen_failures(folder / FAILED)
        self.flying = 0
        self.begun = (index.tokens, index.money)
        if self.answers.torn:
            log.warning("cut a last line of %d bytes that had no end: its request is asked again", self.answers.torn)

    def _reopen_failures(self, path: Path) -> Log:
        """Keeps what asking again cannot mend, and passes over it; forgets the rest, and what is asked no more."""
        lasting = [
            r
            for r in load(path)
            if r["stage"] != self.plan.stage or (r["permanent"] and r["id"] == self.plan.request(r["number"]).id)
        ]
        with Whole(path) as kept:
            for record in lasting:
                kept.write(record)
                if record["stage"] == self.plan.stage:
                    number = record["number"]
                    self.done.extend(bytes(max(0, number + 1 - len(self.done))))
                    self.done[number] = 1
        return Log(path)

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        again = asyncio.Event()
        handled = self._catch_signals(loop, stop, again)
        part = len(range(self.shard[0] - 1, self.count, self.shard[1]))
        try:
            async with AsyncExitStack() as stack:
                self.bar = stack.enter_context(
                    tqdm(total=part, initial=self.outcome.skipped, desc=self.plan.stage, disable=None)
                )
                askers = await self._askers(stack)
                work = asyncio.gather(*askers)
                await self._wait(work, stop, again)
        finally:
            for number in handled:
                loop.remove_signal_handler(number)
            self.answers.close()
            self.failures.close()
        return self.outcome

    async def _askers(self, stack: AsyncExitStack) -> list[asyncio.Task[None]]:
        askers: list[asyncio.Task[None]] = []
        for endpoint in self.config.endpoints:
            try:
                chat = await stack.enter_async_context(Chat(endpoint))
            except EndpointDown as error:
                self._lose(endpoint.label, error)
                continue
            # All askers of an endpoint draw from one iterator; each draw is whole, since none awaits.
            requests = self.plan.requests(self.count, shard=self.shard, endpoint=endpoint.label, skip=self.done)
            askers += [asyncio.create_task(self._asker(chat, requests, n)) for n in range(endpoint.concurrency)]
        return askers

    async def _asker(self, chat: Chat, requests: Iterator[Request], place: int) -> None:
        label = chat.endpoint.label
        await asyncio.sleep(place * _APART)
        while not self._is_over(label) and (request := next(requests, None)) is not None:
            self.outcome.asked += 1
            self.flying += 1
            try:
                reply = await chat.chat(request.messages, request.schema)
            except EndpointDown as error:
                self._lose(label, error)
                self._fail(request, error)
            except ChatError as error:
                self._fail(request, error)
            else:
                self._keep(chat, request, reply)
            finally:
                self.flying -= 1

    def _keep(self, chat: Chat, request: Request, reply: Reply) -> None:
        cost = chat.endpoint.cost(reply.prompt_tokens, reply.completion_tokens)
        self.answers.append(answer_record(request, reply, cost))
        self.outcome.answered += 1
        self.outcome.tries[reply.tries] += 1
        self.outcome.tokens += reply.prompt_tokens + reply.completion_tokens
        self.outcome.money += cost
        self.bar.update()

    def _fail(self, request: Request, error: ChatError) -> None:
        self.failures.append(
            {
                "id": request.id, "stage": request.stage, "number": request.number, "kind": request.kind,
                "endpoint": request.endpoint, "error": str(error), "tries": error.tries,
                "permanent": error.permanent and not isinstance(error, EndpointDown),
            }
        )  # fmt: skip
        self.outcome.failed += 1

    def _lose(self, label: str, error: EndpointDown) -> None:
        if label not in self.outcome.down:
            log.error("%s", error)
        self.outcome.down[label] = str(error)
        self.outcome.stopped = self.outcome.stopped or "an endpoint answers no more"

    def _is_over(self, label: str) -> bool:
        if label in self.outcome.down or self.outcome.stopped in ("Ctrl-C", "budget"):
            return True
        # What is on its way will cost about what answers have cost so far.
        share = self.flying / max(1, self.outcome.answered)
        tokens = self.outcome.tokens + share * (self.outcome.tokens - self.begun[0])
        money = self.outcome.money + share * (self.outcome.money - self.begun[1])
        c = self.config
        if (c.budget_tokens and tokens >= c.budget_tokens) or (c.budget_money and money >= c.budget_money):
            self.outcome.stopped = "budget"
            return True
        return False

    def _catch_signals(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event, again: asyncio.Event) -> list[int]:
        def caught() -> None:
            (again if stop.is_set() else stop).set()

        handled: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # Windows, or not the main thread
                loop.add_signal_handler(number, caught)
                handled.append(number)
        return handled

    async def _wait(self, work: asyncio.Future[list[None]], stop: asyncio.Event, again: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            self.outcome.stopped = "Ctrl-C"
            log.warning("stopping: %d answers are on their way; Ctrl-C again does not wait for them", self.flying)
            hurry = asyncio.create_task(again.wait())
            await asyncio.wait({work, hurry}, timeout=GRACE, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            if not work.done():
                work.cancel()
        stopping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
