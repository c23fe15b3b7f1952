"""README.md of an exported folder: what the model is, how to call it, what was checked, where it comes from.

Made from the run folder where the model sits in one (config.yaml, run.json, scores.json), and from the
model folder's own README and NOTICE. It claims no runtime that was not run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ragkit.runtimes import Check
from ragkit.task import DEFAULT_TASK, TASKS


@dataclass(frozen=True, slots=True)
class Facts:
    """What the card says of the model."""

    name: str
    base: str  # "" where the source held full weights
    folder: Path | None  # of the source; None for a Hub id
    fingerprint: str  # of the source
    dimension: int
    max_length: int  # tokens, BOS and EOS included
    formats: tuple[str, ...]
    dtype: str
    gguf: str


WHAT = """\
# {name}

{made}: texts to embeddings of {dimension} dimensions. The embedding is the last layer's state of the EOS token, at
unit length; compare by cosine. Queries carry an instruction, passages are bare. At most {max_length} tokens, BOS and
EOS included. Exported by ragkit from the model with fingerprint `{fingerprint}`.

Formats: {formats}. `reference.json` holds texts in eight scripts with their vectors: a server that returns others
is set up wrongly."""

CHECKED = """\
## Checked

Lowest cosine to ragkit's own vectors (float32) over the texts of `reference.json`, each alone and in batches, on a
CPU. vLLM and TEI were not run; the files follow what their sources read.

| format | runtime | queries | passages |
|---|---|---|---|
{rows}"""

PROMPTS = """\
## Prompts

A query is read as `Instruct: {{instruction}}\\nQuery: {{query}}`: one line break, and a space after `Query:`. A passage
is read as it is. The default is `{default}`. Tasks that compare like with like (sts, bitext, summarization,
classification, clustering) put the prompt on both sides.

| prompt | instruction |
|---|---|
{rows}"""

RAGKIT = """\
### ragkit

```python
from ragkit import TASKS
from ragkit.encoder import LocalEncoder

encoder = LocalEncoder.load("FOLDER")
encoder.encode_queries(["..."], TASKS["{default}"])
encoder.encode_passages(["..."])
```

A fingerprint is taken from the weights as they are stored, so this folder's differs from its source's: a collection
built with one is refused by the other, though the vectors agree."""

READERS = """\
### sentence-transformers

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("FOLDER")
model.encode_query(["..."])  # the default task
model.encode(["..."], prompt_name="fact-checking")
model.encode_document(["..."])
```

### LlamaIndex

`HuggingFaceEmbedding` drops the prompts saved in a folder without a word: give it the query instruction, trailing
space included, or use `ragkit.embedding.TaskEmbedding`.

```python
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

HuggingFaceEmbedding(model_name="FOLDER", query_instruction={instruction})
```

LlamaIndex puts a document's metadata before its text; this model was trained without. Exclude it by
`excluded_embed_metadata_keys`.

### vLLM (not run)

```
vllm serve FOLDER --runner pooling
```

Pooling and normalising are read from `modules.json`. `/v1/embeddings` knows no roles: send queries with their prompt.

### Text Embeddings Inference (not run)

```
text-embeddings-router --model-id FOLDER --pooling last-token
```

`/embed` takes `prompt_name`; `/v1/embeddings` does not: send queries with their prompt. Mistral runs there on CUDA
only, or on a CPU from `onnx/model.onnx`."""

ONNX = """\
### ONNX Runtime

`onnx/model.onnx` (float32, its weights in `model.onnx.data`) takes `input_ids` and `attention_mask`, padded on the
right, and returns `sentence_embedding`. Make the ids with `tokenizer.json`, truncated to {max_length} tokens."""

LLAMA_CPP = """\
### llama.cpp

```
llama-server -m model.gguf --embeddings -c {context}
```

Pooling, BOS and EOS are in the file. A text that does not fit the context (`-c`, rounded up to a multiple of 256) is
refused, not cut. Send queries with their prompt."""

ADAPTER = """\
### The adapter

`adapter/` is the LoRA as peft wrote it, for `{base}`. `LocalEncoder.load("FOLDER/adapter")` finds the base by its
`ragkit.json`. With peft alone, take the tokenizer of this folder: the base's own adds no EOS."""

LIMITS = """\
## Limits

- ragkit reads a special token written inside a text (`</s>`, `<eos>`) as text. The other runtimes take it for the
  token, so that a stranger's text can move its own vector: strip such strings first.
- sentence-transformers cuts a text at {max_length} tokens without a word."""

SPACE = """\
- llama.cpp reads a text in a vocabulary of Llama or Mistral as if a space stood before it, also one that begins with
  a space: strip leading white space."""

RECIPE = """\
## Recipe

{config}Trained with {versions}; {parameters:,} trainable parameters.

| source | examples drawn |
|---|---|
{rows}

The licences of the sources are their publishers' to state; the run recorded none."""

TERMS = """\
## Sources and terms

{whose}

```
{notice}
```"""


@dataclass(frozen=True, slots=True)
class Score:
    """A line of a score file: the mean of a metric over its sets."""

    file: str
    metric: str
    value: float


def run_folder(model: Path | None) -> Path | None:
    """The run folder around a model folder, if it sits in one."""
    parent = model.resolve().parent if model else None
    return parent if parent and (parent / "run.json").exists() else None


def read_scores(files: Sequence[Path], run: Path | None = None) -> list[Score]:
    """Means of the files and of the run's scores.json. Raises ValueError where one is not of `trainer evaluate`."""
    found = [run / "scores.json"] if run and (run / "scores.json").exists() else []
    scores: list[Score] = []
    for file in [*files, *found]:
        try:
            mean = json.loads(file.read_text("utf-8"))["mean"]
            scores += [Score(file.stem, metric, float(value)) for metric, value in mean.items()]
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is no score file of trainer evaluate: it has no 'mean' of numbers") from error
    return scores


def model_card(facts: Facts, checks: Sequence[Check], scores: Sequence[Score] = ()) -> str:
    """Markdown."""
    run = run_folder(facts.folder)
    base = Path(facts.base).name if Path(facts.base).is_absolute() else facts.base  # no path of this machine
    formats = {"safetensors": f"safetensors ({facts.dtype})", "gguf": f"gguf ({facts.gguf})"}
    values = {
        "name": facts.name,
        "made": f"A LoRA adapter, merged into its base `{base}`" if base else "A causal decoder",
        "base": base,
        "fingerprint": facts.fingerprint,
        "dimension": facts.dimension,
        "max_length": facts.max_length,
        "context": facts.max_length + 1,  # llama.cpp refuses a text that fills the context
        "formats": ", ".join(formats.get(name, name) for name in facts.formats),
        "default": DEFAULT_TASK,
        "instruction": json.dumps(TASKS[DEFAULT_TASK].prefix),
    }
    runtimes = [
        f"| {c.format} | {c.runtime} | {rounded_down(c.lowest('query'))} | {rounded_down(c.lowest('passage'))} |"
        for c in checks
    ]
    prompts = [f"| `{task.name}` | {task.instruction} |" for task in TASKS.values()]
    uses = {
        RAGKIT: {"safetensors", "sentence-transformers"},
        READERS: {"sentence-transformers"},
        ONNX: {"onnx"},
        LLAMA_CPP: {"gguf"},
        ADAPTER: {"adapter"},
    }
    limits = LIMITS.format(**values) + ("\n" + SPACE if "gguf" in facts.formats else "")
    table = [f"| {s.file} | {s.metric} | {s.value:.4f} |" for s in scores]
    parts = [
        WHAT.format(**values),
        CHECKED.format(rows="\n".join(runtimes)),
        PROMPTS.format(rows="\n".join(prompts), **values),
        "## Use",
        *(text.format(**values) for text, needs in uses.items() if needs & set(facts.formats)),
        limits,
        "\n".join(["## Scores\n\n| file | metric | mean over sets |", "|---|---|---|", *table]) if table else "",
        _recipe(run) if run else "",
        _said(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def rounded_down(cosine: float) -> str:
    """Five digits that promise no more than was measured."""
    return f"{math.floor(cosine * 1e5) / 1e5:.5f}"


def _recipe(run: Path) -> str:
    """Recipe, data counts and versions of the run folder."""
    facts = json.loads((run / "run.json").read_text("utf-8"))
    config = ""
    if (file := run / "config.yaml").exists():
        config = yaml.safe_dump(yaml.safe_load(file.read_text("utf-8")), sort_keys=False, allow_unicode=True)
        config = f"```yaml\n{config.strip()}\n```\n\n"
    return RECIPE.format(
        config=config,
        versions=", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items()),
        parameters=facts.get("trainable_parameters", 0),
        rows="\n".join(f"| {source} | {count} |" for source, count in facts.get("examples", {}).items()),
    )


def _said(facts: Facts) -> str:
    """The source folder's own words, one heading deeper, without links that lead out of the folder."""
    parts = []
    if facts.folder and (readme := facts.folder / "README.md").exists():
        text = re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", readme.read_text("utf-8").strip())
        parts.append("## From the model's own README\n\n" + re.sub(r"^#", "###", text, flags=re.MULTILINE))
    if facts.folder and (notice := facts.folder / "NOTICE").exists():
        whose = "This folder holds base and adapter merged; the notice below was written for the adapter alone."
        parts.append(TERMS.format(whose=whose if facts.base else "", notice=notice.read_text("utf-8").strip()))
    return "\n\n".join(parts)
