"""The sync engine: brings a Stripe account's raw tables up to Stripe's now, and resumes wherever it was stopped.

Belongs here: which streams there are, windows, checkpoints, the order of reading. Does not: HTTP and retries
(`stripe_api`), the newer-wins load (`warehouse`), schedules and metadata (`assets`).
"""

from orchestration.stripe_api.identity import AccountMismatch, identify
from orchestration.sync.context import Progress
from orchestration.sync.engine import StreamState, SyncReport, SyncRequest, sync_account
from orchestration.sync.estimate import StreamPlan, SyncPlan, plan_sync

__all__ = [
    "AccountMismatch",
    "Progress",
    "StreamPlan",
    "StreamState",
    "SyncPlan",
    "SyncReport",
    "SyncRequest",
    "identify",
    "plan_sync",
    "sync_account",
]
