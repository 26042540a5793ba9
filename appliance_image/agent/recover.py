"""After a power cut, or the death of the agent: the old state whole, or the new one."""

from __future__ import annotations

from appliance_image.agent.records import Field, record
from appliance_image.agent.root import Root
from appliance_image.agent.state import State
from appliance_image.agent.validity import current_validity

_EVENTS = {"apply": "confirm", "rollback": "rollback", "adopt": "apply", "renew": "renew"}
"""How a change that was decided is recorded, by what it was."""


def finish(root: Root, state: State) -> None:
    """Do what is left of a change that was decided, and record it, before it is forgotten.

    A cut between the record and the end has it recorded twice, with the same transaction: never not at all.

    Raises:
        AgentError: The state partition or the journal cannot be written; it is then done next time.

    """
    pending = state.pending
    if pending is None or not pending.committed:
        return
    state.settle()
    renewed = current_validity(root) if pending.event == "renew" else None
    fields: dict[str, Field] = {}
    if renewed is not None:
        fields = {"certificate": renewed.certificate, "lists": list(renewed.lists)}
    record(
        root,
        _EVENTS[pending.event],
        transaction=pending.transaction,
        serial=pending.current.serial,
        bundle=pending.current.sha256,
        before=pending.previous.serial if pending.previous is not None else None,
        source="medium" if pending.event == "adopt" else "operator",
        **fields,
    )
    state.end()
    state.tidy()


def recover(root: Root, state: State) -> None:
    """Finish a change that was decided; forget one that was on trial, so that the old state is the state.

    It is called at boot, before anything of a bundle is loaded.

    Raises:
        AgentError: The state partition or the journal cannot be written.

    """
    finish(root, state)
    pending = state.pending
    if pending is not None:
        current = state.current
        record(
            root,
            "rollback",
            reason="restart while on trial",
            transaction=pending.transaction,
            serial=current.serial if current is not None else None,
            bundle=current.sha256 if current is not None else None,
            gave_up=pending.current.serial,
        )
        state.end()
    state.tidy()
