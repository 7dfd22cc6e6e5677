"""What every call meets first: who calls, the log, faults, permissions; then our own calls or moto's."""

import email.utils
import io
import json
import socket
import threading
import time
import urllib.parse

from . import clock
from . import connect
from . import control
from . import ec2
from . import ecr
from . import ecs
from . import iam
from . import sts
from . import world
from .faults import Fault
from .faults import refusal
from .wire import AwsError
from .wire import error_answer
from .wire import json_answer

OWN = {
    "ecs": ecs.CALLS,
    "ec2": ec2.CALLS,
    "ec2-instance-connect": connect.CALLS,
    "ecr": ecr.CALLS,
    "sts": sts.CALLS,
}


class Front:
    """The WSGI application."""

    def __init__(self, moto):
        self.moto = moto

    def __call__(self, environ, start_response):
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        if environ["PATH_INFO"].startswith("/lab"):
            answer = control.handle(environ, body)
        else:
            answer = self.answer(environ, body)
        if answer is None:
            cut(environ)
            raise ConnectionResetError("as told")
        status = f"{answer.status} {'OK' if answer.status < 400 else 'Error'}"
        headers = [("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body)))] + date_of(environ)
        start_response(status, headers + answer.headers)
        return [answer.body]

    def answer(self, environ, body):
        """Returns the answer, or None where the connection is to be cut instead."""
        key, region, service = scope(environ)
        try:
            with clock.LOCK:
                caller = identify(environ, key, service)
                account = caller.account
                action, parameters = request_of(environ, service, body)
                if service == "ec2" and action in ec2.CALLS:
                    parameters = ec2.parameters_of(parameters)
                entry = world.log_call(account, caller, service, action, parameters)
                fault = account.faults.take(action, parameters)
                if fault is None and account.limits.refuse(action):
                    fault = Fault(action, "throttle")
                if fault:
                    entry["fault"] = fault.kind
        except AwsError as error:
            return error_answer(service, error)

        def perform():
            with clock.LOCK:
                answer = self.perform(environ, body, caller, region, service, action, parameters, entry, fault)
                account.changed()
                return answer

        kind = fault.kind if fault else None
        seconds = fault.details.get("seconds", 0) if fault else 0
        if kind == "close_before":
            return None
        if kind == "delay" and fault.details.get("answer") == "cut":

            def later():
                time.sleep(seconds)
                perform()

            threading.Thread(target=later, daemon=True).start()
            return None
        if kind == "delay":
            time.sleep(seconds)
        answer = perform()
        if kind == "slow":
            time.sleep(seconds)
        while kind == "gather" and fault.hits < fault.details["count"]:
            time.sleep(0.02)
        return None if kind == "close_after" else answer

    def perform(self, environ, body, caller, region, service, action, parameters, entry, fault):
        account = caller.account
        try:
            refused = refusal(fault, service) if fault else None
            if fault and fault.kind == "denied":
                refused = iam.denial(caller, service, f"{service}:{action}", fault.details.get("resource", "*"))
            if refused:
                raise refused
            if fault and fault.kind == "failure":
                reason = fault.details.get("reason", "RESOURCE:ENI")
                answer = json_answer({"tasks": [], "failures": [{"arn": account.user.arn, "reason": reason, "detail": ""}]})
            else:
                answer = self.call(environ, body, caller, region, service, action, parameters, entry)
                entry["executed"] = True
                if fault and fault.kind == "neither":
                    answer = nothing_said(action)
        except AwsError as error:
            answer = error_answer(service, error)
            entry["code"], entry["message"] = error.code, error.message
        entry["status"] = answer.status
        if answer.content_type.startswith("application/x-amz-json"):
            entry["answer"] = json.loads(answer.body or b"null")
        return answer

    def call(self, environ, body, caller, region, service, action, parameters, entry):
        own = OWN.get(service, {}).get(action)
        account = caller.account
        if own and (service not in ("ecs", "ec2") or region == account.region):
            found = own(account, caller, parameters)
            if found is not None and service == "ec2":
                entry["answer"] = ec2.plain(found)
                return ec2.answer(action, found)
            if found is not None:
                return json_answer(found) if isinstance(found, dict) else found
        elif service in ("ecs", "ec2", "ssm", "iam", "logs", "secretsmanager"):
            iam.check(caller, service, f"{service}:{action}", "*")
        return self.ask_moto(environ, body, account)

    def ask_moto(self, environ, body, account):
        from .wire import Answer

        inner = {**environ, "wsgi.input": io.BytesIO(body), "HTTP_X_MOTO_ACCOUNT_ID": account.id}
        seen = {}

        def start(status, headers, _info=None):
            seen.update(status=int(status.split()[0]), headers=headers)

        parts = self.moto(inner, start)
        text = b"".join(parts)
        kind = next((value for name, value in seen["headers"] if name.lower() == "content-type"), "text/plain")
        return Answer(seen["status"], kind, text)


def date_of(environ):
    """Returns the answer's time, by the account's clock."""
    caller = world.CALLERS.get(scope(environ)[0])
    clock = caller.account.clock if caller else 0
    return [("Date", clock if isinstance(clock, str) else email.utils.formatdate(time.time() + clock, usegmt=True))]


def nothing_said(action):
    """Returns an answer to a launch that names neither a machine nor why there is none."""
    if action == "CreateFleet":
        return ec2.answer(action, {"FleetId": "fleet-00000000-0000-0000-0000-000000000000", "Instances": [], "Errors": []})
    return json_answer({"tasks": [], "failures": []})


def scope(environ):
    """Returns access key, region and service as the signature says; nobody checks the signature itself."""
    header = environ.get("HTTP_AUTHORIZATION", "")
    try:
        parts = header.split("Credential=", 1)[1].split(",", 1)[0].split("/")
        return parts[0], parts[2], parts[3]
    except IndexError:
        return None, None, "ecs"


def identify(environ, key, service):
    caller = world.CALLERS.get(key)
    if caller is None or (caller.token and caller.token != environ.get("HTTP_X_AMZ_SECURITY_TOKEN")):
        code = {"ec2": "AuthFailure", "sts": "InvalidClientTokenId"}.get(service, "UnrecognizedClientException")
        raise AwsError(code, "The security token included in the request is invalid.", 400 if service == "ecs" else 403)
    return caller


def request_of(environ, service, body):
    target = environ.get("HTTP_X_AMZ_TARGET")
    if target:
        try:
            return target.split(".")[-1], json.loads(body or b"{}")
        except ValueError:
            raise AwsError("SerializationException", "") from None
    form = dict(urllib.parse.parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
    form.update(urllib.parse.parse_qsl(environ.get("QUERY_STRING", "")))
    return form.get("Action", f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"), form


def cut(environ):
    connection = environ.get("werkzeug.socket")
    if connection is not None:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
