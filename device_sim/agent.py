"""The phone's side of HTTP: a client of the server's /v1 API, and one phone's cycle of check-in, training, report."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
import urllib3

from kbdfl import identity
from kbdfl.assignment import Assignment
from kbdfl.device_sim.control import ControlStore
from kbdfl.device_sim.feedback import ErrorMemory
from kbdfl.device_sim.runtime import Budget, Declined, check_model, prepare, train
from kbdfl.device_sim.store import TypingLog
from kbdfl.downlink import Held, read_part, read_whole
from kbdfl.errors import Conflict, DataError, ModelError, ServerUnavailable, WireError
from kbdfl.kernels.train import Workspace
from kbdfl.text import Vocabulary
from kbdfl.wire import decode_model

# Every request may be sent again: a repeated check-in gets the same assignment, a repeated report counts once.
_RETRY = urllib3.Retry(
    total=5, backoff_factor=0.1, status_forcelist=(502, 503, 504), allowed_methods=None, raise_on_status=False
)
_MAX_JSON_BYTES = 1 << 26  # the rounds of a long run are some megabytes
_BROKEN = 5  # times that a download may break off
_CHUNK = 1 << 16
_MOST_MODEL_BYTES = 1 << 30
_BACK_S = 1.0  # until a phone that is out of a round asks for the next one
_LONGEST_WAIT_S = 3_600.0


class ServerClient:
    """A connection pool to one server. Thread-safe. Errors become one line: ServerUnavailable, Conflict, WireError."""

    def __init__(self, url: str, *, connections: int = 8, timeout_s: float = 60.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ServerUnavailable(
                f"a server's address must begin with http:// or https://, got {url!r}"[:200]
            )
        self.url = url.rstrip("/")
        self._pool = urllib3.PoolManager(
            maxsize=connections, retries=_RETRY, timeout=urllib3.Timeout(timeout_s), block=True
        )

    def get(self, path: str) -> bytes:
        """The body of a public GET."""
        return self._ask("GET", path, b"", {}).data

    def get_json(self, path: str) -> Any:
        return _json(self.get(path), path)

    def enrol(self, public_key: bytes, *, token: str | None = None) -> str:
        """The device id that the server knows this key by; `token` lets it in where enrolment is not open."""
        asked = {"public_key": base64.b64encode(public_key).decode()} | ({"token": token} if token else {})
        body = json.dumps(asked).encode()
        answer = _json(
            self._ask("POST", "/v1/enrol", body, {"Content-Type": "application/json"}).data, "/v1/enrol"
        )
        expected = identity.device_id(public_key)
        if not isinstance(answer, dict) or answer.get("device") != expected:
            raise WireError("the server enrolled another device than the one that asked")
        return expected

    def download(self, key: bytes, path: str) -> bytes:
        """The body of a signed GET; one that breaks off goes on where it was, as long as it is the same body."""
        body, etag = bytearray(), ""
        for _ in range(_BROKEN):
            headers = identity.sign_request(key, method="GET", path=path, body=b"", timestamp=time.time())
            if body:
                headers |= {"Range": f"bytes={len(body)}-", "If-Range": etag}
            response = self._ask("GET", path, b"", headers, stream=True)
            if response.status == HTTPStatus.PARTIAL_CONTENT:
                goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {len(body)}-")
                if not body or not goes_on or response.headers.get("ETag") != etag:
                    response.release_conn()
                    raise WireError(f"{path} was answered by another range or body than asked for")
            else:
                body.clear()  # all of it comes, perhaps because it is another by now
            etag = response.headers.get("ETag", "")
            try:
                while chunk := response.read1(_CHUNK):  # what has come, however little, before it breaks off
                    body += chunk
                    if len(body) > _MOST_MODEL_BYTES:
                        raise WireError(f"a model must be at most {_MOST_MODEL_BYTES} bytes")
                return bytes(body)
            except urllib3.exceptions.HTTPError:
                if not etag:
                    body.clear()
            finally:
                response.release_conn()
        raise ServerUnavailable(f"{path} broke off {_BROKEN} times in a row")

    def signed(
        self, key: bytes, method: str, path: str, *, body: bytes = b"", content_type: str = ""
    ) -> bytes:
        """The body of the answer to a request signed with a phone's private key."""
        headers = identity.sign_request(key, method=method, path=path, body=body, timestamp=time.time())
        if content_type:
            headers["Content-Type"] = content_type
        return self._ask(method, path, body, headers).data

    def _ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str], *, stream: bool = False
    ) -> urllib3.BaseHTTPResponse:
        """The answer, if it is not an error; with `stream` its body is still to be read."""
        try:
            response = self._pool.request(
                method, self.url + path, body=body or None, headers=headers, preload_content=not stream
            )
        except urllib3.exceptions.HTTPError as error:
            reason = type(getattr(error, "reason", None) or error).__name__
            raise ServerUnavailable(
                f"no answer from {self.url} ({reason}); is `kbdfl serve` running there?"
            ) from None
        if response.status < 400:
            return response
        detail = _detail(response)
        if response.status in (409, 410):
            raise Conflict(detail)
        if response.status in (429, 503):
            raise ServerUnavailable(detail)
        raise WireError(f"{method} {path} was refused ({response.status}): {detail}")


def _json(data: bytes, path: str) -> Any:
    if len(data) > _MAX_JSON_BYTES:
        raise ServerUnavailable(
            f"the answer to {path} must be at most {_MAX_JSON_BYTES} bytes, got {len(data)}"
        )
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise ServerUnavailable(f"the answer to {path} is not JSON; is this a kbdfl server?") from None


def _detail(response: urllib3.BaseHTTPResponse) -> str:
    try:
        problem = json.loads(response.data[:4_096])
        return str(problem["detail"])[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        return response.reason or "no reason given"


def _seconds(value: Any) -> float:
    """How long a server asks a phone to wait."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LONGEST_WAIT_S:
        raise WireError(f"retry_after_s must lie in [0, {_LONGEST_WAIT_S:.0f}], got {value!r}"[:200])
    return float(value)


@dataclass(frozen=True, slots=True)
class Cycle:
    """What became of one check-in: reported, wait, finished, dropped, late or declined, and the bytes moved."""

    outcome: str
    retry_after_s: float = 0.0
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    detail: str = ""


class Phone:
    """One enrolled phone with its key and its log; as it checks in, it states the `tier` of its hardware, if any.

    A phone that vanished from a round, or could not take its part, stays out of that round until its deadline is
    over: asked again before, the server would hand it the same assignment.
    """

    def __init__(
        self,
        client: ServerClient,
        log: TypingLog,
        vocabulary: Vocabulary,
        *,
        budget: Budget | None = None,
        controls: ControlStore | None = None,
        errors: ErrorMemory | None = None,
        tier: str = "",
        token: str | None = None,
    ):
        self._client, self._log, self._vocabulary = client, log, vocabulary
        self._budget = budget or Budget()
        self._controls = controls or ControlStore()
        self._errors = errors or ErrorMemory()
        self._held: tuple[str, Held] | None = None  # of which task
        self._offer = json.dumps({"tier": tier} if tier else {}).encode()
        self._key = identity.generate_key()
        self._out_of: tuple[str, int] | None = None  # task and round
        self._out_until_s = 0.0
        self.device = client.enrol(identity.public_key(self._key), token=token)

    def cycle(self, *, workspace: Workspace, drops: Callable[[Assignment], bool] = lambda _: False) -> Cycle:
        """Check in and, if selected, fetch the model, train and report. `drops` says when the phone vanishes."""
        path, offered_s = "/v1/check-in", time.monotonic()
        answer = _json(
            self._client.signed(self._key, "POST", path, body=self._offer, content_type="application/json"),
            path,
        )
        status = answer.pop("status", None) if isinstance(answer, dict) else None
        if status == "finished":
            return Cycle("finished")
        if status == "wait":
            return Cycle("wait", retry_after_s=_seconds(answer.get("retry_after_s")))
        if status != "assigned":
            raise WireError(
                f"a check-in must be answered by assigned, wait or finished, got {status!r}"[:200]
            )
        assignment = Assignment.from_json(answer)
        asked_s, this_round = time.monotonic(), (assignment.task, assignment.round)
        if self._out_of == this_round and offered_s < self._out_until_s:
            return Cycle("wait", retry_after_s=_BACK_S)
        try:
            params, downlink = self._fetch_model(assignment)
            shared_control = None
            if self._controls.corrects(assignment):
                shared_control, more = self._fetch(assignment, f"/v1/models/{assignment.version}/control")
                downlink += more
        except Conflict as late:  # the round closed and its model is no longer served
            return Cycle("late", detail=str(late))
        self._out_until_s = asked_s + assignment.deadline_s
        if drops(assignment):
            self._out_of = this_round
            return Cycle("dropped", downlink_bytes=downlink)
        try:
            self._check(assignment, params)
            budget = self._budget
            if assignment.client.partial_work:
                budget = budget.within(assignment.deadline_s, fetching_s=time.monotonic() - asked_s)
            run = prepare(assignment, self._log.sentences(self._vocabulary), budget=budget)
            frame = train(
                assignment,
                params,
                run,
                device=self.device,
                budget=budget,
                workspace=workspace,
                shared_control=shared_control,
                controls=self._controls,
                errors=self._errors,
            )
        except (Declined, DataError) as reason:
            self._out_of = this_round
            return Cycle("declined", downlink_bytes=downlink, detail=str(reason))
        try:
            self._client.signed(
                self._key,
                "POST",
                f"/v1/rounds/{assignment.round}/report",
                body=frame,
                content_type="application/octet-stream",
            )
        except Conflict as late:
            return Cycle("late", uplink_bytes=len(frame), downlink_bytes=downlink, detail=str(late))
        self._controls.settle()
        self._errors.settle()
        return Cycle("reported", uplink_bytes=len(frame), downlink_bytes=downlink)

    def _fetch_model(self, assignment: Assignment) -> tuple[np.ndarray, int]:
        """What the assignment names of the model, and the bytes it took: fewer from an earlier version on."""
        partial, most = assignment.client.partial_model, _most_bytes(assignment)
        path = f"/v1/rounds/{assignment.round}/model" if partial else f"/v1/models/{assignment.version}"
        if assignment.download == "float32":
            return self._fetch(assignment, path)
        if partial:
            body = self._client.download(self._key, path)
            params, version = read_part(body, assignment.coordinates, max_bytes=most)
            _check_version(assignment, version)
            return params, len(body)
        task, held = self._held or (assignment.task, None)
        if task != assignment.task or (held and len(held.grid.levels) != assignment.config.spec.size):
            held = None
        if held is not None and held.version == assignment.version:
            return held.grid.values, 0
        if held is not None:
            path += f"/from/{held.version}"
        body = self._client.download(self._key, path)
        self._held = None  # until what came has proved to be a version
        now = read_whole(body, size=assignment.config.spec.size, held=held, max_bytes=most)
        _check_version(assignment, now.version)
        self._held = assignment.task, now
        return now.grid.values, len(body)

    def _check(self, assignment: Assignment, params: np.ndarray) -> None:
        """Raise ModelError unless it is the model of the assignment; what the phone holds is then forgotten."""
        try:
            check_model(assignment, params, self._vocabulary)
        except ModelError:
            self._held = None
            raise

    def _fetch(self, assignment: Assignment, path: str) -> tuple[np.ndarray, int]:
        """A float32 vector that goes with the assignment, and the bytes it took."""
        body = self._client.download(self._key, path)
        params, version, _ = decode_model(body, max_bytes=_most_bytes(assignment))
        _check_version(assignment, version)
        return params, len(body)


def _most_bytes(assignment: Assignment) -> int:
    """A longer frame is none of this model."""
    return 4 * assignment.config.spec.size + 65_536


def _check_version(assignment: Assignment, version: int) -> None:
    if version != assignment.version:
        raise WireError(f"version {assignment.version} was assigned, the server sent {version}")


def wait_for_vocabulary(client: ServerClient, *, timeout_s: float = 60.0) -> Vocabulary:
    """The task's vocabulary, from the bundle that a server exports as it starts."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return Vocabulary.from_bytes(client.get("/v1/models/latest/tokenizer.json"))
        except WireError as error:
            if time.monotonic() > deadline:
                raise ServerUnavailable(f"{client.url} has no vocabulary to give: {error}") from None
            time.sleep(0.2)
