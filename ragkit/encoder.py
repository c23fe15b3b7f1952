"""Texts in, embeddings out: the one place that decides what the model reads and how it is pooled.

A text becomes ``[BOS, *ids, EOS]``, built by id. Post-processors are never trusted (transformers 5
drops e5-mistral's EOS without a word, mteb PR 5237) and ``</s>`` is never appended as text (truncation
would cut it, mteb issue 3217). The embedding is the last layer's state of that EOS, of length one
(arXiv 2401.00368, section 3.2). What the model computes of such rows is forward.py's: no row sees a pad or
depends on the rows beside it. ``tokenize`` and ``embed`` are called by serving and training alike.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from ragkit import mini
from ragkit.around import fingerprint, read_axes
from ragkit.context import Context
from ragkit.forward import ATTENTION, CAUSAL, Head, batches, common, embed, register
from ragkit.fused import fuse
from ragkit.int8 import quantize
from ragkit.lora import merge_plain
from ragkit.references import TEXTS
from ragkit.sparse import well_formed
from ragkit.task import DEFAULT_TASK, TASKS, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

# Tokens of a batch, pads included. A CPU's cache holds the states of about a thousand tokens: from there on every norm
# and activation goes to memory and back (benchmarks/RESULTS.md: 290 tokens/s at 4,096, 400 at 1,024).
CPU_TOKENS, GPU_TOKENS = 1024, 32_768
HEADS = 16  # tasks whose prompts are kept computed
MODEL_FILE = "ragkit.json"  # beside an adapter or weights: what cannot be read off them


class Encoder(Protocol):
    """What store, ingestion and retrieval need of an embedder."""

    @property
    def dimension(self) -> int: ...

    @property
    def max_length(self) -> int: ...  # tokens, BOS and EOS included

    @property
    def fingerprint(self) -> str: ...  # 16 hex digits: what a passage embedding means

    @property
    def truncated(self) -> int: ...  # texts cut since the encoder was loaded

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray: ...  # (N, D) float32, unit rows

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray: ...  # (N, D) float32, unit rows

    def count_tokens(self, texts: Sequence[str]) -> list[int]: ...  # without BOS and EOS


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of each text, ``[BOS, *ids, EOS]``, and how many of the texts were cut to fit."""

    ids: list[list[int]]
    truncated: int


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> Tokens:
    """Ids of ``texts``, at most ``max_length`` tokens each with BOS and EOS included.

    Special tokens written inside a text (``</s>``, ``<eos>``) stay text. Lone surrogates, which no
    UTF-8 tokenizer can read, become U+FFFD. A tokenizer without BOS (Qwen's) gets none.
    """
    bos: Any = tokenizer.bos_token_id
    eos: Any = tokenizer.eos_token_id
    if eos is None:
        raise ValueError(
            f"the tokenizer {type(tokenizer).__name__} has no EOS token, whose state is the embedding: "
            "set eos_token in tokenizer_config.json"
        )
    head = [] if bos is None else [bos]
    room = room_for_text(tokenizer, max_length)
    rows = plain_ids(tokenizer, texts)
    return Tokens([[*head, *row[:room], eos] for row in rows], sum(len(row) > room for row in rows))


def room_for_text(tokenizer: PreTrainedTokenizerBase, max_length: int) -> int:
    """Tokens of ``max_length`` that BOS, where there is one, and EOS leave. Raises ValueError where they leave none."""
    added = 1 if tokenizer.bos_token_id is None else 2
    if max_length <= added:
        raise ValueError(
            f"max_length {max_length} leaves no room for text between BOS and EOS: use at least {added + 1}"
        )
    return max_length - added


def plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Ids of the words alone: no BOS, no EOS, nothing cut."""
    return plain(tokenizer, texts)["input_ids"] if texts else []


def plain(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], **wanted: Any) -> Any:
    """What the tokenizer says of the words alone; ``wanted`` names what is told beside their ids."""
    clean = [well_formed(text) for text in texts]
    return tokenizer(clean, add_special_tokens=False, split_special_tokens=True, verbose=False, **wanted)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """``ragkit.json`` of a model folder. ``base`` names the weights under an adapter ("" where the folder
    holds full weights): ``mini-base``, a path, or a Hub id."""

    base: str = ""
    max_length: int = 512  # tokens, BOS and EOS included; the paper trains and evaluates at 512
    answer_threshold: float = 0.0  # cosine of query and passage, below which no passage is taken to answer

    @classmethod
    def read(cls, folder: Path) -> ModelInfo:
        file = folder / MODEL_FILE
        return cls(**json.loads(file.read_text("utf-8"))) if file.exists() else cls()

    def write(self, folder: Path) -> None:
        (folder / MODEL_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", "utf-8")


class LocalEncoder:
    """An embedder in this process. Make one with :meth:`load`.

    ``fingerprint`` is a hash of what a passage embedding means: weights, adapter, BOS and EOS, longest
    input, pooling and dimension; not the query template and not the precision.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        weights_hash: str,
        max_length: int = 512,
        answer_threshold: float = 0.0,
        token_budget: int = CPU_TOKENS,  # of a batch, pads included
        axes: np.ndarray | None = None,
    ) -> None:
        config: Any = model.config
        if not getattr(config, "is_causal", True) or getattr(config, "use_bidirectional_attention", False):
            raise ValueError(
                f"{type(model).__name__} attends in both directions; last-token pooling needs a causal decoder"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.answer_threshold = answer_threshold
        self.token_budget = token_budget
        self.dimension = int(config.hidden_size)
        self.axes = axes  # (D, D), by which its embeddings are shortened; None: by their first numbers
        self.truncated = 0
        self._lock = threading.Lock()  # two forward passes at once would fight for the same cores or memory
        self.n_parameters = sum(weight.numel() for weight in model.parameters())  # some lose that name when laid out
        self._heads: dict[str, Head] = {}  # by what a task's prompts begin with; replaced, never changed: read unlocked
        tokenize(tokenizer, [""], max_length)  # fails here, not at the first query, where EOS is missing
        meaning = [weights_hash, tokenizer.bos_token_id, tokenizer.eos_token_id, max_length, "last", self.dimension]
        self.fingerprint = fingerprint(*meaning)

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        max_length: int | None = None,
        context: Context | None = None,
        int8: bool = False,
        trainable: bool = False,
    ) -> LocalEncoder:
        """Load ``"mini"``, ``"mini-base"`` (its base, untrained), a model folder, or a Hub id.

        A folder holds full weights, or a LoRA adapter whose base is named by its ``ragkit.json`` (else
        by ``adapter_config.json``); an adapter is merged into its base. ``dtype`` defaults to what the
        device computes fast, ``context`` to the model's own RoPE base and window. ``int8``: matrix products in 8
        bits, on a CPU (int8.py). ``trainable``: layers and parameters stay as transformers made them, to be trained
        or saved; else a CPU lays them out for itself (fused.py). Raises OSError where nothing of that name is found,
        ValueError where int8 cannot be.
        """
        from transformers import AutoConfig, AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        register()
        # oneDNN keeps what it compiles for each shape; its 1,024 took 0.3 GB more than 64, and were no faster
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
        transformers_logging.disable_progress_bar()  # it loads in seconds, and scripts read our standard error
        device = device or ("cuda" if torch.cuda.is_available() and not int8 else "cpu")
        dtype = dtype or fast_dtype(device)
        exact = torch.float32 if int8 else dtype  # what is rounded to 8 bits is rounded once
        adapter, info = None, ModelInfo()
        folder = source = _resolve(name)
        if source.is_dir():
            info = ModelInfo.read(source)
            if (source / "adapter_config.json").exists():
                adapter = source
                source = _resolve(
                    info.base
                    or json.loads((source / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]
                )
        where = str(source)
        config = AutoConfig.from_pretrained(where)
        if context:
            context.apply(config)
        model = AutoModel.from_pretrained(
            where,
            config=config,
            dtype="auto" if adapter else exact,  # as stored; all of it in float32 would be a second's work
            attn_implementation=attention(device, config.model_type, dtype),
        )
        digest = weights_digest(source) if source.is_dir() else f"{where}@{model.config._commit_hash}"
        if adapter:
            if not merge_plain(model, adapter, exact):  # in float32, cast after: nothing of a small update is lost
                from peft import PeftModel

                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 asks transformers by an old name
                    model = PeftModel.from_pretrained(model.float(), str(adapter)).merge_and_unload()
            digest += weights_digest(adapter) + _scale(adapter)
        if context:
            digest += repr(context)
        encoder = cls(
            model.to(device=device, dtype=exact),
            mini.tokenizer(source) if mini.is_base(source) else AutoTokenizer.from_pretrained(where),
            weights_hash=digest,
            max_length=max_length or info.max_length,
            answer_threshold=info.answer_threshold,
            token_budget=CPU_TOKENS if device == "cpu" else GPU_TOKENS,
            axes=read_axes(folder, int(config.hidden_size)),
        )
        if int8:
            encoder._quantize()
            encoder.model.to(dtype)
        if device == "cpu" and not trainable:
            fuse(encoder.model)
        return encoder

    def _quantize(self) -> None:
        texts = [
            *(passage for _, passage in TEXTS.values()),
            *(TASKS[DEFAULT_TASK].prompt(q) for q, _ in TEXTS.values()),
        ]
        rows = self.tokenize(texts).ids
        quantize(self.model, lambda: self.encode_rows(rows))

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        """Embeddings (N, D) of ``task.prompt(query)``: float32, unit rows, in the order given."""
        self.share(task)
        return self._encode(_prompts(queries, task), "queries")

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        """Embeddings (N, D) of the bare passages: float32, unit rows, in the order given."""
        return self._encode(passages, "passages")

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without BOS and EOS and before any truncation."""
        return [len(row) for row in plain_ids(self.tokenizer, texts)]

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """What the model reads of bare texts or prompts. Counts no truncation: the caller may refuse instead."""
        return tokenize(self.tokenizer, texts, self.max_length)

    def encode_states(self, queries: Sequence[str], task: Task) -> np.ndarray:
        """:meth:`encode_queries` before their length is made one, (N, D): a classifier may read the length too."""
        self.share(task)
        return self._encode(_prompts(queries, task), "queries", unit=False)

    def share(self, task: Task) -> None:
        """Compute the tokens that all prompts of ``task`` begin with once: from now on rows that begin with them go on
        from there. The prompt's last token may join the query's first, so only what two unlike queries have in common
        is taken, and each row is compared by its ids. Nothing happens where the model does not attend by ours."""
        config: Any = self.model.config
        if config._attn_implementation != ATTENTION:
            return
        heads, opening = dict(self._heads), task.prompt("")
        head = heads.pop(opening, None) or Head(common(self.tokenize([task.prompt("a"), task.prompt("字")]).ids))
        self._heads = dict([*heads.items(), (opening, head)][-HEADS:])

    @torch.inference_mode()
    def encode_rows(self, rows: Sequence[Sequence[int]], *, unit: bool = True) -> np.ndarray:
        """Embeddings (N, D) of rows of :meth:`tokenize`, batched by their lengths; one caller at a time computes."""
        out = np.empty((len(rows), self.dimension), dtype=np.float32)
        with self._lock:
            for head, places in self._by_head(rows):
                start = len(head.ids) if head else 0
                for batch in batches([len(rows[i]) - start for i in places], self.token_budget):
                    taken = [places[n] for n in batch]
                    out[taken] = embed(self.model, [rows[i] for i in taken], head=head, unit=unit).cpu().numpy()
        return out

    def _by_head(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[Head | None, list[int]]]:
        """The places of rows that go on from the same head, the longest that fits; None: from nothing."""
        heads = sorted(self._heads.values(), key=lambda head: -len(head.ids))
        groups: dict[Head | None, list[int]] = {}
        for place, row in enumerate(rows):
            groups.setdefault(next((head for head in heads if head.begins(row)), None), []).append(place)
        for head in groups:
            if head and not head.states:
                head.compute(self.model)
        yield from groups.items()

    def _encode(self, texts: Sequence[str], kind: str, *, unit: bool = True) -> np.ndarray:
        _refuse_one_string(texts, kind)
        tokens = self.tokenize(texts)
        out = self.encode_rows(tokens.ids, unit=unit)
        if tokens.truncated:
            with self._lock:
                self.truncated += tokens.truncated
            log.warning("%d of %d %s cut to %d tokens", tokens.truncated, len(texts), kind, self.max_length)
        return out


def _scale(adapter: Path) -> str:
    """What an adapter's update is multiplied by, as part of its digest. 2, every recipe's, says nothing: what was
    stored before this was told apart stays."""
    told = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    if not {"lora_alpha", "r"} <= told.keys():  # another of peft's adapters
        return ""
    scale = told["lora_alpha"] / (told["r"] ** 0.5 if told.get("use_rslora") else told["r"])
    return "" if scale == 2 else f" * {scale}"


def _prompts(queries: Sequence[str], task: Task) -> list[str]:
    _refuse_one_string(queries, "queries")
    return [task.prompt(query) for query in queries]


def _refuse_one_string(texts: Sequence[str], kind: str) -> None:
    if isinstance(texts, str):
        raise TypeError(f"{kind} must be a list of texts, got one string ({texts[:40]!r}): wrap it in a list")


def base_source(name: str | Path) -> str:
    """What ``from_pretrained`` takes for a base: a folder or a Hub id."""
    return str(_resolve(name))


def _resolve(name: str | Path) -> Path:
    if str(name) == "mini":
        if not (mini.ADAPTER / "adapter_config.json").exists():
            raise OSError(f"this installation has no adapter of 'mini' in {mini.ADAPTER}: reinstall ragkit")
        return mini.ADAPTER
    return mini.base_folder() if str(name) == "mini-base" else Path(name)


def fast_dtype(device: str) -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware, else float32 (float16 on older GPUs).

    A CPU without AVX512-BF16 or AMX emulates it: measured on a Zen 3, 1 GFLOP/s against 174 in float32.
    """
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def attention(device: str, architecture: str, dtype: torch.dtype) -> str:
    """FlashAttention 2 on a GPU that has it (Ampere or newer, flash-attn installed) in 16 bits, the only ones that it
    takes; else ours for architectures that it is tested with, else PyTorch's SDPA under transformers' masks."""
    modern = device.startswith("cuda") and torch.cuda.get_device_capability()[0] >= 8
    if modern and dtype in (torch.float16, torch.bfloat16) and find_spec("flash_attn"):
        return "flash_attention_2"
    return ATTENTION if architecture in CAUSAL else "sdpa"


def weights_digest(folder: Path) -> str:
    """SHA-256 over a folder's weight files: names, sizes and 64 blocks of 64 KiB spread over each.

    Samples, so that 14 GB do not have to be read at every start; two trainings differ in every block.
    """
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    if not files:
        raise OSError(f"no weights (*.safetensors) in {folder}: is it a model folder?")
    digest = hashlib.sha256()
    for file in files:
        size, block = file.stat().st_size, 1 << 16
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as handle:
            for n in range(64):
                handle.seek(max(0, size - block) * n // 63)
                digest.update(handle.read(block))
    return digest.hexdigest()
