"""The leaves of the prefix tree by their age, as a search of all nodes finds them."""

from __future__ import annotations

import random

from lacewing.engine.nodes import Leaves, Node


def test_the_oldest_that_fits_is_found_whatever_happens_in_between():
    random_, leaves, root, alive = random.Random(3), Leaves(), Node((), [], None), []
    for clock in range(1, 3000):
        if not alive or random_.random() < 0.55:
            parent = random_.choice([root, *alive])
            node = Node((clock,), [], parent)
            node.used = clock
            parent.children[node.ids] = node
            alive.append(node)
            leaves.add(node)
            continue
        if random_.random() < 0.5:
            random_.choice(alive).used = clock
            continue
        barred = set(random_.sample(alive, len(alive) // 3))
        fitting = [node for node in alive if not node.children and node not in barred]
        found = leaves.oldest(lambda node, barred=barred: node not in barred)
        assert found is (min(fitting, key=lambda node: node.used) if fitting else None)
        if found is not None:
            del found.parent.children[found.ids]
            if not found.parent.children:
                leaves.add(found.parent)
            found.parent = None
            alive.remove(found)
    assert len(leaves._heap) < 5 * len(alive) + 64
