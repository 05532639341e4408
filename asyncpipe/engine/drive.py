"""One job's way, in the order in which it lives: submit, poll, fetch."""

from __future__ import annotations

from dataclasses import dataclass

from asyncpipe.engine.admission import Admission
from asyncpipe.engine.aftercare import Aftercare
from asyncpipe.engine.fetch import Fetcher
from asyncpipe.engine.poll import Poller
from asyncpipe.engine.recorder import Recorder
from asyncpipe.engine.search import Searcher
from asyncpipe.engine.submit import Submitter
from asyncpipe.engine.tickets import Ticket
from asyncpipe.engine.upload import Uploads
from asyncpipe.errors import ClaimLost
from asyncpipe.jobs import JobState, PolledAgain, now


@dataclass(frozen=True, kw_only=True, slots=True)
class Driver:
    """Carries jobs; shared by all driver coroutines, each of which carries one at a time."""

    admission: Admission
    uploads: Uploads
    submitter: Submitter
    poller: Poller
    fetcher: Fetcher
    recorder: Recorder
    aftercare: Aftercare
    searcher: Searcher

    async def run(self) -> None:
        """Carry for ever what admission hands over."""
        async for ticket in self.admission.drivers:
            try:
                await self.drive(ticket)
            except ClaimLost:
                self.admission.dropped()

    async def drive(self, ticket: Ticket) -> None:
        """Carry one job as far as it goes now; its permit is given back on the way."""
        assert ticket.permit is not None, "admission gives every job its permit"
        before = ticket.record
        with ticket.permit:
            if ticket.state is JobState.UNKNOWN:
                await self.submitter.send_again(ticket)
            if ticket.state is JobState.UNKNOWN:
                await self.poller.look(ticket)
            if ticket.state is JobState.PENDING:
                await self.submitter.submit(ticket)
            if ticket.state is JobState.EXPIRED:
                self.recorder.record(ticket, PolledAgain(job_id=ticket.id, at=now()))
            if ticket.state is JobState.SUBMITTED:
                await self.poller.poll(ticket)
            await self.uploads.doubt(before, ticket.record)
        if ticket.state is JobState.GENERATED:
            await self.fetcher.fetch(ticket)
        if ticket.gone:
            raise ClaimLost("another worker has the job")
        if ticket.state is JobState.UNKNOWN:
            if self.searcher.take(ticket):
                return
            self.submitter.resubmit(ticket)
        self.admission.put_down(ticket, self.submitter.next_attempt_at(ticket))
        self.aftercare.put_down(ticket)
