"""What routers choose, told by somebody else: all experts alike, as a generator fitted to real models, or a file; and its hits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lacewing.weights.experts.policy import HALF_LIFE

# Scores of an expert: popularity, a topic that lasts tau tokens, noise that resembles the token before by rho. Fitted to public
# traces of OLMoE and Kimi-Linear; replayed, policies do on them as on the traces themselves to within 0 to 4 points.
FITS = {"olmoe": (1.00, 1.34, 2.3, 0.24), "kimi": (0.75, 0.30, 53.0, 0.53)}
TOPIC_TOKENS = 300  # after which a text has another subject
Trace = np.ndarray  # int (tokens, layers, active)


def trace(which: str, tokens: int, layers: int, experts: int, active: int, seed: int = 7) -> Trace:
    """`which`: "uniform", a name of FITS, or a file with an object of {"layers": [[ids], ...]} a line, which is repeated."""
    rng = np.random.default_rng(seed)
    if which == "uniform":
        return rng.random((tokens, layers, experts)).argsort(-1)[..., :active]
    if which in FITS:
        return _generated(which, tokens, (layers, experts), active, rng)
    rows = [json.loads(line)["layers"] for line in Path(which).read_text().splitlines()]
    found = np.array([rows[token % len(rows)][:layers] for token in range(tokens)])
    if found.shape != (tokens, layers, active) or found.min() < 0 or found.max() >= experts:
        there, wanted = f"{found.shape[1:]} of {found.max() + 1}", f"{(layers, active)} of {experts}"
        raise SystemExit(f"{which} has layers and choices {there} experts; the model has {wanted}")
    return found


def _generated(which: str, tokens: int, shape: tuple[int, int], active: int, rng: np.random.Generator) -> Trace:
    popular, topical, tau, rho = FITS[which]
    fixed, topic, noise = (rng.standard_normal(shape) for _ in range(3))
    kept, found = np.exp(-1 / tau), []
    for token in range(tokens):
        if token % TOPIC_TOKENS == 0:
            topic = rng.standard_normal(shape)
        topic = kept * topic + np.sqrt(1 - kept * kept) * rng.standard_normal(shape)
        noise = rho * noise + np.sqrt(1 - rho * rho) * rng.standard_normal(shape)
        found.append((-(popular * fixed + topical * topic + noise)).argsort(-1)[:, :active])
    return np.stack(found)


class Start(NamedTuple):
    """What a layer begins with: the experts in its slots, and of each expert how often and how many runs ago it was used."""

    resident: set[int]
    frequency: np.ndarray
    age: np.ndarray


def starts_of(cache: Any) -> list[Start]:
    """Of the layers of an `ExpertCache` as it is now, for example after a prompt."""
    clock, found = int(cache.pool.clock[0]), []
    for layer in cache.layers:
        layer.usage.look(clock)
        resident = set(np.flatnonzero(next(iter(layer.addresses.values()))).tolist())
        found.append(Start(resident, layer.usage.frequency.copy(), clock - layer.counts[:, 1]))
    return found


def misses(chosen: Trace, experts: int, slots: int, starts: list[Start] | None = None) -> np.ndarray:
    """How many experts of each token and layer are missing with our policy. Slots of each layer are empty without `starts`."""
    found = np.zeros(chosen.shape[:2], np.int64)
    for layer in range(chosen.shape[1]):
        start = Start(set(), np.zeros(experts), np.zeros(experts)) if starts is None else starts[layer]
        resident, frequency, last = set(start.resident), start.frequency.copy(), -1.0 - start.age
        for token, ids in enumerate(chosen[:, layer].tolist()):
            frequency *= 0.5 ** (1 / HALF_LIFE)
            frequency[ids], last[ids] = frequency[ids] + 1, token
            missing = [expert for expert in ids if expert not in resident]
            found[token, layer] = len(missing)
            scores = frequency / (1 + token - last)
            out = sorted(resident - set(ids), key=lambda expert: scores[expert])
            for expert in missing:
                if len(resident) >= slots and out:
                    resident.discard(out.pop(0))
                if len(resident) < slots:
                    resident.add(expert)
    return found


class Mixture(NamedTuple):
    """Of a model, for `on_demand`: bytes of an expert, and of all that every token reads."""

    active: int
    expert: float
    trunk: float


def on_demand(counts: np.ndarray, mixture: Mixture, computing: float, disk: float) -> float:
    """Tokens/s if nothing is read before a layer's router has decided, and the experts that are there are computed meanwhile.

    `counts`: how many experts are missing, (tokens, layers); `computing`: seconds of a token if none is, in proportion to the bytes
    that its parts read; `disk`: bytes/s.
    """
    layers = counts.shape[1]
    each = computing * mixture.expert / (mixture.trunk + layers * mixture.active * mixture.expert)
    reading = np.maximum((mixture.active - counts) * each, counts * mixture.expert / disk)
    tokens = computing + (reading + counts * each - mixture.active * each).sum(axis=1)
    return float(1 / tokens.mean())


class Override:
    """The choices of a CPU step's routers: a bias that nothing but the chosen experts have. Logits are computed all the same."""

    def __init__(self, step: Any):
        from lacewing.backends.cpu.arguments import ROUTE

        self._biases, self._arguments = [], []
        self.experts = self.active = 0
        for op, arguments in list(zip(step.ops, step._arguments, strict=True))[: step._lowering.program_ops]:
            if op.layout is ROUTE:
                self.experts, self.active = int(arguments[ROUTE.experts // 8]), int(arguments[ROUTE.active // 8])
                self._biases.append(np.zeros(self.experts + 64, np.float32))
                self._arguments.append(arguments)
        self.layers = len(self._biases)

    def begin(self) -> None:
        """From now on."""
        from lacewing.backends.cpu.arguments import ROUTE

        for bias, arguments in zip(self._biases, self._arguments, strict=True):
            arguments[ROUTE.bias // 8], arguments[ROUTE.groups // 8] = bias.ctypes.data, 1

    def put(self, chosen: np.ndarray) -> None:
        """For the next token, (layers, active)."""
        for bias, ids in zip(self._biases, chosen, strict=True):
            bias[:] = 0
            bias[ids] = 1e6
