"""`lacewing bench`."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lacewing.cli.run import open_model
from lacewing.console.output import print_facts
from lacewing.errors import OptionError
from lacewing.options import LoadOptions, counted, format_bytes

if TYPE_CHECKING:
    from lacewing.api import Model
    from lacewing.backends.base import DeviceFacts
    from lacewing.backends.step import Step


def bench(
    name: str,
    options: LoadOptions,
    prompt: int,
    generate: int,
    repeats: int,
    *,
    as_json: bool,
    profile: bool = False,
    sequences: str | None = None,
    warm_start: bool = False,
) -> None:
    """Measure and print. `profile`: also the time of each kernel; raises OptionError if they cannot be timed. `sequences`: also
    so many that generate together. `warm_start`: use and keep the history of experts, which made-up tokens would spoil."""

    from lacewing.engine.bench import check_counts, check_sequences, context_of, measure, measure_sequences

    if repeats < 1:
        raise OptionError(f"repeats is {repeats}; it must be at least 1")
    counts = check_sequences(sequences) if sequences is not None else []
    check_counts(prompt, generate, prompt + generate if options.context is None else options.context)
    needed = max(1, prompt + generate, context_of(counts) if counts else 0)
    context = needed if options.context is None else options.context
    options = replace(options, sequences=max([1, *counts]), context=context, cold_start=not warm_start)
    began = time.perf_counter()
    with open_model(name, options) as model:
        loaded = time.perf_counter() - began
        facts = model.backend.facts()
        if profile and not model.step.can_profile:
            raise OptionError(f"--profile needs a GPU with the whole model, not {facts.name}; use --backend webgpu")
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
        report |= _experts(model)
        if counts:
            found = measure_sequences(model.engine, counts, repeats)
            report["sequences"] = {str(count): {"tokens_per_second": round(rate, 2)} for count, rate in found.items()}
        if profile:
            report["profile"] = _profile(model.step, prompt, model.engine.chunk)
            model.engine.forget()  # the KV cache was overwritten
    print_facts(report, _table, as_json=as_json)


def _experts(model: Model) -> dict[str, Any]:
    """Of a mixture, some of whose experts are on a GPU, or that is streamed."""
    found: dict[str, Any] = {}
    cached, streamed = model.step.cache_statistics, model.weights.experts
    if cached is not None:
        found |= {"resident_experts": cached.resident, "experts": cached.experts, "hit_rate": round(cached.hit_rate or 0.0, 4)}
    if streamed is not None:
        use = streamed.statistics
        hits, waited, disk, way = round(use.hit_rate or 0.0, 4), round(use.waited, 2), streamed.disk, streamed.reader.way
        found["streamed"] = {
            "slots": streamed.slots.layer, "hit_rate": hits, "bytes_read": use.nbytes, "waited_seconds": waited, "reads": use.reads,
            "pack": None if streamed.pack is None else str(streamed.pack.path), "direct": way.direct,
            "threads": way.threads, "read_bytes": disk.nbytes, "disk_gigabytes_per_second": round(disk.rate / 1e9, 2) or None,
            "warmed": use.warmed, "hits": use.hits, "misses": use.misses,
        }  # fmt: skip
        if cached is not None:
            found["streamed"] |= {"gpu_hits": use.elsewhere, "uploads": use.uploaded, "uploaded_bytes": use.uploaded_bytes}
        if (trial := streamed.pool.trial) is not None:
            guesses = {"guesses": use.guessed, "right": use.guessed_right, "wasted_bytes": use.wasted_bytes}
            found["streamed"]["look_ahead"] = guesses | {"verdict": trial.verdict, "rates": trial.rates}
    return found


def _profile(step: Step, prompt: int, chunk: int) -> dict[str, Any]:
    """Of the token after the prompt, and of the prompt's first run."""
    runs = {"token": (1, prompt), "prompt": (min(prompt, chunk), 0)}
    found: dict[str, Any] = {
        what: [
            {
                "kernel": one.name,
                "calls": one.calls,
                "seconds": one.seconds,
                "bytes": one.nbytes,
                "gigabytes_per_second": round(one.nbytes / one.seconds / 1e9, 1) if one.nbytes and one.seconds else None,
            }
            for one in step.profile(*run)
        ]
        for what, run in runs.items()
    }
    return found | {"prompt_tokens": runs["prompt"][0], "copy_gigabytes_per_second": round(step.copy_rate() / 1e9, 1)}


def _read_bandwidth(facts: DeviceFacts) -> float | None:
    """Bytes/s that this machine can read from memory; None for a backend other than the CPU."""
    if facts.backend != "cpu":
        return None
    from lacewing.backends.cpu.bandwidth import read_bandwidth

    return float(read_bandwidth(facts.threads))


def _table(report: dict[str, Any]) -> str:
    share = f", {report['bandwidth_share']:.0%} of {report['read_bandwidth']} GB/s" if report["bandwidth_share"] else ""
    rows = (
        ("model", f"{report['model']}, {report['residency']}, {_device(report)}"),
        (f"prompt {report['prompt_tokens']}", f"{report['prompt']} tokens/s"),
        (f"generate {report['generate_tokens']}", f"{report['generate']} tokens/s"),
        ("weights", f"{format_bytes(report['bytes_per_token'])} a token, {report['gigabytes_per_second']} GB/s{share}"),
        ("load", f"{report['load_seconds']} s"),
        *_held(report),
        *(
            (counted(int(count), "sequence"), f"{one['tokens_per_second']} tokens/s")
            for count, one in report.get("sequences", {}).items()
        ),
    )
    lines = [f"{name:<14}{text}" for name, text in rows]
    return "\n".join(lines + (_profile_table(report["profile"], report["prompt_tokens"]) if "profile" in report else []))


def _held(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Of experts that a GPU has some of, or that are streamed."""
    if "streamed" in report:
        use = report["streamed"]
        where = "the model's files" if use["pack"] is None else "a pack"
        tiers = f", {report['resident_experts']} on the GPU ({use['gpu_hits']} hits there)" if "gpu_hits" in use else ""
        read = f"{format_bytes(use['bytes_read'])} in {counted(use['reads'], 'read')} of {where}, {use['waited_seconds']} s waited"
        return [("experts", f"{use['slots']} slots a layer{tiers}, hit rate {use['hit_rate']:.0%}, {read}")]
    if "hit_rate" not in report:
        return []
    on_gpu = f"{report['resident_experts']} of {report['experts']} of a layer"
    return [("experts", f"{on_gpu} on the GPU, hit rate {report['hit_rate']:.0%}")]


def _device(report: dict[str, Any]) -> str:
    if report["backend"] in ("cuda", "webgpu"):
        return f"{report['backend']}, {report['device']}"
    return f"{report['backend']}, {report['threads']} threads"


def _profile_table(found: dict[str, Any], position: int) -> list[str]:
    copy, lines = found["copy_gigabytes_per_second"], []
    heads = {"token": f"a token at position {position}", "prompt": f"{found['prompt_tokens']} tokens of a prompt"}
    for what, head in heads.items():
        total = sum(one["seconds"] for one in found[what])
        lines += ["", f"{head}: {total * 1e3:.3f} ms of the GPU's clock"]
        lines += [f"  {'kernel':<18}{'calls':>6}{'ms':>10}{'share':>8}{'weights':>12}{'GB/s':>9}{'of a copy':>11}"]
        for one in found[what]:
            rate = one["gigabytes_per_second"]
            read = "" if rate is None else f"{format_bytes(one['bytes']):>12}{rate:>9.1f}{rate / copy:>11.0%}"
            share = one["seconds"] / total if total else 0
            lines.append(f"  {one['kernel']:<18}{one['calls']:>6}{one['seconds'] * 1e3:>10.3f}{share:>8.1%}{read}")
    return [*lines, "", f"a copy within its memory, read and written: {copy} GB/s"]
