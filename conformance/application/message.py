"""Messages: notices, inquiries and their answers, about the four items, the resident code and changes; nothing else.

The held data is limited by law to name, date of birth, sex and address, the resident code and the history of changes
(住民基本台帳法 30-6).  A message with a field more is refused.
"""

from __future__ import annotations

import enum
import struct
from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MAGIC = b"JUKI"
VERSION, SEALED = 1, 2
"""Of a frame whose body is a message, and of one whose body is a sealed one."""
HEADER = struct.Struct("!4sBBHI")
"""Magic, version, reserved (0), reserved (0), length of the body in bytes."""
MAX_BODY = 16384


class MessageError(Exception):
    """What arrived is not a message of this protocol."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Sex(enum.StrEnum):
    """As in the register."""

    FEMALE = "female"
    MALE = "male"


ResidentCode = Annotated[str, Field(pattern=r"^[0-9]{11}$")]
"""住民票コード."""
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\p{Cc}\p{Cf}\p{Cn}]*$")]
"""Without control, format and unassigned characters; those for private use (外字) are in many names."""


class IdentityRecord(_Part):
    """本人確認情報: the four items."""

    name: Line
    birth_date: date
    sex: Sex
    address: Line


class IdentityRecordNotice(_Part):
    """本人確認情報の通知: a record was made, changed or deleted."""

    kind: Literal["identity-record-notice"] = "identity-record-notice"
    resident_code: ResidentCode
    record: IdentityRecord
    change: Literal["entry", "change", "deletion"]


class Inquiry(_Part):
    """本人確認情報の照会, for one authorised affair."""

    kind: Literal["inquiry"] = "inquiry"
    resident_code: ResidentCode
    affair: Line


class MoveInNotice(_Part):
    """転入通知: a resident has moved to another municipality."""

    kind: Literal["move-in-notice"] = "move-in-notice"
    resident_code: ResidentCode
    moved_on: date
    new_address: Line


class StatusInquiry(_Part):
    """A question to a firewall's management endpoint; nothing about residents."""

    kind: Literal["status-inquiry"] = "status-inquiry"


class Status(_Part):
    """A firewall's management endpoint is there."""

    kind: Literal["status"] = "status"
    state: Literal["in force"] = "in force"


class Acknowledgement(_Part):
    """A notice has been taken."""

    kind: Literal["acknowledgement"] = "acknowledgement"
    resident_code: ResidentCode


class Answer(_Part):
    """What an inquiry has found."""

    kind: Literal["answer"] = "answer"
    resident_code: ResidentCode
    record: IdentityRecord | None


Request = IdentityRecordNotice | Inquiry | MoveInNotice | StatusInquiry
Message = Request | Acknowledgement | Answer | Status

_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])

SOMEONE = IdentityRecord(
    name="住基 花子", birth_date=date(1980, 4, 1), sex=Sex.FEMALE, address="架空県架空市架空一丁目1番1号"
)
"""Nobody: an invented resident."""
CODE = "12345678901"


def encode(message: Message) -> bytes:
    """Return a frame."""
    return frame(written(message))


def written(message: Message) -> bytes:
    """Return the one form in which a message is written."""
    return message.model_dump_json().encode()


def frame(body: bytes, version: int = VERSION) -> bytes:
    """Return the frame of a body."""
    return HEADER.pack(MAGIC, version, 0, 0, len(body)) + body


def body_length(header: bytes, wanted: int = VERSION) -> int:
    """Return the length that a header announces.

    Raises:
        MessageError: It is not a header of this protocol and version, or announces more than :data:`MAX_BODY`.

    """
    magic, version, *reserved, length = HEADER.unpack(header)
    if magic != MAGIC or version not in {VERSION, SEALED} or any(reserved):
        raise MessageError("this is not a frame of the application")
    if version != wanted:
        raise MessageError("this message is sealed" if version == SEALED else "this message is not sealed")
    if not 0 < length <= MAX_BODY:
        raise MessageError(f"a body of {length} bytes is not between 1 and {MAX_BODY}")
    return int(length)


def decode(body: bytes) -> Message:
    """Return the message in a frame's body.

    Raises:
        MessageError: It is none: unknown kinds, unknown and missing fields, values out of bounds, and anything that
            :func:`encode` would have written otherwise (a field given twice, blanks) are refused, so that nobody on
            the way can read it in another sense.

    """
    try:
        message = _ADAPTER.validate_json(body)
    except ValidationError as error:
        raise MessageError(f"this is not a message: {error.error_count()} errors") from error
    if written(message) != body:
        raise MessageError("this is not a message: it is not written in the one form there is")
    return message


class RequestKind(enum.StrEnum):
    """What a client can send."""

    IDENTITY_RECORD_NOTICE = "identity-record-notice"
    INQUIRY = "inquiry"
    MOVE_IN_NOTICE = "move-in-notice"
    STATUS_INQUIRY = "status-inquiry"


def kind_for(service: str) -> RequestKind:
    """Return what a client of a service sends in the lab, by what the service is called."""
    if "management" in service:
        return RequestKind.STATUS_INQUIRY
    if "move" in service:
        return RequestKind.MOVE_IN_NOTICE
    if any(word in service for word in ("inquiry", "batch", "matching")):
        return RequestKind.INQUIRY
    return RequestKind.IDENTITY_RECORD_NOTICE


def request_of(kind: RequestKind, affair: str) -> Request:
    """Return a request about an invented resident."""
    match kind:
        case RequestKind.STATUS_INQUIRY:
            return StatusInquiry()
        case RequestKind.MOVE_IN_NOTICE:
            address = "架空県移転市移転二丁目2番2号"
            return MoveInNotice(resident_code=CODE, moved_on=date(2026, 10, 1), new_address=address)
        case RequestKind.INQUIRY:
            return Inquiry(resident_code=CODE, affair=affair)
        case RequestKind.IDENTITY_RECORD_NOTICE:
            return IdentityRecordNotice(resident_code=CODE, record=SOMEONE, change="change")


def request_for(service: str, affair: str) -> Request:
    """Return what a client of a service sends in the lab unless it is told otherwise."""
    return request_of(kind_for(service), affair)


def check_request(request: Message, service: str, affair: str) -> None:
    """Hold a request to what its flow is for.

    Raises:
        MessageError: Its kind belongs to another service, or it inquires for another affair (利用可能事務).

    """
    if request.kind != kind_for(service):
        raise MessageError(f"'{request.kind}' is not for service '{service}'")
    if isinstance(request, Inquiry) and request.affair != affair:
        raise MessageError(f"an inquiry for '{request.affair}', and its flow permits '{affair}'")


def answer_to(request: Message) -> Message:
    """Return a server's answer.

    Raises:
        MessageError: It is not a request.

    """
    match request:
        case Inquiry():
            return Answer(resident_code=request.resident_code, record=SOMEONE)
        case IdentityRecordNotice() | MoveInNotice():
            return Acknowledgement(resident_code=request.resident_code)
        case StatusInquiry():
            return Status()
        case _:
            raise MessageError(f"a server is asked, not told '{request.kind}'")
