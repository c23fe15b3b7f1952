"""Published numbers agree with themselves, and their names with mteb's."""

from __future__ import annotations

from statistics import fmean

import pytest

from trainer.published import MEAN, published


@pytest.mark.parametrize(
    ("system", "column"),
    [
        ("E5-mistral", 0),
        ("E5-mistral, synthetic data only", 1),
        ("E5-mistral, synthetic data and MS MARCO", 2),
    ],
)
def test_datasets_average_to_the_categories_as_printed(system: str, column: int):
    categories, datasets = published().tables["mteb-categories"], published().tables["mteb-datasets"]
    english = published().suites["mteb-eng-v1"]
    for kind, tasks in english.types.items():
        mean = fmean(datasets.scores[task][column] or 0 for task in tasks)
        assert categories.score(system, kind) == pytest.approx(mean, abs=0.1), kind  # each figure is rounded to 0.1
    mean = fmean(datasets.scores[task][column] or 0 for task in english.tasks)
    assert mean == pytest.approx(datasets.scores[MEAN][column], abs=0.1)
    assert set(datasets.scores) == {*english.tasks, MEAN} and len(english.tasks) == 56


@pytest.mark.parametrize("name", ["miracl", "miracl-recall", "mldr"])
def test_languages_average_to_the_mean_as_printed(name: str):
    table = published().tables[name]
    assert len(table.scores) == {"mldr": 14}.get(name, 17)
    for n, system in enumerate(table.systems):
        mean = fmean(scores[n] or 0 for column, scores in table.scores.items() if column != MEAN)
        assert mean == pytest.approx(table.score(system, MEAN), abs=0.1), system


def test_every_table_has_its_source_and_ablations_their_mean():
    for table in published().tables.values():
        assert table.source.url.startswith("https://arxiv.org/") and table.place
        assert table.origin.startswith("Published: ") and table.source.url in table.origin
    table = published().tables["mteb-ablations"]
    counts = {kind: len(tasks) for kind, tasks in published().suites["mteb-eng-v1"].types.items()}
    for system in table.systems:
        mean = sum(counts[kind] * (table.score(system, kind) or 0) for kind in counts) / 56
        assert mean == pytest.approx(table.score(system, MEAN), abs=0.1), system


def test_what_is_not_there_is_none():
    table = published().tables["miracl"]
    assert table.score("BM25", "zh") == 18.0
    assert table.score("BM25", "yo") is None and table.score("nobody", "zh") is None


def test_names_are_those_of_mteb():
    mteb = pytest.importorskip("mteb")
    for name, suite in (("MTEB(eng, v1)", "mteb-eng-v1"), ("MTEB(Multilingual, v2)", "mteb-multilingual-v2")):
        tasks = {task.metadata.name: task for task in mteb.get_benchmark(name).tasks}
        ours = published().suites[suite]
        assert {t: kind for kind, names in ours.types.items() for t in names} == {
            t: task.metadata.type for t, task in tasks.items()
        }
        for task in ours.tasks:
            if ours.split:
                assert list(tasks[task].eval_splits) == [ours.splits.get(task, ours.split)]
                assert list(tasks[task].hf_subsets) == [ours.subsets.get(task, "default")]
