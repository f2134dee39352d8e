"""The description of the interface against what it does: no answer breaks it, none is a 5xx."""

import json
import os
import re
from collections import Counter
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import one_of
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.result import Ok

from filter_service import accounts
from filter_service.db.session import Sessions
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.furnished import furnished
from tests.support.review_cases import POLICY
from tests.support.web_clients import key_client, web_service

EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "8"))  # of each operation
# What fits the description may still be refused: an unknown policy, or one that breaks a rule.
EXCLUDED = {"positive_data_acceptance"}


def spoilt(case: schemathesis.Case[Any]) -> bool:
    """Its headers are wrong on purpose: a key of ours would make them right again."""
    components = {} if case.meta is None else case.meta.components
    header = components.get(ParameterLocation.HEADER)
    return header is not None and header.mode.is_negative


def test_every_answer_is_as_described(sessions: Sessions, storage: Storage) -> None:
    app, batch = furnished(sessions, storage)
    ids = {"item": 1, "batch": str(batch), "class_name": "gun"}
    key = {"Authorization": f"Bearer {accounts.add_key(sessions, 'schema', 'service')}"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    excluded: list[Any] = [CHECKS.get_one(name) for name in EXCLUDED]
    statuses: Counter[int] = Counter()
    failed: list[str] = []
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()

        @given(case=one_of(*(operation.as_strategy(generation_mode=m) for m in GenerationMode)))
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def check(case: schemathesis.Case[Any]) -> None:
            sound = case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE
            if sound and sum(statuses.values()) % 2:  # of what there is, or of what there is not
                known = {name: ids[name] for name in case.path_parameters if name in ids}
                case.path_parameters = {**case.path_parameters, **known}
                # A form is read as it is sent; touched, it would be taken for a broken one.
                if isinstance(case.body, dict) and case.media_type == "application/json":
                    case.body |= {"policy": POLICY.name} if "policy" in case.body else {}
            answer = case.call_and_validate(
                headers={} if spoilt(case) else key, excluded_checks=excluded
            )
            statuses[answer.status_code] += 1

        try:
            check()
        except (Exception, BaseExceptionGroup) as error:  # the other operations are asked, too
            failed.append(f"{operation.label}: {error}")
    assert not failed, "\n\n".join(failed)
    print(sum(statuses.values()), "requests:", dict(sorted(statuses.items())))
    assert statuses[200] and statuses[404]


def test_every_measured_number_of_an_answer_says_its_unit(
    sessions: Sessions, storage: Storage
) -> None:
    """A number that is no count and no id: in its name, or in what is said of it."""
    units = ("seconds", "logits", "share", "Share", "Cosine", "0 to 1")
    schemas = create_app(web_service(sessions, storage)).openapi()["components"]["schemas"]
    unsaid = []
    for name, schema in schemas.items():
        for field, told in schema.get("properties", {}).items():
            kinds = {told.get("type"), *(one.get("type") for one in told.get("anyOf", ()))}
            said = field + told.get("description", "")
            if "number" in kinds and not any(unit in said for unit in units):
                unsaid.append(f"{name}.{field}")
    assert not unsaid


def test_a_share_is_named_so(sessions: Sessions, storage: Storage) -> None:
    app, _ = furnished(sessions, storage)
    told = key_client(app, sessions).get("/v1/items/1").json()
    assert told["seen_pixels_share"] == told["seen_pixels"]
    assert told["seen_time_share"] == told["seen_time"]


def described(sessions: Sessions, storage: Storage) -> dict[str, Any]:
    return create_app(web_service(sessions, storage)).openapi()


def operations(description: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = (description["paths"], description["webhooks"])
    return [told for paths in kinds for methods in paths.values() for told in methods.values()]


def test_every_operation_is_called_as_a_client_would_call_it(
    sessions: Sessions, storage: Storage
) -> None:
    names = [told["operationId"] for told in operations(described(sessions, storage))]
    assert len(set(names)) == len(names)
    assert not [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)]
    assert not [
        told["operationId"]
        for told in operations(described(sessions, storage))
        if not told.get("tags")
    ]


def test_every_body_has_an_example(sessions: Sessions, storage: Storage) -> None:
    description = described(sessions, storage)
    schemas = description["components"]["schemas"]
    missing = []
    for told in operations(description):
        for kind, body in told.get("requestBody", {"content": {}})["content"].items():
            name = body["schema"].get("$ref", "").rpartition("/")[2]
            shown = body.keys() | schemas.get(name, {}).keys() | body["schema"].keys()
            if not shown & {"example", "examples"}:
                missing.append(f"{told['operationId']}: {kind}")
    assert not missing


def test_every_reference_of_the_description_leads_somewhere(
    sessions: Sessions, storage: Storage
) -> None:
    description = described(sessions, storage)
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(description)))
    assert named <= description["components"]["schemas"].keys()
