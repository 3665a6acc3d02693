"""Why a file or one of its rows could not be read at all. Reasons about the content of a row are in sources.py."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from journeyman.reasons.base import Detail, Reason


@dataclass(frozen=True)
class SourceReason(Reason):
    """The base of all reasons for which a row of a log is rejected.

    Attributes:
        at: the place within the row or the file ("spans[3]", "element 12"); precedes the sentence.
    """

    at: str = field(default="", kw_only=True)

    @property
    def details(self) -> dict[str, Detail]:
        return {name: value for name, value in self.__dict__.items() if name != "at" or value}

    def sentence(self) -> str:
        text = self.text()
        return f"{self.at}: {text}" if self.at else text

    def text(self) -> str:
        """The sentence without the place."""
        return self.says.format_map(self.details)

    def within(self, at: str) -> Self:
        """The same reason, placed within `at`."""
        return replace(self, at=f"{at}: {self.at}" if self.at else at)


@dataclass(frozen=True)
class PassedOver(SourceReason):
    """The base of reasons that may cost more than one row.

    Attributes:
        lost: characters of the file that are skipped because of it.
        rest: they are the rest of the file.
    """

    lost: int | None = field(default=None, kw_only=True)
    rest: bool = field(default=False, kw_only=True)

    @property
    def details(self) -> dict[str, Detail]:
        found = super().details
        return {name: value for name, value in found.items() if name not in ("lost", "rest") or self.lost is not None}

    def sentence(self) -> str:
        if self.lost is None:
            return super().sentence()
        if self.rest:
            return f"{super().sentence()}; the rest of the file is lost ({self.lost:,} characters)"
        return f"{super().sentence()}; {self.lost:,} characters are skipped"


@dataclass(frozen=True)
class NotJson(PassedOver, code="not_json"):
    error: str
    column: int | None = None

    def text(self) -> str:
        if self.column is None:
            return f"not JSON: {self.error}"
        return f"not JSON: {self.error.removesuffix(' starting at')} at column {self.column}"


@dataclass(frozen=True)
class NestedTooDeeply(PassedOver, code="nested_too_deeply"):
    limit: int

    def text(self) -> str:
        return f"nested more than {self.limit} levels deep"


@dataclass(frozen=True)
class RowTooLong(PassedOver, code="row_too_long"):
    says = "longer than {limit_mib} MiB"
    limit_mib: int


@dataclass(frozen=True)
class NotAnObject(SourceReason, code="not_an_object"):
    says = "a JSON {found}, not an object"
    found: str


@dataclass(frozen=True)
class NotUtf8(SourceReason, code="not_utf8"):
    byte: int | None = None

    def text(self) -> str:
        where = f" (byte {self.byte})" if self.byte is not None else ""
        return f"not UTF-8{where}: convert the file, or name its encoding: --set data.encoding=\"'cp1252'\""


@dataclass(frozen=True)
class HalfSurrogate(SourceReason, code="half_surrogate"):
    says = "contains half of a surrogate pair"


@dataclass(frozen=True)
class ListCutOff(SourceReason, code="list_cut_off"):
    says = "the file ends in the middle of a list: the rest is missing"


@dataclass(frozen=True)
class FileDamaged(SourceReason, code="file_damaged"):
    says = (
        "the file is damaged or ends too early ({error}): {rows} rows were read, the rest is lost; get a new copy of "
        "the file"
    )
    error: str
    rows: int


@dataclass(frozen=True)
class BeyondSample(SourceReason, code="beyond_sample"):
    says = "a value larger than {limit_mib} MiB; the sample ends here"
    limit_mib: int


@dataclass(frozen=True)
class ParquetDamaged(SourceReason, code="parquet_damaged"):
    says = "not a readable Parquet file: {error}; {rows} rows were read before the error: export it again"
    error: str
    rows: int


@dataclass(frozen=True)
class NotCsv(SourceReason, code="not_csv"):
    says = "not CSV: {error}; the rest of the file is lost"
    error: str


@dataclass(frozen=True)
class AmbiguousColumns(SourceReason, code="ambiguous_columns"):
    """Attributes: repeated: names of several columns; unnamed: numbers of columns without a name; lost: rows."""

    repeated: str
    unnamed: str
    lost: int

    def text(self) -> str:
        faults = [f"several columns are called {self.repeated}"] if self.repeated else []
        faults += [f"columns without a name: {self.unnamed}"] if self.unnamed else []
        return f"{' and '.join(faults)}; {self.lost} rows are not read: give each column a unique name"


@dataclass(frozen=True)
class CellCount(SourceReason, code="cell_count"):
    says = "{cells} cells for {columns} columns"
    cells: int
    columns: int


@dataclass(frozen=True)
class NotALogFile(SourceReason, code="not_a_log_file"):
    says = "its name is not that of a log ({size:,} bytes)"
    size: int


@dataclass(frozen=True)
class BinaryLog(SourceReason, code="binary_log"):
    says = "a binary {format} log: convert it to JSON with `{command}`"
    format: str
    command: str


@dataclass(frozen=True)
class SessionTooLong(SourceReason, code="session_too_long"):
    says = "a {format} session longer than {limit_mib} MiB"
    format: str
    limit_mib: int


@dataclass(frozen=True)
class OtherFormatSet(SourceReason, code="other_format_set"):
    says = "the file is a session ({format}), but another format is configured: set data.format = 'auto'"
    format: str


@dataclass(frozen=True)
class BatchRequestJoined(SourceReason, code="batch_request_joined"):
    says = "a batch request: read together with its answer"


@dataclass(frozen=True)
class BatchRequestUnanswered(SourceReason, code="batch_request_unanswered"):
    says = "a batch request without an answer"


@dataclass(frozen=True)
class SeveralRowLists(SourceReason, code="several_row_lists"):
    says = "the lists {fields} contain rows: write the rows to be read as JSON lines"
    fields: str


@dataclass(frozen=True)
class UnknownFormat(SourceReason, code="unknown_format"):
    """No format matches the row.

    Attributes:
        fields: the row's first fields.
        resembles, shared: the most similar formats, and the fields that the row shares with the first of them.
        rows_in: the path of a list that may contain the rows; "" if there is none.
        prompt, answer: paths that may contain these; "" if none is found.
    """

    fields: str
    resembles: str = ""
    shared: str = ""
    rows_in: str = ""
    prompt: str = ""
    answer: str = ""

    def text(self) -> str:
        parts = [f"no known format has the fields {self.fields or 'of an empty object'}"]
        parts += [f"it resembles {self.resembles} ({self.shared})"] if self.resembles else []
        parts += [f"its rows may be in {self.rows_in}: write them as JSON lines"] if self.rows_in else []
        if self.prompt and self.answer:
            columns = f"data.columns.prompt = {self.prompt!r}, data.columns.answer = {self.answer!r}"
            return "; ".join([*parts, f"to read it, set {columns}"])
        return "; ".join([*parts, "to read it, name its columns in [data.columns]"])


@dataclass(frozen=True)
class UnexpectedValue(SourceReason, code="unexpected_value"):
    says = "{format}: unexpected value at {field}"
    format: str
    field: str


@dataclass(frozen=True)
class Unreadable(SourceReason, code="unreadable"):
    """A row that the reader of its format does not expect. The tests assert that none of their rows ends here."""

    says = "{format}: cannot be read ({error})"
    format: str
    error: str


@dataclass(frozen=True)
class NothingInIt(SourceReason, code="nothing_in_it"):
    says = "{format}: contains no calls"
    format: str


@dataclass(frozen=True)
class RoleCalledAll(SourceReason, code="role_called_all"):
    says = "its role is called {role!r}, which journeyman reserves for all roles: rename it, or set data.role_field"
    role: str


@dataclass(frozen=True)
class OtherReasons(SourceReason, code="other_reasons"):
    """Counts the reasons of a source beyond those that are counted individually."""

    says = "other reasons"
