"""Options of `record` that make a row of files or keep a window: what they mean together."""

from __future__ import annotations

from stratokit.cli.values import duration_ns
from stratokit.errors import UsageError
from stratokit.record.options import Keep, Rotation, Trigger

KEEP_BYTES = {"disk": 2 << 30, "memory": 256 << 20}
AFTER_NS = 5_000_000_000
LEAST_NS = 1_000_000_000
LEAST_BYTES = 1 << 20
TRIGGER_LIMIT = 20


def rotation(size: int | None, time: int | None, count: int | None) -> Rotation:
    """`--rotate-size`, `--rotate-time` and `--rotate-count`.

    Raises:
        UsageError: they do not fit.
    """
    if count is not None and not (size or time):
        raise UsageError("--rotate-count goes with --rotate-size or --rotate-time")
    if time is not None and time < LEAST_NS:
        raise UsageError("--rotate-time takes 1s or more")
    if size is not None and size < LEAST_BYTES:
        raise UsageError("--rotate-size takes 1M or more")
    return Rotation(size, time, count)


def keep(
    time: int | None,
    size: int | None,
    where: str | None,
    before: int | None,
    after: int | None,
    triggers: list[str],
    limit: int | None,
) -> Keep:
    """`--keep`, `--keep-size` and what goes with them.

    Raises:
        UsageError: they do not fit.
    """
    if time is None and size is None:
        given = {
            "--keep-in": where,
            "--before": before,
            "--after": after,
            "--trigger": triggers or None,
            "--trigger-limit": limit,
        }
        alone = next((name for name, value in given.items() if value is not None), None)
        if alone:
            raise UsageError(f"{alone} goes with --keep TIME or --keep-size SIZE")
        return Keep()
    if time is not None and time < LEAST_NS:
        raise UsageError("--keep takes 1s or more")
    if size is not None and size < LEAST_BYTES:
        raise UsageError("--keep-size takes 1M or more")
    if before is not None and time is not None and before > time:
        raise UsageError("--before is longer than --keep")
    where = where or "disk"
    return Keep(
        time,
        size or KEEP_BYTES[where],
        where == "memory",
        before,
        AFTER_NS if after is None else after,
        planned(triggers),
        TRIGGER_LIMIT if limit is None else limit,
    )


def planned(texts: list[str]) -> tuple[Trigger, ...]:
    """What the kernel programs and the recorder watch for `--trigger`."""
    if not texts:
        return ()
    from stratokit.cli.plan import triggers

    return tuple(Trigger(**found | {"calls": tuple(found.get("calls", ()))}) for found in triggers(texts))


def span_ns(text: str) -> int:
    """As `values.duration_ns`, and 0."""
    return 0 if text in ("0", "0s") else duration_ns(text)
