"""How a model that does not fit a GPU is shared out between it and the processor: a pure function, with its reasons.

A dense model: the first layers stay on the processor, so that a token changes device once. A mixture of experts: everything but
the experts of the first layers goes to the GPU, as long as that fits; what a router leaves aside most of the time costs no room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lacewing.errors import OutOfMemoryError
from lacewing.options import format_bytes
from lacewing.program.ops import Embed, Logits
from lacewing.program.places import Place, experts_together, places
from lacewing.program.program import Program
from lacewing.program.split import weights_of

GPU, HOST = 0, 1
_LOGIT_BYTES, _STAGING_BYTES = 2**24, 2**25  # the most that the GPU holds at a time of logits, and of weights on their way


@dataclass(frozen=True)
class Room:
    """Bytes of a GPU that may be filled, and what sets them, in words."""

    nbytes: int
    source: str


@dataclass(frozen=True)
class Sizes:
    """Bytes on the GPU: of each weight by its name, of the keys and values of each layer. `chunk`: tokens of a run."""

    weights: Mapping[str, int]
    layers: Sequence[int]
    chunk: int


@dataclass(frozen=True)
class Load:
    """What a device must hold."""

    weight_bytes: int
    kv_bytes: int
    buffer_bytes: int

    @property
    def nbytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.buffer_bytes


@dataclass(frozen=True)
class Share:
    """`devices`: of each op of `program`, which is the whole one with its ops in an order that is better to cut.

    The processor computes the first `host_layers` of `layers`, and the experts of the first `host_experts` of `mixtures` layers.
    """

    program: Program
    devices: tuple[int, ...]
    layers: int
    mixtures: int
    host_layers: int
    host_experts: int
    gpu: Load
    reasons: tuple[str, ...]

    @property
    def on_gpu(self) -> str:
        """For people."""
        if self.host_layers:
            kept = _numbers(self.host_layers, self.layers)
            trunk = f" without the experts of {self._experts}" if self.host_experts > self._inside else ""
            return f"{kept} of {self.layers} and the output{trunk}"
        return f"everything but the experts of {self._experts}"

    @property
    def _inside(self) -> int:
        return min(self.host_layers, self.host_experts)

    @property
    def _experts(self) -> str:
        return f"{self.host_experts} of {self.mixtures} layers" if self.host_experts < self.mixtures else "all layers"


def share(program: Program, sizes: Sizes, room: Room | None, layers: int | None = None) -> Share | None:
    """Put as much on the GPU as fits `room` (None: not known), or `layers` layers, the last ones; None: all of it.

    Raises OutOfMemoryError where so many layers do not fit, or not even one.
    """
    whole = Sharing(program, sizes)
    levels = whole.levels()
    if layers is not None:
        chosen = whole.level_of(layers)
        if room is not None and whole.load(*chosen).nbytes > room.nbytes:
            raise OutOfMemoryError(
                f"{layers} layers on the GPU take {format_bytes(whole.load(*chosen).nbytes)}, but {room.source} gives "
                f"{format_bytes(room.nbytes)}; use fewer --gpu-layers, or a smaller --context"
            )
    elif room is None:
        return None
    else:
        low, high = 0, len(levels)  # the first that fits; each needs less than the one before
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if whole.load(*levels[middle]).nbytes <= room.nbytes else (middle + 1, high)
        if low == len(levels):
            least = format_bytes(whole.load(*levels[-1]).nbytes)
            raise OutOfMemoryError(
                f"not even one layer of the model fits the GPU: that takes {least}, but {room.source} gives "
                f"{format_bytes(room.nbytes)}; use a smaller --context, or --backend cpu"
            )
        chosen = levels[low]
    return None if chosen == (0, 0) else whole.share(*chosen, room, asked=layers is not None)


class Sharing:
    """A program with its ops in their places, to look at several ways to share it out."""

    def __init__(self, program: Program, sizes: Sizes):
        self.program, self.sizes = experts_together(program), sizes
        self.places = places(self.program)
        self.layers = 1 + max((place.layer for place in self.places if place.layer is not None), default=-1)
        self.mixtures = sorted({place.layer for place in self.places if place.experts and place.layer is not None})
        embedding, output = ({op.weight for op in program.ops if isinstance(op, kind)} for kind in (Embed, Logits))
        self.tied = embedding == output

    @property
    def trunk_bytes(self) -> int:
        """What should be on the GPU at least: of a mixture of experts all but these, of a dense model everything."""
        return self.load(0, len(self.mixtures)).nbytes

    def levels(self) -> list[tuple[int, int]]:
        """(layers, experts) on the processor, from nothing on."""
        experts = len(self.mixtures)
        return [*((0, count) for count in range(experts + 1)), *((count, experts) for count in range(1, self.layers))]

    def level_of(self, layers: int) -> tuple[int, int]:
        """With so many whole layers on the GPU; the trunk of the others stays there where they are mixtures."""
        away = max(0, self.layers - layers)
        return (0, min(away, len(self.mixtures))) if self.mixtures else (away, 0)

    def devices(self, host_layers: int, host_experts: int) -> tuple[int, ...]:
        mixtures = set(self.mixtures[:host_experts])
        embedding = HOST if host_layers or (host_experts and not self.tied) else GPU

        def device(place: Place) -> int:
            if place.layer is None:
                return GPU if place.head else embedding
            away = place.layer < host_layers or (place.experts and place.layer in mixtures)
            return HOST if away else GPU

        return tuple(map(device, self.places))

    def load(self, host_layers: int, host_experts: int) -> Load:
        """Of the GPU."""
        chosen = self.devices(host_layers, host_experts)
        mine = [op for op, device in zip(self.program.ops, chosen, strict=True) if device == GPU]
        names = {name for op in mine for name in weights_of(op)}
        kept = {op.layer for op in mine if hasattr(op, "layer")}
        widths = {view.buffer.name: view.buffer.width for op in mine for view in op.views(op.reads + op.writes)}
        largest = max((self.sizes.weights[name] for name in names), default=0)
        chunk = self.sizes.chunk
        buffers = 6 * chunk * sum(widths.values())  # floats, and their quantised forms
        buffers += 2 * min(_LOGIT_BYTES, 4 * chunk * self.program.vocab_size) + 3 * min(_STAGING_BYTES, largest)
        return Load(sum(self.sizes.weights[name] for name in names), sum(self.sizes.layers[layer] for layer in kept), buffers)

    def share(self, host_layers: int, host_experts: int, room: Room | None, asked: bool) -> Share:
        found = self.load(host_layers, host_experts)
        count = len(self.mixtures)
        made = Share(
            self.program, self.devices(host_layers, host_experts), self.layers, count, host_layers, host_experts, found, ()
        )  # fmt: skip
        whole = format_bytes(self.load(0, 0).nbytes)
        why = (
            "asked for" if asked or room is None else f"all would take {whole}, but {room.source} gives {format_bytes(room.nbytes)}"
        )
        parts = f"weights {format_bytes(found.weight_bytes)}, keys and values {format_bytes(found.kv_bytes)}"
        reasons = (
            f"on the GPU is {made.on_gpu}, the processor computes the rest: {why}",
            f"the GPU takes {format_bytes(found.nbytes)}: {parts}, buffers {format_bytes(found.buffer_bytes)}",
        )
        return replace(made, reasons=reasons)


def _numbers(first: int, end: int) -> str:
    if first >= end:
        return "no layer"
    return f"layer {first}" if end - first == 1 else f"layers {first} to {end - 1}"
