"""The streams of a soak: each asks, reads to the end or leaves, and holds every answer against the one that it gets alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.server.soak.asks import BAD, Ask

PHASES = ("a", "b", "c", "abc", "b", "a", "ac", "c")  # the models that are asked for, one after the other


@dataclass
class Report:
    """What happened. `problems`: whatever should not have; the first of them."""

    done: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        self.done["problem"] += 1
        if len(self.problems) < 20:
            self.problems.append(text[:1500])


@dataclass
class Stream:
    """One of the clients, on connections of its own. `canary`: the token ids that it lets an answer have, and their words."""

    index: int
    url: str
    asks: dict[str, list[Ask]]
    canary: tuple[str, dict[int, str]]
    report: Report
    began: float
    seconds: float
    phase: float  # seconds that one takes
    exact: bool  # an answer is the same to the bit, whoever else is there; else canaries alone tell whose tokens are whose

    async def run(self) -> None:
        chance = random.Random(self.index)
        async with httpx.AsyncClient(base_url=self.url, timeout=240) as client:
            while (passed := time.monotonic() - self.began) < self.seconds:
                ask = chance.choice(self.asks[chance.choice(PHASES[int(passed / self.phase) % len(PHASES)])])
                action = chance.choices((self.whole, self.streamed, self.leave, self.give_up, self.bad, self.allowed),
                                        (20, 40, 12, 8, 10, 10))[0]  # fmt: skip
                try:
                    await action(client, ask, chance)
                except Exception as error:
                    self.report.problem(f"stream {self.index}: {action.__name__} {ask}: {error!r}")

    async def whole(self, client: httpx.AsyncClient, ask: Ask, chance: random.Random) -> None:
        """An answer in one piece."""
        response = await client.post(ask.path, json=ask.body)
        if response.status_code != 200:
            return self.report.problem(f"{response.status_code} {response.text} for {ask}")
        self._compare("whole", ask, ask.read(response.json()))
        self.report.tokens += response.json()["usage"].get("completion_tokens", 0)

    async def streamed(self, client: httpx.AsyncClient, ask: Ask, chance: random.Random) -> None:
        """An answer as a stream, to its end."""
        if not ask.streamed:
            return await self.whole(client, ask, chance)
        texts = [""] * len(ask.expected)
        ends = 0
        async with client.stream("POST", ask.path, json={**ask.body, "stream": True}) as response:
            if response.status_code != 200:
                return self.report.problem(f"{response.status_code} {await response.aread()!r} for {ask}")
            last = ""
            async for line in response.aiter_lines():
                if not line.startswith("data: "):
                    continue
                last = line.removeprefix("data: ")
                if last == "[DONE]":
                    continue
                found: dict[str, Any] = json.loads(last)
                if "error" in found:
                    return self.report.problem(f"{found} for {ask}")
                for choice in found["choices"]:
                    piece = choice["text"] if "text" in choice else choice["delta"].get("content")
                    texts[choice["index"]] += piece or ""
                    self.report.tokens += bool(piece)
                    ends += choice["finish_reason"] is not None
        if last != "[DONE]" or ends != len(texts):
            return self.report.problem(f"a stream ended with {last!r} after {ends} of {len(texts)} answers: {ask}")
        self._compare("streamed", ask, texts)

    async def leave(self, client: httpx.AsyncClient, ask: Ask, chance: random.Random) -> None:
        """Away after some events of an answer."""
        count = chance.randint(0, 12)
        async with client.stream("POST", ask.path, json={**ask.body, "stream": ask.streamed}) as response:
            async for _ in response.aiter_lines():
                count -= 1
                if count < 0:
                    break
        self.report.done["left"] += 1

    async def give_up(self, client: httpx.AsyncClient, ask: Ask, chance: random.Random) -> None:
        """Away before an answer, or half of the request, is there."""
        if chance.random() < 0.3:
            url = httpx.URL(self.url)
            _, writer = await asyncio.open_connection(url.host, url.port)
            body = json.dumps(ask.body).encode()
            head = f"POST {ask.path} HTTP/1.1\r\nhost: {url.host}\r\ncontent-type: application/json\r\n"
            head += f"content-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body[: chance.randint(0, len(body))])
            await asyncio.sleep(chance.random() / 5)
            writer.transport.abort()
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(client.post(ask.path, json=ask.body), chance.random())
        self.report.done["gave up"] += 1

    async def bad(self, client: httpx.AsyncClient, ask: Ask, chance: random.Random) -> None:
        """A request that is none."""
        path, body, kind, status = chance.choice(BAD)
        response = await client.post(path, content=body, headers={"content-type": kind})
        if response.status_code != status or not response.json()["error"]["message"]:
            return self.report.problem(f"{response.status_code} {response.text} instead of {status} for {path} {body[:80]!r}")
        self.report.done["refused"] += 1

    async def allowed(self, client: httpx.AsyncClient, ask: Ask, chance: random.Random) -> None:
        """An answer of tokens that no other stream lets come: one that is not allowed belongs to somebody else."""
        model, tokens = self.canary
        body = {"model": model, "prompt": "Say something:", "max_tokens": chance.randint(4, 24), "ignore_eos": True}
        bias = {str(token): 100 for token in tokens}
        response = await client.post("/v1/completions", json={**body, "temperature": 1, "logit_bias": bias, "repeat_guard": 0})
        if response.status_code != 200:
            return self.report.problem(f"{response.status_code} {response.text} for a canary")
        text = response.json()["choices"][0]["text"]
        if not re.fullmatch("(" + "|".join(map(re.escape, tokens.values())) + ")+", text):
            self.report.done["mixed"] += 1
            return self.report.problem(f"stream {self.index} allows {list(tokens.values())}, and got {text!r}")
        self.report.done["canary"] += 1
        self.report.tokens += body["max_tokens"]

    def _compare(self, kind: str, ask: Ask, found: Any) -> None:
        if self.exact and found != ask.expected:
            self.report.done["mixed"] += 1
            return self.report.problem(f"{kind}: {ask.path} {ask.body}\n  alone {ask.expected!r}\n  here  {found!r}")
        self.report.done[kind] += 1


def canaries(client: httpx.Client, model: str, streams: int, each: int = 4) -> list[dict[int, str]]:
    """For each stream some tokens that are words, and that no other one has."""
    words: dict[str, int] = {}
    token = 500
    while len(words) < streams * each:
        text = client.post("/detokenize", json={"model": model, "tokens": [token]}).json()["content"]
        if re.fullmatch(" [a-z]{4,}", text):
            words[text] = token
        token += 1
    items = [(token, text) for text, token in words.items()]
    return [dict(items[at * each : (at + 1) * each]) for at in range(streams)]


async def run_all(url: str, streams: list[Stream]) -> None:
    await asyncio.gather(*(each.run() for each in streams))
