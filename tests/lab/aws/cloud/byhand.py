"""The server run by hand: an account with a cluster, a task definition and a machine with OpenSSH."""

import os
import shlex
import subprocess
import tempfile

from . import clock
from . import control

ENTRYPOINT = """#!/bin/sh
# Serves SSH at the addresses that are its arguments, for the key in SSH_PUBLIC_KEY.
set -eu
mkdir -p /run/sshd
printf '%s\\n' "$SSH_PUBLIC_KEY" > {folder}/authorized_keys
listen=
for address in "$@"; do listen="$listen -o ListenAddress=$address"; done
exec /usr/sbin/sshd -D -e -f none $listen -p {port} -h {folder}/host_key -o AuthorizedKeysFile={folder}/authorized_keys \\
    -o StrictModes=no -o UsePAM=no -o PidFile=none
"""


folder = None


def explain(account, url, port=2222):
    global folder
    folder = tempfile.mkdtemp(prefix="gad-aws-")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/host_key"], check=True)
    program = f"{folder}/entrypoint"
    with open(program, "w") as file:
        file.write(ENTRYPOINT.format(folder=folder, port=port))
    os.chmod(program, 0o755)
    with clock.LOCK:
        control.add_cluster(account, {"name": "ci", "providers": ["FARGATE", "FARGATE_SPOT"], "default": ["FARGATE"]})
        control.add_definition(
            account,
            {"family": "ci-job", "containerDefinitions": [{"name": "ci-coordinator", "image": "lab", "essential": True}]},
        )
        account.machines["*"] = {"command": [program], "log": f"{folder}/log"}
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": account.user.key,
        "AWS_SECRET_ACCESS_KEY": account.user.secret,
        "AWS_REGION": account.region,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        print(f"export {name}={shlex.quote(value)}")
    subnets = ", ".join(f'"{subnet}"' for subnet in account.subnets)
    print(
        f"""
# Control: {url}/lab/accounts/{account.id} (see cloud/control.py); the machine's log: {folder}/log
capacity = ["fargate-spot", "fargate"]

[state]
directory = "{folder}/state"

[ssh]
username = "root"
port = {port}

[fargate]
region = "{account.region}"
cluster = "ci"
task_definition = "ci-job"
subnets = [{subnets}]
security_groups = ["{account.security_group}"]
""",
        flush=True,
    )
