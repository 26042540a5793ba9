"""Records for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from appliance_image.journal.record import Record, Value

_HEADINGS = ("SEQ", "TIME", "EVENT", "WHO", "WHAT")
_WHO = ("actor", "operator", "operators")


def table(records: Iterable[Record]) -> Iterator[str]:
    """Yield a heading and one line for each record."""
    yield _row(*_HEADINGS)
    for record in records:
        who = next((_text(record.fields[name]) for name in _WHO if name in record.fields), "")
        what = " ".join(f"{name}={_text(value)}" for name, value in record.fields.items() if name not in _WHO)
        yield _row(str(record.seq), f"{record.time[:19].replace('T', ' ')}Z", record.event, who, what)


def _row(seq: str, time: str, event: str, who: str, what: str) -> str:
    return f"{seq:>6}  {time:20}  {event:18} {who:12} {what}".rstrip()


def _text(value: Value) -> str:
    """Return a value without anything that a terminal would obey."""
    if value is None or isinstance(value, bool):
        text = {None: "-", True: "yes", False: "no"}[value]
    elif isinstance(value, str | int):
        text = str(value)
    else:
        text = ",".join(_text(item) for item in value)
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
