"""Permissions, as a policy document gives them: actions, resources and the common conditions."""

import re

from .wire import AwsError


class Policy:
    """Statements of one document; None in its place allows everything."""

    def __init__(self, document):
        statements = document.get("Statement", [])
        self.statements = statements if isinstance(statements, list) else [statements]

    def decide(self, action, resource, context):
        """Returns "allowed", "explicit" (a Deny says no) or "implicit" (nothing says yes)."""
        found = "implicit"
        for statement in self.statements:
            if not _applies(statement, action, resource, context):
                continue
            if statement.get("Effect") == "Deny":
                return "explicit"
            found = "allowed"
        return found


def _list(value):
    return value if isinstance(value, list) else [value]


def _like(pattern, text, ignore_case=False):
    expression = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch(expression, text, re.DOTALL | (re.IGNORECASE if ignore_case else 0)) is not None


def _applies(statement, action, resource, context):
    if "Action" in statement:
        named = any(_like(pattern, action, True) for pattern in _list(statement["Action"]))
    else:
        named = not any(_like(pattern, action, True) for pattern in _list(statement["NotAction"]))
    if "Resource" in statement:
        named = named and any(_like(pattern, resource) for pattern in _list(statement["Resource"]))
    elif "NotResource" in statement:
        named = named and not any(_like(pattern, resource) for pattern in _list(statement["NotResource"]))
    return named and all(
        _condition(operator, key, _list(values), context)
        for operator, keys in statement.get("Condition", {}).items()
        for key, values in keys.items()
    )


def _condition(operator, key, values, context):
    have = {name.lower(): value for name, value in context.items()}.get(key.lower())
    values = [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
    scope, _, operator = operator.rpartition(":")
    if operator == "Null":
        return (have is None) == (values[0] == "true")
    if operator.endswith("IfExists"):
        if have is None:
            return True
        operator = operator[: -len("IfExists")]
    negative = "Not" in operator
    operator = operator.replace("Not", "")
    if operator in ("StringEquals", "Bool", "NumericEquals"):
        same = lambda value, text: value == text
    elif operator == "StringEqualsIgnoreCase":
        same = lambda value, text: value.lower() == text.lower()
    elif operator in ("StringLike", "ArnLike", "ArnEquals"):
        same = _like
    else:
        raise AwsError("LabError", f"the lab does not know the condition {operator}", 500)
    if have is None:
        return negative or scope == "ForAllValues"
    each = [any(same(value, one) for value in values) != negative for one in _list(have)]
    return all(each) if scope == "ForAllValues" or negative else any(each)


def check(caller, service, action, resource, context=None):
    """Refuses, in the service's own words, what the caller's policy does not allow."""
    policy = caller.allows()
    context = {"aws:RequestedRegion": caller.account.region, **(context or {})}
    if caller.session is not None:
        context.update({f"aws:PrincipalTag/{k}": v for k, v in caller.session["tags"].items()})
    decided = "allowed" if policy is None else policy.decide(action, resource, context)
    if decided != "allowed":
        raise denial(caller, service, action, resource, decided)


def denial(caller, service, action, resource, how="implicit"):
    """Returns the refusal."""
    because = (
        f"because no identity-based policy allows the {action} action"
        if how == "implicit"
        else "with an explicit deny in an identity-based policy"
    )
    on = f" on resource: {resource}" if resource != "*" or service != "ec2" else ""
    text = f"User: {caller.arn} is not authorized to perform: {action}{on} {because}"
    if service == "ec2":
        return AwsError("UnauthorizedOperation", f"You are not authorized to perform this operation. {text}", 403)
    if service == "sts":
        return AwsError("AccessDenied", f"User: {caller.arn} is not authorized to perform: {action}{on}", 403)
    return AwsError("AccessDeniedException", text)
