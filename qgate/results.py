"""What a run found: plain values, to JSON and back."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from qgate.errors import ResultsError
from qgate.outputs import results_output

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SCHEMA_VERSION = 1

Status = Literal["passed", "failed", "inconclusive", "error"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """The judgement of one limit.

    `measured` is in the unit of the limit: a drop for `max_drop`, the int8 value for `lower_bound`. It is None
    where nothing could be measured, and then `status` is `error` and `message` says why. `samples_needed` estimates,
    where `status` is `inconclusive`, how many evaluation samples would settle it; None where samples would not.
    `line` is the limit's in `qgate.toml`.
    """

    metric: str
    limit: str
    limit_value: float
    measured: float | None
    status: Status
    message: str = ""
    slice: dict[str, str] | None = None
    interval: Interval | None = None
    samples_needed: int | None = None
    line: int | None = None

    @property
    def name(self) -> str:
        """Name the limit: `map max_drop`, `map[class=person] max_drop`."""
        return f"{table_name(self.metric, self.slice)} {self.limit}"

    def accepted(self, on_inconclusive: Literal["fail", "warn"]) -> bool:
        """Say whether the limit holds, or may not hold and the user only wants to be told so."""
        return self.status == "passed" or (self.status == "inconclusive" and on_inconclusive == "warn")


@dataclass(frozen=True)
class Artifact:
    """The file that was judged."""

    path: str
    bytes: int
    sha256: str

    def why_another(self, folder: Path) -> str:
        """Say why the file, whose path is relative to `folder`, is not what was judged; "" where it still is."""
        try:
            content = (folder / self.path).read_bytes()
        except FileNotFoundError:
            return f"the artifact that was judged, {self.path}, is not there any more"
        except OSError as error:
            return f"the artifact that was judged, {self.path}, cannot be read: {error.strerror or error}"
        if hashlib.sha256(content).hexdigest() == self.sha256:
            return ""
        return f"the artifact {self.path} has changed since it was judged; run the gate again"


@dataclass(frozen=True)
class DetailsFile:
    """The file of what reports show beyond figures; its path is relative to the folder of `qgate.toml`."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ModelResult:
    """What was found about one model.

    `metrics` maps a metric's name to its figures, as `../docs/results.md` lists them; `seconds` maps an engine
    step to its wall time. A step that did not run is missing from `seconds`. `conditions` are what must be equal for
    figures of two runs to be comparable; `calibration_overlap` counts the calibration samples that are evaluation
    samples too, by content. `kernels` counts the nodes of the int8 graph by the kernel that ran. `cached` maps what was
    taken from an earlier run to when that was computed (ISO 8601). `details` is None where none were kept, `training`
    empty where nothing was trained.
    """

    quantization: dict[str, Any]
    artifact: Artifact | None
    num_evaluation_samples: int
    metrics: dict[str, dict[str, Any]]
    verdicts: tuple[Verdict, ...]
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    conditions: dict[str, Any] = field(default_factory=dict)
    calibration_overlap: int | None = None
    kernels: dict[str, int] = field(default_factory=dict)
    cached: dict[str, str] = field(default_factory=dict)
    details: DetailsFile | None = None
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True where at least one limit was judged and every one passed."""
        return bool(self.verdicts) and all(verdict.status == "passed" for verdict in self.verdicts)


@dataclass(frozen=True)
class Result:
    """What one run found about all its models.

    `config_path` is that of `qgate.toml`, relative to the repository where it is in one. `not_judged` names limits that
    were left out of the run, as `-k` does: what is said then is said of a part. `folder` is that of `qgate.toml`, from
    which paths lead on; it is not stored.
    """

    qgate_version: str
    created: str
    config_sha256: str
    environment: dict[str, Any]
    models: dict[str, ModelResult] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    config_path: str | None = None
    not_judged: tuple[str, ...] = ()
    folder: Path | None = field(default=None, compare=False)

    @property
    def passed(self) -> bool:
        """True where at least one model was judged, every one passed, and no limit was left out."""
        return bool(self.models) and not self.not_judged and all(model.passed for model in self.models.values())

    def accepted(self, on_inconclusive: Literal["fail", "warn"]) -> bool:
        """Say whether there is a model, every model has a verdict, and every verdict is accepted."""
        return bool(self.models) and all(
            model.verdicts and all(verdict.accepted(on_inconclusive) for verdict in model.verdicts)
            for model in self.models.values()
        )

    def with_model(self, name: str, model: ModelResult) -> Result:
        """Give a copy with one model's result added or replaced."""
        return replace(self, models={**self.models, name: model})

    def compared_with_disk(self, folder: Path) -> Result:
        """Give a copy that notes each artifact that is not what was judged; `folder` is that of `qgate.toml`."""
        models = {
            name: replace(model, notes=(*model.notes, reason))
            for name, model in self.models.items()
            if model.artifact and (reason := model.artifact.why_another(folder))
        }
        return replace(self, models={**self.models, **models}, folder=folder)

    def to_json(self) -> str:
        """Give the JSON text of `results.json`; numbers that are not finite become null."""
        document = asdict(self)
        del document["folder"]
        return json.dumps(finite(document), indent=2, allow_nan=False) + "\n"

    def save(self, path: Path) -> None:
        """Write `results.json` atomically. Raises `ResultsError` where that cannot be done."""
        results_output(path).write(self.to_json().encode())


def table_name(metric: str, where: Mapping[str, str] | None) -> str:
    """Name a metric, or a slice of it: `map`, `map[class=person,size=small]`."""
    return f"{metric}[{','.join(f'{key}={value}' for key, value in where.items())}]" if where else metric


def load_results(path: Path) -> Result:
    """Read a `results.json`. Raises `ResultsError` where it is missing, damaged or of another schema."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultsError("no results yet; run `qgate check` or `pytest --qgate` first", path=path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"cannot be read as JSON ({error}); run the gate again", path=path) from None
    return result_from_document(document, path)


def result_from_document(document: Any, place: Path | str) -> Result:
    """Rebuild a result from the parsed JSON of `to_json`. Raises `ResultsError`, which names `place`."""
    found = document.get("schema_version") if isinstance(document, dict) else None
    if found != SCHEMA_VERSION:
        raise ResultsError(
            f"has schema_version {json.dumps(found)}, this qgate reads {SCHEMA_VERSION}; run the gate again", path=place
        )
    try:
        models = {name: _model_from_json(model) for name, model in document.pop("models").items()}
        not_judged = tuple(document.pop("not_judged", ()))
        return Result(**document, models=models, not_judged=not_judged)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"is not a qgate result ({error}); run the gate again", path=place) from None


def _model_from_json(document: dict[str, Any]) -> ModelResult:
    verdicts = tuple(_verdict_from_json(verdict) for verdict in document.pop("verdicts"))
    artifact = document.pop("artifact")
    notes = tuple(document.pop("notes", ()))
    details = _details_from_json(document.pop("details", None))
    model = ModelResult(
        **document, artifact=_artifact_from_json(artifact), verdicts=verdicts, notes=notes, details=details
    )
    _check_numbers("seconds", model.seconds.values())
    for name, figures in model.metrics.items():
        _check_numbers(name, [figures.get("baseline"), figures.get("candidate"), *figures.get("forms", {}).values()])
    return model


def _artifact_from_json(document: dict[str, Any] | None) -> Artifact | None:
    if not document:
        return None
    artifact = Artifact(**document)
    if not isinstance(artifact.path, str):
        raise TypeError(f"an artifact's path is {artifact.path!r}")
    return artifact


def _details_from_json(document: dict[str, Any] | None) -> DetailsFile | None:
    details = DetailsFile(**document) if document else None
    if details and not isinstance(details.path, str):
        raise TypeError(f"the path of details is {details.path!r}")
    return details


def _verdict_from_json(document: dict[str, Any]) -> Verdict:
    verdict = Verdict(**{**document, "interval": read_interval(document.get("interval"))})
    if verdict.status not in get_args(Status):
        raise ValueError(f"a verdict's status is {verdict.status!r}")
    _check_numbers("a verdict", [verdict.limit_value, verdict.measured])
    return verdict


def _check_numbers(name: str, values: Iterable[Any]) -> None:
    for value in values:
        if value is not None and not isinstance(value, int | float):
            raise ValueError(f"{name}: {value!r} is not a number")


def read_interval(value: list[float | None] | None) -> Interval | None:
    """Read an interval from JSON. Raises `ValueError`, `TypeError` where it is not two numbers."""
    low, high = value or (None, None)
    if low is None or high is None:
        return None
    _check_numbers("an interval", (low, high))
    return low, high


def finite(value: Any) -> Any:
    """Give plain values with null in the place of numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
