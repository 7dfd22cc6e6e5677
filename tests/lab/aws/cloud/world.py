"""Accounts: each with addresses, credentials, permissions, timings, faults and a log of its own."""

import fcntl
import ipaddress
import itertools
import os
import random
import secrets
import tempfile
import time

from moto.ec2.models import ec2_backends
from moto.ecs.models import ecs_backends

from . import clock
from . import estate
from .faults import Faults
from .limits import Limits
from .iam import Policy

# How long a task stays in a state, or an instance (`booting`: from running to a listening sshd), in seconds. AWS takes a hundred times as long.
TIMINGS = {
    "provisioning": 0.05,
    "pending": 0.15,
    "activating": 0.1,
    "deactivating": 0.02,
    "deprovisioning": 0.05,
    "launching": 0.15,
    "booting": 0.05,
    "shutting-down": 0.05,
}

_blocks = ipaddress.ip_network("127.0.0.0/8").subnets(new_prefix=20)
# The first is for everybody else on this host.
BLOCKS = [block for block in _blocks if not block.overlaps(ipaddress.ip_network("127.0.0.0/16"))]

ACCOUNTS = {}
CALLERS = {}
_numbers = itertools.count(random.randrange(1, 10**8))


class Block:
    """A /20 of 127/8 that nobody else has, other servers on this host included: the lock file says so."""

    def __init__(self):
        folder = os.path.join(tempfile.gettempdir(), "gitlab-aws-driver-test-nets")
        os.makedirs(folder, exist_ok=True)
        first = random.randrange(len(BLOCKS))
        for step in range(len(BLOCKS)):
            number = (first + step) % len(BLOCKS)
            lock = os.open(os.path.join(folder, str(number)), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                continue
            self.lock = lock
            private, public = BLOCKS[number].subnets()
            self.vpc = private
            self.subnets = list(private.subnets(2))
            self.public = public.hosts()
            return
        raise RuntimeError("no block of 127.0.0.0/8 is free")

    def free(self):
        os.close(self.lock)


class Caller:
    """Whoever has an access key: an account's user, or a session of an assumed role."""

    def __init__(self, account, arn, key, secret, token=None, policy=None, session=None):
        self.account = account
        self.arn = arn
        self.key = key
        self.secret = secret
        self.token = token
        self.policy = policy
        self.session = session
        CALLERS[key] = self

    def allows(self):
        return self.account.policy if self.session is None else self.session["role"].policy


class Role:
    def __init__(self, arn, policy, external_id=None, trust_tags=True):
        self.arn = arn
        self.policy = policy
        self.external_id = external_id
        self.trust_tags = trust_tags


class Account:
    """One AWS account, in one region."""

    def __init__(self, region="eu-west-1"):
        self.id = f"{10**11 + next(_numbers) * 7 % 10**11:012}"
        self.region = region
        self.block = Block()
        self.version = 0
        self.user = Caller(
            self, f"arn:aws:iam::{self.id}:user/bastion", "AKIA" + secrets.token_hex(8).upper(), secrets.token_hex(20)
        )
        self.policy = None
        self.roles = {}
        self.sessions = []
        self.timings = dict(TIMINGS)
        self.machine_at = "RUNNING"
        # AWS waits 30 s; a process 1 that does not listen to SIGTERM yet would hold up every test.
        self.stop_timeout = 3.0
        self.list_lag = 0.0
        self.missing = 0.0
        self.stop_lag = 0.0
        self.addresses = "ipv4"
        # Seconds by which answers say another time than this host, or a text in its place.
        self.clock = 0
        self.faults = Faults()
        self.limits = Limits()
        self.fates = []
        self.calls = []
        self.tasks = {}
        self.tokens = {}
        self.machines = {}
        self.providers = {"FARGATE", "FARGATE_SPOT"}
        self.ec2 = ec2_backends[self.id][region]
        self.ecs = ecs_backends[self.id][region]
        vpc = self.ec2.create_vpc(str(self.block.vpc))
        self.vpc = vpc.id
        self.subnets = {}
        self.pools = {}
        self.used = set()
        self.spare = iter(self.block.subnets)
        for zone in "ab":
            self.add_subnet(zone)
        group = self.ec2.create_security_group("lab", "the lab's", vpc_id=vpc.id)
        self.security_group = group.id
        self.estate = estate.Estate(self)
        ACCOUNTS[self.id] = self

    def changed(self):
        self.version += 1
        clock.changed()

    def address(self, subnet):
        """Takes a free address of the subnet, the one used longest ago first."""
        for address in self.pools[subnet]:
            if str(address) not in self.used:
                self.used.add(str(address))
                return str(address)

    def add_subnet(self, zone):
        """Makes one of the four subnets that there is room for."""
        cidr = next(self.spare)
        subnet = self.ec2.create_subnet(self.vpc, str(cidr), availability_zone=f"{self.region}{zone}")
        self.subnets[subnet.id] = subnet
        # As on AWS the first four belong to others.
        self.pools[subnet.id] = itertools.cycle(list(cidr.hosts())[3:])
        return subnet.id

    def free_in(self, subnet):
        cidr = ipaddress.ip_network(self.subnets[subnet].cidr_block)
        return cidr.num_addresses - 5 - sum(ipaddress.ip_address(one) in cidr for one in self.used)

    def machine_of(self, tags):
        """Returns the machine behind an instance with these tags: its job's, or that of all instances."""
        return self.machines.get(f"job {tags.get('gitlab-aws-driver:job')}") or self.machines.get("instances")

    def machine_for(self, family, tags):
        """Returns the machine behind a task: its family's; where several jobs share that, its job's."""
        jobs = [f"job {tag['value']}" for tag in tags if tag["key"] == "gitlab-aws-driver:job"]
        return next((self.machines[name] for name in [family, *jobs, "*"] if name in self.machines), None)

    def info(self):
        return {
            "account": self.id,
            "region": self.region,
            "access_key": self.user.key,
            "secret_key": self.user.secret,
            "vpc": self.vpc,
            "subnets": list(self.subnets),
            "cidrs": [subnet.cidr_block for subnet in self.subnets.values()],
            "image": self.estate.image,
            "security_group": self.security_group,
            "user": self.user.arn,
        }

    def state(self):
        return {
            "version": self.version,
            "calls": len(self.calls),
            "tasks": [task.inside() for task in self.tasks.values()],
            "sessions": self.sessions,
            "interfaces": len(self.ec2.enis),
            **self.estate.state(),
        }

    def end(self):
        """Ends all that lives in the account and forgets it."""
        ACCOUNTS.pop(self.id, None)
        for task in self.tasks.values():
            task.kill()
        self.estate.end()
        for key in [key for key, caller in CALLERS.items() if caller.account is self]:
            del CALLERS[key]
        for backends in (ec2_backends, ecs_backends):
            dict.pop(backends, self.id, None)
        self.block.free()


def log_call(account, caller, service, action, parameters):
    """Writes down a call that has come; its outcome is filled in later."""
    entry = {
        "n": len(account.calls),
        "time": time.time(),
        "caller": caller.arn,
        "service": service,
        "action": action,
        "parameters": parameters,
        "fault": None,
        "status": None,
        "code": None,
        "message": None,
        "answer": None,
        "executed": False,
    }
    account.calls.append(entry)
    account.changed()
    return entry
