"""Messages of the lab's application."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.application.message import (
    CODE,
    HEADER,
    MAX_BODY,
    SOMEONE,
    Acknowledgement,
    Answer,
    IdentityRecord,
    IdentityRecordNotice,
    Inquiry,
    Message,
    MessageError,
    MoveInNotice,
    Sex,
    StatusInquiry,
    answer_to,
    body_length,
    check_request,
    decode,
    encode,
    request_for,
)

_LINES = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cn", "Cs"]), min_size=1, max_size=200)
_CODES = st.from_regex(r"[0-9]{11}", fullmatch=True)
_DATES = st.dates(date(1900, 1, 1), date(2100, 1, 1))
_RECORDS = st.builds(IdentityRecord, name=_LINES, birth_date=_DATES, sex=st.sampled_from(Sex), address=_LINES)
_MESSAGES = st.one_of(
    st.builds(
        IdentityRecordNotice,
        resident_code=_CODES,
        record=_RECORDS,
        change=st.sampled_from(["entry", "change", "deletion"]),
    ),
    st.builds(Inquiry, resident_code=_CODES, affair=_LINES),
    st.builds(MoveInNotice, resident_code=_CODES, moved_on=_DATES, new_address=_LINES),
    st.builds(Acknowledgement, resident_code=_CODES),
    st.builds(Answer, resident_code=_CODES, record=st.none() | _RECORDS),
)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(_MESSAGES)
def test_what_is_encoded_decodes(message: Message) -> None:
    """Every message survives its frame."""
    frame = encode(message)
    assert body_length(frame[: HEADER.size]) == len(frame) - HEADER.size
    assert decode(frame[HEADER.size :]) == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"GET / HTTP/1.1",
        b'{"kind":"gossip","resident_code":"12345678901"}',
        b'{"kind":"inquiry","resident_code":"12345678901","affair":"a","income":1}',
        b'{"kind":"inquiry","resident_code":"1234567890","affair":"a"}',
        b'{"kind":"inquiry","resident_code":"12345678901"}',
        b'{"kind":"inquiry","resident_code":"12345678901","affair":"' + b"a" * 300 + b'"}',
        b'{"kind":"inquiry","resident_code":12345678901,"affair":"a"}',
        b'{"kind":"move-in-notice","resident_code":"12345678901","moved_on":0,"new_address":"a"}',
        # A terminal's control sequence, and a right-to-left override that shows another address.
        b'{"kind":"inquiry","resident_code":"12345678901","affair":"\\u001b[2J"}',
        '{"kind":"inquiry","resident_code":"12345678901","affair":"a\u202eb"}'.encode(),
    ],
)
def test_anything_else_is_refused(body: bytes) -> None:
    """Unknown kinds and fields, missing fields and values out of bounds are no messages."""
    with pytest.raises(MessageError, match=r"this is not a message: \d+ errors"):
        decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"kind":"inquiry","resident_code":"12345678901","affair":"a","affair":"b"}',
        b'{"kind":"inquiry", "resident_code":"12345678901","affair":"a"}',
        b'{"resident_code":"12345678901","kind":"inquiry","affair":"a"}',
        b'{"kind":"inquiry","resident_code":"12345678901","affair":"\\u0061"}',
        b'{"kind":"status-inquiry"}\n',
    ],
)
def test_a_message_has_one_form(body: bytes) -> None:
    """What two readers could read differently, a field given twice first of all, is refused."""
    with pytest.raises(MessageError, match="not written in the one form"):
        decode(body)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(_MESSAGES, st.data())
def test_no_single_byte_can_be_added_or_left_out(message: Message, data: st.DataObject) -> None:
    """A frame with one byte more or less is another message or none."""
    body = encode(message)[HEADER.size :]
    place = data.draw(st.integers(0, len(body) - 1))
    for changed in (body[:place] + body[place + 1 :], body[:place] + b" " + body[place:]):
        try:
            assert decode(changed) != message
        except MessageError:
            continue


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (HEADER.pack(b"HTTP", 1, 0, 0, 10), "not a frame"),
        (HEADER.pack(b"JUKI", 3, 0, 0, 10), "not a frame"),
        (HEADER.pack(b"JUKI", 2, 0, 0, 10), "is sealed"),
        (HEADER.pack(b"JUKI", 1, 1, 0, 10), "not a frame"),
        (HEADER.pack(b"JUKI", 1, 0, 0, 0), "a body of 0 bytes"),
        (HEADER.pack(b"JUKI", 1, 0, 0, MAX_BODY + 1), "a body of 16385 bytes"),
    ],
)
def test_headers_are_checked_before_anything_is_read(header: bytes, complaint: str) -> None:
    """Another protocol, another version, and sizes out of bounds end the connection."""
    with pytest.raises(MessageError, match=complaint):
        body_length(header)


def test_requests_fit_their_services() -> None:
    """Move-in services carry move-in notices, inquiries inquiries, management nothing about residents."""
    assert request_for("move-in", "affair").kind == "move-in-notice"
    assert request_for("pension-batch", "affair").kind == "inquiry"
    assert request_for("identity-record", "affair").kind == "identity-record-notice"
    assert request_for("management", "affair").model_dump() == {"kind": "status-inquiry"}


def test_a_server_answers_requests_only() -> None:
    """An inquiry is answered with the record; an answer is no request."""
    answer = answer_to(Inquiry(resident_code=CODE, affair="affair"))
    assert answer == Answer(resident_code=CODE, record=SOMEONE)
    with pytest.raises(MessageError, match="a server is asked"):
        answer_to(answer)


def test_requests_are_held_to_their_flow() -> None:
    """A notice is not for an inquiry service, nor an inquiry for another affair than the flow's."""
    inquiry = Inquiry(resident_code=CODE, affair="pensions")
    check_request(inquiry, "inquiry", "pensions")
    check_request(StatusInquiry(), "management", "any")
    with pytest.raises(MessageError, match="'inquiry' is not for service 'move-in'"):
        check_request(inquiry, "move-in", "pensions")
    with pytest.raises(MessageError, match="an inquiry for 'pensions', and its flow permits 'taxes'"):
        check_request(inquiry, "inquiry", "taxes")
    with pytest.raises(MessageError, match="'answer' is not for service 'inquiry'"):
        check_request(answer_to(inquiry), "inquiry", "pensions")
