"""The model's word against the kernel's: where each packet came out, and how often each rule matched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from conformance.modelled.bench import Bench, Loaded, Seen
from conformance.modelled.plan import LISTENED
from conformance.modelled.settle import INWARD, NOWHERE, THROUGH, Sendable, settle
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Fate, Judgement, Packet, evaluate
from netpolicy.proof.fields import ICMP, ICMPV6
from netpolicy.proof.model import ChainId, Divert, Hook, Rule, Unknown

Certain = Callable[[Unknown], bool | None]
"""Whether a limit, quota or count matches; None where that depends on what came before."""

Unit = tuple[ChainId, int]
_BATCH = 400
_MOST_WAYS = 32


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one packet."""

    judgement: Judgement
    egress: str | None
    delivered: bool
    counts: Counter[Unit]
    """How often each rule matches it."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A packet for which the kernel is not as the model says, or several that only differ together."""

    packets: tuple[Sendable, ...]
    predictions: tuple[Prediction, ...]
    said: str
    """What differs."""

    def __str__(self) -> str:
        lines = [self.said]
        for sendable, prediction in zip(self.packets, self.predictions, strict=True):
            values = ", ".join(f"{known} {value}" for known, value in sendable.packet.values.items() if value)
            lines.append(f"  packet {sendable.form}: {values}; {' '.join(sendable.hooks)}")
            lines.append(f"  the model: {prediction.judgement.fate} {prediction.egress or ''}")
            lines.extend(f"    {step}" for step in prediction.judgement.steps if not _is_probe(step.rule))
        return "\n".join(lines)


@dataclass(slots=True)
class Result:
    """What came of one ruleset."""

    sent: int = 0
    unsendable: int = 0
    """Wished for, but no packet like it can come to these hooks."""
    matched: Counter[Unit] = field(default_factory=Counter)
    """By rules that count."""
    taken: Counter[Unit] = field(default_factory=Counter)
    """By all rules: those that do not count, as verdict maps, show it by where their packets are counted next."""
    fates: Counter[str] = field(default_factory=Counter)
    uncertain: int = 0
    """Sent alone, since a limit may answer either way."""
    disagreements: list[Disagreement] = field(default_factory=list)

    def add(self, other: Result) -> None:
        """Add another one of the same ruleset."""
        self.sent += other.sent
        self.unsendable += other.unsendable
        self.uncertain += other.uncertain
        self.matched.update(other.matched)
        self.taken.update(other.taken)
        self.fates.update(other.fates)
        self.disagreements.extend(other.disagreements)


def hold(bench: Bench, loaded: Loaded, packets: Iterable[Packet], certain: Certain, *, most: int = 3) -> Result:
    """Send packets through a loaded ruleset and compare.

    Args:
        bench: It holds the ruleset.
        loaded: The ruleset.
        packets: Any; each is brought to the closest one that can be sent.
        certain: What limits answer.
        most: So many disagreements end it.

    """
    result = Result()
    asked: dict[tuple[object, ...], tuple[Sendable, list[Prediction]]] = {}
    for wished in packets:
        sendable = settle(bench.plan, wished, next(bench.numbers))
        if sendable is None:
            result.unsendable += 1
            continue
        key = (sendable.packet.family, tuple(sorted((str(k), v) for k, v in sendable.packet.values.items())))
        if key not in asked:
            asked[key] = (sendable, list(predictions(loaded, sendable, certain)))
    sure = [(sendable, found[0]) for sendable, found in asked.values() if len(found) == 1]
    for batch in _batches(sure):
        _compare(bench, loaded, batch, result)
        if len(result.disagreements) >= most:
            return result
    for sendable, found in asked.values():
        if len(found) > 1 and len(result.disagreements) < most:
            _compare_either(bench, loaded, sendable, found, result)
    return result


def predictions(loaded: Loaded, sendable: Sendable, certain: Certain) -> Iterator[Prediction]:
    """Yield what can come of a packet: once if nothing uncertain is on its way."""
    pending: list[tuple[bool, ...]] = [()]
    ways = 0
    while pending and ways < _MOST_WAYS:
        answers = pending.pop()
        asked = 0

        def oracle(_rule: Rule, unknown: Unknown | Divert, answers: tuple[bool, ...] = answers) -> bool:
            nonlocal asked
            if isinstance(unknown, Divert):
                port = unknown.port if unknown.port is not None else sendable.packet[fields.DPORT]
                return port in LISTENED
            known = certain(unknown)
            if known is not None:
                return known
            asked += 1
            return answers[asked - 1] if asked <= len(answers) else False

        prediction = _predict(loaded, sendable, oracle)
        ways += 1
        yield prediction
        padded = (*answers, *(False for _ in range(asked - len(answers))))
        pending.extend((*padded[:place], True) for place in range(len(answers), asked))


def _predict(loaded: Loaded, sendable: Sendable, oracle: Callable[[Rule, Unknown | Divert], bool]) -> Prediction:
    hooks = sendable.hooks
    judgement = evaluate(loaded.ruleset, hooks, sendable.packet, oracle)
    if hooks == THROUGH:
        before = evaluate(loaded.ruleset, NOWHERE, sendable.packet, oracle)
        if before.fate is Fate.ACCEPT and before.diverted is not None:
            # It has a local socket now: the kernel does not forward it (ip_forward), and no route brings it inside.
            hooks, judgement = NOWHERE, before
    passed = judgement.fate is Fate.ACCEPT
    counts = Counter((step.rule.chain, step.rule.number) for step in judgement.steps if step.rule and not step.midway)
    left = passed and Hook.POSTROUTING in hooks
    return Prediction(
        judgement=judgement,
        egress=str(sendable.packet[fields.OIF]) if left else None,
        delivered=passed and tuple(hooks) == INWARD,
        counts=Counter({unit: count for unit, count in counts.items() if unit in loaded.counted}),
    )


Asked = tuple[Sendable, Prediction]


def _batches(asked: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Yield packets in batches within which no two belong to one connection."""
    rest = list(asked)
    while rest:
        batch: list[Asked] = []
        left: list[Asked] = []
        taken: set[object] = set()
        for each in rest:
            key = _connection_key(each[0])
            if len(batch) < _BATCH and key not in taken:
                taken.add(key)
                batch.append(each)
            else:
                left.append(each)
        yield batch
        rest = left


def _connection_key(sendable: Sendable) -> object:
    packet = sendable.packet
    if packet[fields.PROTOCOL] in {ICMP, ICMPV6}:
        return sendable.form.number
    ends = [(packet[fields.SADDR], packet[fields.SPORT]), (packet[fields.DADDR], packet[fields.DPORT])]
    if packet[fields.PROTOCOL] not in {6, 17, 132, 136}:
        ends = [(address, 0) for address, _ in ends]
    return packet.family, packet[fields.PROTOCOL], frozenset(ends)


def _send(bench: Bench, loaded: Loaded, batch: Sequence[Asked]) -> Seen:
    return bench.send(
        loaded, [(sendable, prediction.judgement.packet.number(fields.ZONE)) for sendable, prediction in batch]
    )


def _compare(bench: Bench, loaded: Loaded, batch: Sequence[Asked], result: Result) -> None:
    """Send a batch; where the kernel differs, find the packets."""
    said = list(_differences(batch, _send(bench, loaded, batch)))
    if not said:
        for _, prediction in batch:
            _note(result, prediction)
        return
    culprits = []
    for sendable, prediction in batch:
        again = settle(bench.plan, sendable.packet, next(bench.numbers)) or sendable
        if first := list(_differences([(again, prediction)], _send(bench, loaded, [(again, prediction)]))):
            culprits.append(((again, prediction), first))
    for (sendable, prediction), differences in culprits[:2]:
        result.disagreements.append(Disagreement((sendable,), (prediction,), "; ".join(differences[:6])))
    if not culprits:
        packets, found = zip(*batch[:3], strict=True)
        words = f"only together ({len(batch)} packets): {'; '.join(said[:6])}"
        result.disagreements.append(Disagreement(packets, found, words))


def _compare_either(
    bench: Bench, loaded: Loaded, sendable: Sendable, found: Sequence[Prediction], result: Result
) -> None:
    """Send a packet alone; the kernel must be as one of the predictions says."""
    seen = _send(bench, loaded, [(sendable, found[0])])
    ways = [list(_differences([(sendable, prediction)], seen)) for prediction in found]
    fitting = [prediction for prediction, said in zip(found, ways, strict=True) if not said]
    result.uncertain += 1
    if fitting:
        _note(result, fitting[0])
    else:
        result.disagreements.append(Disagreement((sendable,), (found[0],), "; ".join(ways[0][:6])))


def _note(result: Result, prediction: Prediction) -> None:
    result.sent += 1
    result.fates[str(prediction.judgement.fate)] += 1
    result.matched.update(prediction.counts)
    result.taken.update((step.rule.chain, step.rule.number) for step in prediction.judgement.steps if step.rule)


def _differences(batch: Sequence[Asked], seen: Seen) -> Iterator[str]:
    """Yield in words what is not as predicted."""
    known = {sendable.form.number for sendable, _ in batch}
    for sendable, prediction in batch:
        left = seen.left.get(sendable.form.number)
        if left != prediction.egress:
            yield f"packet {sendable.form.number} leaves by {left}, not {prediction.egress}"
    for number in seen.left.keys() - known:
        yield f"packet {number} was not sent now"
    delivered = sum(prediction.delivered for _, prediction in batch)
    if delivered != seen.delivered:
        yield f"{seen.delivered} delivered, not {delivered}"
    wanted: Counter[Unit] = Counter()
    for _, prediction in batch:
        wanted.update(prediction.counts)
    for chain, number in sorted(wanted.keys() | seen.counts.keys()):
        found = seen.counts.get((chain, number), 0)
        if found != wanted[chain, number]:
            yield f"{chain} rule {number} matched {found}, not {wanted[chain, number]}"


def _is_probe(rule: Rule | None) -> bool:
    return rule is not None and rule.text == "counter"
