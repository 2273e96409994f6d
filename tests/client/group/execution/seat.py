"""A member of a group as a process: `python seat.py FOLDER NAME PORT SETTINGS`; prints how it ended as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from assay.errors import AssayError
from assay.group.execution.run import Seat, run_group_training
from assay.group.execution.task_files import read_task
from assay.group.plan import read_plan
from assay.program.local_schedule import LocalSteps


def main() -> None:
    folder, name, settings = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[4])
    seat = Seat(name, folder / "cluster.toml", "127.0.0.1", int(sys.argv[3]), **settings)
    try:
        task, graph = read_task(folder / "task")
        told = folder / "local-steps.json"
        local_steps = LocalSteps(**json.loads(told.read_text())) if told.exists() else None
        done = run_group_training(task, read_plan(folder / "plan.toml"), seat, folder / name, graph, local_steps)
    except AssayError as error:
        print(json.dumps({"error": str(error), "code": error.code}))
        return
    print(
        json.dumps(
            {
                "roots": [root.hex() for root in done.roots],
                "proof": str(done.proof.folder) if done.proof else "",
                "leader": done.leader,
                "members": done.members,
                "generations": done.generations,
                "failures": list(done.failures),
                "first_step": done.report["first_step"],
            }
        )
    )


if __name__ == "__main__":
    main()
