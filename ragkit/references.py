"""The texts that prove a copy of a model: with the vectors we serve for them, the model's own test.

Eight scripts, queries and passages, white space that tokenizers disagree on, a text that just fits and
one that does not. ``reference.json`` carries them with every export.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ragkit.task import DEFAULT_TASK, TASKS, Task

if TYPE_CHECKING:
    from ragkit.encoder import LocalEncoder

FILE = "reference.json"

# A question and the passage that answers it, in eight scripts.
TEXTS = {
    "Arabic": (
        "متى تفتح مكتبة الميناء يوم السبت؟",
        "تفتح مكتبة الميناء في التاسعة صباحا أيام الأسبوع، وفي العاشرة يوم السبت.",
    ),
    "Hindi": (
        "बंदरगाह का पुस्तकालय शनिवार को कब खुलता है?",
        "बंदरगाह का पुस्तकालय सप्ताह के दिनों में नौ बजे और शनिवार को दस बजे खुलता है।",
    ),
    "Thai": ("ห้องสมุดท่าเรือเปิดกี่โมงในวันเสาร์", "ห้องสมุดท่าเรือเปิดเก้าโมงในวันธรรมดา และสิบโมงในวันเสาร์"),
    "Chinese": ("港口图书馆星期六几点开门？", "港口图书馆平日九点开门，星期六十点开门。"),
    "Japanese": ("港の図書館は土曜日の何時に開きますか。", "港の図書館は平日は九時、土曜日は十時に開きます。"),
    "Amharic": ("የወደቡ ቤተ መጻሕፍት ቅዳሜ መቼ ይከፈታል?", "የወደቡ ቤተ መጻሕፍት በሥራ ቀናት በሦስት ሰዓት፣ ቅዳሜ በአራት ሰዓት ይከፈታል።"),
    "emoji": ("📚🚢🕘❓", "📚🚢 9️⃣🕘 👩🏽‍🏫👨‍👩‍👧‍👦 ✅ 🇪🇹"),
    "Latin": (
        "When does the harbour library open on Saturdays?",
        "The harbour library opens at nine on weekdays and at ten on Saturdays.",
    ),
}
LAYOUT = (
    "Opening hours\n\nweekdays:  09:00-18:00\nSaturday:\t10:00-14:00\n\n\tclosed on 1 May 2027"  # white space, digits
)
QUERY_TASKS = (DEFAULT_TASK, "question-answering", "sts", "bitext")  # drawn in turn


@dataclass(frozen=True, slots=True)
class Reference:
    """A text and the embedding we serve for it. ``task`` is a name of TASKS for a query, "" for a passage."""

    text: str  # without its prompt
    task: str
    script: str
    embedding: tuple[float, ...]
    truncated: bool = False  # longer than max_length

    @property
    def role(self) -> str:
        return "query" if self.task else "passage"

    @property
    def asked(self) -> Task | None:
        return TASKS[self.task] if self.task else None

    @property
    def prompt(self) -> str:
        """What the model reads."""
        return TASKS[self.task].prompt(self.text) if self.task else self.text


def make_references(encoder: LocalEncoder) -> Iterator[Reference]:
    """Queries and passages in eight scripts, white space, and texts that just fit and just do not."""
    rows = [(text, "", script) for script, (_, text) in TEXTS.items()]
    for n, (script, (query, _)) in enumerate(TEXTS.items()):
        rows.append((query, QUERY_TASKS[n % len(QUERY_TASKS)], script))
    rows.append((LAYOUT, "", "layout"))
    every = " ".join(text for pair in TEXTS.values() for text in pair)
    fits = longest(encoder, every)
    rows += [(fits, "", "long"), (f"{fits} {every}", "", "long")]
    for text, task, script in rows:
        cut = encoder.truncated
        found = encoder.encode_queries([text], TASKS[task]) if task else encoder.encode_passages([text])
        yield Reference(text, task, script, tuple(found[0].tolist()), encoder.truncated > cut)


def longest(encoder: LocalEncoder, text: str) -> str:
    """As much of ``text``, said over and over, as the encoder reads without cutting."""
    room = encoder.max_length - 2  # BOS and EOS
    text = f"{text} " * (room // encoder.count_tokens([text])[0] + 1)
    low, high = 1, len(text)  # characters; the first always fits
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if encoder.count_tokens([text[:middle]])[0] <= room else (low, middle - 1)
    return text[:low].rstrip()


def write_reference_file(
    file: Path,
    name: str,
    encoder: LocalEncoder,
    references: Sequence[Reference],
    faults: Mapping[str, Iterable[Sequence[float]]],
) -> None:
    """``reference.json``: what any server of this model returns, rounded to seven digits, and what one returns of
    :func:`probes` that is set up wrongly (five)."""
    rows = [
        {
            "role": r.role,
            "task": r.task,
            "script": r.script,
            "truncated": r.truncated,
            "text": r.text,
            "embedding": [round(x, 7) for x in r.embedding],
        }
        for r in references
    ]
    head = {
        "model": name,
        "fingerprint": encoder.fingerprint,  # of the model that was exported
        "dimension": encoder.dimension,
        "max_length": encoder.max_length,
        "ragkit": importlib.metadata.version("ragkit"),
    }
    lines = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows)
    ill = {fault: [[round(float(x), 5) for x in row] for row in found] for fault, found in faults.items()}
    sick = ",\n  ".join(f"{json.dumps(fault)}: {json.dumps(found)}" for fault, found in ill.items())
    text = f'{json.dumps(head)[:-1]}, "texts": [\n  {lines}\n], "faults": {{\n  {sick}\n}}}}\n'
    file.write_text(text, "utf-8")


PROBES = ("query", "Arabic"), ("query", "Latin"), ("passage", "Chinese"), ("passage", "Latin")


def probes(references: Sequence[Reference]) -> list[Reference]:
    """Two queries and two passages: enough to tell faults apart, few enough to carry their vectors."""
    found = {(text.role, text.script): text for text in references}
    return [found[key] for key in PROBES]


@dataclass(frozen=True, slots=True)
class ReferenceFile:
    """A model's own test, and what the model is. ``faults`` maps a fault to the vectors it makes of :func:`probes`;
    empty in files older than the doctor."""

    fingerprint: str
    dimension: int
    max_length: int
    texts: tuple[Reference, ...]
    faults: dict[str, list[list[float]]] = field(default_factory=dict)


def read_reference_file(folder: Path) -> ReferenceFile:
    """``reference.json`` of ``folder``. Raises OSError where there is none, ValueError where it is none of ours."""
    file = folder / FILE
    if not file.exists():
        raise OSError(f"no {FILE} in {folder}: a model folder gets it from 'trainer export'")
    try:
        raw = json.loads(file.read_text("utf-8"))
        texts = tuple(
            Reference(row["text"], row["task"], row["script"], tuple(row["embedding"]), row["truncated"])
            for row in raw["texts"]
        )
        unknown = {text.task for text in texts} - {"", *TASKS}
        if unknown:
            raise ValueError(f"unknown tasks {', '.join(sorted(unknown))}")
        probes(texts)  # fails here, not in the middle of a diagnosis
        return ReferenceFile(
            str(raw["fingerprint"]), int(raw["dimension"]), int(raw["max_length"]), texts, raw.get("faults", {})
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no reference file of ragkit ({type(error).__name__}: {error})") from error
