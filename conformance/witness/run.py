"""The stage ``witness``: every firewall's live ruleset is read back, and model and kernel judge the same packets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_address

from conformance.lab import Lab
from conformance.lab.scope import Scope
from conformance.outcome import Expected, Outcome, Status, Verdict
from conformance.probe.shape import ANSWER_SEQUENCE
from conformance.probe.wire import wired
from conformance.results import Results
from conformance.witness.forecast import FORWARDED, RELAYED, Model, read_place
from conformance.witness.observe import Observed, Observer
from conformance.witness.plan import Connection, Planner, Trial
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import STATES, Family, Field, State
from netpolicy.proof.model import Ruleset
from netpolicy.proof.read import LoadError, MissingError, read_live
from netpolicy.proof.readable import described
from netpolicy.proof.terms import RefusedError
from netpolicy.proof.witness import candidates, witnesses
from netpolicy.reasons import DenyReason

STAGE = "witness"

_BATCH = 2000
_PASSED = {FORWARDED, RELAYED}

Progress = Callable[[str], None]
Batch = tuple[Connection | None, list[Trial]]


class FaultError(Exception):
    """Model and kernel do not agree."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.observed)
        self.outcome = outcome


def run_witnesses(
    lab: Lab,
    scope: Scope,
    firewalls: Sequence[str],
    results: Results,
    *,
    progress: Progress,
    set_clock: Callable[[], None],
) -> bool:
    """Ask model and kernel of each firewall, until they disagree; tell whether they never did.

    Args:
        lab: Isolated, with its relays running.
        scope: What may be sent.
        firewalls: Whose rulesets.
        results: Take what was found.
        progress: Told about each firewall.
        set_clock: Waits until no flow is about to open or close.

    """
    for number, firewall in enumerate(firewalls, 1):
        try:
            model = live_model(lab, firewall)
        except (LoadError, MissingError, RefusedError) as refused:
            status = Status.SKIP if isinstance(refused, MissingError) else Status.ERROR
            results.add(
                Outcome(STAGE, "", "", "its live ruleset", 4, firewall, Expected(Verdict.DENY), status, str(refused))
            )
            continue
        trials = planned(model, scope)
        set_clock()
        begun = time.monotonic()
        try:
            count = Comparison(lab, scope, firewall, model, results).run(trials)
        except FaultError as fault:
            results.add(fault.outcome)
            return False
        taken = time.monotonic() - begun
        progress(f"[{number}/{len(firewalls)}] {firewall}: {STAGE}, {count} verdicts in {taken:.1f} s")
    return True


def live_model(lab: Lab, firewall: str) -> Model:
    """Return the model of what a firewall's kernel holds now.

    Raises:
        LoadError, MissingError, RefusedError: As :func:`netpolicy.proof.read.read_live`.

    """
    namespace = lab.namespace(firewall)
    ruleset: Ruleset = read_live(namespace.run)
    interfaces = [each.name for each in lab.topology.firewalls[firewall].interfaces]
    return Model(ruleset, namespace.call(read_place), interfaces)


def planned(model: Model, scope: Scope) -> list[Trial]:
    """Return the trials of a model whose destinations may be sent to."""
    found: list[Trial] = []
    planner = Planner(model)

    @cache
    def admitted(packed: bytes) -> bool:
        return scope.admits(ip_address(packed))

    for family in Family:
        wanted = list(witnesses(model.ruleset, family, model.interfaces, model.given))
        found.extend(planner.plan(each for each in wanted if admitted(_packed(each, fields.DADDR))))
        found.extend(planner.plan(_for_itself(model, family, [each.packet for each in found])))
        # Errors among them are about connections to itself, which are known by now.
        found.extend(planner.plan(_told_to_itself(model, family, wanted, planner)))
    return found


def _for_itself(model: Model, family: Family, sent: Sequence[Packet]) -> Iterator[Packet]:
    """Yield segments that begin a connection to the firewall itself, at every port that its ruleset speaks of.

    A ruleset need not name its host's addresses, so that nothing made from it alone is for them.
    """
    passing = next((each for each in sent if each.family is family and model.forecast(each).end in _PASSED), None)
    if passing is None:
        return
    begin: dict[Field, int | str] = {
        fields.PROTOCOL: fields.TCP,
        fields.TCP_FLAGS: fields.SYN,
        fields.STATE: STATES.index(State.NEW),
    }
    for port in candidates(model.ruleset, family, model.interfaces).get(fields.DPORT, ()):
        for known, own in sorted(model.place.own):
            if known is family:
                yield passing.changed({**begin, fields.DADDR: own, fields.DPORT: port})


def _told_to_itself(model: Model, family: Family, wanted: Sequence[Packet], planner: Planner) -> Iterator[Packet]:
    """Yield the ICMP messages among witnesses once more, to the firewall itself, for the same reason."""
    control = fields.ICMP if family is Family.IPV4 else fields.ICMPV6
    addresses = [known for each, known in sorted(model.place.own) if each is family]
    usable = (each for each in addresses if not ip_address(_bytes(each, family)).is_loopback)
    own = min(usable, key=lambda each: not planner.is_end(family, each), default=None)
    if own is not None:
        yield from (each.changed({fields.DADDR: own}) for each in wanted if each[fields.PROTOCOL] == control)


@dataclass(slots=True)
class Comparison:
    """Of one firewall's model with its kernel."""

    lab: Lab
    scope: Scope
    firewall: str
    model: Model
    results: Results

    def run(self, trials: Sequence[Trial]) -> int:
        """Send every trial; return how many there were.

        Raises:
            FaultError: At the first disagreement.

        """
        known = self.lab.topology.firewalls[self.firewall]
        count = 0
        with wired(self.lab, known, self.scope) as wire:
            observer = Observer(self.lab, known, wire)
            observer.renew()
            if self.model.set_clock(datetime.now(UTC)):
                trials = [self._anew(each) for each in trials]
            for batch in _batches(trials):
                observed = self._ask(observer, batch)
                if observed.complaint is not None:
                    raise FaultError(self._blamed(observer, batch, observed))
                for each in batch[1]:
                    self.results.add_pass(STAGE, self.firewall, ("", ""), "", _expected(each))
                count += len(batch[1])
            observer.renew()
        return count

    def _anew(self, trial: Trial) -> Trial:
        """Return a trial as it is judged now that hours have changed since it was made."""
        return Trial(trial.packet, trial.content, self.model.forecast(trial.packet), trial.connection)

    def _ask(self, observer: Observer, batch: Batch) -> Observed:
        connection, trials = batch
        if connection is None:
            observed = observer.ask(trials)
            if trials[0].forecast.end in {FORWARDED, RELAYED}:
                self.lab.flush_conntrack(self.firewall)
            return observed
        with observer.connected(connection) as answer:
            if answer is None:
                return Observed("the connection that it belongs to does not open")
            for group in _alike(trials):
                observed = observer.ask(group, answer)
                if observed.complaint is not None:
                    return observed
        return Observed(None)

    def _blamed(self, observer: Observer, batch: Batch, observed: Observed) -> Outcome:
        """Return the fault with the one frame that shows it, found by halving."""
        connection, trials = batch
        while len(trials) > 1:
            halves = trials[: len(trials) // 2], trials[len(trials) // 2 :]
            for half in halves:
                observer.renew()
                found = self._ask(observer, (connection, half))
                if found.complaint is not None:
                    trials, observed = half, found
                    break
            else:
                observed = Observed(f"{observed.complaint} (with {len(trials)} others, and with no half of them)")
                break
        return self._fault(trials[0], observed)

    def _fault(self, trial: Trial, observed: Observed) -> Outcome:
        trace = " > ".join(str(step) for step in trial.forecast.steps) or "no rule"
        frame = trial.frame(b"\x02" * 12, ANSWER_SEQUENCE)
        return Outcome(
            stage=STAGE,
            source=str(ip_address(_packed(trial.packet, fields.SADDR))),
            destination=str(ip_address(_packed(trial.packet, fields.DADDR))),
            probe=described(trial.packet.changed({fields.OIF: ""})),
            family=trial.packet.family.version,
            firewall=self.firewall,
            expected=_expected(trial),
            status=Status.FAULT,
            observed=f"fault of the model, which says: {trial.forecast}; the kernel: {observed.complaint}; "
            f"the model's way: {trace}",
            frames=(frame, *(each for _, each in observed.frames)),
        )


def _batches(trials: Sequence[Trial]) -> Iterator[Batch]:
    """Yield trials that are sent together: without state first, then those of one connection after another."""
    single = [each for each in trials if each.connection is None]
    for group in _alike(single):
        bounds = [bound for _, bound in group[0].forecast.spends]
        size = max(1, min([_BATCH, *bounds]))
        for begin in range(0, len(group), size):
            yield None, group[begin : begin + size]
    connected: dict[int, list[Trial]] = {}
    for each in trials:
        if each.connection is not None:
            connected.setdefault(id(each.connection), []).append(each)
    for group in connected.values():
        yield group[0].connection, group


def _alike(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Return trials by interface and fate."""
    groups: dict[object, list[Trial]] = {}
    for each in trials:
        groups.setdefault((each.ingress, each.forecast.key), []).append(each)
    return list(groups.values())


def _expected(trial: Trial) -> Expected:
    """Return the model's verdict in the terms of the reports."""
    counted = [name for name, _ in trial.forecast.counters]
    denied = next((name.removeprefix("deny_") for name in counted if name.startswith("deny_")), None)
    if denied is not None:
        protocol = denied.partition(f"{DenyReason.FORBIDDEN}_")[2]
        if protocol:
            return Expected(Verdict.DENY, None, DenyReason.FORBIDDEN, protocol.replace("_", "-"))
        return Expected(Verdict.DENY, None, DenyReason(denied) if denied in set(DenyReason) else None)
    flow = next((name.removeprefix("flow_") for name in counted if name.startswith("flow_")), None)
    if trial.forecast.end in {FORWARDED, RELAYED, "local"}:
        return Expected(Verdict.PERMIT, flow.replace("_", "-") if flow else trial.forecast.end)
    return Expected(Verdict.DENY)


def _packed(packet: Packet, field: fields.Field) -> bytes:
    return _bytes(packet.number(field), packet.family)


def _bytes(address: int, family: Family) -> bytes:
    return address.to_bytes(family.bits // 8, "big")
