"""What the streams of a soak ask for, with the answer that each request gets when it is alone."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

import httpx

WORDS = ("river", "stone", "cloud", "market", "engine", "letter", "window", "garden", "signal", "harbour", "candle", "forest")
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 10}, "kind": {"enum": ["cat", "dog", "bird"]}},
    "required": ["name", "kind"],
    "additionalProperties": False,
}
SYSTEM = "You are a patient guide. " + " ".join(f"Rule {n}: never mention the {word}." for n, word in enumerate(WORDS * 3))


@dataclass
class Ask:
    """A request whose answer is known. `streamed`: whether it may be asked for as a stream."""

    path: str
    body: dict[str, Any]
    streamed: bool = True
    expected: Any = field(default=None, repr=False)

    def read(self, found: dict[str, Any]) -> Any:
        """What counts of an answer that is not streamed."""
        if self.path == "/v1/embeddings":
            return [each["embedding"] for each in found["data"]]
        if self.path == "/v1/completions":
            return [each["text"] for each in found["choices"]]
        return [each["message"]["content"] for each in found["choices"]]

    def alone(self, client: httpx.Client) -> Any:
        """The answer, with nobody else there."""
        response = client.post(self.path, json=self.body)
        assert response.status_code == 200, (self, response.text)
        return self.read(response.json())


def asks_of(model: str, chance: random.Random, count: int) -> list[Ask]:
    """So many of each kind: short and long prompts, conversations, raw texts, seeds, grammars, several answers, vectors."""
    found = []
    for _ in range(count):
        words = chance.sample(WORDS, 5)
        question = {"role": "user", "content": f"Write about the {words[0]}, the {words[1]} and the {words[2]}."}
        talk = [question, {"role": "assistant", "content": f"The {words[3]}."}, {"role": "user", "content": f"And the {words[4]}?"}]
        greedy = {"model": model, "temperature": 0, "max_tokens": chance.randint(6, 40)}
        found += [
            Ask("/v1/chat/completions", {**greedy, "messages": [question]}),
            Ask("/v1/chat/completions", {**greedy, "messages": talk}),
            Ask("/v1/chat/completions", {**greedy, "messages": [{"role": "system", "content": SYSTEM}, question]}),
            Ask("/v1/chat/completions", {**greedy, "messages": [question], "temperature": 1.1, "seed": chance.randrange(10**6)}),
            Ask("/v1/chat/completions", {**greedy, "messages": [question], "temperature": 1, "seed": chance.randrange(99), "n": 3}),
            Ask("/v1/chat/completions", {**greedy, "messages": [question], "json_schema": SCHEMA, "max_tokens": 40}),
            Ask("/v1/completions", {**greedy, "prompt": [" ".join(words), "Once upon a time the " + words[0]]}),
            Ask("/v1/embeddings", {"model": model, "input": [" ".join(words), words[0]]}, streamed=False),
        ]
    return found


CHAT, JSON = "/v1/chat/completions", "application/json"


def _chat(**more: object) -> bytes:
    return json.dumps({"model": "a", "messages": [{"role": "user", "content": "x"}], **more}).encode()


# path, body, its kind, and the status that it is refused with
BAD: tuple[tuple[str, bytes, str, int], ...] = (
    (CHAT, b"{", JSON, 400),
    (CHAT, b"[" * 5000, JSON, 400),
    (CHAT, _chat().replace(b"x", b"\xff\xfe"), JSON, 400),
    (CHAT, _chat(messages=[], stream=True), JSON, 400),
    (CHAT, _chat(messages=[{"role": "user", "content": "x " * 9000}]), JSON, 400),
    (CHAT, _chat(model="none"), JSON, 404),
    (CHAT, _chat(temperature=9), JSON, 400),
    (CHAT, _chat(grammar="root ::= ("), JSON, 400),
    ("/v1/completions", b'{"model": "a", "prompt": [-4]}', JSON, 400),
    ("/v1/completions", b'{"model": "a", "prompt": [99999999]}', JSON, 400),
    ("/v1/embeddings", b'{"model": "a", "input": "x", "dimensions": 100000}', JSON, 400),
    ("/v1/embeddings", b"model=a", "application/x-www-form-urlencoded", 415),
)
