"""At which device a conversation is followed, where several saw it.

A packet that passes several recorded devices is a frame at each. As conversations are numbered by addresses,
all of them would belong to one, and TCP would look as if it had sent everything again. So each direction of a
conversation is followed at one device: one that sees both directions, of several the first.
"""

from __future__ import annotations

from typing import Any

import polars as pl

_CHOSEN: dict[str, Any] = {"flow_id": pl.UInt64, "side": pl.Boolean, "device": pl.UInt64}
_KEY = ["flow_id", "side"]


class WatchPoints:
    """Takes windows of frames in order of time. Memory: a row for each direction of each conversation."""

    def __init__(self) -> None:
        self._chosen = pl.DataFrame(schema=_CHOSEN)

    def followed(self, frames: pl.DataFrame) -> pl.Series:
        """Whether each frame (flow_id, null without one; side, which end sent it; device) is where its
        conversation is followed.
        """
        seen = (
            frames.with_row_index("first")
            .drop_nulls("flow_id")
            .group_by("flow_id", "side", "device")
            .agg(pl.col("first").min())
            .with_columns(
                both=pl.col("side").n_unique().over("flow_id", "device") == 2,
                began=pl.col("first").min().over("flow_id", "device"),
            )
        )
        other = self._chosen.select("flow_id", ~pl.col("side"), pl.col("device").alias("other"))
        new = (
            seen.join(self._chosen, on=_KEY, how="anti")
            .join(other, on=_KEY, how="left")
            .with_columns(
                rank=pl.when(pl.col("device") == pl.col("other")).then(0).when("both").then(1).otherwise(2)
            )
            .sort("rank", "began")
            .group_by(_KEY, maintain_order=True)
            .agg(pl.col("device").first())
        )
        self._chosen = pl.concat([self._chosen, new.select(list(_CHOSEN))])
        chosen = frames.join(
            self._chosen.rename({"device": "chosen"}), on=_KEY, how="left", maintain_order="left"
        )
        return chosen.select(pl.col("device").eq_missing(pl.col("chosen")).alias("followed")).to_series()
