"""The sync engine: update the raw tables of a Stripe account, and continue where an interrupted sync stopped.

Belongs here: the streams, the windows of a list, checkpoints, and the order of reading. Does not belong here: HTTP and
retries (`stripe_api`), the newer-wins load (`warehouse`), schedules and metadata (`assets`).
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
