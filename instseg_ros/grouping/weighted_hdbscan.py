"""HDBSCAN for weighted items: the clusters that HDBSCAN would find if every item stood there as often as its weight says.

Campello, Moulavi, Sander: "Density-Based Clustering Based on Hierarchical Density Estimates" (PAKDD 2013); selection with a
distance threshold: Malzer, Baum: "A Hybrid Approach To Hierarchical Density-based Cluster Selection" (2019). With unit weights,
no floor and a competing root the labels are those of the `hdbscan` library with `allow_single_cluster=True`.
"""

__all__ = ["core_distances", "spanning_tree", "weighted_hdbscan"]

from types import ModuleType

import numpy as np

from instseg_ros.grouping.arrays import Array, smallest, squared_distances, to_host
from instseg_ros.sparse import kernels


def weighted_hdbscan(
    items: np.ndarray, weights: np.ndarray, min_cluster_size: int, min_samples: int, epsilon: float = 0.0, floor: float = 0.0,
    root_competes: bool = True, xp: ModuleType = np,
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster weighted items.

    Args:
        items: [m, F] float64 positions.
        weights: [m] int, at least 1: how many points an item stands for.
        min_cluster_size: smallest weight of a cluster.
        min_samples: weight within the core distance of an item (besides one point of the item itself).
        epsilon: clusters that part at a smaller distance stay one.
        floor: distances below this count as this (what an item stands for is spread about so far).
        root_competes: whether all items as one cluster compete for stability with the clusters in it. As the root begins at
            density 0, it wins over clusters that part at less than about twice the distance of their own items; without it,
            all is one cluster only where no two parts are farther apart than epsilon.
        xp: array module that computes distances and spanning tree; with numpy the compiled kernel grows the tree.

    Returns:
        labels [m] int64, -1 = noise, and membership [m] in 0..1: how near to the densest part of its cluster an item lies.
    """
    count = len(items)
    if count == 1:
        return np.zeros(1, np.int64), np.ones(1)
    floor = max(floor, 1e-12)
    squares = squared_distances(xp, xp.asarray(items), xp.asarray(items))
    core = core_distances(xp, squares, xp.asarray(weights), min_samples)
    edges = kernels.spanning_tree(squares, core, floor) if xp is np else spanning_tree(xp, squares, core, floor)
    left, right, height = _single_linkage(edges[np.argsort(edges[:, 2], kind="stable")])
    tree = _CondensedTree(left, right, height, weights, min_cluster_size, floor)
    selected = tree.merge_below(tree.excess_of_mass(root_competes), epsilon)
    return tree.labels(selected, epsilon)


def core_distances(xp: ModuleType, squares: Array, weights: Array, min_samples: int) -> Array:
    """[m] distance within which an item finds the weight `min_samples` beside one point of its own.

    Args:
        xp: array module.
        squares: [m, m] squared distances of the items.
        weights: [m] weights.
        min_samples: weight to be found.
    """
    core = xp.zeros(len(weights))
    left = xp.flatnonzero(weights <= min_samples)  # of the others an item's own points are enough
    count = 8
    while len(left):  # few neighbours are enough for most, as they have weights themselves
        near, square = smallest(xp, squares[left], min(count, len(weights)))
        enough = xp.cumsum(weights[near], axis=1) > min_samples
        if count >= len(weights):
            enough[:, -1] = True  # fewer points than asked for: all of them
        done = enough.any(axis=1)
        last = enough.argmax(axis=1)[:, None]
        core[left[done]] = xp.sqrt(xp.take_along_axis(square, last, axis=1)[:, 0][done])
        left, count = left[~done], count * 4
    return core


def spanning_tree(xp: ModuleType, squares: Array, core: Array, floor: float) -> np.ndarray:
    """Minimum spanning tree of mutual reachability, as `kernels.spanning_tree` has it, on any array module.

    Args:
        xp: array module.
        squares: [m, m] squared distances of the items.
        core: [m] core distances.
        floor: least distance of two items.

    Returns:
        [m - 1, 3] float64: from, to, length, in the order in which Prim's method finds them.
    """
    length = xp.maximum(xp.sqrt(squares), xp.maximum(xp.maximum(core[:, None], core), floor))
    best, source = length[0].copy(), xp.zeros(len(core), np.int64)
    best[0] = np.inf  # what is in the tree
    nodes, sources, lengths, inside = [], [], [], xp.zeros(len(core), bool)
    inside[0] = True
    for _ in range(len(core) - 1):
        node = best.argmin()  # of equally near ones the first
        nodes.append(node)
        sources.append(source[node])
        lengths.append(best[node])
        inside[node] = True
        nearer = (length[node] < best) & ~inside
        best = xp.where(inside, np.inf, xp.where(nearer, length[node], best))
        source = xp.where(nearer, node, source)
    return np.stack([to_host(xp.stack(values)).astype(np.float64) for values in (sources, nodes, lengths)], axis=1)


def _single_linkage(edges: np.ndarray) -> tuple[list[int], list[int], list[float]]:
    """The dendrogram: merge i joins the nodes left[i] and right[i] to node m + i at height[i]."""
    count = len(edges) + 1
    parent = list(range(2 * count - 1))
    left, right = [], []
    for i, (a, b) in enumerate(edges[:, :2].astype(np.int64).tolist()):
        roots = []
        for node in (a, b):
            while parent[node] != node:
                parent[node] = parent[parent[node]]
                node = parent[node]
            roots.append(node)
            parent[node] = count + i
        left.append(roots[0])
        right.append(roots[1])
    return left, right, edges[:, 2].tolist()


class _CondensedTree:
    """The dendrogram with splits only where both sides weigh `min_cluster_size`; cluster 0 is the root, children come later.

    Density is lambda = 1 / distance. An item leaves its cluster at `left_at`; a cluster begins at `birth`.
    """

    def __init__(
        self, left: list[int], right: list[int], height: list[float], weights: np.ndarray, min_cluster_size: int, floor: float
    ) -> None:
        count = len(weights)
        size = weights.astype(np.int64).tolist()
        for a, b in zip(left, right, strict=True):
            size.append(size[a] + size[b])
        self.parent, self.birth = [-1], [0.0]
        owner, left_at = np.zeros(count, np.int64), np.zeros(count)
        todo = [(2 * count - 2, 0)]
        while todo:
            node, cluster = todo.pop()
            if node < count:  # an item that is a cluster of its own: its points part only below the floor
                owner[node], left_at[node] = cluster, 1.0 / floor
                continue
            density = 1.0 / height[node - count]
            children = (left[node - count], right[node - count])
            heavy = [c for c in children if size[c] >= min_cluster_size]
            for child in children:
                if child not in heavy:
                    fallen = _items_below(child, left, right, count)
                    owner[fallen], left_at[fallen] = cluster, density
                elif len(heavy) == 1:
                    todo.append((child, cluster))
                else:
                    self.parent.append(cluster)
                    self.birth.append(density)
                    todo.append((child, len(self.parent) - 1))
        self.owner, self.left_at = owner, left_at
        clusters = len(self.parent)
        births = np.array(self.birth)
        self.stability = np.bincount(owner, (left_at - births[owner]) * weights, minlength=clusters)
        self.children: list[list[int]] = [[] for _ in range(clusters)]
        inside = np.bincount(owner, weights, minlength=clusters)
        for c in range(clusters - 1, 0, -1):  # a child's whole weight leaves its parent where the child begins
            p = self.parent[c]
            self.children[p].append(c)
            self.stability[p] += inside[c] * (births[c] - births[p])
            inside[p] += inside[c]
        # The density up to which a cluster holds together: its densest item, or where it splits
        self.death = np.zeros(clusters)
        np.maximum.at(self.death, owner, left_at)
        np.maximum.at(self.death, self.parent[1:], births[1:])

    def excess_of_mass(self, root_competes: bool) -> list[int]:
        """The disjoint clusters of the greatest total stability; the root only if it competes or there is no other."""
        best = self.stability.copy()
        if not root_competes and self.children[0]:
            best[0] = -1.0
        chosen = [True] * len(best)
        for c in range(len(best) - 1, -1, -1):
            below = sum(best[k] for k in self.children[c])
            if below > best[c]:
                chosen[c], best[c] = False, below
        return self._topmost(chosen)

    def _topmost(self, chosen: list[bool]) -> list[int]:
        """The chosen clusters without those inside another chosen one."""
        covered, top = [False] * len(chosen), []
        for c, parent in enumerate(self.parent):
            covered[c] = parent >= 0 and (covered[parent] or chosen[parent])
            if chosen[c] and not covered[c]:
                top.append(c)
        return top

    def merge_below(self, selected: list[int], epsilon: float) -> list[int]:
        """Replace clusters that began at a distance below epsilon by the ancestor that began above it."""
        if epsilon <= 0.0 or selected == [0]:
            return selected
        chosen = [False] * len(self.parent)
        for c in selected:
            if 1.0 / self.birth[c] < epsilon:
                c = self.parent[c]
                while c and 1.0 / self.birth[c] <= epsilon:
                    c = self.parent[c]
            chosen[c] = True
        return self._topmost(chosen)

    def labels(self, selected: list[int], epsilon: float) -> tuple[np.ndarray, np.ndarray]:
        """Labels and membership of the items, given the selected clusters."""
        label = np.full(len(self.parent), -1, np.int64)
        cluster = np.zeros(len(self.parent), np.int64)  # the selected one that holds this cluster
        for c, parent in enumerate(self.parent):
            if c in selected:
                label[c], cluster[c] = selected.index(c), c
            elif parent >= 0:
                label[c], cluster[c] = label[parent], cluster[parent]
        labels = label[self.owner]
        if selected == [0]:  # everything is one cluster: what is farther than epsilon from the rest is noise
            labels[self.left_at < (1.0 / epsilon if epsilon > 0.0 else self.death[0])] = -1
        death = self.death[cluster[self.owner]]
        membership = np.where(labels >= 0, np.minimum(self.left_at, death) / death, 0.0)
        return labels, membership


def _items_below(node: int, left: list[int], right: list[int], count: int) -> list[int]:
    items, todo = [], [node]
    while todo:
        node = todo.pop()
        if node < count:
            items.append(node)
        else:
            todo += (left[node - count], right[node - count])
    return items
