"""An instance's life: pending, running with a machine behind its address, shutting-down, terminated; and what goes with it."""

import datetime
import secrets
import signal
import time

from . import clock
from . import connect
from . import userdata
from .imds import Metadata
from .machine import Machine

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
USER = ("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")
ITSELF = ("Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown")
SPOT = ("Server.SpotInstanceTermination", "Server.SpotInstanceTermination: Spot instance termination")


def new_id(kind):
    return f"{kind}-{secrets.token_hex(9)[:17]}"


def utc(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).replace(tzinfo=None)


class Instance:
    """One instance. Every method is called with the world's lock held.

    A fate, where it has one, says what goes wrong: `kind` stuck (never leaves `at`), fail (terminated at `at`, `code` and
    `reason`), deaf (never listens), impostor (another host key than the one sent), dies (its machine ends while it
    boots), spot (the notice comes `after` so many seconds of running, the end `notice` seconds later), someone, off."""

    def __init__(self, account, launch, fate, caller):
        self.account = account
        self.launch = launch
        self.fate = fate or {}
        self.caller = caller
        self.id = new_id("i")
        self.state = "pending"
        self.reason = None
        self.why = ""
        self.created = time.time()
        self.ended = None
        self.hidden_until = self.created + account.missing
        self.listed_from = self.created + account.list_lag
        self.tags = dict(launch.tags.get("instance", {}))
        self.address = launch.address
        self.ipv6 = "::1" if account.addresses != "ipv4" else None
        self.public_address = None
        self.interface = new_id("eni")
        self.interface_tags = dict(launch.tags.get("network-interface", {}))
        self.machine = None
        self.metadata_service = None
        self.notice = None
        self.asked = []
        self.sent_keys = []
        self.generation = 0
        self.volume = account.estate.attach_volume(self)
        self.request = account.estate.spot_request(self) if launch.spot else None
        self.meet_at("pending")
        if self.fate.get("kind") != "stuck" or self.fate.get("at") != "pending":
            self.later(account.timings["launching"], self.run)

    def later(self, seconds, action):
        """Does something later, unless the instance has begun to end by then."""
        generation = self.generation
        clock.after(seconds, lambda: action() if self.generation == generation else None)

    # Up.

    def run(self):
        self.state = "running"
        if self.launch.public:
            self.public_address = str(next(self.account.block.public))
        # What ends it at once comes before its boot, however late the clock is.
        self.meet_at("running")
        self.later(self.account.timings["booting"], self.boot)
        self.account.changed()

    def boot(self):
        """Starts the machine, once cloud-init has done its part."""
        spec = self.account.machine_of(self.tags)
        kind = self.fate.get("kind")
        if spec is None or kind == "deaf":
            return
        applied = userdata.apply(self.launch.user_data, spec.get("user", "root"), self.launch.image["Stock"])
        self.metadata_service = Metadata(self, self.address)
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "SSH_PUBLIC_KEY": "\n".join(applied.keys),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.metadata_service.url,
        }
        if applied.host_key and kind != "impostor":
            environment["SSH_HOST_KEY"] = applied.host_key
        if applied.root_login:
            environment["SSH_PERMIT_ROOT_LOGIN"] = applied.root_login
        addresses = [one for one in (self.address, self.public_address, self.ipv6) if one]
        self.machine = Machine(spec, addresses, environment, self.account.changed, self.machine_ended)
        if kind == "dies":
            self.machine.signal(signal.SIGKILL)

    def machine_ended(self, _code, _error):
        """Process 1 is gone: the instance is off, and what its shutdown behaviour says comes next."""
        if self.state == "shutting-down":
            return self.down()
        if self.state not in ("pending", "running"):
            return
        if self.launch.shutdown_behavior == "terminate":
            self.end(ITSELF)
        else:
            self.generation += 1
            self.reason = ITSELF
            self.why = f"User initiated ({self.date()})"
            self.state = "stopped"
            self.account.changed()

    # What goes wrong.

    def meet_at(self, state):
        if self.fate and self.fate.get("at", "running") == state:
            self.later(self.fate.get("after", 0), lambda: self.meet(self.fate))

    def meet(self, fate):
        kind = fate["kind"]
        if kind == "fail":
            code = fate.get("code", "Server.InternalError")
            self.end((code, f"{code}: {fate.get('reason', 'Internal error on launch')}"))
        elif kind == "spot":
            self.interrupt(fate.get("notice", 120))
        elif kind == "someone":
            self.end(USER)
        elif kind == "off" and self.machine:
            self.machine.signal(signal.SIGKILL)

    def interrupt(self, notice):
        """Spot wants it back: first the notice, then the end."""
        at = time.time() + notice
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
        self.notice = {"action": "terminate", "time": when}
        if self.request:
            self.request["status"] = "marked-for-termination"
        if notice <= 0:
            return self.end(SPOT)
        self.account.changed()
        self.later(notice, lambda: self.end(SPOT))

    # Down.

    def end(self, reason):
        """Begins to terminate the instance; nothing where it already does."""
        if self.state in ("shutting-down", "terminated"):
            return
        self.generation += 1
        self.state = "shutting-down"
        self.reason = reason
        self.why = f"{reason[1].split(': ', 1)[-1]} ({self.date()})"
        if reason is USER:
            self.why = f"User initiated ({self.date()})"
        if self.request and self.request["state"] == "active":
            self.request["state"] = "closed"
            by_spot = reason is SPOT
            self.request["status"] = "instance-terminated-no-capacity" if by_spot else "instance-terminated-by-user"
        self.account.changed()
        machine = self.machine
        if machine is None or machine.over:
            clock.after(self.account.timings["shutting-down"], self.down)
        else:
            machine.signal(signal.SIGTERM)
            clock.after(self.account.stop_timeout, lambda: machine.signal(signal.SIGKILL))

    def down(self):
        if self.state == "terminated":
            return
        self.state = "terminated"
        self.ended = time.time()
        self.account.estate.detach(self)
        if self.metadata_service:
            self.metadata_service.end()
        self.account.used.discard(self.address)
        self.account.changed()

    def kill(self):
        """Ends the machine at once: the lab itself ends."""
        self.generation += 1
        if self.machine:
            self.machine.ended = lambda *_: None
            self.machine.signal(signal.SIGKILL)
        if self.metadata_service and self.state != "terminated":
            self.metadata_service.end()
        self.state = "terminated"

    # What is told.

    def date(self):
        return time.strftime("%Y-%m-%d %H:%M:%S GMT", time.gmtime())

    def state_now(self):
        return {"Code": CODES[self.state], "Name": self.state}

    def metadata(self, path):
        """Returns what the metadata service says of a path, or None."""
        self.asked.append(path)
        launch = self.launch
        head, _, user = path.rpartition("/")
        if head == "meta-data/managed-ssh-keys/active-keys":
            return connect.keys_of(self, user) or None
        found = {
            "meta-data/instance-id": self.id,
            "meta-data/instance-type": launch.type,
            "meta-data/instance-life-cycle": "spot" if launch.spot else "on-demand",
            "meta-data/ami-id": launch.image["ImageId"],
            "meta-data/local-ipv4": self.address,
            "meta-data/placement/availability-zone": launch.zone,
            "meta-data/placement/region": self.account.region,
            "dynamic/instance-identity/document": {
                "accountId": self.account.id,
                "region": self.account.region,
                "instanceId": self.id,
                "instanceType": launch.type,
                "availabilityZone": launch.zone,
            },
        }
        if self.notice:
            found["meta-data/spot/instance-action"] = self.notice
            found["meta-data/spot/termination-time"] = self.notice["time"]
        return found.get(path)

    def describe(self):
        """Returns the instance as DescribeInstances does."""
        launch = self.launch
        there = self.state != "terminated"
        found = {
            "InstanceId": self.id,
            "ImageId": launch.image["ImageId"],
            "InstanceType": launch.type,
            "State": self.state_now(),
            "StateTransitionReason": self.why,
            "LaunchTime": utc(self.created),
            "Architecture": launch.image["Architecture"],
            "RootDeviceType": "ebs",
            "RootDeviceName": launch.image["RootDeviceName"],
            "VirtualizationType": "hvm",
            "Hypervisor": "xen",
            "Placement": {"AvailabilityZone": launch.zone, "Tenancy": "default"},
            "Monitoring": {"State": "disabled"},
            "AmiLaunchIndex": 0,
            "ClientToken": "",
            "Tags": [{"Key": key, "Value": value} for key, value in self.tags.items()],
            "BlockDeviceMappings": [],
            "NetworkInterfaces": [],
            "SecurityGroups": [{"GroupId": group, "GroupName": group} for group in launch.groups],
            "MetadataOptions": {"State": "applied", **launch.metadata_options},
        }
        if launch.spot:
            found["InstanceLifecycle"] = "spot"
            found["SpotInstanceRequestId"] = self.request["id"]
        if launch.key_name:
            found["KeyName"] = launch.key_name
        if launch.profile:
            found["IamInstanceProfile"] = {"Arn": launch.profile, "Id": "AIPA" + self.id[2:].upper()}
        if self.reason:
            found["StateReason"] = {"Code": self.reason[0], "Message": self.reason[1]}
        if there:
            private = f"ip-{self.address.replace('.', '-')}.{self.account.region}.compute.internal"
            interface = {
                "NetworkInterfaceId": self.interface,
                "PrivateIpAddress": self.address,
                "SubnetId": launch.subnet,
                "VpcId": self.account.vpc,
                "Status": "in-use",
                "Groups": found["SecurityGroups"],
                "Ipv6Addresses": [{"Ipv6Address": self.ipv6}] if self.ipv6 else [],
                "Attachment": {"DeviceIndex": 0, "Status": "attached", "DeleteOnTermination": True},
            }
            if self.public_address:
                interface["Association"] = {"PublicIp": self.public_address}
                found["PublicIpAddress"] = self.public_address
            if self.ipv6:
                found["Ipv6Address"] = self.ipv6
            found.update(
                PrivateIpAddress=self.address,
                PrivateDnsName=private,
                SubnetId=launch.subnet,
                VpcId=self.account.vpc,
                NetworkInterfaces=[interface],
                BlockDeviceMappings=[
                    {
                        "DeviceName": launch.image["RootDeviceName"],
                        "Ebs": {"VolumeId": self.volume["id"], "Status": "attached", "DeleteOnTermination": True},
                    }
                ],
            )
        return found

    def alive(self):
        return self.state != "terminated"

    def inside(self):
        """Returns what only the lab knows, for the test."""
        launch = self.launch
        return {
            "id": self.id,
            "state": self.state,
            "reason": self.reason[0] if self.reason else None,
            "type": launch.type,
            "zone": launch.zone,
            "subnet": launch.subnet,
            "spot": launch.spot,
            "spot_request": self.request["id"] if self.request else None,
            "volume": self.volume["id"],
            "volume_size": self.volume["size"],
            "volume_type": self.volume["type"],
            "image": launch.image["ImageId"],
            "profile": launch.profile,
            "groups": launch.groups,
            "key_name": launch.key_name,
            "shutdown_behavior": launch.shutdown_behavior,
            "metadata_options": launch.metadata_options,
            "template": launch.template,
            "token": launch.token,
            "fleet": launch.fleet,
            "tags": self.tags,
            "volume_tags": self.volume["tags"],
            "interface_tags": self.interface_tags,
            "spot_request_tags": self.request["tags"] if self.request else {},
            "user_data": launch.user_data,
            "address": self.address,
            "public_address": self.public_address,
            "ipv6": self.ipv6,
            "metadata_endpoint": self.metadata_service.url if self.metadata_service else None,
            "metadata_asked": self.asked,
            "process": self.machine.process_one() if self.machine else None,
            "machine_alive": bool(self.machine and not self.machine.over),
            "created": self.created,
            "ended": self.ended,
            "caller": self.caller,
        }
