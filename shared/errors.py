"""Every error TasteMatch raises on purpose, in one tree.

The edges decide what an error costs: `api/problems.py` maps a class to an HTTP status,
`tastematch/cli.py` to an exit code, `worker/jobs.py` to the reason of a failed job. Messages are
safe to show: they hold no secret and no connection address.

    TasteMatchError
    |- SettingsError              a setting is wrong; the message names the variable
    |- DatasetError               a data set folder or file cannot be imported as it is
    |  `- StrictDataError         a bad row met under --strict
    |- BudgetError                the work does not fit the memory budget
    |- DependencyError            something outside this process does not answer
    |  |- DatabaseUnavailable
    |  |  `- RowLocked            another writer holds a row for longer than a request waits
    |  |- StoreUnavailable
    |  |- QueueUnavailable
    |  |- SchedulerUnavailable    a Dask cluster cannot be used, or was lost
    |  `- ApiUnavailable          the HTTP API does not answer (commands that call it)
    |- SchemaError                the database schema is not the one this release works with
    |- SnapshotError
    |  |- SnapshotUnavailable     nothing has been published yet
    |  |- SnapshotNotFound        no such version
    |  |- SnapshotDamaged         bytes differ from their checksum or their stated form
    |  |- SnapshotUnsupported     written in a schema this release does not read
    |  |- SnapshotOutdated        made by an older release, without what is asked of it
    |  |- StoreFull               the store refuses more bytes
    |  `- PublishSuperseded       a newer publish or a rollback came first
    |- JobError
    |  |- JobNotFound
    |  |- JobActive               one is running already
    |  |- JobEnded                it has ended, and what ended is not cancelled
    |  |- JobCancelled            an operator asked the running job to end
    |  |- JobLost                 the lease was lost to another worker
    |  `- JobFailed               the work itself failed; carries the reason
    `- RequestError               what a client asked cannot be answered
       |- Unauthenticated
       |- Forbidden
       |- NotFound
       |- VersionGone             a page of a snapshot that is no longer kept
       |- NotAcceptable           no form of the answer that the client takes
       |- UnsupportedMedia        a body of a form that is not read here
       |- BodyTooLarge
       |- RequestTimeout          a body that did not arrive in time
       |- InvalidInput            values out of range; carries the fields
       `- MalformedInput          a body or cursor that cannot be read
"""

from collections.abc import Sequence
from dataclasses import dataclass


class TasteMatchError(Exception):
    """Root of all deliberate errors. `message` is one line without secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SettingsError(TasteMatchError):
    pass


class DatasetError(TasteMatchError):
    pass


class StrictDataError(DatasetError):
    pass


class BudgetError(TasteMatchError):
    pass


class DependencyError(TasteMatchError):
    pass


class DatabaseUnavailable(DependencyError):
    pass


class RowLocked(DatabaseUnavailable):
    pass


class StoreUnavailable(DependencyError):
    pass


class QueueUnavailable(DependencyError):
    pass


class SchedulerUnavailable(DependencyError):
    pass


class ApiUnavailable(DependencyError):
    pass


class SchemaError(TasteMatchError):
    pass


class SnapshotError(TasteMatchError):
    pass


class SnapshotUnavailable(SnapshotError):
    pass


class SnapshotNotFound(SnapshotError):
    pass


class SnapshotDamaged(SnapshotError):
    pass


class SnapshotUnsupported(SnapshotError):
    pass


class SnapshotOutdated(SnapshotError):
    pass


class StoreFull(SnapshotError):
    pass


class PublishSuperseded(SnapshotError):
    pass


class JobError(TasteMatchError):
    pass


class JobNotFound(JobError):
    pass


class JobActive(JobError):
    pass


class JobEnded(JobError):
    pass


class JobCancelled(JobError):
    pass


class JobLost(JobError):
    pass


class JobFailed(JobError):
    pass


class RequestError(TasteMatchError):
    pass


class Unauthenticated(RequestError):
    pass


class Forbidden(RequestError):
    pass


class NotFound(RequestError):
    pass


class VersionGone(RequestError):
    pass


class NotAcceptable(RequestError):
    pass


class UnsupportedMedia(RequestError):
    pass


class BodyTooLarge(RequestError):
    pass


class RequestTimeout(RequestError):
    pass


class MalformedInput(RequestError):
    pass


@dataclass(frozen=True, slots=True)
class FieldError:
    """One bad value: `location` is query, path, header or body."""

    location: str
    name: str
    detail: str


class InvalidInput(RequestError):
    def __init__(self, message: str, fields: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.fields = fields


def invalid_body(problems: Sequence[FieldError]) -> InvalidInput:
    """Of a body with all that is wrong in it, at least one; the first is the message."""
    first = problems[0]
    return InvalidInput(f"body member {first.name}: {first.detail}", tuple(problems))
