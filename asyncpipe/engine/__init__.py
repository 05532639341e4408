"""The only starter of tasks: jobs are taken in, admitted, submitted, polled and fetched.

``drive`` shows one job's way from beginning to end; ``Pipeline`` is the public face; ``verify``
and ``resolve`` mend a folder.
"""
