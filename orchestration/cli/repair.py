"""`recoup repair`: move damaged databases aside, and say how to restore their content."""

from orchestration.maintenance.repair import Databases, repair


def run_repair(databases: Databases) -> None:
    """Repair the data folder, and print which files were damaged."""
    is_damaged = False
    for each in repair(databases):
        is_damaged = True
        print(f"{each.path} was damaged. {each.remark}")
        for path in each.moved_to:
            print(f"  kept as {path}", flush=True)
    if not is_damaged:
        print(f"All databases in {databases.warehouse.parent} can be read.")
