"""When: windows, pace, backoff and polling; pure but for one gate.

``Traffic`` says whether a submit may go now and learns from each ``Answer``; the policies of
polling say when a prediction is asked for next. No provider's types, no job is known here.
"""

from asyncpipe.flow.gate import Gate
from asyncpipe.flow.learned import Latency
from asyncpipe.flow.limiter import Answer, AnswerKind, Limiter, News, Permit, Windows, lessons
from asyncpipe.flow.memory import LATENCY, Memory, latencies_of, recall
from asyncpipe.flow.pace import Pace
from asyncpipe.flow.polling import (
    Finding,
    PollClock,
    PollPolicy,
    PollSchedule,
    Trouble,
    backstop_gap_s,
)
from asyncpipe.flow.shares import Demand
from asyncpipe.flow.window import Window

__all__ = [
    "LATENCY",
    "Answer",
    "AnswerKind",
    "Demand",
    "Finding",
    "Gate",
    "Latency",
    "Limiter",
    "Memory",
    "News",
    "Pace",
    "Permit",
    "PollClock",
    "PollPolicy",
    "PollSchedule",
    "Trouble",
    "Window",
    "Windows",
    "backstop_gap_s",
    "latencies_of",
    "lessons",
    "recall",
]
