"""The page of the rules on second looks, and on samples of what waits for nobody."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import LARGEST_ID
from filter_service.db.tables import Person
from filter_service.errors import FilterServiceError, InvalidRequest
from filter_service.reviews import review_rules
from filter_service.web.console.list_entries import open_classes
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import able
from filter_service.web.http.drafts import NOTHING, PendingForm, number, taken
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service

router = APIRouter(prefix="/lists/rules")

Here = Annotated[Service, Depends(service)]
Editor = Annotated[Caller, Depends(able(Ability.RULES))]
EntryId = Annotated[int, Form(ge=1, le=LARGEST_ID)]


class ReviewRuleForm(BaseModel):
    """The form of a review rule, as it was typed."""

    kind: str = review_rules.RuleKind.SECOND_LOOK.value
    class_name: str = ""
    margin_below: str = ""
    share: str = "10"  # per cent

    @property
    def options(self) -> dict[str, Any]:
        """Raises InvalidRequest."""
        if self.kind not in list(review_rules.RuleKind):
            raise InvalidRequest(
                f"{self.kind!r} is no rule: choose {' or '.join(review_rules.RuleKind)}."
            )
        margin = self.margin_below.strip()
        return {
            "kind": review_rules.RuleKind(self.kind),
            "class_name": self.class_name.strip() or None,
            "margin_below": number("margin", margin) if margin else None,
            "share": number("share", self.share) / 100,
        }


@router.get("")
def show_rules(
    request: Request, here: Here, caller: Editor, done: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """Second looks, and samples of clear items and of flags that act by themselves."""
    return _rules(request, here, somebody(caller), ReviewRuleForm(), done=done)


@router.post("")
def add_rule(
    request: Request, here: Here, caller: Editor, draft: Annotated[ReviewRuleForm, Form()]
) -> Response:
    person = somebody(caller)
    try:
        review_rules.add_rule(here.sessions, person, **draft.options)
    except FilterServiceError as error:
        return _rules(request, here, person, draft, tried=PendingForm(error))
    return taken("/lists/rules", "The rule holds from now on.")


@router.post("/remove")
def remove_rule(here: Here, caller: Editor, rule: EntryId) -> Response:
    """What was drawn already stays drawn."""
    review_rules.remove_rule(here.sessions, somebody(caller), rule)
    return taken("/lists/rules", "The rule is removed.")


def _rules(
    request: Request,
    here: Service,
    person: Person,
    draft: ReviewRuleForm,
    *,
    done: str = "",
    tried: PendingForm = NOTHING,
) -> Response:
    with here.sessions.begin() as session:
        active = review_rules.active_rules(session)
    return render(
        request,
        "rules.html",
        tried.status,
        rules=active,
        draft=draft,
        certain_share=review_rules.CERTAIN_SHARE,
        done=done,
        classes=open_classes(here.sessions, person),
        problem=tried.said,
    )
