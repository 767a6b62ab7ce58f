"""The names of the asset groups. Dagster sorts them by name, so each begins with its place in the pipeline."""

from typing import Final

RAW_GROUP: Final = "1_raw"
SEEDS_GROUP: Final = "2_seeds"
PUBLISHED_GROUP: Final = "6_published"
MODEL_GROUPS: Final = {"staging": "3_staging", "intermediate": "4_intermediate", "marts": "5_marts"}
"""The group of the models in each folder of `models/`. Models in other folders do not become assets."""
