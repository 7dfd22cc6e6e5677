"""EC2's calls about instances, with what AWS checks of them, and its query form. Calls that are not here are moto's."""

import json
import time

from moto.core.parse import PROTOCOL_PARSERS
from moto.core.serialize import get_serializer_class
from moto.core.utils import get_service_model

from . import fleet
from . import iam
from . import templates
from .instance import USER
from .instance import utc
from .tagging import check_tags
from .tagging import page
from .tagging import pairs
from .tagging import wanted_by
from .wire import Answer
from .wire import AwsError


def model(action):
    return get_service_model("ec2").operation_model(action)


def parameters_of(form):
    """Returns what a form of EC2's asks for, as the parameters are called in the API."""
    try:
        return PROTOCOL_PARSERS["ec2"](model(form["Action"])).parse({"values": form, "headers": {}})
    except KeyError:
        raise AwsError("InvalidAction", f"The action {form.get('Action')} is not valid for this web service.") from None


def answer(action, result):
    """Returns a result as EC2 writes it."""
    written = get_serializer_class("ec2", "ec2")(model(action)).serialize(result)
    return Answer(200, "text/xml;charset=UTF-8", written["body"])


def plain(result):
    """Returns a result as the call log keeps it."""
    return json.loads(json.dumps(result, default=str))


def arn(account, kind, name):
    return f"arn:aws:ec2:{account.region}:{account.id}:{kind}/{name}"


def resource_tags(tags):
    return {f"aws:ResourceTag/{key}": value for key, value in tags.items()} | {f"ec2:ResourceTag/{key}": value for key, value in tags.items()}


FIELDS = {
    "instance-id": lambda one: [one.id],
    "instance-state-name": lambda one: [one.state],
    "instance-state-code": lambda one: [str(one.state_now()["Code"])],
    "instance-type": lambda one: [one.launch.type],
    "instance-lifecycle": lambda one: ["spot"] if one.launch.spot else [],
    "subnet-id": lambda one: [one.launch.subnet],
    "availability-zone": lambda one: [one.launch.zone],
    "image-id": lambda one: [one.launch.image["ImageId"]],
    "client-token": lambda one: [],
}


def not_found(names):
    word = "IDs" if len(names) > 1 else "ID"
    verb = "do" if len(names) > 1 else "does"
    return AwsError("InvalidInstanceID.NotFound", f"The instance {word} '{', '.join(names)}' {verb} not exist")


def describe_instances(account, caller, request):
    iam.check(caller, "ec2", "ec2:DescribeInstances", "*")
    names = request.get("InstanceIds", [])
    for name in names:
        if not name.startswith("i-"):
            raise AwsError("InvalidInstanceID.Malformed", f'Invalid id: "{name}"')
    if names and request.get("MaxResults"):
        raise AwsError("InvalidParameterCombination", "The parameter instancesSet cannot be used with the parameter maxResults")
    now = time.time()
    known = account.estate.instances
    missing = [name for name in names if name not in known or now < known[name].hidden_until]
    if missing:
        raise not_found(missing)
    found = [one for one in known.values() if not names or one.id in names]
    if not names:
        found = [one for one in found if now >= one.listed_from]
    found = [one for one in found if wanted_by(request.get("Filters", []), one, FIELDS, one.tags)]
    reservations = [
        {"ReservationId": "r-" + one.id[2:], "OwnerId": account.id, "Instances": [one.describe()]} for one in found
    ]
    return page(request, "Reservations", reservations, 1000)


def terminate_instances(account, caller, request):
    names = request.get("InstanceIds", [])
    known = account.estate.instances
    for name in names:
        tags = resource_tags(known[name].tags) if name in known else {}
        iam.check(caller, "ec2", "ec2:TerminateInstances", arn(account, "instance", name), tags)
    now = time.time()
    missing = [name for name in names if name not in known or now < known[name].hidden_until]
    if missing:
        raise not_found(missing)
    changes = []
    for name in names:
        before = known[name].state_now()
        known[name].end(USER)
        changes.append({"InstanceId": name, "PreviousState": before, "CurrentState": known[name].state_now()})
    return {"TerminatingInstances": changes}


def describe_subnets(account, caller, request):
    iam.check(caller, "ec2", "ec2:DescribeSubnets", "*")
    names = request.get("SubnetIds", [])
    for name in names:
        if name not in account.subnets:
            raise AwsError("InvalidSubnetID.NotFound", f"The subnet ID '{name}' does not exist")
    found = [
        {
            "SubnetId": name,
            "VpcId": account.vpc,
            "CidrBlock": subnet.cidr_block,
            "AvailabilityZone": subnet.availability_zone,
            "AvailabilityZoneId": f"euw1-az{'abcdef'.index(subnet.availability_zone[-1]) + 1}",
            "AvailableIpAddressCount": account.estate.free_in(name),
            "State": "available",
            "OwnerId": account.id,
            "MapPublicIpOnLaunch": False,
            "Tags": [],
        }
        for name, subnet in account.subnets.items()
        if not names or name in names
    ]
    fields = {
        "subnet-id": lambda one: [one["SubnetId"]],
        "vpc-id": lambda one: [one["VpcId"]],
        "availability-zone": lambda one: [one["AvailabilityZone"]],
    }
    found = [one for one in found if wanted_by(request.get("Filters", []), one, fields, {})]
    return page(request, "Subnets", found, 1000)


def describe_images(account, caller, request):
    iam.check(caller, "ec2", "ec2:DescribeImages", "*")
    names = request.get("ImageIds", [])
    for name in names:
        if not name.startswith("ami-"):
            raise AwsError("InvalidAMIID.Malformed", f'Invalid id: "{name}" (expecting "ami-...")')
        if name not in account.estate.images:
            raise AwsError("InvalidAMIID.NotFound", f"The image id '[{name}]' does not exist")
    fields = {
        "image-id": lambda one: [one["ImageId"]],
        "architecture": lambda one: [one["Architecture"]],
        "name": lambda one: [one["Name"]],
        "state": lambda one: [one["State"]],
    }
    found = [one for one in account.estate.images.values() if not names or one["ImageId"] in names]
    found = [one for one in found if wanted_by(request.get("Filters", []), one, fields, {})]
    return page(request, "Images", found, 1000)


def describe_spot_requests(account, caller, request):
    iam.check(caller, "ec2", "ec2:DescribeSpotInstanceRequests", "*")
    names = request.get("SpotInstanceRequestIds", [])
    known = account.estate.spot_requests
    for name in names:
        if name not in known:
            raise AwsError("InvalidSpotInstanceRequestID.NotFound", f"The spot instance request ID '{name}' does not exist")
    fields = {
        "state": lambda one: [one["state"]],
        "instance-id": lambda one: [one["instance"]],
        "spot-instance-request-id": lambda one: [one["id"]],
        "status-code": lambda one: [one["status"]],
    }
    found = [one for one in known.values() if not names or one["id"] in names]
    found = [one for one in found if wanted_by(request.get("Filters", []), one, fields, one["tags"])]
    return page(request, "SpotInstanceRequests", [spot_request(one) for one in found], 1000)


def spot_request(one):
    return {
        "SpotInstanceRequestId": one["id"],
        "State": one["state"],
        "Status": {"Code": one["status"], "Message": one["status"]},
        "InstanceId": one["instance"],
        "CreateTime": utc(one["created"]),
        "Type": "one-time",
        "Tags": pairs(one["tags"]),
    }


def cancel_spot_requests(account, caller, request):
    known = account.estate.spot_requests
    names = request.get("SpotInstanceRequestIds", [])
    for name in names:
        tags = resource_tags(known[name]["tags"]) if name in known else {}
        iam.check(caller, "ec2", "ec2:CancelSpotInstanceRequests", arn(account, "spot-instances-request", name), tags)
    for name in names:
        if name not in known:
            raise AwsError("InvalidSpotInstanceRequestID.NotFound", f"The spot instance request ID '{name}' does not exist")
    cancelled = []
    for name in names:
        if known[name]["state"] in ("open", "active"):
            # The instance, where there is one, lives on.
            known[name].update(state="cancelled", status="request-canceled-and-instance-running" if known[name]["instance"] else "canceled-before-fulfillment")
        cancelled.append({"SpotInstanceRequestId": name, "State": known[name]["state"]})
    return {"CancelledSpotInstanceRequests": cancelled}


def describe_volumes(account, caller, request):
    iam.check(caller, "ec2", "ec2:DescribeVolumes", "*")
    names = request.get("VolumeIds", [])
    known = account.estate.volumes
    for name in names:
        if name not in known:
            raise AwsError("InvalidVolume.NotFound", f"The volume '{name}' does not exist.")
    fields = {
        "status": lambda one: [one["state"]],
        "volume-id": lambda one: [one["id"]],
        "attachment.instance-id": lambda one: [one["instance"]],
    }
    found = [one for one in known.values() if not names or one["id"] in names]
    found = [one for one in found if wanted_by(request.get("Filters", []), one, fields, one["tags"])]
    return page(request, "Volumes", [volume(one) for one in found], 500)


def volume(one):
    attached = {"InstanceId": one["instance"], "VolumeId": one["id"], "Device": one["device"], "State": "attached", "DeleteOnTermination": not one["keep"]}
    return {
        "VolumeId": one["id"],
        "State": one["state"],
        "Size": one["size"],
        "VolumeType": one["type"],
        "AvailabilityZone": one["zone"],
        "CreateTime": utc(one["created"]),
        "Attachments": [attached] if one["instance"] else [],
        "Tags": pairs(one["tags"]),
    }


def delete_volume(account, caller, request):
    name = request.get("VolumeId", "")
    known = account.estate.volumes
    tags = resource_tags(known[name]["tags"]) if name in known else {}
    iam.check(caller, "ec2", "ec2:DeleteVolume", arn(account, "volume", name), tags)
    if name not in known:
        raise AwsError("InvalidVolume.NotFound", f"The volume '{name}' does not exist.")
    if known[name]["instance"]:
        raise AwsError("VolumeInUse", f"Volume {name} is currently attached to {known[name]['instance']}")
    del known[name]
    return {}


KINDS = {"i": "instance", "vol": "volume", "sir": "spot-instances-request", "lt": "launch-template", "eni": "network-interface"}


def create_tags(account, caller, request):
    """Tags what is the lab's own; None for anything else, which is moto's."""
    names = request.get("Resources", [])
    estate = account.estate
    interfaces = {one.interface: one.interface_tags for one in estate.instances.values()}
    found = {}
    for name in names:
        held = estate.instances.get(name) or estate.templates.get(name)
        record = estate.volumes.get(name) or estate.spot_requests.get(name)
        found[name] = held.tags if held else record["tags"] if record else interfaces.get(name)
    if any(tags is None for tags in found.values()):
        return None
    new = {tag["Key"]: tag.get("Value", "") for tag in check_tags(request.get("Tags", []))}
    context = {f"aws:RequestTag/{key}": value for key, value in new.items()} | {"aws:TagKeys": list(new)}
    for name, tags in found.items():
        iam.check(caller, "ec2", "ec2:CreateTags", arn(account, KINDS[name.split("-")[0]], name), {**resource_tags(tags), **context})
    for tags in found.values():
        if len({**tags, **new}) > 50:
            raise AwsError("TagLimitExceeded", "You have reached the maximum number of tags on the resource.")
        tags.update(new)
    return {}


CALLS = {
    "DescribeInstances": describe_instances,
    "TerminateInstances": terminate_instances,
    "DescribeSubnets": describe_subnets,
    "DescribeImages": describe_images,
    "DescribeSpotInstanceRequests": describe_spot_requests,
    "CancelSpotInstanceRequests": cancel_spot_requests,
    "DescribeVolumes": describe_volumes,
    "DeleteVolume": delete_volume,
    "CreateTags": create_tags,
    **fleet.CALLS,
    **templates.CALLS,
}
