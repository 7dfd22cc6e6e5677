"""cloud-init's part: what a stock image makes of the user data as they were sent, before its sshd listens.

Only what concerns a login is done: the host key, the keys of the machine's one account, and whether root may log in at
all. Stock images ban root twice: cloud-init puts a command before its keys that tells to log in as somebody else
(`disable_root`), and on Amazon Linux sshd takes root's keys for forced commands alone. What cloud-init does not understand it
leaves undone, and so does this: such a machine comes up with a host key of its own, and lets nobody in. Commands
(`bootcmd`) are not run: the machine's files are this host's."""

import base64
import gzip

import yaml

# Who is meant where no name is said; the lab's machines have no such account, unless it is the one they are made for.
DEFAULT_USER = "ec2-user"
REFUSAL = (
    'no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command="echo \'Please login as the user \\"'
    f'{DEFAULT_USER}\\" rather than the user \\"root\\".\';echo;sleep 10;exit 142" '
)
# What Amazon Linux has in its sshd_config, and the folder of files that come before it.
STOCK_ROOT_LOGIN = "forced-commands-only"
DROP_INS = "/etc/ssh/sshd_config.d/"


class Applied:
    """What the machine is given: its host key (None: one of its own), its account's `authorized_keys`, and sshd's
    `PermitRootLogin` (None: as it is configured)."""

    def __init__(self, host_key=None, keys=(), root_login=None):
        self.host_key = host_key
        self.keys = list(keys)
        self.root_login = root_login


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


def root_login_of(config):
    """Returns the `PermitRootLogin` of the files that the user data write: the first word on it counts."""
    files = [one for one in config.get("write_files") or [] if isinstance(one, dict)]
    for file in sorted(files, key=lambda one: str(one.get("path"))):
        path = str(file.get("path"))
        if not path.startswith(DROP_INS) or not path.endswith(".conf"):
            continue
        for line in str(file.get("content", "")).splitlines():
            words = line.split()
            if len(words) == 2 and words[0].lower() == "permitrootlogin":
                return words[1]
    return None


def apply(encoded, user="root", stock=True):
    """Returns what the user data make of a machine whose one account is that user's."""
    root_login = STOCK_ROOT_LOGIN if stock and user == "root" else None
    config = config_of(base64.b64decode(encoded)) if encoded else None
    if config is None:
        return Applied(root_login=root_login)
    applied = Applied(root_login=root_login_of(config) or root_login)
    host_key = (config.get("ssh_keys") or {}).get("ed25519_private")
    if isinstance(host_key, str) and host_key.strip():
        applied.host_key = host_key.strip() + "\n"
    default = config.get("user") or {}
    default = default if isinstance(default, dict) else {"name": default}
    name = default.get("name", DEFAULT_USER)
    shared = list(config.get("ssh_authorized_keys") or [])
    own = [one for one in config.get("users") or [] if isinstance(one, dict) and one.get("name") == user]
    for one in own:
        applied.keys += list(one.get("ssh_authorized_keys") or [])
    if name == user:
        applied.keys += shared + list(default.get("ssh_authorized_keys") or [])
    elif user == "root":
        # Keys of an entry of root's own are its own; the ban is on those that are everybody's.
        ban = REFUSAL if config.get("disable_root", stock) else ""
        applied.keys += [ban + key for key in shared]
    return applied
