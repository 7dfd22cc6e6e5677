#!/usr/bin/env python3
"""Runs a shell script whose `aws` is the AWS CLI, against the account that the environment names.

    page.py SCRIPT FOLDER <CLOSED_LIST

The closed list has the commands that the lab's AWS cannot answer, as JSON: {"SERVICE OPERATION": "what to answer"}. Of such a command
everything is done that the CLI does before it sends a request: options, names, types and presence of parameters are checked. All
other commands are sent.

FOLDER/calls gets a line for each command: its exit code and its words, as JSON. The first command that fails ends the script.
"""

import json
import os
import subprocess
import sys

sys.dont_write_bytecode = True

from awscli.clidriver import create_clidriver  # noqa: E402

# The CLI takes half a second to load. So it is loaded once, here, and the script's `aws` asks for a fork. The answer goes
# through a file, since a program that reads it may end early.
PRELUDE = """
aws() {
    printf '%s\\0' "$@" >"$PAGE/words"
    env -0 >"$PAGE/environment"
    echo >"$PAGE/ask"
    local page_code
    read -r page_code <"$PAGE/ended"
    cat "$PAGE/answer"
    return "$page_code"
}
set -euo pipefail
"""
# Their models are large: read before the forks, they are read once.
MODELS = ("ec2", "ecr", "ecs", "iam", "logs", "s3", "service-quotas", "ssm", "sts")


class Checked(BaseException):
    """The request would be sent now. Not an Exception, which the CLI would catch."""


def stop(**_):
    raise Checked


def run(driver, words, closed):
    """Runs a command; returns its exit code and, where it is on the closed list, its answer."""
    name = " ".join(words[:2])
    if name not in closed:
        return driver.main(words), ""
    driver.session.register("before-call", stop)
    try:
        code = driver.main(words)
    except Checked:
        return 0, closed[name]
    # It was refused, or it makes no call at all and could be run.
    return code or 1, ""


def parts(path):
    with open(path) as file:
        return file.read().split("\0")[:-1]


def child(driver, folder, words, closed):
    # What the script has exported.
    os.environ.clear()
    os.environ.update(part.split("=", 1) for part in parts(f"{folder}/environment"))
    output = os.open(f"{folder}/answer", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    code, answer = run(driver, words, closed)
    if answer:
        print(answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve(driver, folder, closed):
    """Answers until the script has closed its end of the fifo."""
    with open(f"{folder}/ask") as asks, open(f"{folder}/calls", "a") as calls:
        for _ in asks:
            words = parts(f"{folder}/words")
            pid = os.fork()
            if pid == 0:
                try:
                    child(driver, folder, words, closed)
                finally:
                    os._exit(255)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            print(json.dumps({"code": code, "words": words}), file=calls, flush=True)
            with open(f"{folder}/ended", "w") as ended:
                ended.write(f"{code}\n")


def main():
    script, folder = sys.argv[1:]
    closed = json.load(sys.stdin)
    os.makedirs(folder, exist_ok=True)
    for name in ("ask", "ended"):
        if not os.path.exists(f"{folder}/{name}"):
            os.mkfifo(f"{folder}/{name}")
    driver = create_clidriver()
    for model in MODELS:
        driver.session.get_service_model(model)
    with open(script) as file:
        text = PRELUDE + file.read()
    # Bash keeps the fifo open, so that it ends with the script and not between two commands.
    shell = subprocess.Popen(
        ["bash", "-c", 'exec 9>"$PAGE/ask"; ' + text, script],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PAGE": folder},
    )
    serve(driver, folder, closed)
    sys.exit(shell.wait())


if __name__ == "__main__":
    main()
