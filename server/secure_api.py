"""Secure aggregation under /v1/rounds/N/secure: five messages to a phone, five from it, as docs/secure-aggregation.md
has them.

All are signed as the device API's requests are, and the key that signs is the phone's identity in the session. A
message that is not there yet is answered by 202, with when to ask again. One that a round no longer takes is Gone.
"""

from http import HTTPStatus

from flask import Response, request
from werkzeug.exceptions import UnsupportedMediaType

from kbdfl.errors import KbdflError
from kbdfl.server.addresses import TaskBlueprint, service, tasks
from kbdfl.server.device_api import signed
from kbdfl.server.outcomes import note
from kbdfl.server.secure import ASK_AGAIN_S, ASKED, STEPS

OCTETS = "application/octet-stream"

secure_api = TaskBlueprint("secure_api", __name__, url_prefix="/v1")


@secure_api.get(f"/rounds/<int:number>/secure/<any({', '.join(ASKED)}):what>")
def ask(number: int, what: str) -> Response:
    """What a phone needs before its next message."""
    device, identity = _caller(request.get_data(cache=False))
    message = service().secure.ask(device, identity, number, what)
    if message is None:
        note("not_yet")
        return Response(status=HTTPStatus.ACCEPTED, headers={"Retry-After": str(ASK_AGAIN_S)})
    service().downloaded(len(message))
    return Response(message, content_type=OCTETS)


@secure_api.post(f"/rounds/<int:number>/secure/<any({', '.join(STEPS)}):step>")
def take(number: int, step: str) -> Response:
    """A phone's message. The same twice is taken once."""
    if request.mimetype != OCTETS:
        raise UnsupportedMediaType(f"{OCTETS} is needed, got {request.mimetype[:60] or 'no content type'}")
    body = request.get_data(cache=False)
    try:
        device, identity = _caller(body)
        service().secure.take(device, identity, number, step, body)
    except KbdflError as error:
        service().administration.refused(error)
        raise
    note("taken")
    return Response(status=HTTPStatus.NO_CONTENT)


def _caller(body: bytes) -> tuple[str, bytes]:
    """The device that signed this request, and its public key."""
    device = signed(body).device
    return device, tasks().administration.registry.public_key(device) or b""
