"""From the ledger to what people read: totals, results, manifest, status, export.

Nothing here changes a job; ``compare`` holds the ledger against a provider's bill.
"""

from asyncpipe.report.eta import left_s
from asyncpipe.report.export import export_file, export_rows, export_stream
from asyncpipe.report.manifest import (
    ABOUT_S,
    MANIFEST_EVERY_S,
    MANIFEST_NAME,
    Manifest,
    ManifestWriter,
    manifest_due_s,
    money,
    read_head,
    read_manifest,
    write_manifest,
)
from asyncpipe.report.progress import Progress
from asyncpipe.report.purchases import Ledgered, bill_of, read_entries, read_predictions
from asyncpipe.report.reconcile import (
    Cause,
    CauseKind,
    Compared,
    ModelCompared,
    Reconciled,
    Verdict,
    compare,
)
from asyncpipe.report.results import (
    Asset,
    JobFailed,
    Outcome,
    Reason,
    Result,
    ask_result,
    files_of,
    refused,
    result_of,
)
from asyncpipe.report.status import Money, Status, read_status, status_document, status_lines
from asyncpipe.report.summary import summary
from asyncpipe.report.totals import Totals

__all__ = [
    "ABOUT_S",
    "MANIFEST_EVERY_S",
    "MANIFEST_NAME",
    "Asset",
    "Cause",
    "CauseKind",
    "Compared",
    "JobFailed",
    "Ledgered",
    "Manifest",
    "ManifestWriter",
    "ModelCompared",
    "Money",
    "Outcome",
    "Progress",
    "Reason",
    "Reconciled",
    "Result",
    "Status",
    "Totals",
    "Verdict",
    "ask_result",
    "bill_of",
    "compare",
    "export_file",
    "export_rows",
    "export_stream",
    "files_of",
    "left_s",
    "manifest_due_s",
    "money",
    "read_entries",
    "read_head",
    "read_manifest",
    "read_predictions",
    "read_status",
    "refused",
    "result_of",
    "status_document",
    "status_lines",
    "summary",
    "write_manifest",
]
