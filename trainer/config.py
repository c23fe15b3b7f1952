"""The knobs of a training run. A recipe is this, as YAML."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from ragkit.task import TASKS
from trainer.data import RECIPES, Source


def recipe_path(recipe: str) -> Path:
    """A YAML file as it is named, or the shipped recipe of that name."""
    if Path(recipe).is_file():
        return Path(recipe)
    shipped = RECIPES / f"{recipe}.yaml"
    if not shipped.is_file():
        have = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
        raise FileNotFoundError(f"{recipe} is neither a file nor a recipe that ships: those are {have}")
    return shipped


# Knobs that say how a run is computed, not what: a run may go on with others.
FREE = {
    "chunk_tokens",
    "keep_tokens",
    "compile",
    "gradient_checkpointing",
    "save_steps",
    "keep_checkpoints",
    "eval_steps",
}


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A run. The defaults are the paper's (arXiv 2401.00368, appendix A) where it names a value."""

    sources: list[Source]
    base: str = "mini-base"  # what LocalEncoder.load takes, without an adapter of its own
    start: str = ""  # an adapter of this base to go on from, "mini" or a model folder; "": a fresh one
    batch_size: int = 64  # queries a step, over all devices: more in-batch negatives, more time (paper: 2048)
    hard_negatives: int = 1  # of a query, at most; drawn at random where a source has more
    max_query_tokens: int = 512  # prompt, BOS and EOS included
    max_passage_tokens: int = 512
    temperature: float = 0.02
    false_negative_margin: float | None = None  # leave out negatives whose cosine is so far above the positive's
    hardness: float = 0.0  # weigh a negative of cosine s by exp(hardness * s)
    teacher: str = ""  # another embedder, as trainer evaluate's --model names it, whose similarities are learnt too
    teacher_weight: float = 1.0  # of the cross-entropy with what it finds near, beside InfoNCE's 1
    teacher_temperature: float = 0.02  # of its cosines: the lower, the nearer to one right passage
    taught_temperature: float = 0.05  # of these embeddings' cosines beside it: higher where they spread wider
    matryoshka: list[int] = field(default_factory=list)  # further dimensions at which the embedding must serve
    learning_rate: float = 1e-4
    warmup_steps: int = 100
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0  # the paper names none; this is Trainer's
    epochs: int = 1
    max_steps: int = -1  # -1: as many as the epochs have
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.1
    precision: str = "auto"  # bf16 | fp16 | fp32; auto: the fastest that the device has in hardware
    chunk_tokens: int = 4096  # of one forward pass on a device, pads included: memory against the cost of a call
    keep_tokens: int = 0  # of a device, whose activations stay in memory until backward; the rest is recomputed
    compile: bool = False  # on a CPU, norms and gated products by torch.compile: faster after a minute; needs g++
    gradient_checkpointing: bool = False  # recompute layer by layer within a chunk too: a large model, a small device
    deepspeed: str = ""  # a DeepSpeed configuration beside the recipe, such as zero3.json; needs a launcher
    save_steps: int = 20
    keep_checkpoints: int = 2  # at least: a run that is killed as it writes one needs the one before
    eval_data: str = ""  # below the data folder: SET/LANG/{corpus,queries,qrels}, to score the model on as it trains
    eval_steps: int = 0  # 0: never
    eval_queries: int = 50  # of a set, sampled; 0: all
    eval_passages: int = 200
    eval_task: str = "question-answering"
    seed: int = 1

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "bf16", "fp16", "fp32"):
            raise ValueError(f"precision is {self.precision!r}: use auto, bf16, fp16 or fp32")
        if self.eval_task not in TASKS:
            raise ValueError(f"eval_task is {self.eval_task!r}: use one of {', '.join(TASKS)}")
        if TASKS[self.eval_task].symmetric:
            raise ValueError(
                f"eval_task is {self.eval_task!r}, which prompts both sides: retrieval leaves passages bare"
            )
        if min(self.eval_queries, self.eval_passages) < 0:
            raise ValueError(f"eval_queries is {self.eval_queries}, eval_passages {self.eval_passages}: 0 is all")
        if self.max_steps == 0 or self.max_steps < -1:
            raise ValueError(f"max_steps is {self.max_steps}: it must be above 0, or -1 for all that the epochs have")
        for name in (
            "batch_size",
            "temperature",
            "teacher_temperature",
            "taught_temperature",
            "chunk_tokens",
            "save_steps",
            "keep_checkpoints",
            "epochs",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be above 0")

    @classmethod
    def read(cls, path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
        """From YAML, then ``key=value`` overrides, values as YAML. Raises ValueError that names what is wrong."""
        raw = read_yaml(path.read_text("utf-8"), str(path))
        if not isinstance(raw, dict):
            raise ValueError(f"{path} is no recipe: write lines of `key: value`, with `sources` among them")
        for override in overrides:
            key, equals, value = override.partition("=")
            if not equals:
                raise ValueError(f"{override!r} sets nothing: write key=value, such as batch_size=128")
            raw[key.strip()] = read_yaml(value, f"--set {override}") if value else ""
        sources = raw.get("sources")
        if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
            raise ValueError(f"sources of {path} is {sources!r}: write a list of {{kind: ..., path: ...}}")
        raw["sources"] = [Source(**typed(Source, s, f"source {n} of {path}")) for n, s in enumerate(sources, 1)]
        knobs = typed(cls, raw, str(path))
        if knobs.get("deepspeed"):
            knobs["deepspeed"] = str(_beside(path, knobs["deepspeed"]))
        return cls(**knobs)

    def steps(self, batches: int) -> int:
        """Of the whole run, over a plan of so many batches."""
        return self.max_steps if self.max_steps > 0 else batches * self.epochs

    def yaml(self) -> str:
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, allow_unicode=True)


def read_yaml(text: str, name: str) -> Any:
    """Raises ValueError, with the name of what it is, where it is no YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: not YAML ({error})") from error


def typed(cls: type, raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Fields of a dataclass with the types that it declares: YAML takes 1e-4 for a text. Raises ValueError for what is
    unknown, missing, or of another type."""
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if unknown := raw.keys() - fields:
        told = ", ".join(sorted(map(str, unknown)))
        raise ValueError(f"{name} sets {told}, which is not known: use {', '.join(fields)}")
    required = {f.name for f in fields.values() if f.default is f.default_factory is dataclasses.MISSING}
    if missing := required - raw.keys():
        raise ValueError(f"{name} does not set {', '.join(sorted(missing))}")
    types = get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        try:
            values[key] = TypeAdapter(types[key]).validate_python(value)
        except ValidationError as error:
            raise ValueError(f"{name} sets {key} to {value!r}: it must be {fields[key].type}") from error
    return values


def _beside(recipe: Path, name: str) -> Path:
    for folder in (recipe.parent, RECIPES):
        if (folder / name).exists():
            return folder / name
    raise ValueError(f"{recipe} names the DeepSpeed configuration {name!r}, which is not beside it")


def same_run(one: str, other: str) -> list[str]:
    """Knobs in which two saved configurations differ, those left out that a run may change as it goes on. A knob that
    came since one was saved has its default there; a DeepSpeed file is the same wherever it lies."""
    a, b = (_complete(yaml.safe_load(text)) for text in (one, other))
    return sorted(key for key in (a.keys() | b.keys()) - FREE if a.get(key) != b.get(key))


def _complete(saved: dict[str, Any]) -> dict[str, Any]:
    of_source = dataclasses.asdict(Source("", ""))
    sources = [of_source | source for source in saved["sources"]]
    deepspeed = Path(saved.get("deepspeed", "")).name
    return dataclasses.asdict(TrainConfig([])) | saved | {"sources": sources, "deepspeed": deepspeed}
