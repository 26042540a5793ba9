"""Cheapest ways, against an enumeration of all ways."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from netpolicy.intent.graph import Graph, Vertex

_Links = dict[Vertex, tuple[Vertex, ...]]


@st.composite
def _networks(draw: st.DrawFn) -> tuple[dict[Vertex, int], _Links]:
    """Draw up to six segments and five firewalls of two or three interfaces, trees and cycles alike."""
    segments = [Vertex(f"s{number}", is_firewall=False) for number in range(draw(st.integers(2, 6)))]
    links: dict[Vertex, list[Vertex]] = {segment: [] for segment in segments}
    costs: dict[Vertex, int] = {}
    for number in range(draw(st.integers(1, 5))):
        firewall = Vertex(f"f{number}", is_firewall=True)
        near = draw(st.lists(st.sampled_from(segments), min_size=2, max_size=3, unique=True))
        costs[firewall] = draw(st.integers(1, 4))
        links[firewall] = near
        for segment in near:
            links[segment].append(firewall)
    return costs, {vertex: tuple(near) for vertex, near in links.items()}


def _ways(links: _Links, source: Vertex, destination: Vertex) -> Iterator[tuple[Vertex, ...]]:
    """Yield every way that visits no vertex twice."""
    stack: list[tuple[Vertex, ...]] = [(source,)]
    while stack:
        way = stack.pop()
        if way[-1] == destination:
            yield way
            continue
        stack.extend((*way, near) for near in links[way[-1]] if near not in way)


def _cheapest(costs: dict[Vertex, int], links: _Links, source: Vertex, destination: Vertex) -> list[tuple[Vertex, ...]]:
    priced = [(sum(costs.get(vertex, 0) for vertex in way), way) for way in _ways(links, source, destination)]
    least = min((cost for cost, _ in priced), default=0)
    return [way for cost, way in priced if cost == least]


@settings(derandomize=True, max_examples=400, deadline=None)
@given(_networks())
def test_ways_are_the_cheapest_and_every_tie_is_found(network: tuple[dict[Vertex, int], _Links]) -> None:
    """Without ties each step follows the one cheapest way; with a tie between two segments, ties are reported."""
    costs, links = network
    graph = Graph(costs, links)
    segments = [vertex for vertex in links if not vertex.is_firewall]
    cheapest = {(a, b): _cheapest(costs, links, a, b) for a in segments for b in segments if a != b}
    if any(len(ways) > 1 for ways in cheapest.values()):
        assert list(graph.ties())
        return
    assert not list(graph.ties())
    for (source, destination), ways in cheapest.items():
        assert graph.joined(source, destination) == bool(ways)
        here = source
        for expected in ways[0][1:] if ways else ():
            step = graph.step(here, destination)
            assert step == expected
            here = expected


@settings(derandomize=True, max_examples=400, deadline=None)
@given(_networks())
def test_a_reported_tie_is_one(network: tuple[dict[Vertex, int], _Links]) -> None:
    """Each reported fork has two cheapest ways onward, through exactly the two vertices that are named."""
    costs, links = network
    for tie in Graph(costs, links).ties():
        seconds = {way[1] for way in _cheapest(costs, links, tie.fork, tie.destination)}
        assert {tie.chosen, tie.rival} <= seconds
