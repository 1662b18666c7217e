"""Commands that change the model, where its weights are, and its chat template."""

from __future__ import annotations

from lacewing.chat.commands.table import Argument, Option, Reply, command
from lacewing.chat.services import evict, inspection, opening, swap, templates
from lacewing.chat.session.session import Session
from lacewing.console.output import Columns, Table
from lacewing.errors import OptionError
from lacewing.options import parse_bytes, parse_layers


@command(
    "model",
    Argument("name", "model"),
    Option("backend", "backend"),
    Option("adapter", "text"),
    Option("gpu-layers", "text"),
    Option("gpu-memory", "text"),
    Option("residency", "residency"),
    Option("lazy"),
    Option("eager"),
    Option("streamed"),
    Option("context", "number"),
    aliases=("m",),
)
def model(
    chat: Session,
    name: str | None = None,
    backend: str | None = None,
    adapter: str | None = None,
    gpu_layers: str | None = None,
    gpu_memory: str | None = None,
    residency: str | None = None,
    lazy: bool = False,
    eager: bool = False,
    streamed: bool = False,
    context: int | None = None,
) -> Reply:
    """Change to another model and keep the conversation; without a name, list the local models.

    The name is a path, a known name or hf:owner/repo[:file]; `-` goes back to the previous model, which only has to process
    what was said meanwhile. If the change fails or is cancelled, the previous model is kept. `--lazy`, `--eager` and
    `--streamed` are short for `--residency lazy` and so on.
    """
    wanted = residency_of(residency, lazy, eager, streamed)
    changes = {"backend": backend, "adapter": adapter, "context": context, "residency": wanted}
    changes = {key: value for key, value in changes.items() if value is not None}
    shared = {"gpu_layers": gpu_layers and parse_layers(gpu_layers), "gpu_memory_bytes": parse_bytes(gpu_memory, "gpu_memory")}
    if backend is not None or gpu_layers is not None or gpu_memory is not None:
        changes |= shared  # those of another backend mean nothing to this one
    if backend is not None:
        changes["adapter"] = adapter
    elif adapter is not None:
        changes["backend"] = "auto"  # takes the GPU that is named
    if name is None and not changes:
        headings = ("", "model", "size", "quant", "architecture", "fit")
        return Reply(data=Table(headings, tuple(opening.list_models(chat))))
    return Reply("\n".join(swap.change_model(chat, name or chat.current.name, **changes)))


@command("lazy", Argument("state", "on/off"), Option("force"))
def lazy(chat: Session, state: bool | None = None, force: bool = False) -> Reply:
    """Page weights in from the file (on) or hold them in RAM (off).

    Without an argument, `/lazy` makes them lazy, and a second `/lazy` restores what they were before, eager or streamed. The
    conversation and its KV cache are kept, and answers are bitwise the same. Ctrl-C while weights are read keeps the old state.
    Weights that do not fit the memory plan are refused unless `--force` is given.
    """
    if state is None:
        return Reply("\n".join(evict.toggle_lazy(chat, force)))
    return Reply("\n".join(evict.change_residency(chat, "lazy" if state else "eager", force)))


@command("eager", Option("force"))
def eager(chat: Session, force: bool = False) -> Reply:
    """Hold the weights in RAM: the same as `/lazy off`."""
    return Reply("\n".join(evict.change_residency(chat, "eager", force)))


@command("stream")
def stream(chat: Session) -> Reply:
    """Keep all weights in RAM except the experts, which are read from disk as the router selects them.

    This is for mixtures of experts that are larger than memory. The most used experts stay in RAM, as many as fit; if a GPU has a
    part of the model, some are there. The conversation and its KV cache are kept, and answers are bitwise the same, but for the
    last bits of experts that move to the GPU meanwhile. `/lazy` and `/eager` change the residency again.
    """
    return Reply("\n".join(evict.change_residency(chat, "streamed")))


@command("template", Argument("name", "template", ("auto", "diff")), Argument("other", "template"), Option("force"))
def template(chat: Session, name: str | None = None, other: str | None = None, force: bool = False) -> Reply:
    """Change the chat template: a name, a .jinja file, or `auto` for the checkpoint's own; without a name, list the templates.

    Names are ours and those of a checkpoint with several, such as `tool_use`. The conversation is re-rendered with the template,
    and reprocessed from where the prompts differ. A template whose special tokens the vocabulary lacks is refused unless `--force`
    is given. `/template diff NAME` shows both renderings side by side.
    """
    if name is None:
        return Reply(data=Table(("", "template", "findings"), tuple(templates.listing(chat))))
    if name == "diff":
        if other is None:
            raise OptionError("/template diff needs the name of a template to compare with the active one")
        return Reply(data=Columns((f"{chat.formatter.template.name} (active)", other), templates.renderings(chat, other)))
    if other is not None:
        raise OptionError(f"unexpected argument {other!r}; quote a path that has spaces")
    return Reply("\n".join(templates.change_template(chat, name, force)))


@command("compare", Argument("name", "model", required=True), Argument("text", rest=True))
def compare(chat: Session, name: str, text: str | None = None) -> Reply:
    """Have another model answer the same message, and show both answers side by side; the conversation is not changed.

    The model is named as for `/model`; `-` is the previous one. The message is the last one of the conversation, or TEXT.
    """
    return Reply(data=inspection.compare(chat, name, text))


@command("verify")
def verify(chat: Session) -> Reply:
    """Check that every residency and every backend gives the same logits for this file, and show the largest difference.

    Lazy, eager and, if the CPU computes experts of a mixture, streamed weights must agree bit by bit. Another backend, which
    rounds differently, may differ by 5 % of the range of the logits.
    """
    return Reply(data=Table(("setup", "largest difference", "likeliest tokens", "verdict"), tuple(inspection.verify(chat))))


@command("memory")
def memory_(chat: Session) -> Reply:
    """Show what is in memory: the plan of the current model, the parked models, and the process."""
    return Reply(data=Table(("what", "bytes", "note"), tuple(inspection.memory_rows(chat))))


def residency_of(residency: str | None, lazy: bool, eager: bool, streamed: bool) -> str | None:
    """What `--residency` and its short forms say. Raises OptionError where they disagree."""
    short = {"lazy": lazy, "eager": eager, "streamed": streamed}
    wanted = {word for word in (residency, *(name for name, given in short.items() if given)) if word}
    if len(wanted) > 1:
        raise OptionError("weights have one residency; give one of --residency, --lazy, --eager and --streamed")
    return next(iter(wanted), None)
