"""`lacewing bench`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from lacewing.cli.run import open_model
from lacewing.options import LoadOptions, format_bytes

if TYPE_CHECKING:
    from lacewing.backends.base import DeviceFacts


def bench(name: str, options: LoadOptions, prompt: int, generate: int, repeats: int, *, as_json: bool) -> None:
    """Measure and print."""
    from lacewing.engine.bench import check_counts, measure

    check_counts(prompt, generate, options.context or prompt + generate)
    began = time.perf_counter()
    with open_model(name, options) as model:
        loaded = time.perf_counter() - began
        facts = model.backend.facts()
        before = _read_bandwidth(facts)
        speed = measure(model.engine, prompt, generate, repeats)
        after = _read_bandwidth(facts)
        bandwidth = (before + after) / 2 if before and after else None  # it drifts with the machine's other load
        rate = speed.generate * model.spec.active_bytes
        report: dict[str, Any] = {
            "prompt": round(speed.prompt, 2),
            "generate": round(speed.generate, 2),
            "model": model.spec.name,
            "prompt_tokens": prompt,
            "generate_tokens": generate,
            "repeats": repeats,
            "backend": facts.backend,
            "device": facts.name,
            "threads": facts.threads,
            "residency": model.weights.residency,
            "bytes_per_token": model.spec.active_bytes,
            "gigabytes_per_second": round(rate / 1e9, 2),
            "read_bandwidth": round(bandwidth / 1e9, 2) if bandwidth else None,
            "bandwidth_share": round(rate / bandwidth, 3) if bandwidth else None,
            "load_seconds": round(loaded, 3),
        }
    print(json.dumps(report) if as_json else _table(report))


def _read_bandwidth(facts: DeviceFacts) -> float | None:
    """Bytes/s that this machine can read from memory; None for a backend that is not the processor's."""
    if facts.backend != "cpu":
        return None
    from lacewing.backends.cpu.bandwidth import read_bandwidth

    return float(read_bandwidth(facts.threads))


def _table(report: dict[str, Any]) -> str:
    share = f", {report['bandwidth_share']:.0%} of {report['read_bandwidth']} GB/s" if report["bandwidth_share"] else ""
    rows = (
        ("model", f"{report['model']}, {report['residency']}, {report['backend']}, {report['threads']} threads"),
        (f"prompt {report['prompt_tokens']}", f"{report['prompt']} tokens/s"),
        (f"generate {report['generate_tokens']}", f"{report['generate']} tokens/s"),
        ("weights", f"{format_bytes(report['bytes_per_token'])} a token, {report['gigabytes_per_second']} GB/s{share}"),
        ("load", f"{report['load_seconds']} s"),
    )
    return "\n".join(f"{name:<14}{text}" for name, text in rows)
