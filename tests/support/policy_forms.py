"""Forms of policies as browsers send them."""

import json

from filter_service.policy import Policy
from filter_service.web.console.policy_form import PolicyForm


def sent_fields(policy: Policy) -> dict[str, str]:
    """Everything that the editor's form of a version sends, untouched."""
    form = PolicyForm.of(policy.model_dump(mode="json", exclude_none=True))
    fields = {"base": json.dumps(form.base), **form.values}
    for c in form.classes:
        fields |= {c.prefix + name: value for name, value in c.values.items()}
        fields[f"{c.prefix}was"] = c.was
    return {name: value.replace("\n", "\r\n") for name, value in fields.items()}
