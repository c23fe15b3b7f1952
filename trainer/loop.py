"""The step: texts to loss, on however many devices; its metrics; and what to do when memory runs out.

``transformers.Trainer`` runs the steps, so optimiser, checkpoints and launchers (torchrun, accelerate,
DeepSpeed) are its own. An item of its data set is a whole batch. Every device reads the same batch, embeds
its share, and computes the loss of the whole, so negatives reach across devices with their gradients.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from ragkit.encoder import LocalEncoder, ModelInfo, base_source, room_for_text, tokenize
from ragkit.forward import ATTENTION
from ragkit.task import TASKS, Task
from trainer import checkpoints
from trainer.config import TrainConfig
from trainer.embedder import adapter_state, embed_rows
from trainer.loss import distil, in_batch_accuracy, matryoshka
from trainer.memory import out_of_memory, peak_memory_gb
from trainer.plan import Batch, Plan, batch_texts
from trainer.teacher import Teacher, first_tokens

log = logging.getLogger(__name__)


class Steps(torch.utils.data.Dataset[Batch]):
    """The plan as Trainer's samplers deal it: item n goes to device n modulo ``devices``, and all get the same."""

    def __init__(self, plan: Plan, devices: int) -> None:
        self.plan, self.devices = plan, devices

    def __len__(self) -> int:
        return len(self.plan) * self.devices

    def __getitem__(self, item: int) -> Batch:
        return self.plan[item // self.devices]


@contextmanager
def whole_weights(args: Any) -> Iterator[None]:
    """What is loaded in the block is not this run's model: transformers would deal its weights out to the devices, as
    ZeRO-3 does, and no engine would ever gather them."""
    from transformers.integrations import deepspeed

    zero = getattr(args, "hf_deepspeed_config", None)
    if zero is None:
        yield
        return
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed.set_hf_deepspeed_config(zero)


def teacher_memory(args: Any) -> Path:
    """One file a process: they write at the same time."""
    return Path(str(args.output_dir)).parent / f"teacher-{args.process_index}.sqlite"


def collate(items: list[Batch]) -> dict[str, Any]:
    [batch] = items  # else steps would be lost
    return {"batch": batch}


@dataclass
class Tally:
    """What the last step did."""

    loss: float = math.nan
    accuracy: float = 0.0  # share of queries whose positive scored highest of what is not excluded
    std: float = 0.0  # of the passages: 1 when spread evenly, 0 when collapsed to a point
    tokens: int = 0
    texts: int = 0
    truncated: int = 0  # of the texts
    since: float = field(default_factory=time.monotonic)


class EmbedTrainer(Trainer):
    """``Trainer`` whose item is a whole batch of examples and whose loss is InfoNCE over it."""

    def __init__(self, config: TrainConfig, encoder: LocalEncoder, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.tokenizer = encoder.tokenizer
        started = ModelInfo.read(Path(base_source(config.start))).max_length if config.start else 0
        # Of the model that comes of it: no less than it was trained on.
        self.max_length = max(encoder.max_length, started, config.max_query_tokens, config.max_passage_tokens)
        self.tally = Tally()
        self.chunk_tokens, self.keep_tokens = config.chunk_tokens, config.keep_tokens
        decoder: Any = encoder.model
        # What layers hand on does not come through where each is a checkpoint, or is called by hooks that copy its
        # arguments, as FSDP's and DeepSpeed's do.
        wrapped = config.gradient_checkpointing or self.is_fsdp_enabled or self.is_deepspeed_enabled
        self.shares_prompts = decoder.config._attn_implementation == ATTENTION and not wrapped
        self.model_accepts_loss_kwargs = False
        self.teacher = None
        if config.teacher:
            read = room_for_text(encoder.tokenizer, config.max_passage_tokens)
            cut = partial(first_tokens, encoder.tokenizer, count=read)
            with whole_weights(self.args):
                self.teacher = Teacher.open(config.teacher, teacher_memory(self.args), cut)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        config = self.config
        texts = batch_texts(inputs["batch"])
        queries = tokenize(self.tokenizer, texts.queries, config.max_query_tokens)
        passages = tokenize(self.tokenizer, texts.passages, config.max_passage_tokens)
        rows = queries.ids + passages.ids
        alike = texts.alike if self.shares_prompts else ()
        vectors = embed_rows(model, rows, self.chunk_tokens, self.keep_tokens, alike)
        q, p = vectors[: len(queries.ids)], vectors[len(queries.ids) :]
        excluded = torch.from_numpy(texts.excluded).to(q.device)
        loss = matryoshka(
            q,
            p,
            config.matryoshka,
            temperature=config.temperature,
            excluded=excluded,
            margin=config.false_negative_margin,
            hardness=config.hardness,
        )
        if self.teacher:
            taught = self.teacher.cosines(inputs["batch"], texts).to(q.device)
            knobs = {"temperature": config.taught_temperature, "teacher_temperature": config.teacher_temperature}
            loss = loss + config.teacher_weight * distil(q, p, taught, **knobs)
        with torch.no_grad():
            self.tally.loss = loss.item()
            self.tally.accuracy = in_batch_accuracy(q, p, excluded)
            self.tally.std = float(p.std(dim=0).mean()) * p.shape[1] ** 0.5
        self.tally.tokens, self.tally.texts = sum(map(len, rows)), len(rows)
        self.tally.truncated = queries.truncated + passages.truncated
        if not math.isfinite(self.tally.loss):
            raise FloatingPointError(
                f"the loss of step {self.state.global_step + 1} is {self.tally.loss}: float16 overflows where "
                "bfloat16 does not, and a high learning rate diverges; the last checkpoint is from before"
            )
        return loss

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        while True:
            try:
                return super().training_step(model, inputs, num_items_in_batch)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                self._shrink(error)
            model.zero_grad(set_to_none=True)  # outside the handler, whose traceback holds the activations
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _shrink(self, error: RuntimeError) -> None:
        """Keep nothing, then halve the chunk. Neither changes a gradient, so the run stays the same, only slower."""
        advice = f"chunk_tokens {self.chunk_tokens}, keep_tokens {self.keep_tokens}"
        longest = max(self.config.max_query_tokens, self.config.max_passage_tokens)
        if self.args.world_size > 1 or (self.chunk_tokens <= longest and not self.keep_tokens):
            raise MemoryError(
                f"out of memory with {advice}: set keep_tokens: 0, then a smaller chunk_tokens (several devices cannot "
                "change them on the way), then gradient_checkpointing: true, then shorter texts; the run goes on from "
                "its checkpoint"
            ) from error
        if not self.keep_tokens:
            self.chunk_tokens = max(longest, self.chunk_tokens // 2)
        self.keep_tokens = 0
        log.warning("out of memory with %s: going on with chunk_tokens %d, keep_tokens 0", advice, self.chunk_tokens)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # Trainer would count a language model's

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The adapter alone, whole, however the weights are sharded: a folder that LocalEncoder reads."""
        model: Any = self.accelerator.unwrap_model(self.model)
        state = adapter_state(model)
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            model.save_pretrained(folder, state_dict=state)
            ModelInfo(base=self.config.base, max_length=self.max_length).write(folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # every device writes a file of its own
        if self.args.should_save:
            checkpoints.seal(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}")

    def score(self, sets: Sequence[Any]) -> dict[str, float]:
        """Mean metrics of the model as it stands on retrieval sets; a collective call."""
        from trainer.evaluate import evaluate, mean_over_sets

        model: Any = self.model_wrapped
        model.eval()
        try:
            return mean_over_sets(evaluate(sets, _Running(self), TASKS[self.config.eval_task]))
        finally:
            model.train()


class _Running:
    """The model under training as an Encoder."""

    fingerprint, truncated = "", 0

    def __init__(self, trainer: EmbedTrainer) -> None:
        self.trainer = trainer
        self.max_length = trainer.config.max_passage_tokens
        model: Any = trainer.model
        self.dimension = int(model.config.hidden_size)

    @torch.no_grad()
    def _encode(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        rows = tokenize(self.trainer.tokenizer, texts, max_length).ids
        model: Any = self.trainer.model_wrapped
        with self.trainer.compute_loss_context_manager():
            return embed_rows(model, rows, self.trainer.chunk_tokens).float().cpu().numpy()

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        return self._encode([task.prompt(q) for q in queries], self.trainer.config.max_query_tokens)

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        return self._encode(passages, self.trainer.config.max_passage_tokens)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        raise NotImplementedError  # evaluation does not ask


class Metrics(TrainerCallback):
    """A line of metrics.jsonl for every step, the same for Trainer's loggers, and a word when training fails.

    A base LLM starts at an embedding_std of 0.3 to 0.6; mini's first run ended at 0.48.
    """

    COLLAPSED = 0.1  # embedding_std
    CUT = 0.25  # share of texts
    EARLY = 20  # steps that tell what the others will be like

    def __init__(self, path: Path, trainer: EmbedTrainer, sets: Sequence[Any] = ()) -> None:
        self.path, self.trainer, self.sets = path, trainer, sets
        self.recent: list[float] = []
        self.steps = self.texts = self.truncated = 0  # of this process, up to EARLY

    def rewind(self, step: int) -> None:
        """Forget steps after ``step``, and a line that was cut off."""
        if self.path.exists():
            whole = [line for line in self.path.read_text("utf-8").splitlines(True) if line.endswith("\n")]
            kept = [line for line in whole if json.loads(line)["step"] <= step]
            scratch = self.path.with_suffix(".new")
            scratch.write_text("".join(kept), "utf-8")
            scratch.rename(self.path)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.save_steps = args.save_steps  # where a run goes on, Trainer has the checkpoint's

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        tally, now = self.trainer.tally, time.monotonic()
        scheduler: Any = self.trainer.lr_scheduler
        line: dict[str, float] = {
            "loss": round(tally.loss, 4),
            "accuracy": round(tally.accuracy, 4),
            "embedding_std": round(tally.std, 4),
            "learning_rate": scheduler.get_last_lr()[0],
            "tokens": tally.tokens,
            "truncated": tally.truncated,
            "tokens_per_second": round(tally.tokens / (now - tally.since), 1),
            "peak_memory_gb": round(peak_memory_gb(), 2),
        }
        if self.sets and state.global_step % self.trainer.config.eval_steps == 0:
            line |= {f"eval_{name}": round(value, 4) for name, value in self.trainer.score(self.sets).items()}
        self.trainer.tally = Tally()
        self._count(tally)
        self._watch(line, state.global_step, args.warmup_steps)
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **line}) + "\n")
        self.trainer.log(line)

    def _count(self, tally: Tally) -> None:
        """A word, once, where much of the texts is never read: an answer that stands there teaches the wrong thing."""
        self.steps += 1
        self.texts, self.truncated = self.texts + tally.texts, self.truncated + tally.truncated
        if self.steps == self.EARLY and self.truncated > self.CUT * self.texts:
            config = self.trainer.config
            log.warning(
                "%.0f %% of the texts of %d steps are longer than max_query_tokens %d, max_passage_tokens %d: what "
                "stands behind is not read, nor an answer there; raise them, or split the passages",
                100 * self.truncated / self.texts,
                self.steps,
                config.max_query_tokens,
                config.max_passage_tokens,
            )

    def _watch(self, line: dict[str, float], step: int, warmup: int) -> None:
        self.recent = [*self.recent, line["accuracy"]][-self.EARLY :]
        chance = 1 / self.trainer.config.batch_size
        if line["embedding_std"] < self.COLLAPSED:
            log.warning(
                "step %d: embedding_std %.3f: the embeddings have collapsed to a point; lower learning_rate or raise "
                "warmup_steps, and start anew",
                step,
                line["embedding_std"],
            )
        mean = sum(self.recent) / len(self.recent)
        if len(self.recent) == self.EARLY and step >= warmup + self.EARLY and mean < 2 * chance:
            log.warning(
                "step %d: in-batch accuracy %.3f over %d steps, chance is %.3f: nothing is learnt; look at the "
                "sources' fields and the learning rate",
                step,
                mean,
                self.EARLY,
                chance,
            )
            self.recent = [1.0] * self.EARLY  # not at every step
