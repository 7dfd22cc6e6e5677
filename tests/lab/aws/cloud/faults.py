"""Faults on command: what goes wrong with a call, how often, and with which calls."""

import json

from .wire import AwsError

KINDS = {
    "throttle",
    "capacity",
    "failure",
    "neither",
    "denied",
    "error",
    "close_before",
    "close_after",
    "delay",
    "slow",
    "gather",
}


class Fault:
    """One rule. `times` None: for ever; `skip`: so many matching calls are spared first.

    `match` maps a parameter (a dotted path) to a text that its JSON must contain."""

    def __init__(self, action, kind, times=1, skip=0, match=None, **details):
        if kind not in KINDS:
            raise ValueError(f"unknown fault {kind}")
        self.action = action
        self.kind = kind
        self.times = times
        self.skip = skip
        self.match = match or {}
        self.details = details
        self.hits = 0

    def meets(self, action, parameters):
        if self.action not in ("*", action) or self.times == 0:
            return False
        return all(text in _at(parameters, path) for path, text in self.match.items())


def _at(value, path):
    for part in path.split("."):
        if isinstance(value, list):
            value = value[int(part)] if part.isdigit() and int(part) < len(value) else None
        elif isinstance(value, dict):
            value = value.get(part)
        else:
            value = None
    return value if isinstance(value, str) else json.dumps(value)


class Faults:
    def __init__(self):
        self.rules = []

    def take(self, action, parameters):
        """Returns the fault that this call meets, if any, and counts it."""
        for rule in self.rules:
            if not rule.meets(action, parameters):
                continue
            if rule.skip > 0:
                rule.skip -= 1
                continue
            if rule.times is not None:
                rule.times -= 1
            rule.hits += 1
            return rule
        return None


def refusal(fault, service):
    """Returns the error of a fault that is one, or None."""
    details = fault.details
    if fault.kind == "throttle":
        if service == "ec2":
            return AwsError("RequestLimitExceeded", "Request limit exceeded.", 503)
        code = "Throttling" if service == "sts" else "ThrottlingException"
        return AwsError(code, "Rate exceeded")
    if fault.kind == "capacity":
        return AwsError(
            "ClientException",
            details.get("message", "Capacity is unavailable at this time. Please try again later or in a different availability zone"),
        )
    if fault.kind == "error":
        return AwsError(details.get("code", "ServerException"), details.get("message", "Service Unavailable. Please try again later."), details.get("status", 500))
    return None
