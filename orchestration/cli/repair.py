"""`recoup repair`: moves damaged databases aside, and says how their content comes back."""

from orchestration.repair import repair
from orchestration.settings import Settings


def run_repair(settings: Settings) -> None:
    """Repair the data folder and print what was damaged."""
    found = repair(settings)
    for each in found:
        print(f"{each.path} was damaged. {each.remark}")
        for path in each.moved_to:
            print(f"  kept as {path}")
    if not found:
        print(f"All databases in {settings.recoup_data_dir} can be read.")
