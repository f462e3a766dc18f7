"""How a silver table folds records into rows: `merge:` of headrace.yml."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

HISTORY_COLUMNS = ("valid_from", "valid_to", "is_current")
"""Columns that a table with ``scd: 2`` has besides its records' own."""


class Merge(BaseModel):
    """How silver folds records into rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: list[str] = Field(min_length=1, description="columns that tell the rows apart")
    sequence_by: str | None = Field(None, description="column that tells the newer of two records; default: the order token")
    delete_when: str | None = Field(None, description="SQL condition over a record's columns: such a record deletes its row")
    scd: Literal[1, 2] = Field(1, description="1: one row a key, the newest; 2: a row for each record, with its time of validity")
    ignore_null_updates: bool = Field(False, description="a null in a record leaves the column as it was")

    @field_validator("keys")
    @classmethod
    def _are_columns(cls, keys: list[str]) -> list[str]:
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"{key} is given twice")
            if key.startswith("_") or not key:
                raise ValueError(f"{key!r} is not a column of records")
        return keys

    @model_validator(mode="after")
    def _sequence_is_no_key(self) -> Merge:
        if self.sequence_by in self.keys:
            raise ValueError(f"sequence_by {self.sequence_by} is one of the keys: it would be equal in all records of a key")
        for column in HISTORY_COLUMNS if self.scd == 2 else ():
            if column in (*self.keys, self.sequence_by):
                raise ValueError(f"{column} is a column that scd: 2 makes itself: it can be no key and no sequence")
        return self
