"""What a network can cost where it is used: the names, how they are shown, and what in the recipe decides it.

The one list of them; `tradeoffs` measures each. It loads nothing, so that what only reads a space file knows the names.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """How a cost is called in a table, and what a reader should know of it."""

    label: str
    note: str


COSTS = {
    "parameters": Cost("parameters", "Parameters that predicting needs, without the heads of training."),
    "flops": Cost("MFLOPs", "FLOPs of one face in one view."),
    "latency": Cost(
        "ms per face",
        "One face in one view by the exported network: median on one thread of this CPU, right now; in a search for "
        "it, of the CPU that it was started on, when the first trial with this network began.",
    ),
}
# What decides how the network computes; the heads that only training uses are not among it.
COST_FIELDS = (
    "backbone", "image_size", "stem_stride", "output_stride", "fusion_width", "se_attention", "cbam_attention",
    "coordinate_attention", "self_attention_heads", "pyramid_pooling",
)  # fmt: skip
