"""Flags that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A GGUF or safetensors file, a directory, or a model's name.")]
Backend = Annotated[
    str,
    typer.Option(help="auto (a GPU that has room for it, else the processor), cpu, webgpu (a GPU) or reference.", metavar="NAME"),
]
Adapter = Annotated[str | None, typer.Option(help="Which GPU, as `lacewing backends` shows them.", metavar="NAME|INDEX")]
Residency = Annotated[
    str, typer.Option(help="Where weights live: auto, lazy (paged in from the file) or eager (read into memory).")
]
Memory = Annotated[str | None, typer.Option(help="Memory that may be used, for example 4GiB.", metavar="SIZE")]
Context = Annotated[int | None, typer.Option(help="Tokens that a conversation may have.", metavar="N")]
Threads = Annotated[int | None, typer.Option(help="Threads; by default one for each core.", metavar="N")]
GpuLayers = Annotated[
    str | None,
    typer.Option(help="Layers that a GPU takes as a whole; auto: as many as fit, the processor has the others.", metavar="N"),
]
GpuMemory = Annotated[str | None, typer.Option(help="Memory of a GPU that may be used, for example 6GiB.", metavar="SIZE")]
MaxTokens = Annotated[int | None, typer.Option(help="Stop after this many tokens.", metavar="N")]
Temperature = Annotated[float, typer.Option(help="0 always takes the likeliest token.", metavar="T")]
TopK = Annotated[int, typer.Option(help="Only the K likeliest tokens; 0 is off.", metavar="K")]
TopP = Annotated[float, typer.Option(help="Only the likeliest tokens that together reach this probability; 1 is off.", metavar="P")]
MinP = Annotated[float, typer.Option(help="Only tokens this fraction as likely as the likeliest; 0 is off.", metavar="P")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same answer.", metavar="S")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
