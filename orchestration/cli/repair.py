"""`recoup repair`: move damaged databases aside, and say how to restore their content."""

from orchestration.config.settings import Settings
from orchestration.maintenance.repair import repair


def run_repair(settings: Settings) -> None:
    """Repair the data folder, and print which files were damaged."""
    is_damaged = False
    for each in repair(settings):
        is_damaged = True
        print(f"{each.path} was damaged. {each.remark}")
        for path in each.moved_to:
            print(f"  kept as {path}", flush=True)
    if not is_damaged:
        print(f"All databases in {settings.recoup_data_dir} can be read.")
