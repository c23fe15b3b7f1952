"""A map of stored passages: where each lies by its embedding, and what lies together.

Takes a sample of bounded size (Store.sample) and says nothing of languages; languages.py measures what the map shows,
charts.py draws it. scikit-learn computes both, on one thread and from a fixed start, so that a map is the same again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ragkit.types import Passage

SAMPLE = 1000  # passages on a map: more overlap in the drawing, and take more than some seconds
SEED = 0


@dataclass(frozen=True, slots=True)
class Topic:
    """Passages that lie together, named by the one in their middle."""

    title: str
    lang: str  # of the title
    passages: int
    languages: Mapping[str, int]  # passages of each, most first: one language or many


def project(embeddings: np.ndarray) -> np.ndarray:
    """Places (N, 2) on a map for unit rows (N, D): near where their cosine is high, by t-SNE (van der Maaten & Hinton,
    2008) over the first 50 principal components. Distances of unit rows order as cosines do, and a fixed start makes
    the same map again on the same machine. Groups mean something, distances between groups do not. Below ten rows:
    the first two components.
    """
    rows = np.asarray(embeddings, dtype=np.float64)
    total = len(rows)
    if total < 2:
        return np.zeros((total, 2))
    left, scale, right = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])  # SVD leaves them open
    components = (left * scale * signs)[:, :50]  # (N, up to 50)
    flat = np.zeros((total, 2))
    flat[:, : min(2, components.shape[1])] = components[:, :2]
    if total < 10 or not scale[0] > 1e-9:  # too few to speak of neighbours, or all the same
        return flat
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    start = flat / flat[:, 0].std() * 1e-4
    with threadpool_limits(1, "openmp"):  # the sums of several threads differ in their last bits, and then the map
        tsne = TSNE(init=start, perplexity=min(30, (total - 1) / 3), max_iter=500, random_state=SEED)
        return np.asarray(tsne.fit_transform(components), dtype=np.float64)


def topics(passages: Sequence[Passage], embeddings: np.ndarray, most: int = 12) -> tuple[np.ndarray, tuple[Topic, ...]]:
    """``most`` groups of passages by k-means over their embeddings (N, D); largest first. Returns which each passage is
    in (N,), and the groups, each with the title (or first words) of the passage nearest to its middle.

    They are groups of the embedder's making: where it sorts by language, so do they, and ``Topic.languages`` shows it.
    """
    if not passages:
        return np.empty(0, dtype=int), ()
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "openmp"):
        count = min(most, len(np.unique(embeddings, axis=0)))
        means = KMeans(count, n_init=4, random_state=SEED).fit(embeddings)  # type: ignore[arg-type]  # its hints say str
    given = means.labels_
    order = sorted(range(count), key=lambda c: (-int((given == c).sum()), c))
    found: list[Topic] = []
    for cluster in order:
        members = np.flatnonzero(given == cluster)
        middle = means.cluster_centers_[cluster]
        named = passages[members[np.argmax(embeddings[members] @ middle)]]
        spoken = Counter(passages[m].lang for m in members)
        found.append(Topic(named.title or named.text[:60], named.lang, len(members), dict(spoken.most_common())))
    return np.argsort(order)[given], tuple(found)
