"""Dagster partitions: one for each connected integration.

This file says which partitions exist. `assets/extract.py` says what a partition contains, and `sensors.py` when
Dagster's list is updated.
"""

from collections.abc import Sequence, Set
from datetime import datetime
from typing import Any, Final, Self

import dagster as dg

from orchestration.base.account import DEFAULT_INTEGRATION
from orchestration.config.settings import Settings
from orchestration.setup.registry import make_integrations

PartitionRequest = dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest

PARTITIONS_NAME: Final = "integration"
"""Name under which an instance of Dagster stores the list of partitions."""


def integration_names(settings: Settings) -> Sequence[str]:
    """Return the names of all connected integrations, or `default` if there is none yet.

    Raises:
        IntegrationError: `integrations.toml` cannot be used.
    """
    return [each.name for each in make_integrations(settings).all()] or [DEFAULT_INTEGRATION]


class IntegrationPartitions(dg.DynamicPartitionsDefinition):
    """Dynamic partitions whose keys are the integrations that are connected now.

    Dagster's UI and daemon cannot read `integrations.toml`: they use the list that the instance stores, and
    `integrations_sensor` updates it. Code servers, runs and `dagster asset materialize` use this class. It reads the
    file instead, so that a run works in a new instance, whose list is still empty.
    """

    settings: Settings

    def __new__(cls, settings: Settings) -> Self:
        """Create the definition for the integrations of a data folder."""
        made: Self = super().__new__(cls, name=PARTITIONS_NAME)
        made.settings = settings
        return made

    def get_partition_keys(
        self, current_time: datetime | None = None, dynamic_partitions_store: Any = None
    ) -> Sequence[str]:
        """Return the names of the integrations. The arguments, which Dagster gives, are not used."""
        return integration_names(self.settings)

    def has_partition_key(
        self, partition_key: str, current_time: datetime | None = None, dynamic_partitions_store: Any = None
    ) -> bool:
        """Return whether there is an integration of this name. The other arguments are not used."""
        return partition_key in self.get_partition_keys()

    def filter_valid_partition_keys(self, partition_keys: set[str]) -> Set[str]:
        """Return those of the keys that are names of integrations."""
        return partition_keys & set(self.get_partition_keys())


def partition_requests(instance: dg.DagsterInstance, names: Sequence[str]) -> list[PartitionRequest]:
    """Return the requests that make an instance's list of partitions equal to `names`. There may be none."""
    listed = instance.get_dynamic_partitions(PARTITIONS_NAME)
    added = [name for name in names if name not in listed]
    removed = [name for name in listed if name not in names]
    return [
        *([dg.AddDynamicPartitionsRequest(PARTITIONS_NAME, added)] if added else []),
        *([dg.DeleteDynamicPartitionsRequest(PARTITIONS_NAME, removed)] if removed else []),
    ]
