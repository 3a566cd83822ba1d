"""What went wrong at a remote side, in one line without credentials.

Clients put whole URLs, headers and answers into their errors. Only what is recognised here is said;
of the rest the first words, with addresses and known secrets taken out.
"""

import os
import re
from typing import Literal

from ..errors import CorruptData, LaughstoreError, NotFound, Unreachable

Kind = Literal[
    "missing",
    "denied",
    "short",
    "changed",
    "oversized",
    "no_ranges",
    "transient",
    "gave_up",
    "other",
]

_STATUS = re.compile(r"status code: (\d{3})(?: ([A-Za-z -]+))?")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_SECRETS_IN_ENVIRONMENT = re.compile(r"(^|_)(TOKEN|SECRET|KEY|PASSWORD|CREDENTIALS)(_|$)")
_LONGEST_EXCERPT = 160


class Failure(Exception):
    """A failure that was understood: what kind, in plain words without credentials."""

    def __init__(self, kind: Kind, what: str) -> None:
        super().__init__(what)
        self.kind: Kind = kind
        self.what = what
        self.ours: LaughstoreError | None = None

    @property
    def worth_repeating(self) -> bool:
        """Whether another attempt may go better, and obstore has not made it already."""
        return self.kind == "transient"

    def as_error(self, where: str) -> LaughstoreError:
        """Return the error for callers."""
        if self.ours is not None:
            return self.ours
        match self.kind:
            case "missing":
                return NotFound(f"{where} {self.what}")
            case "short":
                return CorruptData(f"{where} {self.what}, and more were asked for: restore it")
            case "changed":
                return CorruptData(
                    f"{where} {self.what}: it was replaced while open; open the store again"
                )
            case "oversized":
                return CorruptData(
                    f"{where} {self.what}, more than any file that a store has read whole; do not"
                    " trust it"
                )
            case "denied":
                return Unreachable(
                    f"{where}: access denied ({self.what}); check the credentials, and that the"
                    " file exists: some servers say no instead of not found"
                )
            case "no_ranges":
                return Unreachable(
                    f"{where}: {self.what}; copy the store to a server that can, or to a local disk"
                )
            case _:
                return Unreachable(f"{where}: {self.what}; try again later")


def explain(error: Exception) -> Failure:
    """Return a client's error, or our own, as a failure that can be told."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, LaughstoreError):
        failure = Failure("other", str(error))
        failure.ours = error
        return failure
    text = str(error)
    first_line = text.partition("\n")[0]
    status = _STATUS.search(first_line)
    code = int(status[1]) if status else 0
    kind = type(error).__name__
    if "NoSuchBucket" in text:
        return Failure("missing", "lies in a bucket that does not exist")
    if isinstance(error, FileNotFoundError):
        return Failure("missing", "does not exist")
    if code in (401, 403) or kind in ("PermissionDeniedError", "UnauthenticatedError"):
        return Failure("denied", f"answer {code}" if code else "no access")
    if code == 416:
        return Failure("short", "ends before the bytes asked for")
    if any(mark in text for mark in ("NotPartial", "RangeNotSupported")):
        return Failure("no_ranges", "the server ignores ranges and sends whole files")
    if "UnexpectedRange" in text:
        return Failure("transient", "the server answers with another range than asked for")
    if "169.254.169.254" in text or "/latest/api/token" in text or "metadata.google" in text:
        return Failure("denied", "no credentials in the environment")
    if "configured region" in first_line:
        return Failure("denied", "the bucket is in another region than AWS_REGION")
    if "InvalidCertificate" in text:
        return Failure(
            "gave_up", "its TLS certificate is not trusted (SSL_CERT_FILE can name others)"
        )
    if status:
        reason = f"{code} {(status[2] or '').strip()}".strip()
        return Failure("gave_up", f"the server answers {reason}{_after(first_line)}")
    if "TimedOut" in text or "timed out" in text or "Timeout" in kind:
        return Failure(_transient_or_gave_up(first_line), f"no answer in time{_after(first_line)}")
    if re.search(r"kind: Connect\b", text) or "dns error" in text or "ConnectionError" in kind:
        return Failure("gave_up", f"no connection{_after(first_line)}")
    if any(mark in text for mark in ("kind: Body", "kind: Interrupted", "kind: Decode")):
        return Failure("transient", "the answer was cut short")
    return Failure("other", f"{kind}: {_excerpt(first_line)}")


def _transient_or_gave_up(first_line: str) -> Kind:
    return "gave_up" if "after" in first_line else "transient"


def _after(first_line: str) -> str:
    retries = re.search(r"after (\d+) retries", first_line)
    return f", also after {retries[1]} retries" if retries else ""


def _excerpt(text: str) -> str:
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRETS_IN_ENVIRONMENT.search(name.upper()):
            text = text.replace(value, "***")
    return _ADDRESS.sub("(address)", text)[:_LONGEST_EXCERPT]
