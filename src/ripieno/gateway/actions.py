"""Actions: the forms of the dashboard that change something."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from ripieno.app import Installation
from ripieno.app.feedback import record_feedback
from ripieno.app.policies import Pairing, promote_by_hand, roll_back, shadow
from ripieno.app.pool_file import NewWorker, add_worker, set_muted
from ripieno.app.probing import probe
from ripieno.domain import Mode, Privacy, Task, Verdict
from ripieno.errors import InvalidTask, NotFound, RipienoError

if TYPE_CHECKING:
    from ripieno.dashboard import Job

MOST_JOBS = 20
MOST_PROBES = 1000

Fields = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    """The result of a form."""

    next_page: str
    """Address of the next page, after `/ui/`."""
    notice: str = ""


class Jobs:
    """Long work that a page started. It ends with the process; what it recorded stays."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._tasks: set[asyncio.Task[str]] = set()

    def list(self) -> "tuple[Job, ...]":
        """List the jobs, the latest first."""
        return tuple(reversed(self._jobs))

    def start(self, name: str, about: str, run: Callable[[], Coroutine[None, None, str]]) -> None:
        """Start a job.

        Args:
            name: the kind of job.
            about: the worker or checkpoint.
            run: does it, and returns its result in words.

        Raises:
            InvalidTask: the same job runs already.
        """
        from ripieno.dashboard import Job

        if any(job.name == name and job.about == about and job.state == "running" for job in self._jobs):
            raise InvalidTask(f"{name} of {about} runs already")
        job = Job(name=name, about=about, state="running")
        self._jobs = [*self._jobs[-MOST_JOBS + 1 :], job]
        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(partial(self._end, job))

    async def close(self) -> None:
        """Cancel the running jobs."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _end(self, job: "Job", task: "asyncio.Task[str]") -> None:
        from ripieno.dashboard.views import find_fault

        self._tasks.discard(task)
        fault = find_fault(task, f"{job.name} of {job.about}")
        ended = replace(job, state="failed" if fault else "done", detail=fault or task.result())
        self._jobs = [ended if each is job else each for each in self._jobs]


class Actions:
    """What pages can change, by the address of the form."""

    def __init__(self, app: Installation) -> None:
        self._app = app
        self.jobs = Jobs()
        self._known: dict[str, Callable[[Fields], Awaitable[ActionResult]]] = {
            "pool/mute": lambda fields: self._change_muted(fields, is_muted=True),
            "pool/unmute": lambda fields: self._change_muted(fields, is_muted=False),
            "pool/add": self._add,
            "pool/probe": self._probe,
            "policies/promote": self._promote,
            "policies/rollback": self._roll_back,
            "policies/shadow": self._shadow,
            "approvals/answer": self._answer,
            "playground/ask": self._ask,
            "feedback": self._add_feedback,
            "memory/forget": self._forget,
            "memory/beat": self._beat,
        }

    @property
    def names(self) -> list[str]:
        """The addresses of the forms, after `/ui/`."""
        return sorted(self._known)

    async def do(self, name: str, fields: Fields) -> ActionResult:
        """Run an action.

        Raises:
            NotFound: there is no such action.
            RipienoError: the action failed.
        """
        action = self._known.get(name)
        if action is None:
            raise NotFound(f"no action has the address {name[:100]!r}")
        return await action(fields)

    async def _change_muted(self, fields: Fields, *, is_muted: bool) -> ActionResult:
        worker = _require(fields, "worker")
        await asyncio.to_thread(set_muted, self._app.runtime.loaded.path, worker, is_muted=is_muted)
        return ActionResult(next_page="pool", notice=f"{worker} is {'muted' if is_muted else 'back'}.")

    async def _add(self, fields: Fields) -> ActionResult:
        facts: dict[str, object] = {"privacy": Privacy(_choose(fields, "privacy", list(Privacy))).value}
        if fields.get("model"):
            facts["model"] = fields["model"]
        for field, name in (("price_in", "input_usd_per_mtok"), ("price_out", "output_usd_per_mtok")):
            if fields.get(field, "").strip():
                facts[name] = _read_number(fields, field, low=0.0)
        new = NewWorker(
            id=_require(fields, "worker"),
            provider=_require(fields, "provider"),
            facts=facts,
            base_url=fields.get("base_url", "").strip() or None,
        )
        keeps = fields.get("keep_embedded") == "1"
        await asyncio.to_thread(add_worker, self._app.runtime.loaded.path, new, keeps_embedded=keeps)
        key = f"RIPIENO_PROVIDERS__{new.provider.upper()}__API_KEY"
        return ActionResult(
            next_page="pool", notice=f"{new.id} is added. Set the key of its provider in {key}, then probe the worker."
        )

    async def _probe(self, fields: Fields) -> ActionResult:
        worker, budget = _require(fields, "worker"), int(_read_number(fields, "budget", low=1, high=MOST_PROBES))

        async def run() -> str:
            found = await probe(self._app, worker, budget=budget)
            quality = f"{found.quality:.2f} ± {found.quality_sd:.2f}"
            return f"{found.probes} probes, expected quality {quality}, {found.standing}"

        self.jobs.start("probe", worker, run)
        return ActionResult(next_page="pool", notice=f"{worker} is being probed.")

    async def _promote(self, fields: Fields) -> ActionResult:
        checkpoint = _require(fields, "checkpoint")
        await promote_by_hand(self._app, checkpoint)
        return ActionResult(next_page="policies", notice=f"{checkpoint} decides from the next task on.")

    async def _roll_back(self, fields: Fields) -> ActionResult:
        return ActionResult(next_page="policies", notice=f"{await roll_back(self._app)} decides again.")

    async def _shadow(self, fields: Fields) -> ActionResult:
        checkpoint = _require(fields, "checkpoint")

        async def run() -> str:
            outcome = "no stage ran"
            async for finding in shadow(self._app, checkpoint, Pairing()):
                outcome = f"{finding.stage} {'passed' if finding.passed else 'failed'}: {finding.reason}"
            return outcome

        self.jobs.start("shadow", checkpoint, run)
        return ActionResult(next_page="policies", notice=f"{checkpoint} is being compared with the one in traffic.")

    async def _answer(self, fields: Fields) -> ActionResult:
        run, digest = _require(fields, "run"), _require(fields, "digest")
        is_approved = _choose(fields, "answer", ("approve", "deny")) == "approve"
        found = await asyncio.to_thread(self._app.runs.find, run)
        if found.proposal is None or found.proposal.digest != digest:
            raise InvalidTask("the step has changed since the page was loaded", hint="open the page again")
        counts = await self._app.runs.resolve(
            run, is_approved=is_approved, by=_require(fields, "by"), reason=fields.get("reason", "")
        )
        await self._app.runs.sweep()
        answer = "approved" if counts.is_approved else "denied"
        return ActionResult(next_page="approvals", notice=f"{answer} by {counts.by}")

    async def _ask(self, fields: Fields) -> ActionResult:
        text, dial = _require(fields, "text"), _read_number(fields, "dial", low=0.0, high=1.0)
        mode = Mode(fields["mode"]) if fields.get("mode") in list(Mode) else None
        wanted = [name for name in (fields.get("first") or "auto", fields.get("second", "")) if name]
        objective = replace(self._app.runtime.make_objective(preference=dial), mode=mode)
        tasks = []
        for name in wanted:
            if name != "auto" and name not in self._app.runtime.pool:
                raise InvalidTask(f"no worker is called {name[:100]!r}")
            own = objective if name == "auto" else replace(objective, workers=(name,))
            tasks.append(Task.from_text(text, objective=own))
        names = await asyncio.gather(*(self._run(task) for task in tasks))
        shown = {"of": ",".join(names), "dial": f"{dial:g}", "first": wanted[0], "second": "".join(wanted[1:])}
        return ActionResult(next_page=f"playground?{urlencode(shown)}")

    async def _run(self, task: Task) -> str:
        """Run a task, and return the id of its decision, also if the task failed."""
        orchestrator = self._app.runtime.orchestrator
        started = await orchestrator.start(task)
        with suppress(RipienoError):
            await orchestrator.finish(started)
        return started.decision.id

    async def _add_feedback(self, fields: Fields) -> ActionResult:
        verdict = Verdict(verifier="user", quality=_read_number(fields, "quality", low=0.0, high=1.0))
        await record_feedback(self._app, _require(fields, "decision"), verdict)
        back = fields.get("back", "")
        is_own = back.startswith(("decision/", "playground?"))
        return ActionResult(next_page=back if is_own else "live", notice="The feedback is recorded.")

    async def _forget(self, fields: Fields) -> ActionResult:
        erased = await self._app.memory.forget(_require(fields, "item"))
        return ActionResult(
            next_page="memory", notice=f"{erased.id[:12]} is erased, with {len(erased.derived)} items made from it."
        )

    async def _beat(self, fields: Fields) -> ActionResult:
        is_back = await self._app.memory.beat()
        return ActionResult(
            next_page="memory", notice="The canary came back." if is_back else "The canary did not come back."
        )


def _require(fields: Fields, name: str) -> str:
    value = fields.get(name, "").strip()
    if not value:
        raise InvalidTask(f"{name} is missing", param=name)
    return value


def _choose(fields: Fields, name: str, known: Sequence[str]) -> str:
    value = fields.get(name, "")
    if value not in known:
        raise InvalidTask(f"{name} must be one of {', '.join(known)}, got {value[:40]!r}", param=name)
    return value


def _read_number(fields: Fields, name: str, *, low: float, high: float = float("inf")) -> float:
    try:
        value = float(_require(fields, name))
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        most = f" and at most {high:g}" if high < float("inf") else ""
        raise InvalidTask(f"{name} must be a number of at least {low:g}{most}", param=name)
    return value
