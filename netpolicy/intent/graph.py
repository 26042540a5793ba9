"""Cheapest ways through the graph of segments and firewalls.

Most of a network is trees that hang from a small core: a municipality's segments have one way out.  So vertices with
one neighbour are taken off until none is left; ways inside a tree are unique and follow its parents, and only the core
that remains is searched.  On a tree of 3,577 segments and 3,529 firewalls that makes seconds out of a minute.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Vertex:
    """A segment or a firewall."""

    id: str
    is_firewall: bool


@dataclass(slots=True)
class _Tree:
    """The cheapest ways from every vertex of the core to one of them."""

    distance: dict[Vertex, int]
    next: dict[Vertex, Vertex] = field(default_factory=dict)
    rival: dict[Vertex, Vertex] = field(default_factory=dict)
    """A next vertex of the same cost as the chosen one."""


@dataclass(frozen=True, slots=True)
class Tie:
    """Two cheapest ways that begin at one vertex."""

    source: Vertex
    destination: Vertex
    fork: Vertex
    """The vertex at which they part: the source or the firewall after it."""
    chosen: Vertex
    rival: Vertex


class Graph:
    """Segments and firewalls; entering a firewall costs what it says, entering a segment nothing."""

    def __init__(self, costs: Mapping[Vertex, int], neighbours: Mapping[Vertex, tuple[Vertex, ...]]) -> None:
        self._costs = costs
        self._neighbours = neighbours
        self._parent: dict[Vertex, Vertex] = {}
        self._prune()
        self._component = self._components()
        core = [vertex for vertex in neighbours if vertex not in self._parent]
        self._trees = {vertex: self._grow(vertex) for vertex in core}
        self._chains: dict[Vertex, dict[Vertex, Vertex]] = {}
        self._roots: dict[Vertex, Vertex] = {}

    def step(self, vertex: Vertex, destination: Vertex) -> Vertex | None:
        """Return the next vertex on the cheapest way; None if there is none, or if two are equally cheap."""
        if self._component[vertex] != self._component[destination]:
            return None
        below = self._chain(destination).get(vertex)
        if below is not None:
            return below
        above = self._parent.get(vertex)
        if above is not None:
            return above
        tree = self._trees[self._roots[destination]]
        return None if vertex in tree.rival else tree.next[vertex]

    def joined(self, one: Vertex, other: Vertex) -> bool:
        """Return whether any way leads from one vertex to the other."""
        return self._component[one] == self._component[other]

    def ties(self) -> Iterator[Tie]:
        """Yield the pairs of core vertices between which two ways are equally cheap and traffic may go."""
        bearing = set(self._parent.values())

        def matters(vertex: Vertex) -> bool:
            return not vertex.is_firewall or vertex in bearing

        for destination, tree in self._trees.items():
            if not matters(destination):
                continue
            for source, chosen in tree.next.items():
                if not matters(source):
                    continue
                fork = source if source in tree.rival else chosen
                if fork in tree.rival and (fork is source or chosen.is_firewall):
                    yield Tie(source, destination, fork, tree.next[fork], tree.rival[fork])

    def _prune(self) -> None:
        """Take off vertices with one neighbour left, until every vertex of what remains lies on a cycle or is alone."""
        degree = {vertex: len(near) for vertex, near in self._neighbours.items()}
        leaves = deque(vertex for vertex, count in degree.items() if count == 1)
        while leaves:
            leaf = leaves.popleft()
            if degree[leaf] != 1:
                continue
            parent = next(near for near in self._neighbours[leaf] if near not in self._parent)
            self._parent[leaf] = parent
            degree[leaf] = 0
            degree[parent] -= 1
            if degree[parent] == 1:
                leaves.append(parent)

    def _components(self) -> dict[Vertex, int]:
        component: dict[Vertex, int] = {}
        for number, start in enumerate(self._neighbours):
            if start in component:
                continue
            component[start] = number
            queue = deque([start])
            while queue:
                for near in self._neighbours[queue.popleft()]:
                    if near not in component:
                        component[near] = number
                        queue.append(near)
        return component

    def _chain(self, destination: Vertex) -> dict[Vertex, Vertex]:
        """Return, for each vertex above `destination` in its tree, the one below it on the way down."""
        chain = self._chains.get(destination)
        if chain is None:
            chain = {}
            vertex = destination
            while (above := self._parent.get(vertex)) is not None:
                chain[above] = vertex
                vertex = above
            self._chains[destination] = chain
            self._roots[destination] = vertex
        return chain

    def _grow(self, destination: Vertex) -> _Tree:
        tree = _Tree({destination: 0})
        queue = [(0, destination)]
        done: set[Vertex] = set()
        while queue:
            reached, vertex = heapq.heappop(queue)
            if vertex in done:
                continue
            done.add(vertex)
            for near in self._neighbours[vertex]:
                if near in self._parent or near == destination:
                    continue
                cost = reached + self._costs.get(near, 0)
                known = tree.distance.get(near)
                if known is None or cost < known:
                    tree.distance[near] = cost
                    tree.next[near] = vertex
                    tree.rival.pop(near, None)
                    heapq.heappush(queue, (cost, near))
                elif cost == known:
                    tree.rival[near] = vertex
        return tree
