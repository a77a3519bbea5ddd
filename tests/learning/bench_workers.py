"""Workers of the workbench as callables: `calculate-train-0` is `calculate_train_0`."""

from collections.abc import Callable

from ripieno.workbench.workers import make_workers

_MAKERS = {worker.id.replace("-", "_"): worker for worker in make_workers()}


def __getattr__(name: str) -> Callable[[str], str]:
    maker = _MAKERS.get(name)
    if maker is None:
        raise AttributeError(name)
    return lambda text: maker.act(text, lambda code: None)
