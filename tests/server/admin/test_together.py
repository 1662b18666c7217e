"""Everything is changed again and again while clients stream: none of them notices more than a pause."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest

from tests.server.admin.test_models import LOAD, Stream
from tests.server.serving import administered

CHANGES = (
    ("load", {"residency": "eager"}),
    ("load", {"template": "raw"}),
    ("load", {"context": 1024}),
    ("load", {"residency": "lazy", "template": "auto"}),
    ("unload", {}),
    ("load", {"context": None, "residency": "eager"}),
    ("load", {"residency": "lazy"}),
)


@pytest.mark.parametrize("beside", [True, False])
def test_no_answer_is_dropped(smollm2_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool):
    if not beside:
        monkeypatch.setattr("lacewing.server.models.changing.Changer._beside", lambda *_: None)
    name, over, reasons, problems = smollm2_path.stem, threading.Event(), [], []

    def ask(url: str) -> None:
        while not over.is_set():
            stream = Stream(url, name, 24)
            stream.run()
            reasons.append(stream.reason)

    with administered(smollm2_path, load=LOAD) as (url, registry):
        clients = [threading.Thread(target=ask, args=(url,)) for _ in range(3)]
        for client in clients:
            client.start()
        for path, fields in CHANGES:
            body = {"model": name, "wait": True, **fields}
            answer = httpx.post(f"{url}/models/{path}", json=body, timeout=120)
            if answer.status_code != 200:
                problems.append(answer.text)
        over.set()
        for client in clients:
            client.join(120)
        assert not any(client.is_alive() for client in clients)
        assert not problems and set(reasons) == {"length"} and len(reasons) >= 3, (problems, reasons)
        (served,) = registry.served
        assert not served.users and not served.worker.tickets and served.model.weights.residency == "lazy"
