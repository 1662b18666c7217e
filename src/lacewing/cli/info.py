"""`lacewing info` and `tokenize`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lacewing import hub
from lacewing.api import load_tokenizer
from lacewing.cli.models import path_of
from lacewing.console.output import clean_line, print_facts, print_json, print_text
from lacewing.errors import OptionError
from lacewing.hub.names import is_url
from lacewing.hub.remote import fetch_headers
from lacewing.options import LoadOptions, counted, format_bytes
from lacewing.placement.info import ModelInfo
from lacewing.placement.packing import describe_streaming
from lacewing.placement.place import place

if TYPE_CHECKING:
    from lacewing.placement.plan import MemoryPlan


def info(name: str, options: LoadOptions, *, as_json: bool) -> None:
    """Print what the headers of a checkpoint say; if it is not here, only these are fetched."""
    with tempfile.TemporaryDirectory(prefix="lacewing-") as folder:
        elsewhere = hub.to_fetch(name) and (is_url(name) or name.startswith("hf:"))
        path = fetch_headers(name, Path(folder)) if elsewhere else path_of(name)
        opened = ModelInfo(path, options, whole=False)
        plan = place(opened, tell=True).plan
        facts = opened.describe(plan) | ({} if elsewhere else _streaming(opened, plan))
    if path.is_relative_to(folder):
        facts |= {"files": [Path(file).name for file in facts["files"]], "missing_bytes": 0, "source": name}
    print_facts(facts, _page, as_json=as_json)


def _streaming(opened: ModelInfo, plan: MemoryPlan) -> dict[str, Any]:
    """Of a mixture, whose experts can come from the disk."""
    return {} if opened.checkpoint.missing_bytes else describe_streaming(opened, plan)


def _streaming_lines(facts: dict[str, Any]) -> list[str]:
    if "streaming" not in facts:
        return _pack_lines(facts)
    found = facts["streaming"]
    way = f"{'direct' if found['direct'] else 'buffered'} reads of {format_bytes(found['read_bytes'])}"
    lines = [f"  disk: {format_bytes(found['disk_rate'])}/s measured now, in {way} by {counted(found['threads'], 'thread')}"]
    for name, told in (("even", "if all experts are used alike"), ("texts", "as in usual texts")):
        read = format_bytes(found["token_bytes"][name])
        speed = _speed(found["most_tokens"][name])
        lines.append(f"  {told}: {found['hits'][name]:.0%} of chosen experts in RAM, {read} read for a token, {speed}")
    return lines + _pack_lines(facts)


def _speed(most: float | None) -> str:
    return "the disk does not limit it" if most is None else f"at most {most:.1f} tokens/s"


def _pack_lines(facts: dict[str, Any]) -> list[str]:
    """Whether experts are read from a pack, or would be."""
    if "pack" not in facts:
        return []
    pack = facts["pack"]
    if pack["path"]:
        return [f"  pack: {clean_line(pack['path'])}, {format_bytes(pack['bytes'])}, which streaming reads experts from"]
    lines = [f"  {clean_line(pack['problem'])}"] if pack["problem"] else []
    if "disk_rate" not in pack:
        return lines
    gives = f"one read of {format_bytes(pack['read_bytes'])} for each expert instead of {pack['reads']}"
    gives = gives if pack["reads"] > 1 else "experts in the order in memory that the kernels like best"
    rate, speed = format_bytes(pack["disk_rate"]), _speed(pack["most_tokens"]["even"])
    return [*lines, f"  no pack: `lacewing pack` writes {format_bytes(pack['bytes'])}, {gives}: {rate}/s, {speed} if used alike"]


def _page(facts: dict[str, Any]) -> str:
    quants = ", ".join(f"{name} {format_bytes(one['bytes'])} in {one['tensors']}" for name, one in facts["quants"].items())
    tokenizer, template, plan = facts["tokenizer"], facts["template"], facts["plan"]
    rows = [
        ("name", facts["name"]),
        ("architecture", facts["architecture"]),
        ("format", _format(facts)),
        ("quants", quants),
        ("parameters", _parameters(facts)),
        ("context", f"{facts['context']} tokens (trained on {facts['trained_context']})"),
        ("tokenizer", f"{tokenizer['kind']}, {tokenizer['vocab_size']} tokens" if "kind" in tokenizer else tokenizer["problem"]),
        (
            "template",
            f"{template['name']}, SHA-256 {template['sha256'][:16]}{_variants(template)}" if "name" in template else "none",
        ),
        ("memory plan", plan["residency"]),
    ]
    lines = [f"{name:<14}{clean_line(text)}" for name, text in rows]
    wide = max(len(row["note"]) for row in plan["rows"])
    lines += [f"  {'':<20}{'':>10}  {'':<{wide}}  decides"]
    for row in plan["rows"]:
        lines.append(f"  {row['name']:<20}{format_bytes(row['bytes']):>10}  {row['note']:<{wide}}  {row['decides']}".rstrip())
    lines += [f"  {clean_line(reason)}" for reason in plan["reasons"]] + _streaming_lines(facts)
    return "\n".join([*lines, *(f"notice: {clean_line(text)}" for text in facts["notices"])])


def _variants(template: dict[str, Any]) -> str:
    others = [name for name in template["variants"] if name != "default"]
    return f", also {', '.join(others)}" if others else ""


def _format(facts: dict[str, Any]) -> str:
    text = f"{facts['format']}, {counted(len(facts['files']), 'file')}, {format_bytes(facts['bytes'])} of weights"
    if facts["missing_bytes"]:
        text += f", incomplete: {format_bytes(facts['missing_bytes'])} are missing"
    return f"{text}, not fetched: {facts['source']}" if "source" in facts else text


def _parameters(facts: dict[str, Any]) -> str:
    left_out = " and ".join(
        {"token_embd.weight": "the embedding", "output.weight": "the output"}[name] for name in facts["uncounted"]
    )
    counted = f", not counting {left_out}" if left_out else ""
    return f"{facts['parameters'] / 1e6:,.1f} M, {facts['active_parameters'] / 1e6:,.1f} M active{counted}"


def tokenize(name: str, text: str | None, *, special: bool, as_json: bool) -> None:
    """Print the ids of a text, or of standard input: a user's, or with `special` one whose spellings of control tokens count."""
    if text is None:
        from lacewing.cli.prompt import standard_input

        text = standard_input(wait=True)
        if not text:
            raise OptionError("there is no text: write one behind the model, or pipe it in")
    tokenizer = load_tokenizer(path_of(name))
    ids = tokenizer.encode_segments([(text, special)])
    if as_json:
        print_json({"ids": ids})
        return
    for token in ids:
        print_text(f"{token}\t{tokenizer.token_text(token)!r}")
