"""`lacewing embed`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from lacewing.cli.progress import Reporter
from lacewing.cli.run import open_model
from lacewing.console.interrupt import Interrupt
from lacewing.console.output import print_json, print_text
from lacewing.errors import Cancelled, OptionError
from lacewing.options import LoadOptions

KINDS = ("last", "mean")  # of pooling; without any a text would have a vector for each token
TOGETHER = 8  # texts that run at a time


def embed(
    name: str, texts: Sequence[str], options: LoadOptions, *, pooling: str | None, dimensions: int | None, as_json: bool
) -> None:
    """Print the vector of each text, or of each line of standard input, a line of JSON for each. Raises OptionError."""
    if pooling not in (None, *KINDS):
        raise OptionError(f"--pooling is {pooling!r}; it must be one of {', '.join(KINDS)}")
    texts = list(texts) or _lines()
    with open_model(name, replace(options, sequences=min(len(texts), TOGETHER))) as model:
        pooling = pooling or model.pooling
        with Interrupt() as interrupt, Reporter() as progress:
            try:
                found = model.embed(texts, pooling=pooling, dimensions=dimensions, cancelled=interrupt, progress=progress)
            except Cancelled:
                raise KeyboardInterrupt from None
        rows = [[round(value, 7) for value in vector.tolist()] for vector in found]
        if as_json:
            print_json({"model": model.spec.name, "pooling": pooling, "dimensions": len(rows[0]), "embeddings": rows})
            return
    for row in rows:
        print_text(json.dumps(row))


def _lines() -> list[str]:
    from lacewing.cli.prompt import standard_input

    lines = [line for line in standard_input(wait=True).splitlines() if line.strip()]
    if not lines:
        raise OptionError("there is no text: write some behind the model, or pipe lines in")
    return lines
