"""The protocol: which answer a request gets. No sockets here.

Paths and bodies follow the provider's documentation. What it leaves open is decided here and only
here: a pool that cannot pay answers 402 `insufficient_credits`, and a submit may carry two fields
of the sandbox's own, `credits` (what this task costs) and `simulate` (how it ends).
"""

from __future__ import annotations

import itertools
import json
import secrets
import threading
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from creditguard.sandbox.account import Account, CannotPay, Status
from creditguard.sandbox.control import LEVERS, apply
from creditguard.sandbox.faults import NO_FAULT, FaultScript, FaultSpec
from creditguard.sandbox.fields import BadField, mapping, text, whole
from creditguard.sandbox.paths import BALANCES, CONTROL, GENERATE, STATE, TASK, TASKS

_ERRORS = {
    400: ("invalid_request", "The request is not valid"),
    401: ("unauthorized", "API key is missing or invalid"),
    402: ("insufficient_credits", "Not enough credits"),
    403: ("forbidden", "API access is not approved for this account"),
    404: ("not_found", "The requested resource does not exist"),
    429: ("rate_limited", "Too many requests"),
}
_OTHER_ERROR = ("internal_error", "Something went wrong")

# Made once: json.dumps with options builds an encoder per call. NaN passes: a fault may want it.
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Request(NamedTuple):
    """What the server read. `local` says that it came from this machine."""

    method: str
    path: str
    authorization: str
    body: bytes
    local: bool


class Reply(NamedTuple):
    """What the server is to send."""

    status: int
    content: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


class Api:
    """Answers requests from an account and a script of faults."""

    def __init__(self, account: Account, faults: FaultScript, key: str) -> None:
        self.account = account
        self.faults = faults
        self._bearer = key.encode()
        self._requests: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._id_prefix = secrets.token_hex(9).upper()
        self._ids = itertools.count(1)  # next() on it is atomic

    @property
    def requests(self) -> Counter[str]:
        """How often each path was asked for; control is not counted."""
        with self._lock:
            return self._requests.copy()

    def begin(self, request: Request) -> FaultSpec:
        """Count the request and say what is to go wrong with it. Control always works."""
        path = request.path
        if path.startswith("/_sandbox/"):
            return NO_FAULT
        if path != GENERATE and path.startswith(TASKS):
            path = TASK  # one count for all tasks
        with self._lock:
            self._requests[path] += 1
        return self.faults.take(path)

    def answer(self, request: Request, fault: FaultSpec) -> Reply:
        return self._spoil(request, fault) if fault else self._route(request)

    # The endpoints

    def _route(self, request: Request) -> Reply:
        scheme, _, token = request.authorization.partition(" ")
        offered = token.strip().encode("latin-1", "replace")
        known = secrets.compare_digest(offered, self._bearer)
        if not known or scheme.lower() != "bearer":
            return self._error(401)
        try:
            return self._dispatch(request)
        except BadField as error:
            return self._error(400, message=str(error), field=error.field)
        except CannotPay as error:
            return self._error(402, message=str(error))

    def _dispatch(self, request: Request) -> Reply:
        method, path = request.method, request.path
        if method == "GET" and path == BALANCES:
            shown = self.account.read_balance()
            return self._success({"credits": shown, "api_credits": shown})
        if method == "POST" and path == GENERATE:
            return self._generate(request.body)
        if method == "GET" and path.startswith(TASKS):
            task = self.account.task(path[len(TASKS) :])
            return self._error(404) if task is None else self._success(task)
        if path in (CONTROL, STATE) and not request.local:
            return self._error(403, message="control is for this machine only")
        if method == "POST" and path == CONTROL:
            apply(self.account, self.faults, _read_object(request.body))
            return self._success(self.state())
        if method == "GET" and path == STATE:
            return self._success(self.state())
        return self._error(404)

    def _generate(self, body: bytes) -> Reply:
        asked = _read_object(body)
        cost = whole("credits", asked["credits"]) if "credits" in asked else None
        model = text("model", asked.get("model", "nano-banana"))
        task, remaining = self.account.submit(model, cost, _outcome(asked))
        return self._success(
            {
                "task_id": task.id,
                "model": model,
                "credits_used": task.credits_used,
                "remaining_credits": remaining,
                "request_id": f"upstream_{secrets.token_hex(8)}",  # the upstream's, not ours
            }
        )

    def state(self) -> dict[str, object]:
        """All there is to know, as /_sandbox/state answers it."""
        account = self.account
        return {
            "credits": account.credits,
            "balance_reads": account.balance_reads,
            "requests": self.requests,
            "spent": account.spent,
            "refunded": account.refunded,
            **{name: getattr(account, name) for name in LEVERS},
            "faults": self.faults.pending(),
            "tasks": account.tasks(),
        }

    # The envelopes

    def _success(self, data: object, status: int = 200) -> Reply:
        envelope = {"success": True, "data": data, "request_id": self._new_id()}
        return Reply(status, _encode(envelope).encode())

    def _error(
        self, status: int, code: str | None = None, message: str | None = None, field: str | None = None
    ) -> Reply:
        usual_code, usual_message = _ERRORS.get(status, _OTHER_ERROR)
        error = {"code": code or usual_code, "message": message or usual_message}
        if field is not None:
            error["field"] = field
        envelope = {"success": False, "error": error, "request_id": self._new_id()}
        return Reply(status, _encode(envelope).encode())

    def _new_id(self) -> str:
        return f"req_{self._id_prefix}{next(self._ids):08X}"

    # Faults

    def _spoil(self, request: Request, fault: FaultSpec) -> Reply:
        """The answer with the fault in it. Unless that gives the usual data, nothing is done."""
        status = fault.get("status", 200)
        if "body" in fault:
            raw = fault["body"]
            reply = Reply(status, raw if isinstance(raw, bytes) else raw.encode())
        elif not fault.get("success", status < 300):
            reply = self._error(status, fault.get("code"), fault.get("message"))
        elif "data" in fault:
            reply = self._success(fault["data"], status)
        elif "api_credits" in fault:
            data = {"credits": self.account.credits, "api_credits": fault["api_credits"]}
            reply = self._success(data, status)
        else:
            reply = self._route(request)
            reply = reply._replace(status=fault.get("status", reply.status))
        headers = dict(fault.get("headers", {}))
        if "location" in fault:
            headers["Location"] = fault["location"]
        content = reply.content + b" " * fault.get("pad", 0)
        if fault.get("gzip"):
            headers.setdefault("Content-Encoding", "gzip")
            packer = zlib.compressobj(wbits=31)  # 31: with the header of a gzip file
            content = packer.compress(content) + packer.flush()
        content_type = fault.get("content_type", reply.content_type)
        return Reply(reply.status, content, content_type, headers)


def _outcome(asked: Mapping[str, object]) -> Status | None:
    match asked.get("simulate"):
        case None:
            return None
        case "completed":
            return "completed"
        case "failed":
            return "failed"
        case "pending":
            return "pending"
    raise BadField("simulate", "must be completed, failed or pending")


def _read_object(body: bytes) -> Mapping[str, object]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise BadField("body", "must be JSON") from None
    return mapping("body", content)
