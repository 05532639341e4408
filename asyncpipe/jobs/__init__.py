"""What a job is, and what can happen to it: pure.

A ``Job`` is one thing to generate; an ``Event`` is one thing that happened to it; ``fold`` makes
of both the ``JobRecord`` that everybody reads. No I/O, no clock but ``now``.
"""
