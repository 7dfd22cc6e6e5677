"""A task's life, driven by time: up to RUNNING with a machine behind its address, and down to STOPPED."""

import secrets
import signal
import time
import uuid

from . import clock
from .machine import Machine

UP = ["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING"]


class Task:
    """One task. Every method is called with the world's lock held.

    A fate, where it has one, says what goes wrong: `kind` stuck (never leaves the state `at`), stop (stopped in the
    state `at`), exit, oom, spot, someone; `after` so many seconds in that state."""

    def __init__(self, account, cluster, definition, request, capacity, fate, caller):
        self.account = account
        self.cluster = cluster
        self.definition = definition
        self.request = request
        self.fate = fate
        self.caller = caller
        self.id = secrets.token_hex(16)
        self.arn = f"arn:aws:ecs:{account.region}:{account.id}:task/{cluster.name}/{self.id}"
        self.status = "PROVISIONING"
        self.desired = "RUNNING"
        self.created = time.time()
        self.times = {"createdAt": self.created}
        # Reads lag writes.
        self.listed_from = self.created + account.list_lag
        self.missing_until = self.created + account.missing
        self.stoppable_from = self.created + account.stop_lag
        self.provider, self.launch_type = capacity
        awsvpc = request.get("networkConfiguration", {}).get("awsvpcConfiguration", {})
        # Where a task comes up is AWS's choice.
        self.subnet = secrets.choice(awsvpc["subnets"]) if awsvpc else None
        self.groups = awsvpc.get("securityGroups", [])
        self.public = awsvpc.get("assignPublicIp") == "ENABLED"
        self.attachment = str(uuid.uuid4())
        self.eni = None
        self.address = self.public_address = self.ipv6 = None
        self.connectivity = None
        self.stop_code = self.reason = None
        self.forced = {}
        self.machine = None
        self.generation = 0
        self.containers = {
            container["name"]: {
                "containerArn": self.arn.replace(":task/", ":container/") + f"/{uuid.uuid4()}",
                "lastStatus": "PENDING",
            }
            for container in definition.container_definitions
        }
        main = "ci-coordinator"
        self.main = main if main in self.containers else next(iter(self.containers))
        self.enter()

    # Up.

    def enter(self):
        """Does what is due on entering the present state, and what comes next is planned."""
        account = self.account
        fate = self.fate or {}
        if fate.get("kind") == "stop" and self.status == "PENDING" and "pull" in str(fate.get("reason", "")).lower():
            self.times["pullStartedAt"] = time.time()
        if self.status == "PENDING":
            self.attach()
        elif self.status == "ACTIVATING":
            now = time.time()
            self.times.setdefault("pullStartedAt", now - account.timings["pending"] * 0.7)
            self.times["pullStoppedAt"] = now
            for container in self.containers.values():
                container["networkInterfaces"] = self.interfaces()
        elif self.status == "RUNNING":
            self.times["startedAt"] = time.time()
            for container in self.containers.values():
                container["lastStatus"] = "RUNNING"
                container["runtimeId"] = f"{self.id}-{secrets.randbelow(10**10)}"
        if self.status == account.machine_at and fate.get("kind") != "exit":
            self.start_machine()
        account.changed()
        if fate and fate.get("at", "RUNNING") == self.status:
            if fate["kind"] == "stuck":
                return
            self.later(fate.get("after", 0), lambda: self.meet(fate))
            if fate["kind"] == "stop":
                return
        if self.status != "RUNNING":
            self.later(account.timings[self.status.lower()], self.advance)

    def later(self, seconds, action):
        """Does something later, unless the task has begun to stop by then."""
        generation = self.generation
        clock.after(seconds, lambda: action() if self.generation == generation else None)

    def advance(self):
        self.status = UP[UP.index(self.status) + 1]
        self.enter()

    def attach(self):
        if self.subnet is None:
            return
        account = self.account
        subnet = account.ec2.get_subnet(self.subnet)
        address = account.address(self.subnet)
        if address is None:
            return self.stop("TaskFailedToStart", f"Unexpected EC2 error while attempting to Create Network Interface in subnet '{self.subnet}': InsufficientFreeAddressesInSubnet")
        self.eni = account.ec2.create_network_interface(
            subnet, address, group_ids=self.groups or None, description=f"{self.arn.replace(':task/', ':attachment/')}"
        )
        self.eni.status = "in-use"
        if self.public:
            self.eni.public_ip = self.public_address = str(next(account.block.public))
        if account.addresses != "ipv6":
            self.address = address
        if account.addresses != "ipv4":
            # There is but one IPv6 address on loopback; ports tell the machines apart.
            self.ipv6 = "::1"
            self.eni.ipv6_addresses = [self.ipv6]
        self.connectivity = "CONNECTED"
        self.times["connectivityAt"] = time.time()

    def interfaces(self):
        if self.eni is None:
            return []
        found = {"attachmentId": self.attachment}
        if self.address:
            found["privateIpv4Address"] = self.address
        if self.ipv6:
            found["ipv6Address"] = self.ipv6
        return [found]

    def start_machine(self):
        spec = self.account.machine_for(self.definition.family, self.request.get("tags", []))
        addresses = [one for one in (self.address, self.public_address, self.ipv6) if one]
        if spec is None or not addresses:
            return
        self.machine = Machine(spec, addresses, self.environment(spec), self.account.changed, self.machine_ended)

    def environment(self, spec):
        """Returns what process 1 is given: the image's, the task definition's, the request's, ECS's own."""
        definition = next(c for c in self.definition.container_definitions if c["name"] == self.main)
        metadata = f"http://169.254.170.2/v4/{self.id}-{self.main}"
        found = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        found.update(spec.get("environment", {}))
        found["HOSTNAME"] = f"ip-{(self.address or 'six').replace('.', '-')}.{self.account.region}.compute.internal"
        found["AWS_REGION"] = found["AWS_DEFAULT_REGION"] = self.account.region
        found["AWS_EXECUTION_ENV"] = "AWS_ECS_FARGATE"
        found["ECS_CONTAINER_METADATA_URI"] = metadata.replace("/v4/", "/v3/")
        found["ECS_CONTAINER_METADATA_URI_V4"] = metadata
        found["ECS_AGENT_URI"] = f"http://169.254.170.2/api/{self.id}-{self.main}"
        if getattr(self.definition, "task_role_arn", None):
            found["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] = f"/v2/credentials/{uuid.uuid4()}"
        given = self.request.get("overrides", {}).get("containerOverrides", [])
        given = [one.get("environment", []) for one in given if one.get("name") == self.main]
        for pairs in [definition.get("environment", []), *given]:
            found.update({pair["name"]: pair["value"] for pair in pairs})
        return found

    # What goes wrong.

    def meet(self, fate):
        kind = fate["kind"]
        if kind == "stop":
            self.stop(
                fate.get("stop_code", "TaskFailedToStart"),
                fate.get("reason", ""),
                {"reason": fate.get("container_reason"), "exitCode": fate.get("exit_code")},
            )
        elif kind == "exit":
            self.exited({"exitCode": fate.get("code", 1), "reason": fate.get("container_reason")})
        elif kind == "oom":
            self.exited({"exitCode": 137, "reason": "OutOfMemoryError: Container killed due to memory usage"})
        elif kind == "spot":
            self.stop("SpotInterruption", fate.get("reason", "Your Spot Task was interrupted."))
        elif kind == "someone":
            self.stop("UserInitiated", fate.get("reason", "Task stopped by user"))

    def exited(self, forced):
        """Has the main container end now, with all in it."""
        if self.desired == "STOPPED":
            return
        self.forced = forced
        if self.machine and not self.machine.over:
            self.machine.signal(signal.SIGKILL)
        else:
            self.essential_exited()

    def machine_ended(self, code, error):
        main = self.containers[self.main]
        main["exitCode"] = code
        if error:
            main.pop("exitCode")
            self.forced = {"reason": f"CannotStartContainerError: {error}"}
        if self.desired == "STOPPED":
            self.down()
        elif error:
            self.stop("TaskFailedToStart", "Task failed to start", self.forced)
        else:
            self.essential_exited()

    def essential_exited(self):
        self.begin_stop("EssentialContainerExited", "Essential container in task exited")
        self.down()

    # Down.

    def stop(self, code, reason, forced=None):
        """Begins to stop the task; nothing when it already does."""
        if self.desired == "STOPPED":
            return
        self.forced = {k: v for k, v in (forced or {}).items() if v is not None}
        self.begin_stop(code, reason)
        machine = self.machine
        if machine is None or machine.over:
            return self.down()
        machine.signal(signal.SIGTERM)
        definition = next(c for c in self.definition.container_definitions if c["name"] == self.main)
        clock.after(definition.get("stopTimeout", self.account.stop_timeout), lambda: machine.signal(signal.SIGKILL))
        self.status = "DEACTIVATING"
        clock.after(self.account.timings["deactivating"], self.stopping)

    def begin_stop(self, code, reason):
        self.generation += 1
        self.desired = "STOPPED"
        self.stop_code = code
        self.reason = reason
        self.times["stoppingAt"] = time.time()
        self.account.changed()

    def stopping(self):
        if self.status == "DEACTIVATING":
            self.status = "STOPPING"
            self.account.changed()

    def down(self):
        """The containers are gone; the interface goes next."""
        if self.status in ("DEPROVISIONING", "STOPPED"):
            return
        ran = "startedAt" in self.times
        self.times["executionStoppedAt"] = time.time()
        if "pullStartedAt" in self.times:
            self.times.setdefault("pullStoppedAt", time.time())
        for name, container in self.containers.items():
            container["lastStatus"] = "STOPPED"
            if ran and name != self.main:
                container.setdefault("exitCode", 0)
        main = self.containers[self.main]
        if ran and self.machine is None:
            main.setdefault("exitCode", 0)
        main.update({k: v for k, v in self.forced.items() if v is not None})
        self.status = "DEPROVISIONING"
        self.account.changed()
        clock.after(self.account.timings["deprovisioning"], self.stopped)

    def stopped(self):
        self.status = "STOPPED"
        self.times["stoppedAt"] = time.time()
        if self.eni is not None:
            self.account.ec2.enis.pop(self.eni.id, None)
            self.account.used.discard(self.eni.private_ip_address)
        self.account.changed()

    def kill(self):
        """Ends the machine at once, whatever the state says: the lab itself ends."""
        if self.machine:
            self.machine.ended = lambda *_: None
            self.machine.signal(signal.SIGKILL)
        self.generation += 1
        self.status = "STOPPED"

    # What is told.

    def describe(self, tags=False):
        """Returns the task as DescribeTasks and RunTask do."""
        definition = self.definition
        details = [{"name": "subnetId", "value": self.subnet}]
        if self.eni is not None:
            details += [
                {"name": "networkInterfaceId", "value": self.eni.id},
                {"name": "macAddress", "value": self.eni.mac_address},
                {"name": "privateDnsName", "value": f"ip-{self.eni.private_ip_address.replace('.', '-')}.internal"},
            ]
            if self.address:
                details.append({"name": "privateIPv4Address", "value": self.address})
            if self.ipv6:
                details.append({"name": "ipv6Address", "value": self.ipv6})
        attached = "PRECREATED" if self.eni is None else "DELETED" if self.status == "STOPPED" else "ATTACHED"
        request = self.request
        found = {
            "attachments": [
                {"id": self.attachment, "type": "ElasticNetworkInterface", "status": attached, "details": details}
            ]
            if self.subnet
            else [],
            "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
            "availabilityZone": self.account.ec2.get_subnet(self.subnet).availability_zone if self.subnet else None,
            "capacityProviderName": self.provider,
            "clusterArn": self.cluster.arn,
            "connectivity": self.connectivity,
            "containers": [self.describe_container(c) for c in definition.container_definitions],
            "cpu": definition.cpu,
            "memory": definition.memory,
            "desiredStatus": self.desired,
            "enableExecuteCommand": bool(request.get("enableExecuteCommand")),
            "ephemeralStorage": {"sizeInGiB": 20},
            "group": request.get("group", f"family:{definition.family}"),
            "lastStatus": self.status,
            "launchType": self.launch_type,
            "overrides": {
                "containerOverrides": [{"name": c["name"]} for c in definition.container_definitions],
                "inferenceAcceleratorOverrides": [],
                **request.get("overrides", {}),
            },
            "startedBy": request.get("startedBy"),
            "stopCode": self.stop_code,
            "stoppedReason": self.reason,
            "tags": self.tags() if tags else [],
            "taskArn": self.arn,
            "taskDefinitionArn": definition.arn,
            "version": 1 + self.generation,
            **self.times,
        }
        if self.launch_type == "FARGATE":
            version = request.get("platformVersion", "LATEST")
            found["platformVersion"] = "1.4.0" if version == "LATEST" else version
            found["platformFamily"] = "Linux"
        return {name: value for name, value in found.items() if value is not None}

    def describe_container(self, definition):
        own = self.containers[definition["name"]]
        found = {
            "containerArn": own["containerArn"],
            "taskArn": self.arn,
            "name": definition["name"],
            "image": definition["image"],
            "networkInterfaces": [],
            "healthStatus": "UNKNOWN",
            "cpu": str(definition.get("cpu", 0)),
            **own,
        }
        if "memory" in definition:
            found["memory"] = str(definition["memory"])
        return found

    def tags(self):
        own = list(self.request.get("tags", []))
        if self.request.get("propagateTags") == "TASK_DEFINITION":
            keys = {tag["key"] for tag in own}
            own += [tag for tag in self.definition.tags or [] if tag["key"] not in keys]
        return own

    def alive(self):
        return self.status != "STOPPED"

    def inside(self):
        """Returns what only the lab knows, for the test."""
        return {
            "arn": self.arn,
            "status": self.status,
            "desired": self.desired,
            "family": self.definition.family,
            "definition": self.definition.arn,
            "provider": self.provider,
            "started_by": self.request.get("startedBy"),
            "token": self.request.get("clientToken"),
            "tags": {tag["key"]: tag["value"] for tag in self.tags()},
            "address": self.address,
            "public_address": self.public_address,
            "subnet": self.subnet,
            "interface": self.eni.id if self.eni else None,
            "process": self.machine.process_one() if self.machine else None,
            "machine_alive": bool(self.machine and not self.machine.over),
            "stop_code": self.stop_code,
            "reason": self.reason,
            "exit_code": self.containers[self.main].get("exitCode"),
            "created": self.created,
            "caller": self.caller,
        }
