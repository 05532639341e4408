"""What a person may type, a model for each mapping; editors get their schema from the same.

Loaded only when something is read that was typed: pydantic takes its time to load. What does not
fit is told in the words of ``words``, by the kind of error that each field names here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import cache
from itertools import combinations
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    Tag,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema
from typing_extensions import TypedDict, get_type_hints, is_typeddict

from asyncpipe._registry import provider_names
from asyncpipe._text import brief, shown
from asyncpipe.errors import UsageError
from asyncpipe.jobfile.problems import Problems, unknown_key
from asyncpipe.jobfile.source import DEEPEST, Unclear, line_at, spelling_at
from asyncpipe.jobfile.words import words_for
from asyncpipe.jobs import (
    LONGEST_KEY,
    MOST_PRIORITY,
    Deadlines,
    JobType,
    Limits,
    Polling,
    any_type,
    check_policy,
    label_of_budget,
)
from asyncpipe.pricing import MOST_FACTOR, UNITS, Rate, Tier, plain_size

MOST_COPIES = 10_000
"""The largest ``count``."""

MOST_PROMPT_BYTES = 1_000_000
"""Longer prompts and names are files pasted by mistake; no model takes them."""

MOST_MODEL = 300
"""Characters of a model id."""

MOST_VALUES = 10_000
"""Values in one job's ``params``: far beyond any model, far below an alias bomb."""

MOST_LABELS = 200
"""Labels of one job: more than a spreadsheet's columns that anybody reads."""

MOST_INTEGER = 2**63 - 1
"""Ledger and requests are written with integers of 64 bits."""

RETRIES = "How often a failure that is not charged is submitted again."
DEADLINE = "Seconds a prediction may take, from its submit."

IGNORED = "x-"
"""Top-level keys that begin so are nobody's: a place for YAML anchors."""

TAG = "\0"
"""How the names of alternatives begin, which pydantic puts into the place of an error."""


def about(words: str) -> Any:
    """What an editor says of a key."""
    return Field(description=words)


class Told:
    """Name the kind of error that a value is told by, whatever of its type it does not meet.

    ``check`` is how to check it where pydantic's own checks do not say it: it raises ValueError,
    and ``schema`` is what editors are told of it. ``limits`` are for the words.
    """

    def __init__(
        self,
        kind: str,
        check: Callable[[Any], Any] | None = None,
        schema: dict[str, Any] | None = None,
        **limits: Any,
    ) -> None:
        self._kind, self._check, self._schema, self._limits = kind, check, schema, limits or None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        plain = core_schema.no_info_plain_validator_function
        return core_schema.custom_error_schema(
            plain(self._check) if self._check else handler(source),
            custom_error_type=self._kind,
            custom_error_message=self._kind,
            custom_error_context=self._limits,
        )

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> Any:
        return handler(core) if self._schema is None else {**self._schema}


def _unfit(kind: str, **limits: Any) -> PydanticCustomError:
    return PydanticCustomError(kind, kind, limits or None)


def is_number(value: Any) -> bool:
    """Whether a value is a number that JSON, the ledger and every provider can take."""
    if isinstance(value, int):
        return not isinstance(value, bool) and -(2**63) <= value < 2**63
    return isinstance(value, float) and math.isfinite(value)


T = TypeVar("T")


def _fit(value: T, *, when: bool) -> T:
    if not when:
        raise ValueError
    return value


def _number(value: Any) -> Any:
    return _fit(value, when=is_number(value))


def _positive(value: Any) -> float:
    return float(_fit(value, when=is_number(value) and value > 0))


def _duration(value: Any) -> Any:
    return _fit(value, when=value == "auto" or (is_number(value) and (value > 0 or value == -1)))


def _usd(value: Any) -> Decimal:
    if isinstance(value, Decimal):  # as programs give it
        return _fit(value, when=value.is_finite() and value >= 0)
    # The shortest decimal that reads back as this float is the one the file says.
    return Decimal(repr(_fit(value, when=is_number(value) and value >= 0)))


def _factor(value: Any) -> Decimal:
    return _fit(factor := _usd(value), when=1 <= factor <= MOST_FACTOR)


def _of_sane_length(text: str) -> str:
    if 4 * len(text) <= MOST_PROMPT_BYTES:
        return text
    return _fit(text, when=len(text.encode()) <= MOST_PROMPT_BYTES)


def _size(text: str) -> str:
    size = plain_size(text)
    return _fit(size or "", when=size is not None)


def _day(text: Any) -> date:
    return date.fromisoformat(str(_fit(text, when=isinstance(text, str))).strip())


_NUMBER = {"type": "number"}
_ABOVE_0 = {"type": "number", "exclusiveMinimum": 0}
_Said = Annotated[str, Field(strict=True, pattern=r"[^\s\x1c-\x1f]")]

Text = Annotated[_Said, Told("text")]
Prompt = Annotated[
    _Said,
    Field(max_length=MOST_PROMPT_BYTES),
    AfterValidator(_of_sane_length),
    Told("prompt", most=MOST_PROMPT_BYTES),
]
Model = Annotated[
    str,
    Field(strict=True, pattern=r"^[^\s\x1c-\x1f]+$", max_length=MOST_MODEL),
    Told("model", most=MOST_MODEL),
]


def _provider(value: Any) -> str:
    return str(_fit(value, when=isinstance(value, str) and value in provider_names()))


def _fallback(value: Any) -> tuple[str, ...]:
    lanes = value.split(",") if isinstance(value, str) else value
    _fit(lanes, when=isinstance(lanes, list) and bool(lanes))
    read = tuple(_fit(each, when=isinstance(each, str)).strip() for each in lanes)
    return _fit(read, when=all(each and not re.search(r"\s", each) for each in read))


Fallback = Annotated[
    tuple[str, ...],
    Told("fallback", _fallback, {"type": "array", "items": {"type": "string"}, "minItems": 1}),
]
ProviderName = Annotated[str, Told("provider", _provider, {"type": "string"})]
_Whole = Annotated[int, Field(strict=True, le=MOST_INTEGER)]
AtLeast0 = Annotated[_Whole, Field(ge=0), Told("whole", limits="at least 0")]
AtLeast1 = Annotated[_Whole, Field(ge=1), Told("whole", limits="at least 1")]
Copies = Annotated[
    int, Field(strict=True, ge=1, le=MOST_COPIES), Told("whole", limits=f"from 1 to {MOST_COPIES}")
]
Number = Annotated[float, Told("number", _number, _NUMBER)]
Positive = Annotated[float, Told("positive", _positive, _ABOVE_0)]
Usd = Annotated[Decimal, Told("usd", _usd, {**_NUMBER, "minimum": 0})]
Factor = Annotated[
    Decimal, Told("factor", _factor, {**_NUMBER, "minimum": 1, "maximum": MOST_FACTOR})
]
Duration = Annotated[
    float | str,
    Told("duration", _duration, {"anyOf": [_ABOVE_0, {"const": -1}, {"const": "auto"}]}),
]
Resolution = Annotated[_Said, Told("resolution")]
Media = Annotated[_Said | list[_Said], Told("media")]
Type = Annotated[JobType, Told("job_type", JobType, {"enum": [kind.value for kind in JobType]})]


def _clear(value: Any) -> Any:
    return _fit(value, when=not isinstance(value, Unclear))


class _Values:
    """Copy what ``params`` hold; every fault inside is reported at once."""

    def __init__(self) -> None:
        self.faults: list[InitErrorDetails] = []
        self._count = 0

    def copy(self, value: Any, loc: tuple[int | str, ...] = ()) -> Any:
        self._count += 1
        if self._count > MOST_VALUES or len(loc) > DEEPEST:
            raise _unfit("too_much" if len(loc) <= DEEPEST else "too_deep", most=MOST_VALUES)
        if isinstance(value, Mapping):
            copied = {}
            for key, inner in value.items():
                if isinstance(key, str):
                    copied[key] = self.copy(inner, (*loc, key))
                else:
                    self._note("key", key, loc)
            return copied
        if isinstance(value, list | tuple):
            return [self.copy(inner, (*loc, n)) for n, inner in enumerate(value)]
        if not _is_scalar(value):
            self._note("value", value, loc)
        return value

    def _note(self, kind: str, value: Any, loc: tuple[int | str, ...]) -> None:
        self.faults.append(InitErrorDetails(type=_unfit(kind), loc=loc, input=value))


def _is_scalar(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value)
    return value is None or isinstance(value, bool) or is_number(value)


def _params(value: Any) -> dict[str, Any]:
    """Any values JSON has, copied."""
    if not isinstance(value, Mapping):
        raise _unfit("mapping")
    if len(value) < MOST_VALUES:
        for key, each in value.items():
            if type(key) is not str or not _is_scalar(each):
                break
        else:
            return {**value}
    values = _Values()
    copied: dict[str, Any] = values.copy(value)
    if values.faults:
        raise ValidationError.from_exception_data("params", values.faults)
    return copied


Params = Annotated[dict[str, Any], PlainValidator(_params), WithJsonSchema({"type": "object"})]
Switch = Annotated[bool, Field(strict=True), Told("switch")]
Priority = Annotated[
    int,
    Field(strict=True, ge=-MOST_PRIORITY, le=MOST_PRIORITY),
    Told("whole", limits=f"from {-MOST_PRIORITY} to {MOST_PRIORITY}"),
]


def _budget(name: Any) -> str:
    try:
        label_of_budget(_fit(name, when=isinstance(name, str)))
    except UsageError as exc:
        raise ValueError from exc
    return str(name)


_BudgetName = Annotated[
    str, Told("budget", _budget, {"type": "string", "pattern": "^(day|label:[^=]+=.+)$"})
]
Labels = Annotated[dict[Text, Text], Field(max_length=MOST_LABELS)]


class _Model(TypedDict, total=False):
    """A mapping whose keys are all known."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]


class TypedDefaultsIn(_Model, total=False):
    """What jobs of one type take where they say nothing themselves."""

    model: Annotated[Model, about("The provider's model id.")]
    prompt: Prompt
    width: AtLeast1
    height: AtLeast1
    duration: Annotated[Duration, about("Seconds of video.")]
    resolution: Annotated[Resolution, about("As the model takes it, e.g. 1080p.")]
    params: Annotated[Params, about("The model's own fields, sent as they are.")]
    retries: Annotated[AtLeast0, about(RETRIES)]
    deadline_s: Annotated[Positive, about(DEADLINE)]
    fallback: Annotated[
        Fallback,
        about("Models, or provider:model, to try next where it failed and is not charged."),
    ]
    labels: Annotated[
        Labels, about("Your own words about the job: kept in manifest and export, never sent.")
    ]
    priority: Annotated[Priority, about("Jobs that wait go by it, the highest first; usually 0.")]
    max_cost: Annotated[Usd, about("Most that the one job may cost, in USD, or it is refused.")]
    store: Annotated[Switch, about("false: the URLs are enough, nothing is downloaded.")]


class _TypeIn(_Model, total=False):
    type: Annotated[Type, about(f"{any_type()}, where the model id does not tell.")]


class DefaultsIn(_TypeIn, TypedDefaultsIn, total=False):
    """What jobs take where they say nothing themselves; by type goes before the common ones."""

    image: TypedDefaultsIn
    video: TypedDefaultsIn
    audio: TypedDefaultsIn


class _NameIn(_Model, total=False):
    name: Annotated[Prompt, about("What people and files call the job.")]


class _MediaIn(_Model, total=False):
    image: Media
    images: Media
    image_url: Media
    image_urls: Media
    reference_images: Media
    end_image: Media
    last_image: Media
    video: Media
    audio: Media


class JobIn(_NameIn, _TypeIn, TypedDefaultsIn, _MediaIn, total=False):
    """One job, or the template of many."""

    count: Annotated[Copies, about("How many equal jobs to make: name-1, name-2 and so on.")]


class CallIn(JobIn, total=False):
    """One job as a program asks for it."""

    idempotency_key: Annotated[Text, Field(max_length=LONGEST_KEY), Told("key_text")]


_ONE_UNIT: dict[str, Any] = {
    "not": {"anyOf": [{"required": list(pair)} for pair in combinations(UNITS, 2)]}
}


class _UnitsIn(_Model, total=False):
    per_image: Usd
    per_second: Usd
    per_job: Usd


class _TierIn(_UnitsIn, total=False):
    __pydantic_config__ = ConfigDict(extra="forbid", json_schema_extra=_ONE_UNIT)  # type: ignore[misc]

    resolution: Resolution
    audio: Switch
    size: Annotated[_Said, AfterValidator(_size), Told("size")]


def _tier(value: Any, read: Callable[[Any], dict[str, Any]]) -> Tier:
    if not isinstance(value, Mapping):
        raise _unfit("tier")
    said = read(value)
    units = {unit: said.pop(unit) for unit in UNITS if unit in said}
    if len(units) != 1 or not said:
        raise _unfit("tier")
    return Tier(rate=Rate(**units), **said)


class _RateIn(_UnitsIn, total=False):
    __pydantic_config__ = ConfigDict(  # type: ignore[misc]
        extra="forbid", json_schema_extra={**_ONE_UNIT, "minProperties": 1}
    )

    tiers: Annotated[list[Annotated[_TierIn, WrapValidator(_tier)]], Field(min_length=1)]


def _rate(value: Any, read: Callable[[Any], dict[str, Any]]) -> Rate:
    if not isinstance(value, Mapping):
        raise _unfit("rate")
    said = read(value)
    tiers = tuple(said.pop("tiers", ()))
    if len(said) != 1 and (said or not tiers):
        raise _unfit("rate")
    return Rate(**said, tiers=tiers)


PricesIn = dict[str, Annotated[_RateIn, WrapValidator(_rate)]]


class PriceFileIn(_Model, total=False):
    """A price file."""

    as_of: Annotated[date, Told("day", _day)]
    prices: PricesIn


class _PollingIn(_Model, total=False):
    policy: Annotated[Literal["learned", "backoff", "fixed"], Told("policy")]
    initial_s: Positive
    factor: Number
    maximum_s: Positive


class _DeadlinesIn(_Model, total=False):
    image: Positive
    video: Positive
    audio: Positive


class _LimitsIn(_Model, total=False):
    requests_per_second: Positive
    models: dict[str, AtLeast1]


def _polling(said: dict[str, Any]) -> Polling:
    policy = said.pop("policy", "backoff" if said else "learned")
    try:
        check_policy(policy, set(said))
        return Polling(policy=policy, **said)
    except UsageError as exc:
        field, _, why = str(exc).removeprefix("polling.").partition(": ")
        fault = InitErrorDetails(type=_unfit("said", why=why), loc=(field,), input=said)
        raise ValidationError.from_exception_data("polling", [fault]) from exc


def _deadline_of_all(seconds: float) -> Deadlines:
    return Deadlines(image=seconds, video=seconds, audio=seconds)


_MAPPINGS = {"type": "array", "items": {"type": "object", "minProperties": 1}, "minItems": 1}
_LISTS_BY_NAME = {
    "type": "object",
    "additionalProperties": {"type": "array", "minItems": 1, "uniqueItems": True},
    "minProperties": 1,
}


class SettingsIn(_Model, total=False):
    """The top level of a job file; what others read of it is only looked at."""

    output_dir: Annotated[
        Text,
        about(
            "Folder for the results, relative to where asyncpipe is called; {date}, {week} or "
            "{time} in it make another one each time. Or a bucket, s3://BUCKET/PREFIX."
        ),
    ]
    provider: Annotated[ProviderName, about("Whose API it is, by the provider's name.")]
    max_workers: Annotated[AtLeast1, about("Most predictions in flight at once.")]
    window: Annotated[
        Literal["learned", "fixed"],
        about("Learn what the API takes, or keep max_workers in flight throughout."),
        Told("window"),
    ]
    limits: Annotated[
        _LimitsIn,
        AfterValidator(lambda said: Limits(**said)),
        about("What the API is known to take: requests a second, predictions of a model at once."),
    ]
    public_url: Annotated[
        Text,
        about("Links in manifest and export: a URL with {path} where each file's path belongs."),
    ]
    presign: Annotated[
        Text, about("Links signed by the bucket's store instead, and for how long: 12h, 7d.")
    ]
    notify: Annotated[
        Annotated[Text, AfterValidator(lambda said: (said,)), Tag(f"{TAG}text")]
        | Annotated[list[Text], AfterValidator(tuple), Tag(f"{TAG}list")],
        Discriminator(lambda said: f"{TAG}{'list' if isinstance(said, list) else 'text'}"),
        about(
            "URLs that are told when a run ends, stops or needs a decision; $NAME stands for one "
            "in an environment variable, slack:, feishu: or standard: before it for its format."
        ),
    ]
    notify_secret: Annotated[
        Text, about("The environment variable that holds the secret to sign them with, as $NAME.")
    ]
    max_cost: Annotated[Usd, about("Most that the folder's jobs may cost in all, in USD.")]
    budgets: Annotated[
        dict[_BudgetName, Usd],
        Field(json_schema_extra={"additionalProperties": False}),
        about("Most that jobs may cost that have a label (label:NAME=VALUE), or a day (UTC) buys."),
    ]
    wait_for_day: Annotated[
        Switch, about("Jobs that a day's budget is too small for wait for the next day.")
    ]
    min_balance: Annotated[Usd, about("Submit nothing while the account holds less, in USD.")]
    estimate_factor: Annotated[Factor, about("How many times an estimated price is reserved.")]
    retries: Annotated[AtLeast0, about(RETRIES)]
    ambiguous: Annotated[
        Literal["hold", "find", "find-resubmit", "resubmit"],
        about("Submits that lose their answer: leave, find, or submit again what is not found."),
        Told("ambiguous"),
    ]
    deadline_s: Annotated[
        Annotated[Positive, AfterValidator(_deadline_of_all), Tag(f"{TAG}number")]
        | Annotated[_DeadlinesIn, AfterValidator(lambda s: Deadlines(**s)), Tag(f"{TAG}mapping")],
        Discriminator(lambda said: f"{TAG}{'mapping' if isinstance(said, Mapping) else 'number'}"),
        about(DEADLINE),
    ]
    polling: Annotated[_PollingIn, AfterValidator(_polling)]
    prices: Annotated[
        PricesIn, about("USD per model: exactly one of per_image, per_second, per_job.")
    ]
    rows: Annotated[
        Any,
        Told("said", _clear, {"anyOf": [{"type": "string", "pattern": r"\S"}, _MAPPINGS]}),
        about("A CSV, TSV or JSON Lines file, or a list: jobs are made for each row of it."),
    ]
    encoding: Annotated[
        Text, about("How the table of rows is written, where that is not UTF-8: gbk, cp949 …")
    ]
    matrix: Annotated[
        Any,
        Told("said", _clear, _LISTS_BY_NAME),
        about("Lists by name: jobs are made for each combination of their values."),
    ]
    defaults: Annotated[dict[str, Any], about("What jobs take where they say nothing themselves.")]
    jobs: Annotated[
        Any,
        Told("said", _clear, {}),
        about("The jobs; with rows or matrix, templates with {column} in them."),
    ]


@cache
def _reader(model: Any) -> Callable[[Any], dict[str, Any]]:
    read: Callable[[Any], dict[str, Any]] = TypeAdapter(model).validator.validate_python
    return read


def fitting(
    value: Mapping[str, Any], model: Any, problems: Problems, *, remedy: str = ""
) -> dict[str, Any]:
    """The keys of ``value`` that fit ``model``, read; what does not is reported.

    ``remedy`` is added to what is said of unknown keys.
    """
    try:
        return _reader(model)(value)
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
    order = {str(key): n for n, key in enumerate(value)}
    for error in sorted(errors, key=lambda error: order[str(error["loc"][0])]):
        loc = [part for part in error["loc"] if part != "[key]" and not _is_tag(part)]
        if error["type"] in ("extra_forbidden", "invalid_key"):
            key, known = str(loc[-1]), _keys_at(model, loc)
            message = unknown_key(key, error["input"], known, remedy)
            loc[-1] = brief(key)
        else:
            said = error["input"]
            message = f": {words_for(error['type'], said, error.get('ctx', {}))}"
            if "in quotes" in message and (text := spelling_at(value, loc)) is not None:
                message = message.replace(shown(said), text)
        line = line_at(value, loc, problems.line)
        problems.report(f"{problems.path}{_path(loc)}{message}", line=line)
    faulty = {str(error["loc"][0]) for error in errors}
    # Once more, for what fits: whoever reads on may not say that a job lacks it.
    return fitting({k: v for k, v in value.items() if str(k) not in faulty}, model, problems)


def _is_tag(part: int | str) -> bool:
    return isinstance(part, str) and part.startswith(TAG)


def _path(loc: Sequence[int | str]) -> str:
    """A place below a mapping as messages write it; tiers count from 1, as people do."""
    first = 1 if "tiers" in loc and loc[0] == "prices" else 0
    parts = [f"[{part + first}]" if isinstance(part, int) else f".{part}" for part in loc]
    return "".join(parts).removeprefix(".")


def _keys_at(model: Any, loc: Sequence[int | str]) -> list[str]:
    """The keys that the mapping may have in which the last of ``loc`` stands."""
    hints = get_type_hints(model, include_extras=True)
    for part in loc[:-1]:
        if inner := next(_models_in(hints.get(str(part))), None):
            hints = get_type_hints(inner, include_extras=True)
    return list(hints)


def _models_in(annotation: Any) -> Iterator[Any]:
    if is_typeddict(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
