"""How far a decoder looks, and how fast its position angles turn: knobs for texts longer than it was trained on.

RoPE turns queries and keys by angles that shrink with its base; a larger base keeps far positions apart without
training (arXiv 2401.00368, section 5.2). The sliding window bounds how far back a layer looks. Both change what an
embedding means, so they are part of an encoder's fingerprint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Context:
    """None leaves the model's own value."""

    rope_base: float | None = None  # of layers that see everything; Mistral has but these
    rope_local_base: float | None = None  # of layers with a window, where they have a base of their own: Gemma 3
    window: int | None = None  # tokens, of layers that have one

    def apply(self, config: Any) -> None:
        """Change a transformers configuration. Raises ValueError for a knob that the model does not have."""
        name = type(config).__name__
        rope: Any = getattr(config, "rope_parameters", None)
        layered = isinstance(rope, dict) and "full_attention" in rope
        if self.rope_base is not None:
            if not rope:
                raise ValueError(f"{name} has no RoPE, so that it has no base either")
            (rope["full_attention"] if layered else rope)["rope_theta"] = self.rope_base
        if self.rope_local_base is not None:
            if not layered or "sliding_attention" not in rope:
                raise ValueError(f"{name} has one RoPE base for all layers: set rope_base")
            rope["sliding_attention"]["rope_theta"] = self.rope_local_base
        if self.window is not None:
            if self.window < 1:
                raise ValueError(f"a window of {self.window} tokens sees nothing: use at least 1")
            if not hasattr(config, "sliding_window") or getattr(config, "use_sliding_window", True) is False:
                raise ValueError(f"{name} has no sliding window: every layer sees the whole text")
            config.sliding_window = self.window
