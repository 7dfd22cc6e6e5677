"""cloud-init's part: what a stock image makes of the user data as they were sent, before its sshd listens.

Only what concerns a login is done: the host key, and the keys of the machine's one account, root. What cloud-init does not
understand it leaves undone, and so does this: such a machine comes up with a host key of its own, and lets nobody in."""

import base64
import gzip

import yaml

# Who is meant where no name is said; the lab's machines have no such account.
DEFAULT_USER = "ec2-user"
REFUSAL = (
    'no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command="echo \'Please login as the user \\"'
    f'{DEFAULT_USER}\\" rather than the user \\"root\\".\';echo;sleep 10;exit 142" '
)


class Applied:
    """What the machine is given: its host key (None: one of its own), and root's `authorized_keys`."""

    def __init__(self, host_key=None, keys=()):
        self.host_key = host_key
        self.keys = list(keys)


def config_of(raw):
    """Returns the cloud-config in the user data, or None where there is none that cloud-init would take."""
    if raw.startswith(b"\x1f\x8b"):
        raw = gzip.decompress(raw)
    try:
        text = raw.decode()
        found = yaml.safe_load(text) if text.startswith("#cloud-config\n") else None
    except (UnicodeDecodeError, yaml.YAMLError):
        return None
    return found if isinstance(found, dict) else None


def apply(encoded):
    config = config_of(base64.b64decode(encoded)) if encoded else None
    if config is None:
        return Applied()
    applied = Applied()
    host_key = (config.get("ssh_keys") or {}).get("ed25519_private")
    if isinstance(host_key, str) and host_key.strip():
        applied.host_key = host_key.strip() + "\n"
    for user in config.get("users") or []:
        if isinstance(user, dict) and user.get("name") == "root":
            applied.keys += list(user.get("ssh_authorized_keys") or [])
    default = config.get("user") or {}
    name = default.get("name", DEFAULT_USER) if isinstance(default, dict) else default
    shared = list(config.get("ssh_authorized_keys") or [])
    if name == "root":
        applied.keys += shared + list(default.get("ssh_authorized_keys") or [] if isinstance(default, dict) else [])
    elif config.get("disable_root", True):
        applied.keys += [REFUSAL + key for key in shared]
    else:
        applied.keys += shared
    return applied
