"""The phone's side of HTTP: a client of the server's /v1 API, and one phone's cycle of check-in, training, report."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import numpy as np
import urllib3

from kbdfl import identity
from kbdfl.assignment import Assignment
from kbdfl.device_sim.control import ControlStore
from kbdfl.device_sim.feedback import ErrorMemory
from kbdfl.device_sim.joined import Joined
from kbdfl.device_sim.runtime import Budget, Declined, check_model, prepare, train
from kbdfl.device_sim.secure import Caution, SecurePart
from kbdfl.device_sim.store import TypingLog
from kbdfl.device_sim.taken import Taken
from kbdfl.device_sim.tasks import FIRST, Work, Works, check_base
from kbdfl.downlink import read_part, read_whole
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

    def as_administrator(self, token: str, method: str, path: str, value: Any = None) -> Any:
        """What /v1/admin answers to who shows an administrator's token; `value` goes as the JSON body."""
        body = b"" if value is None else json.dumps(value).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return _json(self._ask(method, path, body, headers).data, path)

    def _ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str], *, stream: bool = False
    ) -> urllib3.BaseHTTPResponse:
        """The answer, if it is not an error; with `stream` its body is still to be read."""
        try:
            response = self._pool.request(
                method, self.url + path, body=body or None, headers=headers, preload_content=not stream
            )
        except urllib3.exceptions.HTTPError as error:
            cause = getattr(error, "reason", None) or error
            if isinstance(cause, urllib3.exceptions.SSLError):
                raise ServerUnavailable(
                    f"no TLS with {self.url}: {str(cause)[:120]}; a certificate's authority is named by SSL_CERT_FILE"
                ) from None
            reason = type(cause).__name__
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
    """What became of one check-in: reported, wait, finished, dropped, late or declined, and the bytes moved.

    Or it goes on: summing, where a phone waits for others.
    """

    outcome: str
    retry_after_s: float = 0.0
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    detail: str = ""
    session_s: float = 0.0  # of the processor, in the steps of a session


class Phone:
    """One enrolled phone with its key and its log; as it checks in, it states the `tier` of its hardware, if any.

    A phone that vanished from a round, or could not take its part, stays out of that round until its deadline is
    over: asked again before, the server would hand it the same assignment.

    One that belongs to a `population` says so, and works for whichever of its tasks the server names; `vocabulary_of`
    then gives the words of a task by where its addresses begin.
    """

    def __init__(
        self,
        client: ServerClient,
        log: TypingLog,
        vocabulary: Vocabulary | None,
        *,
        budget: Budget | None = None,
        controls: ControlStore | None = None,
        errors: ErrorMemory | None = None,
        taken: Taken | None = None,
        tier: str = "",
        population: str | None = None,
        vocabulary_of: Callable[[str], Vocabulary] | None = None,
        token: str | None = None,
        caution: Caution | None = None,
        joined: Joined | None = None,
        on_part: Callable[[SecurePart], None] = lambda _: None,
    ):
        self._client, self._log = client, log
        self._budget, self._taken = budget or Budget(), taken or Taken()
        known = []
        if vocabulary is not None:
            known = [Work(FIRST, vocabulary, controls or ControlStore(), errors or ErrorMemory())]
        self._works = Works(vocabulary_of or (lambda base: wait_for_vocabulary(client, base=base)), *known)
        self._by_population = population is not None
        offer = {"tier": tier} if tier else {}
        self._offer = json.dumps(offer | ({"population": population} if population else {})).encode()
        self._key = identity.generate_key()
        self._caution, self._joined = caution or Caution(), joined if joined is not None else Joined()
        self._part: SecurePart | None = None  # in a session that goes on
        self._on_part = on_part  # is told of each, by those who measure
        self._out_of: tuple[str, int] | None = None  # task and round
        self._out_until_s = 0.0
        self.device = client.enrol(identity.public_key(self._key), token=token)

    def cycle(
        self,
        *,
        workspace: Workspace,
        drops: Callable[[Assignment], bool] = lambda _: False,
        silent: Callable[[], str | None] = lambda: None,
    ) -> Cycle:
        """Check in and, if selected, fetch the model, train and report. `drops` says when the phone vanishes.

        Where updates are summed unseen the phone takes the steps that it can take now, then and in the cycles that
        follow; `silent` says before which it vanishes.
        """
        if self._part is not None:
            return self._sum_up(self._part)
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
        base = check_base(answer.pop("base", None)) if self._by_population else FIRST
        assignment, work = Assignment.from_json(answer), self._works.at(base)
        asked_s, this_round = time.monotonic(), (assignment.task, assignment.round)
        if self._out_of == this_round and offered_s < self._out_until_s:
            return Cycle("wait", retry_after_s=_BACK_S)
        self._out_until_s = asked_s + assignment.deadline_s
        try:
            self._caution.check(assignment)
        except Declined as reason:
            self._out_of = this_round
            return Cycle("declined", detail=str(reason))
        try:
            params, downlink = self._fetch_model(assignment, work)
            shared_control = None
            if work.controls.corrects(assignment):
                shared_control, more = self._fetch(assignment, f"{base}/models/{assignment.version}/control")
                downlink += more
        except Conflict as late:  # the round closed and its model is no longer served
            return Cycle("late", detail=str(late))
        if drops(assignment):
            self._out_of = this_round
            return Cycle("dropped", downlink_bytes=downlink)
        try:
            _check(assignment, params, work)
            self._taken.check(assignment)
            budget = self._budget
            if assignment.client.partial_work:
                budget = budget.within(assignment.deadline_s, fetching_s=time.monotonic() - asked_s)
            run = prepare(assignment, self._log.sentences(work.vocabulary), budget=budget)
            frame = train(
                assignment,
                params,
                run,
                device=self.device,
                budget=budget,
                workspace=workspace,
                shared_control=shared_control,
                controls=work.controls,
                errors=work.errors,
            )
        except (Declined, DataError) as reason:
            self._out_of = this_round
            return Cycle("declined", downlink_bytes=downlink, detail=str(reason))
        self._taken.note(assignment)
        if assignment.secure:
            self._part = SecurePart(
                assignment,
                frame,
                self._client,
                key=self._key,
                base=base,
                caution=self._caution,
                joined=self._joined,
                silent=silent(),
            )
            self._on_part(self._part)
            began = self._sum_up(self._part)
            return replace(began, downlink_bytes=began.downlink_bytes + downlink)
        path, octets = f"{base}/rounds/{assignment.round}/report", "application/octet-stream"
        try:
            self._client.signed(self._key, "POST", path, body=frame, content_type=octets)
        except Conflict as late:
            return Cycle("late", uplink_bytes=len(frame), downlink_bytes=downlink, detail=str(late))
        work.controls.settle()
        work.errors.settle()
        return Cycle("reported", uplink_bytes=len(frame), downlink_bytes=downlink)

    def _sum_up(self, part: SecurePart) -> Cycle:
        """Go on with a session; a phone that is out of it stays out of its round."""
        up, down, spent_s = part.up_bytes, part.down_bytes, part.cpu_s
        outcome, wait_s, detail = part.go_on()
        if outcome != "summing":
            self._part, self._out_of = None, (part.assignment.task, part.assignment.round)
        moved = part.up_bytes - up, part.down_bytes - down
        return Cycle(outcome, wait_s, *moved, detail, part.cpu_s - spent_s)

    def _fetch_model(self, assignment: Assignment, work: Work) -> tuple[np.ndarray, int]:
        """What the assignment names of the model, and the bytes it took: fewer from an earlier version on."""
        partial, most = assignment.client.partial_model, _most_bytes(assignment)
        path = work.base + (
            f"/rounds/{assignment.round}/model" if partial else f"/models/{assignment.version}"
        )
        if assignment.download == "float32":
            return self._fetch(assignment, path)
        if partial:
            body = self._client.download(self._key, path)
            params, version = read_part(body, assignment.coordinates, max_bytes=most)
            _check_version(assignment, version)
            return params, len(body)
        task, held = work.held or (assignment.task, None)
        if task != assignment.task or (held and len(held.grid.levels) != assignment.config.spec.size):
            held = None
        if held is not None and held.version == assignment.version:
            return held.grid.values, 0
        if held is not None:
            path += f"/from/{held.version}"
        body = self._client.download(self._key, path)
        work.held = None  # until what came has proved to be a version
        now = read_whole(body, size=assignment.config.spec.size, held=held, max_bytes=most)
        _check_version(assignment, now.version)
        work.held = assignment.task, now
        return now.grid.values, len(body)

    def _fetch(self, assignment: Assignment, path: str) -> tuple[np.ndarray, int]:
        """A float32 vector that goes with the assignment, and the bytes it took."""
        body = self._client.download(self._key, path)
        params, version, _ = decode_model(body, max_bytes=_most_bytes(assignment))
        _check_version(assignment, version)
        return params, len(body)


def _check(assignment: Assignment, params: np.ndarray, work: Work) -> None:
    """Raise ModelError unless it is the model of the assignment; what the phone holds is then forgotten."""
    try:
        check_model(assignment, params, work.vocabulary)
    except ModelError:
        work.held = None
        raise


def _most_bytes(assignment: Assignment) -> int:
    """A longer frame is none of this model."""
    return 4 * assignment.config.spec.size + 65_536


def _check_version(assignment: Assignment, version: int) -> None:
    if version != assignment.version:
        raise WireError(f"version {assignment.version} was assigned, the server sent {version}")


def wait_for_vocabulary(client: ServerClient, *, base: str = FIRST, timeout_s: float = 60.0) -> Vocabulary:
    """A task's vocabulary, from the bundle that a server exports as it starts."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return Vocabulary.from_bytes(client.get(f"{base}/models/latest/tokenizer.json"))
        except WireError as error:
            if time.monotonic() > deadline:
                raise ServerUnavailable(f"{client.url} has no vocabulary to give: {error}") from None
            time.sleep(0.2)
