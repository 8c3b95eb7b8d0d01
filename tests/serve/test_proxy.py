"""What Ray Serve's HTTP servers do first: one valid request id in the answer, and no list of routes."""

from fastapi.testclient import TestClient
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detector_core.registry.predictor import Predictor
from jobs.common import ray_environment
from serve_app import proxy
from serve_app.deployments import ServeAdapter
from tests.support.http_service import make_app, status_and_code


class RayRequestId:
    """Does what Ray's own middleware does, inside those of the callback; test_app.py has the real one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = MutableHeaders(scope=scope)
        identifier = headers.get("x-request-id", "of-ray")
        if "x-request-id" not in headers:
            headers.append("x-request-id", identifier)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("X-Request-ID", identifier)
            await send(message)

        await self._app(scope, receive, send_with_id)


def behind_ray(predictor: Predictor) -> TestClient:
    """The application as one of Ray's HTTP servers runs it."""
    (middleware,) = proxy.middlewares()
    return TestClient(middleware.cls(RayRequestId(ServeAdapter(make_app(predictor)))))


def test_the_environment_names_the_callback() -> None:
    module, _, function = ray_environment.DEFAULTS["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].partition(":")
    assert (module, function) == (proxy.__name__, proxy.middlewares.__name__)


def test_an_answer_has_one_request_id_which_is_never_reflected_unchecked(predictor: Predictor) -> None:
    client = behind_ray(predictor)
    for given in ([], ["a b"], ["<script>"], ["x" * 65], ["abc-1", "abc-2"], [""]):
        response = client.get("/nope", headers=[("X-Request-ID", value) for value in given])
        assert status_and_code(response) == (404, "not_found")
        (identifier,) = response.headers.get_list("X-Request-ID")
        assert identifier not in given
    (identifier,) = client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers.get_list("X-Request-ID")
    assert identifier == "abc-1"


def test_the_paths_that_ray_answers_itself_are_not_public(predictor: Predictor) -> None:
    client = behind_ray(predictor)
    for path in ("/-/routes", "/-/anything", "/-/"):
        assert status_and_code(client.get(path)) == (404, "not_found")
    app = proxy.ProxyGuard(make_app(predictor))
    response = TestClient(app, root_path="/detector").get("/detector/-/routes")
    assert status_and_code(response) == (404, "not_found")
