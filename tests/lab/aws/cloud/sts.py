"""STS: assuming a role with session tags, and who one is."""

import re
import secrets
import time
import uuid
from xml.sax.saxutils import escape

from . import iam
from . import world
from .wire import Answer
from .wire import AwsError


def tags_of(form):
    tags, number = {}, 1
    while f"Tags.member.{number}.Key" in form:
        tags[form[f"Tags.member.{number}.Key"]] = form.get(f"Tags.member.{number}.Value", "")
        number += 1
    return tags


def invalid(message):
    return AwsError("ValidationError", f"1 validation error detected: {message}")


def assume_role(account, caller, form):
    arn, name, tags = form.get("RoleArn", ""), form.get("RoleSessionName", ""), tags_of(form)
    if not re.fullmatch(r"[\w+=,.@-]{2,64}", name, re.ASCII):
        raise invalid(f"Value '{name}' at 'roleSessionName' failed to satisfy constraint: [\\w+=,.@-]*, 2 to 64 long")
    if len(tags) > 50:
        raise invalid("at most 50 session tags")
    for key, value in tags.items():
        whole = all(c.isalpha() or c.isnumeric() or c in " _.:/=+-@" for c in key + value)
        if not 1 <= len(key) <= 128 or len(value) > 256 or not whole or key.lower().startswith("aws:"):
            raise invalid(f"session tag {key!r}={value!r}")
    iam.check(caller, "sts", "sts:AssumeRole", arn)
    if tags:
        context = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
        iam.check(caller, "sts", "sts:TagSession", arn, {**context, "aws:TagKeys": list(tags)})
    owner = world.ACCOUNTS.get(arn.split(":")[4] if arn.count(":") >= 5 else "")
    role = owner.roles.get(arn) if owner else None
    if role is None or (role.external_id and role.external_id != form.get("ExternalId")):
        raise iam.denial(caller, "sts", "sts:AssumeRole", arn)
    if tags and not role.trust_tags:
        raise iam.denial(caller, "sts", "sts:TagSession", arn)
    session_arn = f"arn:aws:sts::{owner.id}:assumed-role/{arn.split('/')[-1]}/{name}"
    session = {"role": role, "tags": tags}
    token = secrets.token_urlsafe(48)
    key = "ASIA" + secrets.token_hex(8).upper()
    session_caller = world.Caller(owner, session_arn, key, secrets.token_hex(20), token, session=session)
    record = {
        "role": arn,
        "name": name,
        "tags": tags,
        "access_key": key,
        "time": time.time(),
        "duration": int(form.get("DurationSeconds", 3600)),
    }
    account.sessions.append(record)
    account.changed()
    lasting = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + record["duration"]))
    return answer(
        "AssumeRole",
        f"<Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{session_caller.secret}</SecretAccessKey>"
        f"<SessionToken>{escape(token)}</SessionToken><Expiration>{lasting}</Expiration></Credentials>"
        f"<AssumedRoleUser><AssumedRoleId>AROA{key[4:]}:{escape(name)}</AssumedRoleId><Arn>{escape(session_arn)}</Arn>"
        "</AssumedRoleUser><PackedPolicySize>6</PackedPolicySize>",
    )


def get_caller_identity(account, caller, _form):
    return answer(
        "GetCallerIdentity",
        f"<Arn>{escape(caller.arn)}</Arn><UserId>{caller.key}</UserId><Account>{account.id}</Account>",
    )


def answer(action, inner):
    return Answer(
        200,
        "text/xml",
        f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>{inner}</{action}Result>'
        f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata></{action}Response>",
    )


CALLS = {"AssumeRole": assume_role, "GetCallerIdentity": get_caller_identity}
