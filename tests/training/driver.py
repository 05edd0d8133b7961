"""A driver to be killed: `python driver.py RAY_ADDRESS ROOT OUT` runs the slow pretraining job of `test_pretrain`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))


def main(address: str, root: str, out: str) -> None:
    from cluster.artifacts import Artifact
    from cluster.progress import StageProgress
    from cluster.session import connect
    from cluster.stage import StageContext
    from cluster.storage import Folder
    from tests.training.test_pretrain import CONFIG, MODEL, TWO, slow_job
    from training.config import PretrainJobConfig
    from training.worker import train_on_ray

    connect(address)
    place = Path(root)
    inputs = {name: Artifact(name, name[0] if name == "tokens" else "k", Folder(str(place / name)), {}) for name in ("tokens", "tokenizer")}
    scratch, logs = place / "driver/scratch", place / "driver/logs"
    scratch.mkdir(parents=True)
    config = PretrainJobConfig(model=MODEL, pretrain=CONFIG)
    context = StageContext("pretrain", config, inputs, Folder(out), StageProgress("pretrain"), scratch, logs, TWO)
    train_on_ray(slow_job(place, context), context)


if __name__ == "__main__":
    main(*sys.argv[1:])
