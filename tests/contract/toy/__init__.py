"""A provider for a made-up API, whole: a kitchen whose works are cooking, served or burnt.

Yours begins as a copy of this file. Put it into a package of your own and name it there::

    [project.entry-points."asyncpipe.providers"]
    toy = "my_package.toy"

Then ``asyncpipe run jobs.yaml --provider toy`` buys from it, with the key in TOY_TOKEN, and
``asyncpipe.testing.check_provider`` tries whether it does what asyncpipe relies on.
"""

from __future__ import annotations

from asyncpipe.jobs import Job
from asyncpipe.providers.kit import (
    ApiProvider,
    HttpAnswer,
    Prediction,
    PredictionStatus,
    base_of,
    failed_poll,
    holds_key,
    read_json,
    read_key,
    refused_submit,
    segment,
)

KEY_VARIABLES = ("TOY_TOKEN",)

HOME = "https://toy.example"

_PHASES = {
    "cooking": PredictionStatus.RUNNING,
    "served": PredictionStatus.COMPLETED,
    "burnt": PredictionStatus.FAILED,
}

_REFUND = {"yes": True, "no": False}
"""Whether a burnt work's money comes back; what is not said nobody knows: None."""


def has_key() -> bool:
    return holds_key(KEY_VARIABLES)


def connect(*, base_url: str | None, simulated: bool, keyless: bool) -> Toy:
    key = "" if keyless else read_key(None, KEY_VARIABLES, simulated=simulated)
    return Toy(key, base_url or HOME, simulated=simulated)


class Toy(ApiProvider):
    """Where it is and which key it takes is ApiProvider's; here are its paths and its words."""

    name = "toy"

    def __init__(self, token: str, base_url: str = HOME, *, simulated: bool = False) -> None:
        base = base_of(base_url, example=HOME, simulated=simulated)
        super().__init__(base, token, headers={"X-Toy-Token": token}, simulated=simulated)

    async def submit(self, job: Job) -> Prediction:
        order = {"recipe": job.model, "wish": job.prompt, "extra": dict(job.params)}
        # Raises NotSent where surely nothing left, SubmitUnknown where it may have been taken.
        answer = self._clean(await self._http.post("/v2/works", order))
        if (work := _prediction(answer)) is None:
            raise refused_submit(answer, _problem(answer))
        return work

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        answer = self._clean(await self._http.get(f"/v2/works/{segment(prediction_id)}"))
        if (work := _prediction(answer)) is None:
            raise failed_poll(answer, _problem(answer))
        return work


def _prediction(answer: HttpAnswer) -> Prediction | None:
    work = (read_json(answer.body) or {}).get("work")
    if not isinstance(work, dict) or not work.get("ref"):
        return None
    phase = str(work.get("phase"))
    return Prediction(
        id=str(work["ref"]),
        status=_PHASES.get(phase, PredictionStatus.RUNNING),
        outputs=tuple(dish["href"] for dish in work.get("dishes", ())),
        error=work.get("why"),
        released=_REFUND.get(str(work.get("refund"))),
        said=phase,
    )


def _problem(answer: HttpAnswer) -> str:
    return str((read_json(answer.body) or {}).get("problem", ""))
