"""How many predictions of one model may be in flight: learned from submits taken and refused."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

START = 4
"""The window of a model nobody knows anything about."""

GROWTH = 1.5
"""Until a limit is found the window is so many times what was in flight at once."""

STRIDE = 32
"""But never so much above it: that many submits may be refused when the limit is met."""

CUT = 0.75
"""What a newly met limit leaves of the window."""

ALIKE = 0.75
"""A refusal above this share of the known limit is that limit again; below, it is another one."""

LOOK_S = 15.0
"""The first look above the known limit comes after this many seconds, each next one twice as late
…"""

MOST_LOOKS = 4
"""… up to so many times: a limit that is raised is to be noticed."""

EARLY_LOOKS = 2
"""After so many, and …"""

LOOK_SUBMITS = 100
"""… so many submits taken between two: few are refused for looking."""

LOOK_SMALL = 4
"""But after so many times its square where the limit is below five: a few refusals by chance, at
the start, may look like one, and a look there costs little beside what a shut window costs."""

CONFIRM = ((12, 15.0), (12, 15.0), (12, 15.0), (8, 10.0), (8, 5.0))
"""A look that was taken holds for so many submits and seconds before the next goes further: the
first of a row, the second …; the last is for all later ones. A prediction that has ended and was
not polled yet makes room that is no room to count on."""

SURE = 5
"""So many looks taken in a row are no chance: the limit was raised."""

SUSPECT = 2
"""So many refusals at about one level, and nothing taken far above it between, may be by chance;
one more is a limit. Some APIs refuse at random, whatever is in flight."""

BEYOND = 1.5
"""What is taken at so many times the level of a refusal shows that it was no limit."""

IN_A_ROW = 4
"""So many refusals in a row are a limit all the same, …"""

MEMORY = 32
"""… and so is more than a share of the last answers, …"""

CROWDED = 0.3
"""… this one, which pauses and unseen ends keep a limit that is run into from falling below."""

DENIED = 3
"""But so many refusals among as many answers while the window keeps to a limit deny it: one that
is there refuses hardly any. Then the window opens, and it takes twice the evidence to shut it."""

LOWER = 2
"""So many do, too, where they come below what is ALIKE the limit as it was met, …"""

FAR = 0.5
"""… and a single one below this share of it. Not sooner: what had ended and was not polled yet
counted as in flight when it was met, nearly half of what takes seconds."""

MOST_DOUBTS = 4
"""Times that the evidence is doubled."""


@dataclass(slots=True)
class _Lessons:
    """What refusals and their absence have taught; ``found`` is the limit, if one was met."""

    found: int | None = None
    size: float = 0.0
    believed: int = 0  # the limit as it was met; ``found`` may have gone down from it since
    peak: int = 0  # the most in flight since a limit was last met anew
    about: int = 0  # the limit that looks above it were for
    looks: int = 0  # those that were refused
    anew: bool = False  # the limit was just met; answers to the same burst may correct it
    looking: bool = False
    base: int = 0  # the limit before the looks that were taken
    streak: int = 0  # those that were taken, one after the other
    taken: int = 0  # submits taken since the last look
    since: float = 0.0
    answers: int = 0  # the last ones as bits, 1 for a refusal
    heard: int = 0  # how many those are
    in_a_row: int = 0  # refusals that counted, and nothing taken since
    suspects: int = 0  # refusals before a limit is believed
    suspected: int = 0  # the highest level of those
    doubts: int = 0  # limits that were believed and denied


@dataclass(slots=True)
class Window:
    """The predictions of one model: those in flight, and how many there may be.

    Each submit is ``admitted``, then ``taken`` and some time ``ended``, or else ``refused`` or
    ``failed``. Completions say nothing about limits and minutes late, so only answers to submits
    steer: the window grows with what is in flight until submits are refused for the rate, so often
    that it is not by chance; that cuts it once, however many submits of the same burst are refused;
    it returns to the limit found and looks above it rarely. ``ceiling`` is never passed. Not
    ``learned``, it is the ceiling throughout. Where other workers use the same key, what is in
    flight is theirs as well, and ``share`` is the most of ours.
    """

    ceiling: int
    learned: bool = True
    start: int = START
    in_flight: int = 0
    most: int = 0  # in flight at once so far
    met: bool = False  # whether a limit was met, not only recalled
    others: int = 0  # in flight at other workers, as they said last
    theirs: int = 0  # of those the provider had taken
    share: int | None = None
    claim: int = 0  # the share that other workers are told of next
    _waiting: int = 0  # submits without an answer
    _final: bool = False  # whether the last one taken had ended with its answer
    _episode: int = 0
    _l: _Lessons = field(default_factory=_Lessons)
    _before: tuple[float, _Lessons] | None = None  # the last refusal that counted: when, and until

    def recall(self, found: int) -> None:
        """Begin near a limit that an earlier run met, below it."""
        self._l = _Lessons(found=found, size=max(min(CUT * found, STRIDE), 1.0), about=found)

    @property
    def found(self) -> int | None:
        """The most that was in flight when one more was refused; None: no limit is known.

        Submits that are refused at random are none.
        """
        return self._l.found

    @property
    def size(self) -> int:
        """How many may be in flight now."""
        if not self.learned:
            return self.ceiling
        if self._l.found is None:
            size = max(self.start, min(self._l.peak * GROWTH, self._l.peak + STRIDE))
        else:
            size = max(self._l.size, 1.0)
        return min(int(size), self.ceiling)

    @property
    def running(self) -> int:
        """Those the provider has taken and not reported an end of."""
        return self.in_flight - self._waiting

    def shared(self, *, others: int, taken: int, share: int) -> None:
        """Note what other workers have in flight, and the most that we may have.

        Of ``others`` the provider has ``taken`` so many: that is seen as our own is. A limit that
        was met before anybody knew of them is corrected: what is taken by now is within it.
        """
        self.others, self.theirs, self.share = others, taken, share
        learned = self._l
        learned.peak = max(learned.peak, self._level)  # all grow alike, whoever takes how many
        if learned.found is not None and self._level > learned.found:
            learned.found = learned.believed = learned.about = self._level
            learned.size = max(learned.size, float(self._level))

    def hear(self, found: int) -> None:
        """Take over a limit that another worker has met, where none is known here."""
        if self._l.found is None and self.learned:
            self.recall(found)

    @property
    def _level(self) -> int:
        # Where submits are answered when they are done, those that wait are worked on.
        return self.theirs + (self.in_flight if self._final else self.running)

    @property
    def full(self) -> bool:
        """Whether another one has to wait."""
        if self.share is None:
            return self.in_flight >= self.size
        return self.in_flight >= min(self.share, max(self.size - self.others, 0))

    def resume(self) -> None:
        """Take up a prediction that was submitted before."""
        self.in_flight += 1
        self.most = max(self.most, self.running)

    def admitted(self) -> int:
        """A submit goes out; returns its episode, to be handed back with the answer."""
        self.in_flight += 1
        self._waiting += 1
        return self._episode

    def ended(self) -> None:
        """The provider reported an end of one it had taken, or nobody waits for it any more."""
        self.in_flight -= 1

    def failed(self) -> None:
        """A submit was not sent, or answered in a way that says nothing about limits."""
        self._waiting -= 1
        self.in_flight -= 1

    def taken(self, episode: int, now: float, *, final: bool = False) -> None:
        """The provider took a submit; ``final``: its answer came with the end of the prediction."""
        learned = self._l
        full = self.full
        self._final = final
        self._waiting -= 1
        level = self._level
        self.most = max(self.most, level)
        learned.peak = max(learned.peak, level)
        learned.in_a_row = 0
        self._remember(refused=False)
        if learned.found is None:
            if level >= min(BEYOND * learned.suspected, self.ceiling - 1):
                learned.suspects = learned.suspected = 0
            return
        current = episode == self._episode
        learned.anew = learned.anew and not current
        if level > learned.found and (current or learned.anew):
            if learned.looking:
                if learned.streak == 0 or learned.streak >= SURE:
                    learned.base = learned.found
                learned.looking = False
                learned.streak += 1
                learned.taken, learned.since = 0, now
            learned.found = level
        if full:
            self._grow(learned.found, now)

    def _grow(self, found: int, now: float) -> None:
        learned = self._l
        if learned.size < found:
            learned.size = min(learned.size + 1, found)
            return
        learned.taken += 1
        if learned.streak:
            enough, pause_s = CONFIRM[min(learned.streak, len(CONFIRM)) - 1]
            due = learned.taken >= min(enough, 2 * found) and now >= learned.since + pause_s
        else:
            submits = min(LOOK_SUBMITS, LOOK_SMALL * found * found)
            rare = learned.taken >= submits or learned.looks <= EARLY_LOOKS
            due = rare and now >= learned.since + LOOK_S * 2.0 ** min(learned.looks, MOST_LOOKS)
        if due:
            learned.size = found + min(2 ** max(learned.streak - 1, 0), STRIDE)
            learned.looking, learned.taken, learned.since = True, 0, now

    def refused(self, episode: int, now: float) -> None:
        """The provider refused a submit for the rate."""
        self.failed()
        level = self._level
        if not self.learned or episode != self._episode:
            return
        if level == 0:  # nothing of ours can be the reason
            self._remember(refused=True)
            return
        self._episode += 1
        self._before = (now, replace(self._l))
        learned = self._l
        learned.in_a_row += 1
        if not learned.looking:  # that is what looks are for
            self._remember(refused=True)
        if learned.found is None:
            learned.suspects += 1
            learned.suspected = max(learned.suspected, level)
            if self._believed:
                self._meet(level, now)
        elif self._denied(level):
            self._open()
        else:
            self._meet(level, now)

    @property
    def _believed(self) -> bool:
        """Whether the refusals so far are those of a limit."""
        learned, doubts = self._l, self._l.doubts
        if learned.suspects > SUSPECT * 2**doubts or learned.in_a_row >= IN_A_ROW + doubts:
            return True
        crowd = min(CROWDED * 1.2**doubts, 0.6) * MEMORY
        return learned.heard >= MEMORY and learned.answers.bit_count() > crowd

    def _denied(self, level: int) -> bool:
        """Whether a refusal shows that the limit is not where it was believed, nor lower."""
        learned = self._l
        often = learned.answers.bit_count() >= DENIED
        lower = learned.answers.bit_count() >= LOWER and level <= ALIKE * learned.believed
        return learned.in_a_row == 1 and (often or lower or level <= FAR * learned.believed)

    def _open(self) -> None:
        """Refusals come at any level: there is no limit after all."""
        learned = self._l
        assert learned.found is not None, "only a limit that was believed is denied"
        peak = max(learned.peak, learned.found)
        self._l = _Lessons(peak=peak, doubts=min(learned.doubts + 1, MOST_DOUBTS))

    def _meet(self, level: int, now: float) -> None:
        """Cut the window to a limit that is met anew, or set it back to one that was known."""
        learned, found = self._l, self._l.found
        self.met = True
        if found is None or learned.in_a_row > 1 + learned.doubts:
            learned.peak = learned.found = learned.believed = level
            learned.size, learned.anew = max(CUT * level, 1.0), True
            learned.answers = learned.heard = 0
        else:
            # Room that was there for a moment is gone: back to what held before the looks.
            learned.found = min(learned.base if learned.streak else found, level)
            learned.size = learned.found
        alike = learned.about * ALIKE <= learned.found <= learned.about / ALIKE
        learned.looks = learned.looks + 1 if alike else 0
        learned.about = learned.about if alike else learned.found
        learned.looking, learned.streak, learned.taken, learned.since = False, 0, 0, now

    def _remember(self, *, refused: bool) -> None:
        learned = self._l
        learned.answers = (learned.answers << 1 | refused) & (1 << MEMORY) - 1
        learned.heard = min(learned.heard + 1, MEMORY)

    def forgive(self, since: float) -> None:
        """Take back what the last refusal taught, if it came after ``since``."""
        if self._before is not None and self._before[0] >= since:
            self._l, self._before = self._before[1], None
