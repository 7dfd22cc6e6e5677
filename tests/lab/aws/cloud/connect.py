"""EC2 Instance Connect: a key that an instance's sshd takes for a minute, where its image asks the metadata service."""

import base64
import binascii
import re
import time

from . import iam
from .wire import AwsError

# How long a key is good that was sent, in seconds.
LIFETIME = 60
INSTANCE = re.compile(r"i-[a-f0-9]{8,30}")
USER = re.compile(r"[A-Za-z_][A-Za-z0-9@._-]{0,30}[A-Za-z0-9$_-]?")
KINDS = ("ssh-ed25519", "ssh-rsa")


class Sent:
    """A key on its way to an instance."""

    def __init__(self, user, key, lifetime):
        self.user = user
        self.key = key
        self.until = time.monotonic() + lifetime


def keys_of(instance, user):
    """Returns what the metadata service says of a user's keys just now."""
    now = time.monotonic()
    return "".join(f"{sent.key}\n" for sent in instance.sent_keys if sent.user == user and now < sent.until)


def check_key(text):
    parts = text.split()
    try:
        blob = base64.b64decode(parts[1], validate=True)
    except (IndexError, binascii.Error):
        blob = b""
    if not 80 <= len(text) <= 4096 or parts[0] not in KINDS or parts[0].encode() not in blob[:20] or "\n" in text.strip():
        raise AwsError("InvalidArgsException", "The SSH public key is not valid.")


def send_ssh_public_key(account, caller, request):
    name, user, key = (request.get(field) or "" for field in ("InstanceId", "InstanceOSUser", "SSHPublicKey"))
    if not INSTANCE.fullmatch(name):
        raise AwsError("InvalidArgsException", "The instance ID is not valid.")
    if not USER.fullmatch(user):
        raise AwsError("InvalidArgsException", "The instance OS user is not valid.")
    check_key(key)
    instance = account.estate.instances.get(name)
    tags = instance.tags if instance else {}
    context = {"ec2:osuser": user} | {f"aws:ResourceTag/{tag}": value for tag, value in tags.items()}
    arn = f"arn:aws:ec2:{account.region}:{account.id}:instance/{name}"
    iam.check(caller, "ec2-instance-connect", "ec2-instance-connect:SendSSHPublicKey", arn, context)
    if instance is None or time.time() < instance.hidden_until:
        raise AwsError("EC2InstanceNotFoundException", "The specified instance was not found.")
    if instance.state != "running":
        raise AwsError("EC2InstanceStateInvalidException", "Unable to connect because the instance is not in a valid state.")
    lifetime = LIFETIME
    if account.estate.stale_keys > 0:
        account.estate.stale_keys -= 1
        lifetime = 0
    instance.sent_keys.append(Sent(user, key.strip(), lifetime))
    return {"RequestId": "lab", "Success": True}


CALLS = {"SendSSHPublicKey": send_ssh_public_key}
