"""Named suites: which of mteb's tasks, splits and subsets a name stands for.

The lists come from the metadata that mteb carries, so naming a suite needs no network; its data are read from
the hub when a task runs. The counts are those of mteb 2.26.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# The 16 languages of the paper's table 6. MIRACL also has a dev split for German and Yoruba, which that table lacks.
MIRACL_LANGUAGES = ("ar", "bn", "en", "es", "fa", "fi", "fr", "hi", "id", "ja", "ko", "ru", "sw", "te", "th", "zh")


def suite(name: str) -> list[Any]:
    """mteb tasks. Raises ValueError for a name that is none."""
    if name not in SUITES:
        raise ValueError(f"suite {name!r} is none of {', '.join(SUITES)}")
    return SUITES[name]()


def _benchmark(name: str) -> list[Any]:
    import mteb

    return list(mteb.get_benchmark(name).tasks)


def _miracl() -> list[Any]:
    import mteb

    return [mteb.get_task("MIRACLRetrieval", hf_subsets=list(MIRACL_LANGUAGES), eval_splits=["dev"])]


def _mldr() -> list[Any]:
    import mteb

    return [mteb.get_task("MultiLongDocRetrieval", eval_splits=["test"])]


SUITES: dict[str, Callable[[], list[Any]]] = {
    "mteb-eng-v1": lambda: _benchmark("MTEB(eng, v1)"),  # 56, the paper's
    "mteb-multilingual-v2": lambda: _benchmark("MTEB(Multilingual, v2)"),  # 131
    "beir": lambda: _benchmark("BEIR"),  # 15; MSMARCO on its dev split
    "miracl": _miracl,  # its dev split
    "mldr": _mldr,  # 13 languages, long documents: think of --max-length
}
