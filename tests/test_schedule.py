"""Which process gets which file."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from xdist.remote import Producer

from tests.schedule import FIRST, FolderScheduling, folder_of

FILES = {
    "tests/test_api.py": 9, "tests/test_options.py": 3, "tests/backends/webgpu/test_models.py": 5,
    "tests/backends/webgpu/lowering/test_ops.py": 40, "tests/backends/webgpu/x/test_y.py": 2, "tests/server/page/test_text.py": 20,
    "tests/server/page/test_files.py": 4, "tests/server/test_app.py": 70, "tests/engine/test_engine.py": 30,
    "tests/engine/test_pages.py": 30, "tests/quants/test_q8_0.py": 1,
}  # fmt: skip
TESTS = [f"{file}::test_it[{number}]" for file, count in FILES.items() for number in range(count)]


class Node:
    """A process that runs what it is sent; `speed`: tests a round."""

    def __init__(self, name: str, speed: int) -> None:
        self.gateway, self.speed = SimpleNamespace(id=name), speed
        self.todo: list[int] = []
        self.ran: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: list[int]) -> None:
        self.todo += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def scheduled(*speeds: int) -> tuple[FolderScheduling, list[Node]]:
    config: Any = SimpleNamespace(getvalue=lambda _: ["popen"] * len(speeds), option=SimpleNamespace(loadscopereorder=True))
    made, nodes = FolderScheduling(config, Producer("a test")), [Node(f"gw{at}", speed) for at, speed in enumerate(speeds)]
    for node in nodes:
        made.add_node(node)
    for node in nodes:
        made.add_node_collection(node, TESTS)
    made.schedule()
    return made, nodes


def run(made: FolderScheduling, nodes: list[Node]) -> None:
    for _ in range(1000):
        for node in nodes:
            for _ in range(node.speed):
                # one test stays until the process is shut down, as in xdist, which has to know the next one
                if len(node.todo) > (not node.shutting_down):
                    node.ran.append(node.todo.pop(0))
                    made.mark_test_complete(node, node.ran[-1])
    assert made.tests_finished and not made.has_pending


def folders(node: Node) -> list[str]:
    return [folder for folder, _ in itertools.groupby(folder_of(TESTS[index].split("::")[0]) for index in node.ran)]


@pytest.mark.parametrize("speeds", [(1,), (1, 1), (1, 9), (2, 1, 3)], ids=str)
def test_every_test_runs_once_and_most_folders_in_one_process(speeds: tuple[int, ...]) -> None:
    made, nodes = scheduled(*speeds)
    run(made, nodes)
    assert sorted(index for node in nodes for index in node.ran) == list(range(len(TESTS)))
    begun = [folders(node) for node in nodes]
    assert begun[0][0] == FIRST[0]
    for each in begun:
        assert len(each) == len(set(each))  # none is left and begun again
    assert sum(map(len, begun)) <= len({folder_of(file) for file in FILES}) + 2 * (len(speeds) - 1)  # the last ones are shared
    for node in nodes:
        for _, tests in itertools.groupby(node.ran, key=lambda index: TESTS[index].split("::")[0]):
            found = list(tests)
            assert found == sorted(found)  # a file's tests in their order


def test_the_dearest_folder_is_begun_first_and_others_help_with_it_last() -> None:
    made, (slow, quick) = scheduled(1, 50)
    run(made, [slow, quick])
    assert folders(slow)[0] == folders(quick)[-1] == FIRST[0]
    files = [file for file, _ in itertools.groupby(TESTS[index].split("::")[0] for index in slow.ran)]
    assert files[0] == "tests/backends/webgpu/lowering/test_ops.py"  # the one with the most tests


def test_what_a_process_has_not_run_is_given_to_others() -> None:
    """When it dies."""
    made, (one, other) = scheduled(1, 1)
    crashed = made.remove_node(one)
    assert crashed == TESTS[one.todo[0]]
    run(made, [other])
    assert sorted(other.ran) == list(range(len(TESTS)))


def test_files_that_are_done_are_forgotten() -> None:
    made, (one,) = scheduled(1)
    run(made, [one])
    assert made.assigned_work[one] == {}
