"""What EC2 holds of one account, apart from its network: images, templates, fleets, instances, volumes, Spot requests."""

import time

from .instance import new_id

# The names by which AWS publishes images, of which the lab has one each.
PARAMETERS = {
    "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64": "x86_64",
    "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64": "arm64",
    "/aws/service/debian/release/12/latest/amd64": "x86_64",
    "/aws/service/debian/release/12/latest/arm64": "arm64",
    "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id": "x86_64",
    "/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id": "arm64",
}
ROOT_DEVICE = "/dev/xvda"
SPOT_PRICE = 0.04


class Estate:
    def __init__(self, account):
        self.account = account
        self.images = {}
        self.templates = {}
        self.fleets = {}
        self.tokens = {}
        self.instances = {}
        self.volumes = {}
        self.spot_requests = {}
        self.profiles = set()
        self.key_pairs = set()
        # Pools without room, and how many addresses subnets still have, where a test says so.
        self.shortages = []
        self.free_addresses = {}
        self.fates = []
        # What does not go with its instance, once: "volume", "spot-request".
        self.leave = []
        # How many instances the next fleet has too many.
        self.surplus = 0
        # How many of the next keys that are sent come too late.
        self.stale_keys = 0
        self.parameters = {}
        ours = {kind: self.add_image({"Architecture": kind})["ImageId"] for kind in ("x86_64", "arm64")}
        for name, kind in PARAMETERS.items():
            self.parameters[name] = ours[kind]
        self.image = ours["x86_64"]

    def add_image(self, value):
        image = {
            "ImageId": new_id("ami"),
            "Architecture": "x86_64",
            "RootDeviceName": ROOT_DEVICE,
            "RootDeviceType": "ebs",
            "State": "available",
            "VirtualizationType": "hvm",
            "Name": "lab",
            "OwnerId": "137112412989",
            # The lab's own: as AWS and the distributions publish them, and so closed to root.
            "Stock": True,
            "BlockDeviceMappings": [
                {
                    "DeviceName": value.get("RootDeviceName", ROOT_DEVICE),
                    "Ebs": {"SnapshotId": new_id("snap"), "VolumeSize": 8, "VolumeType": "gp3", "DeleteOnTermination": True},
                }
            ],
            **value,
        }
        self.images[image["ImageId"]] = image
        return image

    # What comes and goes with an instance.

    def attach_volume(self, instance):
        launch = instance.launch
        volume = {
            "id": new_id("vol"),
            "state": "in-use",
            "size": launch.volume.get("VolumeSize", 8),
            "type": launch.volume.get("VolumeType", "gp3"),
            "zone": launch.zone,
            "instance": instance.id,
            "device": launch.image["RootDeviceName"],
            "keep": launch.volume.get("DeleteOnTermination") is False,
            "tags": dict(launch.tags.get("volume", {})),
            "created": time.time(),
        }
        self.volumes[volume["id"]] = volume
        return volume

    def spot_request(self, instance):
        request = {
            "id": new_id("sir"),
            "state": "active",
            "status": "fulfilled",
            "instance": instance.id,
            "tags": dict(instance.launch.tags.get("spot-instances-request", {})),
            "created": time.time(),
        }
        self.spot_requests[request["id"]] = request
        return request

    def detach(self, instance):
        volume = instance.volume
        if volume["keep"] or self.left("volume"):
            volume.update(state="available", instance=None)
        else:
            self.volumes.pop(volume["id"], None)
        if instance.request and self.left("spot-request"):
            instance.request.update(state="open", status="pending-fulfillment", instance=None)

    def left(self, kind):
        if kind not in self.leave:
            return False
        self.leave.remove(kind)
        return True

    # Room.

    def zone_of(self, subnet):
        return self.account.subnets[subnet].availability_zone

    def free_in(self, subnet):
        """Returns how many addresses a subnet has left."""
        told = self.free_addresses.get(subnet)
        return told if told is not None else self.account.free_in(subnet)

    def shortage(self, kind, zone, spot):
        """Returns the shortage that a pool has, if any, and counts it."""
        market = "spot" if spot else "on-demand"
        for one in self.shortages:
            wanted = (one.get("type"), one.get("zone"), one.get("market"))
            if any(a is not None and a != b for a, b in zip(wanted, (kind, zone, market))):
                continue
            if one.get("room", 0) > 0:
                # There is room for so many yet.
                one["room"] -= 1
                return None
            if one.get("times") is not None:
                one["times"] -= 1
                if one["times"] <= 0:
                    self.shortages.remove(one)
            return one
        return None

    def fate(self, kind, spot):
        for fate in self.fates:
            wanted = fate.get("match", {})
            have = {"type": kind, "market": "spot" if spot else "on-demand"}
            if any(have.get(name) != text for name, text in wanted.items()):
                continue
            if fate.get("times") is not None:
                fate["times"] -= 1
                if fate["times"] <= 0:
                    self.fates.remove(fate)
            return fate if fate["kind"] != "none" else None
        return None

    def age(self, seconds):
        """Makes what sweeps look at older than it is."""
        for one in [*self.volumes.values(), *self.spot_requests.values()]:
            one["created"] -= seconds
        for template in self.templates.values():
            template.created -= seconds

    def state(self):
        return {
            "instances": [instance.inside() for instance in self.instances.values()],
            "volumes": list(self.volumes.values()),
            "spot_requests": list(self.spot_requests.values()),
            "templates": [template.inside() for template in self.templates.values()],
        }

    def end(self):
        for instance in self.instances.values():
            instance.kill()
