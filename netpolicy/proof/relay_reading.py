"""HAProxy's configuration as HAProxy splits it into words, and what a relay must be told (theorem ``engines``).

What is demanded follows from four principles: who connects shows a certificate that is verified, revocation included;
so does who is connected to, under the name that the topology gives it; nothing passes before the client is known to be
the one at its address; and nothing is said that is not known here to be harmless.  What is not known is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

SECTIONS = frozenset(
    {
        *(
            "global",
            "defaults",
            "frontend",
            "backend",
            "listen",
            "peers",
            "program",
            "userlist",
            "resolvers",
            "mailers",
        ),
        *("cache", "ring", "log-forward", "log-profile", "http-errors", "fcgi-app", "crt-store", "traces"),
    }
)
"""First words that begin a section, however far to the right they stand (Configuration Manual, 2.1)."""
_TLS = "/etc/haproxy/tls"
_LONGEST = 2048
"""Bytes of a line."""


class ReadingError(ValueError):
    """A line that is not read with certainty; says which."""


@dataclass(frozen=True, slots=True)
class Said:
    """One line that says something."""

    line: int
    section: tuple[str, str]
    """Its kind and name."""
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """As ``haproxy -dC`` prints it."""
        return " ".join(self.words)


def statements(text: str) -> list[Said]:
    """Return the lines of a configuration, split into words as HAProxy does (Configuration Manual, 2.2).

    Strong quotes, escapes outside of quotes, variables of the environment and conditions are not needed, and refused.

    Raises:
        ReadingError: A line has what is not read here.

    """
    found: list[Said] = []
    section = ("", "")
    for number, line in enumerate(text.split("\n"), 1):
        words = _words(number, line)
        if not words:
            continue
        if words[0].startswith("."):
            raise ReadingError(f"line {number}: the condition '{words[0]}' is not judged")
        if words[0] in SECTIONS:
            section = (words[0], words[1] if len(words) > 1 else "")
        found.append(Said(number, section, tuple(words)))
    return found


_PIECE = re.compile(r'(?P<blank>[ \t]+)|(?P<comment>#.*)|"(?P<quoted>(?:[^"\\$]|\\["\\$])*)"|(?P<plain>[^ \t#"\'\\]+)')
_ESCAPED = re.compile(r"\\(.)")


def _words(number: int, line: str) -> list[str]:
    if len(line.encode()) >= _LONGEST:
        raise ReadingError(f"line {number} is too long")
    if not line.replace("\t", " ").isprintable():
        raise ReadingError(f"line {number} has a character that is not printable")
    words: list[str] = []
    at, goes_on = 0, False
    while at < len(line):
        piece = _PIECE.match(line, at)
        if piece is None:
            raise ReadingError(f"line {number}: {line[at:][:20]!r} is not judged")
        at = piece.end()
        text = piece["plain"] if piece["quoted"] is None else _ESCAPED.sub(r"\1", piece["quoted"])
        if text is None:
            goes_on = False
            continue
        if goes_on:
            words[-1] += text
        else:
            words.append(text)
        goes_on = True
    return words


_IDENTITY: Mapping[str, str | None] = {
    "ssl": None,
    "crt": f"{_TLS}/chain.pem",
    "ca-file": f"{_TLS}/trust.pem",
    "crl-file": f"{_TLS}/crl.pem",
    "verify": "required",
}
"""What either side of a relay must say: its own certificate, and that the other's is verified, against these."""
_BIND: Mapping[str, str | None] = {**_IDENTITY, "transparent": None, "strict-sni": None}
_SERVER: Mapping[str, str | None] = {**_IDENTITY, "sni": "var(sess.server)", "no-ssl-reuse": None}
"""With `sni` and `verify required` the certificate must bear that name, which no other option may then take away."""
_GLOBAL: Mapping[str, tuple[str, ...]] = {
    "user": ("haproxy",),
    "group": ("haproxy",),
    "chroot": ("/var/lib/haproxy",),
    "setcap": ("cap_net_raw",),
    "lua-load": ("/etc/haproxy/identity.lua",),
    "tune.ssl.cachesize": ("0",),
    "ssl-server-verify": ("required",),
    "ssl-default-bind-options": ("ssl-min-ver", "TLSv1.3", "no-tls-tickets"),
    "ssl-default-server-options": ("ssl-min-ver", "TLSv1.3", "no-tls-tickets"),
}
"""Each once: few rights, no resumption, TLS 1.3, and the one script that reads identities."""
_HARMLESS: Mapping[str, frozenset[str]] = {
    "global": frozenset(
        {
            *("log", "maxconn", "hard-stop-after", "ssl-default-bind-ciphersuites", "ssl-default-bind-curves"),
            *("ssl-default-server-ciphersuites", "ssl-default-server-curves"),
        }
    ),
    "defaults": frozenset({"log", "log-format", "error-log-format", "backlog", "retries", "timeout", "maxconn"}),
    "frontend": frozenset({"maxconn", "backlog", "timeout", "stick-table"}),
    "backend": frozenset({"timeout", "stick-table"}),
}
"""By section, what opens nothing whatever it says: who is logged, how many, how long."""
_CONTENT = ("tcp-request", "content")
_UNKNOWN_CLIENT = "{ var(sess.uri),strcmp(sess.client) eq 0 }"


@dataclass(frozen=True, slots=True)
class Served:
    """What a flow is told by, inside TLS."""

    alpn: str
    prologue: str | None
    """What either side begins with."""


def demands(said: Sequence[Said], flows: Mapping[str, Served]) -> Iterator[str]:
    """Yield what a relay's configuration does not say and must, or says and must not.

    Args:
        said: Its lines.
        flows: Those that it may serve.

    """
    if not any(each.words[:2] == ("mode", "tcp") and each.section[0] == "defaults" for each in said):
        yield "the defaults are not 'mode tcp'"
    yield from _once(said)
    begun = [each.section for each in said if each.words[0] in SECTIONS]
    for section in sorted({section for section in begun if begun.count(section) > 1}):
        yield f"{' '.join(section)} stands twice"
    for section in dict.fromkeys(begun):
        mine = [each for each in said if each.section == section and each.words[0] not in SECTIONS]
        kind, name = section
        if kind == "frontend":
            yield from _frontend(name, mine, flows)
        elif kind == "backend":
            yield from _backend(name, mine, flows)
        elif kind in {"global", "defaults"}:
            known = {*_HARMLESS[kind], *(_GLOBAL if kind == "global" else {"mode"})}
            yield from _unknown(mine, known)
        else:
            yield f"section '{f'{kind} {name}'.strip()}' is not judged"


def _once(said: Sequence[Said]) -> Iterator[str]:
    for keyword, value in _GLOBAL.items():
        told = [each.words[1:] for each in said if each.section[0] == "global" and each.words[0] == keyword]
        if told != [value]:
            how = " and ".join(" ".join(each) for each in told) or "nothing"
            yield f"global: {keyword} is {how}, not {' '.join(value)}"


def _unknown(mine: Sequence[Said], known: set[str]) -> Iterator[str]:
    for each in mine:
        if each.words[0] not in known:
            yield f"line {each.line}: '{each.text}' is not judged"


def _frontend(name: str, mine: Sequence[Said], flows: Mapping[str, Served]) -> Iterator[str]:
    if name not in flows:
        yield f"frontend {name} is of no flow that ends here"
        return
    handled = {"bind", "tcp-request", "use_backend", "default_backend"}
    yield from _unknown(mine, {*_HARMLESS["frontend"], *handled})
    for each in mine:
        if each.words[0] == "bind":
            yield from _options(each, each.words[2:], _BIND, flows[name].alpn)
        elif each.words[0] in {"use_backend", "default_backend"}:
            target = each.words[1] if len(each.words) > 1 else ""
            if target != name and not target.startswith(f"{name}-self"):
                yield f"line {each.line}: {each.text!r} leads to another flow's servers"
    yield from _requests(name, [each for each in mine if each.words[0] == "tcp-request"], flows[name])


def _requests(name: str, mine: Sequence[Said], served: Served) -> Iterator[str]:
    """Follow the rules for a connection's beginning: none lets it pass before the client is known."""
    maps = "/etc/haproxy/" + name
    needed = [
        "set-var(sess.uri) ssl_c_der,hex,lua.certificate_uri",
        f"set-var(sess.client) src,map_ip({maps}.clients.map)",
        f"set-var(sess.server) dst,map_ip({maps}.servers.map)",
        f"set-var(sess.deny) str(identity) unless {_UNKNOWN_CLIENT}",
        "set-var(sess.deny) str(destination) unless { var(sess.server) -m found }",
        f"set-var(sess.deny) str(alpn) unless {{ ssl_fc_alpn -m str {served.alpn} }}",
        "reject if { var(sess.deny) -m found }",
    ]
    if served.prologue is not None:
        begins = served.prologue.encode()
        needed += [
            f"accept if {{ req.payload(0,{len(begins)}) -m bin {begins.hex()} }}",
            "set-var(sess.deny) str(prologue)",
            "reject",
        ]
    expected = iter(needed)
    following = next(expected, None)
    for each in mine:
        if each.words[1:2] == ("inspect-delay",):
            continue
        rule = " ".join(each.words[2:])
        if each.words[:2] == _CONTENT and rule == following:
            following = next(expected, None)
        elif not rule.startswith(("reject", "track-sc")) or each.words[1] not in {"content", "connection", "session"}:
            yield f"line {each.line}: '{each.text}' is not judged where it stands"
    if following is not None:
        yield f"frontend {name} lacks 'tcp-request content {following}', or it stands in another place"


def _backend(name: str, mine: Sequence[Said], flows: Mapping[str, Served]) -> Iterator[str]:
    flow = next((each for each in flows if name == each or name.startswith(f"{each}-self")), None)
    if flow is None:
        if any(each.words[0] == "server" for each in mine):
            yield f"backend {name} is of no flow that ends here"
        yield from _unknown(mine, set(_HARMLESS["backend"]))
        return
    yield from _unknown(mine, {*_HARMLESS["backend"], "server", "source", "tcp-response"})
    for each in mine:
        if each.words[0] == "server":
            yield from _options(each, each.words[3:], _SERVER, flows[flow].alpn)
        if each.words[0] == "source" and each.words[2:] != ("usesrc", "client"):
            yield f"line {each.line}: '{each.text}' is not judged"


def _options(said: Said, words: Sequence[str], needed: Mapping[str, str | None], alpn: str) -> Iterator[str]:
    """Hold the options of a `bind` or a `server` to those it must have, each once and no other."""
    wanted = {**needed, "alpn": alpn}
    found: list[str] = []
    rest = iter(words)
    for option in rest:
        if option not in wanted:
            yield f"line {said.line}: option '{option}' of '{said.words[0]}' is not judged"
            continue
        found.append(option)
        if wanted[option] is not None and (value := next(rest, "nothing")) != wanted[option]:
            yield f"line {said.line}: {said.words[0]} has '{option} {value}', not '{option} {wanted[option]}'"
    for option in wanted:
        if found.count(option) != 1:
            yield f"line {said.line}: {said.words[0]} says '{option}' {found.count(option)} times, not once"
