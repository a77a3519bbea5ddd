"""Models: the names that a request may use, and the routes that list them."""

from ripieno.app import Installation
from ripieno.app.runtime import Runtime
from ripieno.domain import JsonValue, Objective
from ripieno.gateway.bodies import respond
from ripieno.gateway.facts import Facts
from ripieno.gateway.http import Response
from ripieno.gateway.keyring import Grant, list_allowed_workers
from ripieno.gateway.objective import ModelNames, UnknownModel
from ripieno.gateway.routes import Route


class Models:
    """The names and the objective of the settings in force."""

    def __init__(self, app: Installation) -> None:
        self._app = app
        self._known = _name_models(app.runtime)

    def routes(self) -> list[Route]:
        """List the routes."""
        return [Route("GET", "/v1/models", self.show_all), Route("GET", "/v1/models/{model}", self.show)]

    def read(self, runtime: Runtime | None = None) -> tuple[Objective, ModelNames]:
        """Return the default objective, and what `model` may name."""
        runtime = runtime or self._app.runtime
        if self._known[0] is not runtime:
            self._known = _name_models(runtime)
        return self._known[1:]

    async def show_all(self, facts: Facts) -> Response:
        """List `auto` with its presets, and the workers and aliases that the key may use."""
        data = [_describe_model(name) for name in self._list(facts.grant)]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]}
        return respond({"object": "list", "data": data, "has_more": False, **ends})

    async def show(self, facts: Facts) -> Response:
        """Show one model: one of the list, or a name that a pattern of the aliases matches."""
        _, names = self.read()
        alias = names.resolve(facts.parameter)
        if not (facts.parameter in names.all() or alias) or self._is_hidden(facts.parameter, facts.grant):
            raise UnknownModel(facts.parameter, list_allowed_workers(facts.grant, self._app.runtime.pool))
        return respond(_describe_model(facts.parameter))

    def _list(self, grant: Grant) -> list[str]:
        return [name for name in self.read()[1].all() if not self._is_hidden(name, grant)]

    def _is_hidden(self, name: str, grant: Grant) -> bool:
        """Return whether a name stands only for workers that the key may not use."""
        pool, names = self._app.runtime.pool, self.read()[1]
        hidden = {*pool.ids} - {*list_allowed_workers(grant, pool)}
        return hidden.issuperset(names.resolve(name) or (name,))


def _name_models(runtime: Runtime) -> tuple[Runtime, Objective, ModelNames]:
    gateway = runtime.settings.gateway
    names = ModelNames(workers=runtime.pool.ids, aliases=gateway.aliases, allows_code=gateway.allow_code_checks)
    return runtime, runtime.make_objective(), names


def _describe_model(name: str) -> dict[str, JsonValue]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "ripieno",
        "type": "model",
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
    }
