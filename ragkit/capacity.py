"""What a corpus of any size takes: memory, disk, nodes, shards, hours and money, before anything is bought.

Pure: a Workload and a Cluster in, a Plan out. Every number is a Figure that says how it was reckoned and from which
constants (constants.yaml). Memory and disk follow Qdrant's published formulas, embedding the counted operations of the
model; times of search and of indexing are measurements on a small collection, carried over. Where the load is
queued, see search_load.py; how far such a plan is off, forecast.py tells from measured rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ragkit.constants import Constant, constants, devices
from ragkit.operations import Shape, forward

GB = 1e9
MOST = 1e18  # of anything that is counted


@dataclass(frozen=True, slots=True)
class Workload:
    passages: float
    dimension: int
    tokens_per_passage: float = 200
    quantization: str = "none"
    bits: float = 4  # of a value under turbo
    m: int = 16
    replicas: int = 1  # copies of each shard
    queries_per_second: float = 0
    k: int = 10
    oversampling: float = 2.0
    originals_in_memory: bool = False  # beside the quantised vectors: rescoring without reading disk
    payload_bytes: float | None = None  # of one passage; reckoned from its tokens where not known
    terms: float | None = None  # BM25 terms of one passage; likewise

    def __post_init__(self) -> None:
        wrong = {
            "passages": self.passages < 1 and "there is nothing to plan for; give the number of passages, such as 1e6",
            "dimension": not 1 <= self.dimension <= 65_535 and "an embedding has 1 to 65,535 dimensions",
            "tokens_per_passage": self.tokens_per_passage <= 0 and "a passage has tokens; ragkit cuts at 200",
            "quantization": self.quantization not in ("none", "scalar", "turbo", "binary")
            and "use none, scalar, turbo or binary",
            "bits": self.bits not in (1, 1.5, 2, 4, 8) and "TurboQuant has 1, 1.5, 2, 4 and 8",
            "replicas": self.replicas < 1 and "one copy at least",
            "m": self.m < 2 and "a point of the graph has edges: 16 is usual",
            "queries_per_second": self.queries_per_second < 0 and "0 leaves the load out",
        }
        for name in ("passages", "tokens_per_passage", "queries_per_second"):
            if not getattr(self, name) < MOST:  # nan is not, either
                wrong[name] = "give a number below 1e18"
        for name, advice in wrong.items():
            if advice:
                raise ValueError(f"{name} is {getattr(self, name):,}: {advice}" if name != "quantization"
                                 else f"quantization is {self.quantization!r}: {advice}")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cluster:
    """A node, of which there will be as many as are needed."""

    memory: float = 64 * GB
    disk: float = 2000 * GB
    cores: int = 8
    shards: int | None = None  # one for each node where not said

    def __post_init__(self) -> None:
        for name in ("memory", "disk", "cores", "shards"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(
                    f"node's {name} is {value}: give what one node has, such as 64GB of memory and 8 cores"
                )


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of the plan. ``how`` is the reckoning in words, ``used`` what it was made of."""

    name: str
    value: float
    unit: str
    how: str
    used: tuple[Constant, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    workload: Workload
    cluster: Cluster
    figures: dict[str, Figure] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)  # RAGKIT_* that make the store as it was planned

    def __getitem__(self, name: str) -> float:
        return self.figures[name].value

    def add(self, name: str, value: float, unit: str, how: str, *used: Constant) -> float:
        self.figures[name] = Figure(name, value, unit, how, used)
        return value


def code_bytes(quantization: str, bits: float, dimension: int) -> float:
    """Bytes of one quantised vector; 0 for none."""
    c = constants()
    each = {"none": 0.0, "scalar": c["scalar_bytes"].value, "turbo": bits * c["bit_bytes"].value,
            "binary": c["binary_bytes"].value}  # fmt: skip
    return dimension * each[quantization]


def footprint(work: Workload, given: Mapping[str, Constant] | None = None) -> tuple[list[Figure], list[Figure]]:
    """Bytes of one passage, one copy, part by part: what is on disk, and what of it is in memory.

    All is on disk, which holds what memory does. Out of memory stay texts and BM25 vectors, and the original
    embeddings where there are quantised ones.
    """
    c = {**constants(), **(given or {})}
    text = work.tokens_per_passage * c["text_bytes"].value
    payload = work.payload_bytes or text + c["payload_overhead"].value
    terms = work.terms or work.tokens_per_passage * c["terms"].value
    quantised = code_bytes(work.quantization, work.bits, work.dimension)

    def part(name: str, value: float, how: str, *used: str) -> Figure:
        return Figure(name, value, "bytes", how, tuple(c[one] for one in used))

    originals = part("original vectors", work.dimension * c["float_bytes"].value, "dimension x 4", "float_bytes")
    name = {"scalar": ("scalar_bytes",), "binary": ("binary_bytes",), "turbo": ("bit_bytes",)}.get(
        work.quantization, ()
    )
    codes = part("quantised vectors", quantised, f"dimension x {quantised / work.dimension:g}", *name)
    graph = part("HNSW graph", work.m * c["hnsw_bytes"].value, f"m {work.m} x 9.6", "hnsw_bytes")
    index = part("BM25 index", terms * c["sparse_index_bytes"].value, "terms x 4 x 1.5", "terms", "sparse_index_bytes")
    fields = part("payload indexes", c["indexed_bytes"].value * c["payload_index_factor"].value,
                  "2 x indexed fields", "indexed_bytes", "payload_index_factor")  # fmt: skip
    ids = part("ID tracker", c["id_bytes"].value, "52", "id_bytes")
    sparse = part("BM25 vectors", terms * c["sparse_bytes"].value, "terms x 8", "terms", "sparse_bytes")
    texts = part("payload", payload * c["payload_factor"].value, "(text + what stands beside it) x 1.5",
                 "text_bytes", "payload_overhead", "payload_factor")  # fmt: skip
    always = [*([codes] if quantised else []), graph, index, fields, ids]
    memory = always if quantised and not work.originals_in_memory else [originals, *always]
    return [originals, *always, sparse, texts], memory


def plan(work: Workload, cluster: Cluster, measured: Mapping[str, Constant] | None = None) -> Plan:
    """Storage and search. ``measured`` replaces constants. Raises ValueError where a shard fits no node."""
    c = {**constants(), **(measured or {})}
    made = Plan(work, cluster)
    disk, memory = footprint(work, c)
    copies = work.passages * work.replicas
    for title, parts in (("disk", disk), ("memory", memory)):
        for one in parts:
            made.add(f"{title}: {one.name}", one.value * copies, "bytes",
                     f"{one.how}, x passages x replicas", *one.used)  # fmt: skip
        total = sum(one.value for one in parts) * copies * (1 + c["headroom"].value)
        made.add(title, total, "bytes", "sum of its parts + 20 %", c["headroom"])
    rough = copies * work.dimension * 4 * c["rough_factor"].value
    made.add("memory, Qdrant's one-line formula", rough, "bytes",
             "passages x replicas x dimension x 4 x 1.5: all in memory, not quantised; to compare", c["rough_factor"],
             )  # fmt: skip
    _lay_out(made, c)
    _search(made, c)
    return made


def _lay_out(made: Plan, c: Mapping[str, Constant]) -> None:
    """The least number of nodes on which every copy of every shard has room, no two copies on one."""
    work, cluster = made.workload, made.cluster
    least = max(
        math.ceil(made["memory"] / cluster.memory),
        math.ceil(made["disk"] / cluster.disk),
        int(c["available_nodes"].value) if work.replicas > 1 else 1,
        work.replicas,
    )
    nodes = least
    if cluster.shards:
        held = cluster.shards * work.replicas
        for kind in ("memory", "disk"):
            shard, room = made[kind] / held, getattr(cluster, kind)
            if shard > room:
                raise ValueError(
                    f"a shard takes {shard / GB:,.1f} GB of {kind} and a node has {room / GB:,.1f} GB: "
                    f"give --shards {math.ceil(made[kind] / room / work.replicas)} or more, or larger nodes"
                )
            nodes = max(nodes, math.ceil(held / math.floor(room / shard)))
    else:
        least_copy = max(made["memory"] / cluster.memory, made["disk"] / cluster.disk) / work.replicas / work.passages
        if least_copy > 1:
            raise ValueError(
                f"one passage takes more than a node has ({cluster.memory / GB:g} GB of memory): write 64GB, not 64"
            )
    shards = cluster.shards or nodes
    why = [f"{name} needs {math.ceil(made[name] / getattr(cluster, name)):,}" for name in ("memory", "disk")]
    if work.replicas > 1:
        why.append(f"replicas need {max(int(c['available_nodes'].value), work.replicas)}")
    made.add("nodes", nodes, "", "; ".join(why), *([c["available_nodes"]] if work.replicas > 1 else []))
    made.add("shards", shards, "", "as given" if cluster.shards else "one for each node, and its copies")
    made.add("passages a shard", work.passages / shards, "", "passages / shards")
    a_node = copies_a_node(shards, work.replicas, nodes) / (shards * work.replicas)
    for name in ("memory", "disk"):
        made.add(f"{name} a node", made[name] * a_node, "bytes", f"of {getattr(cluster, name) / GB:,.0f} GB")
    held = work.passages * work.replicas / nodes
    if held > c["node_points"].value:
        made.remarks.append(
            f"{held:,.0f} vectors a node: Qdrant advises about {c['node_points'].value:,.0f} at most. "
            "More, smaller nodes build and recover faster."
        )
    if work.quantization == "none" and made["memory"] > cluster.memory:
        made.remarks.append("Quantised vectors would take a fraction of this memory: try --quantization turbo.")
    bm25 = made["memory: BM25 index"] / made["memory"] * (1 + c["headroom"].value)
    if bm25 > 0.3:
        made.remarks.append(
            f"The BM25 index is {bm25:.0%} of what memory holds; RAGKIT_QDRANT_SPARSE_ON_DISK moves it."
        )
    if work.quantization == "binary" and work.dimension < 1024:
        made.remarks.append("Binary codes of fewer than 1,024 dimensions lose recall: measure it on your data first.")
    made.settings.update({"RAGKIT_QDRANT_SHARDS": f"{shards}", "RAGKIT_QDRANT_REPLICAS": f"{work.replicas}"})
    if work.quantization != "none":
        made.settings["RAGKIT_QDRANT_QUANTIZATION"] = work.quantization
        if work.quantization == "turbo":
            made.settings["RAGKIT_QDRANT_BITS"] = f"{work.bits:g}"
        made.settings["RAGKIT_QDRANT_VECTORS_ON_DISK"] = "false" if work.originals_in_memory else "true"
    if work.m != 16:
        made.settings["RAGKIT_QDRANT_M"] = f"{work.m}"


def copies_a_node(shards: int, replicas: int, nodes: int) -> int:
    """On the fullest node."""
    return math.ceil(shards * replicas / nodes)


def scale(points: float, dimension: int, c: Mapping[str, Constant]) -> float:
    """How much longer a search, or the indexing of a point, is than where it was measured (assumed, see constants)."""
    reference = math.log(max(2.0, c["reference_points"].value)) * c["reference_dimension"].value
    return math.log(max(2.0, points)) * dimension / reference


def _search(made: Plan, c: Mapping[str, Constant]) -> None:
    work, cluster = made.workload, made.cluster
    shards, nodes = int(made["shards"]), int(made["nodes"])
    longer = scale(work.passages / shards, work.dimension, c)
    measured = (c["reference_points"], c["reference_dimension"], c["scaling"])
    how = f"measured x {longer:.2f}, log(points a shard) x dimension"
    p50 = made.add("search of a shard, p50", c["p50_ms"].value * longer, "ms", how, c["p50_ms"], *measured)
    made.add("search of a shard, p95", c["p95_ms"].value * longer, "ms", how, c["p95_ms"], *measured)
    index = copies_a_node(shards, work.replicas, nodes) * work.passages / shards
    hours = index * c["index_s"].value * 2 / cluster.cores * longer / 3600
    made.add("index building", hours, "hours", "points a node, its cores at once; every replica builds its own",
             c["index_s"], *measured)  # fmt: skip
    upload = copies_a_node(shards, work.replicas, nodes) * work.passages / shards * c["upsert_s"].value
    made.add("upload", upload * work.dimension / c["reference_dimension"].value / 3600, "hours",
             "points a node, one stream of writes each; grows with dimension", c["upsert_s"], *measured)  # fmt: skip
    if not work.queries_per_second:
        return
    busy = work.queries_per_second * shards * p50 / 1000 / (nodes * cluster.cores)
    made.add("cores that search", busy, "of all cores", "queries x shards x ms / cores", c["p50_ms"], *measured)
    if busy > c["busy"].value:
        needed = math.ceil(work.queries_per_second * shards * p50 / 1000 / (c["busy"].value * cluster.cores))
        made.remarks.append(
            f"The cores of {nodes} nodes would be {busy:.0%} busy searching ({c['busy'].value:.0%} is assumed to be "
            f"the most that is well): give more cores, fewer shards, or {needed} nodes of {cluster.cores} cores."
        )
    if work.quantization != "none" and not work.originals_in_memory:
        read = work.queries_per_second * shards * work.k * work.oversampling * math.ceil(work.dimension * 4 / 4096)
        made.add("pages read for rescoring", read, "a second, all nodes",
                 "at most: queries x shards x k x oversampling x pages of 4 KiB, none of them cached", c["float_bytes"],
                 )  # fmt: skip


def embedding(made: Plan, shape: Shape, gpu: str, *, gpus: int = 1, utilization: float | None = None) -> None:
    """Add what embedding all passages takes. Raises ValueError for an unknown GPU, or one that the model exceeds."""
    work, c = made.workload, constants()
    if gpu not in devices():
        raise ValueError(f"GPU {gpu!r} is not known: use one of {', '.join(devices())}")
    if gpus < 1:
        raise ValueError(f"{gpus} GPUs embed nothing: give one or more")
    share = c["utilization"]
    if utilization is not None:
        share = Constant("utilization", utilization, share.unit, "given", "--utilization")
    if not 0 < share.value <= 1:
        raise ValueError(f"utilization is {share.value:g}: the part of a GPU's peak that is reached, 0 to 1")
    device, weights = devices()[gpu], shape.parameters * c["weight_bytes"].value
    if weights > device.memory:
        raise ValueError(
            f"{shape.name} has {weights / GB:,.0f} GB of weights and {gpu} has {device.memory / GB:,.0f} GB of memory: "
            "choose a larger GPU, or split the model yourself"
        )
    if shape.dimension and shape.dimension != work.dimension:
        made.remarks.append(f"{shape.name} makes embeddings of {shape.dimension} dimensions, not {work.dimension}.")
    operations = forward(shape, work.tokens_per_passage) * work.passages
    how = "2 x weights x tokens" + (" + attention" if shape.layers else "; attention left out, its shape not known")
    made.add("tokens", work.passages * work.tokens_per_passage, "", "passages x tokens of one")
    made.add("operations to embed", operations, "", how, c["operations"])
    hours = made.add("GPU hours", operations / (device.peak.value * share.value) / 3600, f"hours of {gpu}",
                     "operations / (peak x utilization)", device.peak, share)  # fmt: skip
    made.add("embedding", hours / gpus, "hours", f"on {gpus} {gpu}, none idle")


PRICES = ("gpu-hour", "node-month", "disk-gb-month")


def prices(texts: Iterable[str]) -> dict[str, float]:
    """``gpu-hour=2.5``, in whatever currency. Raises ValueError."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            found[name] = float(number)
        except ValueError as error:
            raise ValueError(f"price {text!r}: write NAME=NUMBER, such as gpu-hour=2.5") from error
        if name not in PRICES or not 0 <= found[name] < math.inf:
            raise ValueError(f"price {text!r}: there are {', '.join(PRICES)}, of 0 or more")
    return found


def cost(made: Plan, given: Mapping[str, float]) -> None:
    """Add money where prices were given; none is assumed."""
    amounts = {
        "gpu-hour": ("cost of embedding", "GPU hours", "once", 1.0),
        "node-month": ("cost of nodes", "nodes", "a month", 1.0),
        "disk-gb-month": ("cost of disk", "disk", "a month", GB),
    }
    for name, price in given.items():
        title, of, unit, divisor = amounts[name]
        if of not in made.figures:
            raise ValueError(f"price {name}: nothing is embedded in this plan; give --gpu too")
        said = Constant(name, price, "in the prices' currency", "given", "--price")
        made.add(title, made[of] / divisor * price, unit, f"{of} x price, in its currency", said)
