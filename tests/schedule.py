"""Which process of `make test` runs which file: one that has begun a folder goes on with it.

So the folder's fixtures (a browser, a cache of kernels) and what the process has compiled for it serve all its files, instead of
being made again whenever a file of another folder comes between.
"""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadFileScheduling

# Those that take longest come first, so that what is left for the end is short. Each of the others: by its number of tests.
FIRST = ("tests/backends/webgpu", "tests/backends/cpu", "tests/server/page", "tests/backends/cuda", "tests/server/soak")


def folder_of(file: str) -> str:
    """What is shared goes no deeper than two folders below tests."""
    return "/".join(file.split("/")[:-1][:3])


class FolderScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist tells no types of it
    """`--dist loadfile` with another order of files: by folder, and in it the one with the most tests first."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._begun: dict[Any, str] = {}  # of each process: its folder

    def _assign_work_unit(self, node: Any) -> None:
        file = self._next(self._begun.get(node), {folder for other, folder in self._begun.items() if other is not node})
        self._begun[node] = folder_of(file)
        self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)

    def _next(self, own: str | None, others: set[str]) -> str:
        """Of its own folder, of one that nobody has begun, or of one that others will be longest with."""
        count: dict[str, int] = {}
        for file, tests in self.workqueue.items():
            count[folder_of(file)] = count.get(folder_of(file), 0) + len(tests)
        rank = {folder: (len(FIRST) - FIRST.index(folder) if folder in FIRST else 0, tests) for folder, tests in count.items()}
        free = count.keys() - others
        folder = own if own in count else max(free or count, key=rank.__getitem__)
        return max((file for file in self.workqueue if folder_of(file) == folder), key=lambda file: len(self.workqueue[file]))

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        """Forgets files that are done: xdist counts all tests of a process after each of them, which took 20 s of ours."""
        file = self._split_scope(self.registered_collections[node][item_index])
        super().mark_test_complete(node, item_index, duration)
        if all(self.assigned_work[node][file].values()):
            del self.assigned_work[node][file]
