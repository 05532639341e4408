"""From files to jobs: YAML, JSON, JSONL and CSV; every mistake at once, with its line.

``open_jobs`` reads a job file lazily, ``load_jobs`` at once; ``load_price_file`` reads prices.
"""

from asyncpipe.jobfile.file import JobFile
from asyncpipe.jobfile.folders import FolderTemplate, Moment, has_placeholder, zone_of
from asyncpipe.jobfile.lazy import JobRow
from asyncpipe.jobfile.load import JobReader, as_file, load_jobs, open_jobs, parse_jobs
from asyncpipe.jobfile.prices import load_price_file
from asyncpipe.jobfile.problems import LONGEST_MESSAGE, MOST_PROBLEMS
from asyncpipe.jobfile.schema import TITLE, job_file_schema

__all__ = [
    "LONGEST_MESSAGE",
    "MOST_PROBLEMS",
    "TITLE",
    "FolderTemplate",
    "JobFile",
    "JobReader",
    "JobRow",
    "Moment",
    "as_file",
    "has_placeholder",
    "job_file_schema",
    "load_jobs",
    "load_price_file",
    "open_jobs",
    "parse_jobs",
    "zone_of",
]
